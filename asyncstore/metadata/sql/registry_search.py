"""What searches of registered models and of their versions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, select

from asyncstore.errors import InvalidParameterError
from asyncstore.metadata.filters import Comparison, Ordering
from asyncstore.metadata.prompts import IS_PROMPT_TAG
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.search import compare, directed

__all__ = ["ordered", "tagged"]


def tagged(
    tables: Tables,
    dialect: str,
    table: Table,
    tags: Table,
    comparisons: Sequence[Comparison],
) -> list[ColumnElement[bool]]:
    """The conditions of a filter's tags, and the one that tells prompts from models.

    Args:
        tables: The tables of the schema.
        dialect: The dialect's name.
        table: What is searched.
        tags: The table of its tags.
        comparisons: The filter.
    """
    asked = [each for each in comparisons if each.entity == "tag"]
    of_prompts = [each for each in asked if each.key == IS_PROMPT_TAG]
    keys = [column for column in ("name", "version") if column in tags.c]

    def has(key: str, *conditions: ColumnElement[bool], columns: Sequence[str] = keys) -> Any:
        same = [tags.c[column] == table.c[column] for column in columns]
        return (
            select(tags.c.key)
            .where(tables.in_workspace(tags), *same, tags.c.key == key, *conditions)
            .exists()
        )

    if any(map(_wants_prompts, of_prompts[:1])):
        wanted = asked
        conditions = []
    else:
        # Models have no such tag, whatever a filter says of it.
        wanted = [each for each in asked if each.key != IS_PROMPT_TAG]
        conditions = [~has(IS_PROMPT_TAG, tags.c.value == "true", columns=["name"])]
    return conditions + [has(each.key, compare(tags.c.value, each, dialect)) for each in wanted]


def _wants_prompts(comparison: Comparison) -> bool:
    value = str(comparison.value).lower()
    return (comparison.operator, value) in (("=", "true"), ("!=", "false"))


def ordered(
    query: Select[Any], table: Table, orderings: Sequence[Ordering], ties: Mapping[str, bool]
) -> Select[Any]:
    """A query in an order.

    Args:
        query: The query.
        table: What it selects.
        orderings: What was asked for.
        ties: Columns that decide ties, and whether they ascend.
    """
    keys = [ordering.key for ordering in orderings]
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidParameterError(f"order_by names {key!r} twice")
    rest = [Ordering("attribute", key, ties[key]) for key in ties if key not in keys]
    return query.order_by(
        *(directed(table.c[ordering.key], ordering) for ordering in [*orderings, *rest])
    )
