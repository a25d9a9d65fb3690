"""What may be asked of each kind of search, and what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "LISTED",
    "NUMERIC",
    "ORDER",
    "TAGGED",
    "TEXT",
    "Comparison",
    "Field",
    "Ordering",
    "Vocabulary",
]

Value = str | int | float | tuple[str, ...] | None

ORDER = frozenset({"<", "<=", ">", ">="})
NUMERIC = ORDER | {"=", "!="}
TEXT = frozenset({"=", "!=", "LIKE", "ILIKE"})
LISTED = TEXT | {"IN", "NOT IN"}
TAGGED = TEXT | {"IS NULL", "IS NOT NULL"}


@dataclass(frozen=True)
class Field:
    """What may be asked of a key.

    Args:
        key: The key, without aliases.
        operators: The operators it allows.
        number: `int` for whole numbers only, `float` for any, None for text.
        ordered_by_number: Whether `<` and its like take a number, and the others text.
    """

    key: str
    operators: frozenset[str]
    number: type[int] | type[float] | None = None
    ordered_by_number: bool = False


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The keys of one kind of search.

    Args:
        prefixes: str of each prefix.
        attributes: Attributes by every name they have.
        keyed: Operators of the entities whose keys are free.
        dataset: Attributes of datasets.
        sortable: Entities that order_by takes.
        not_sortable: Attributes that order_by does not take.
        ordered_by_number: Entities whose values are texts, or numbers to `<` and its like.
        only_prefixed: Attributes that need a prefix, with how they are spelled.
    """

    prefixes: Mapping[str, str]
    attributes: Mapping[str, Field]
    keyed: Mapping[str, frozenset[str]]
    dataset: Mapping[str, Field]
    sortable: frozenset[str]
    not_sortable: frozenset[str] = frozenset()
    ordered_by_number: frozenset[str] = frozenset()
    only_prefixed: Mapping[str, str] = field(default_factory=dict)

    def field(self, entity: str, key: str) -> Field | None:
        """The field of a key; None when there is no such key."""
        if entity == "attribute":
            return self.attributes.get(key)
        if entity == "dataset":
            return self.dataset.get(key)
        number = float if entity == "metric" else None
        return Field(key, self.keyed[entity], number, entity in self.ordered_by_number)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a filter.

    Args:
        entity: What the key belongs to.
        key: The key, without quotes, an attribute's without aliases.
        operator: In capitals.
        value: A text, a number, the texts of a list, or None for IS NULL and IS NOT NULL.
    """

    entity: str
    key: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Ordering:
    """One order_by clause."""

    entity: str
    key: str
    ascending: bool
