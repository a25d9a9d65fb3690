"""MLflow's filter and order_by grammars: from text to comparisons, with errors that point.

The words are those of `mlflow.utils.search_utils` in MLflow 3.17. The grammar is SQL's: a quote
inside a quoted string is written twice.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from lark import Lark, Token, Tree, UnexpectedInput

from asyncstore.errors import InvalidParameterError
from asyncstore.metadata.filters.vocabulary import (
    ORDER,
    Comparison,
    Field,
    Ordering,
    Value,
    Vocabulary,
)

__all__ = ["parse_filter", "parse_order_by"]

_GRAMMAR = r"""
filter: comparison (_AND comparison)*
comparison: KEY OPERATOR (STRING | NUMBER)     -> compare
          | KEY (LIKE | ILIKE | RLIKE) STRING  -> compare
          | KEY IN list                        -> among
          | KEY NOT IN list                    -> not_among
          | KEY IS NULL                        -> is_null
          | KEY IS NOT NULL                    -> is_not_null
list: "(" STRING ("," STRING)* ","? ")"
ordering: KEY (ASC | DESC)?

KEY: /(`[^`]+`|"[^"]+"|[^\W\d]\w*)(\.(`[^`]+`|"[^"]+"|\w+(\.\w+)*))?/
STRING: /'([^']|'')*'|"([^"]|"")*"/
NUMBER: /-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?(?![\w.])/
OPERATOR: /<=|>=|!=|=|<|>/
_AND: /AND\b/i
LIKE: /LIKE\b/i
ILIKE: /ILIKE\b/i
RLIKE: /RLIKE\b/i
IN: /IN\b/i
NOT: /NOT\b/i
IS: /IS\b/i
NULL: /NULL\b/i
ASC: /ASC\b/i
DESC: /DESC\b/i
%ignore /\s+/
"""
_PARSER = Lark(_GRAMMAR, parser="lalr", lexer="contextual", start=["filter", "ordering"])

_EXPECTED: Final = {
    "KEY": "a key such as metrics.loss",
    "OPERATOR": "an operator such as = or LIKE",
    "STRING": "a quoted text",
    "NUMBER": "a number",
    "_AND": "AND",
    "$END": "the end",
    "LPAR": "a list such as ('a', 'b')",
    "RPAR": "a closing parenthesis",
    "DESC": "ASC or DESC",
    "NULL": "NULL",
}
_SHOWN = 60
MAX_CACHED_LENGTH = 500
# Each may be a part of the query on other tables; databases take about 1,000, and long over them.
MAX_COMPARISONS = 200


def parse_filter(text: str | None, vocabulary: Vocabulary) -> list[Comparison]:
    """Parse a filter string.

    Args:
        text: Comparisons joined by AND; None or blank for none.
        vocabulary: Of what is searched, such as `RUNS`.

    Returns:
        The comparisons, all of which must hold.

    Raises:
        InvalidParameterError: The text is not a filter; the message shows where.
    """
    if not text or not text.strip():
        return []
    if len(text) > MAX_CACHED_LENGTH:
        return _comparisons(text, vocabulary)
    return list(_cached_comparisons(text, vocabulary))


# People ask the same again and again, and parsing takes as long as many a search.
@lru_cache(maxsize=256)
def _cached_comparisons(text: str, vocabulary: Vocabulary) -> tuple[Comparison, ...]:
    return tuple(_comparisons(text, vocabulary))


def _comparisons(text: str, vocabulary: Vocabulary) -> list[Comparison]:
    source = _Source("filter_string", text)
    trees = [tree for tree in source.parse("filter").children if isinstance(tree, Tree)]
    if len(trees) > MAX_COMPARISONS:
        raise InvalidParameterError(
            f"filter_string has {len(trees):,} comparisons, and may have {MAX_COMPARISONS}; many "
            "values of one key go into IN ('a', 'b')"
        )
    return [_comparison(tree, vocabulary, source) for tree in trees]


def parse_order_by(text: str, vocabulary: Vocabulary) -> Ordering:
    """Parse one clause of an order_by.

    Args:
        text: A key, and ASC or DESC; ascending if neither.
        vocabulary: Of what is searched, such as `RUNS`.

    Returns:
        The clause.

    Raises:
        InvalidParameterError: The text is no such clause; the message shows where.
    """
    return _cached_ordering(text, vocabulary)


@lru_cache(maxsize=256)
def _cached_ordering(text: str, vocabulary: Vocabulary) -> Ordering:
    source = _Source("order_by", text)
    tokens = source.parse("ordering").children
    key, *direction = [token for token in tokens if isinstance(token, Token)]
    entity, field, spelled = _field(key, vocabulary, source)
    if entity not in vocabulary.sortable or spelled in vocabulary.not_sortable:
        raise source.error(key, f"cannot order by {key}")
    return Ordering(entity, field.key, not direction or direction[0].type == "ASC")


class _Source:
    """A text, and the errors that point into it."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text

    def parse(self, start: str) -> Tree[Token]:
        try:
            return _PARSER.parse(self._text, start=start)
        except UnexpectedInput as error:
            position = len(self._text) if _is_end(error) else error.pos_in_stream or 0
            raise self.error(position, self._complaint(error, position)) from error

    def _complaint(self, error: UnexpectedInput, position: int) -> str:
        rest = self._text[position:]
        if re.match(r"OR\b", rest, re.IGNORECASE):
            return "OR is not possible; MLflow's filters join comparisons by AND"
        if re.match(r"(?:'|\"|`)", rest) and not rest[1:].count(rest[0]):
            return f"the quote {rest[0]} is not closed"
        names = set(getattr(error, "accepts", None) or getattr(error, "allowed", None) or ())
        names |= set(getattr(error, "expected", None) or ())
        expected = [words for name, words in _EXPECTED.items() if name in names]
        if "KEY" in names and rest:
            return (
                f"expected {_EXPECTED['KEY']}, in backticks if it has other characters than "
                "letters, digits, _ and ."
            )
        return f"expected {' or '.join(expected) or 'something else'}"

    def error(self, at: int | Token, complaint: str) -> InvalidParameterError:
        position = at if isinstance(at, int) else at.start_pos or 0
        begin = max(0, position - _SHOWN)
        shown = self._text[begin : position + _SHOWN]
        line = "".join(character if character.isprintable() else " " for character in shown)
        return InvalidParameterError(
            f"{self._name}, column {position + 1}: {complaint}\n"
            f"    {line}\n    {' ' * (position - begin)}^"
        )


def _is_end(error: UnexpectedInput) -> bool:
    token = getattr(error, "token", None)
    return isinstance(token, Token) and token.type == "$END"


def _comparison(tree: Tree[Token], vocabulary: Vocabulary, source: _Source) -> Comparison:
    key = next(child for child in tree.children if isinstance(child, Token))
    entity, field, _ = _field(key, vocabulary, source)
    operator, value = _right_side(tree, field, source)
    if operator not in field.operators:
        raise source.error(
            key, f"{key} does not allow {operator}; it allows {', '.join(sorted(field.operators))}"
        )
    return Comparison(entity, field.key, operator, value)


def _right_side(tree: Tree[Token], field: Field, source: _Source) -> tuple[str, Value]:
    match tree.data, tree.children:
        case "is_null", _:
            return "IS NULL", None
        case "is_not_null", _:
            return "IS NOT NULL", None
        case "compare", [_, Token() as operator, Token() as token]:
            return operator.upper(), _value(token, operator.upper(), field, source)
        case "among" | "not_among" as kind, [*_, Tree() as listed]:
            texts = tuple(_unquoted(str(token)) for token in listed.children)
            return ("IN" if kind == "among" else "NOT IN"), texts
    raise TypeError(tree)


def _value(token: Token, operator: str, field: Field, source: _Source) -> str | int | float:
    if field.number is None and not (field.ordered_by_number and operator in ORDER):
        if token.type != "STRING":
            raise source.error(token, f"{field.key} takes a quoted text, such as '{token}'")
        text = _unquoted(str(token))
        if operator == "RLIKE":
            try:
                re.compile(text)
            except re.error as error:
                raise source.error(token, f"not a regular expression: {error}") from error
        return text
    if token.type != "NUMBER":
        raise source.error(token, f"{field.key} takes a number, without quotes")
    try:
        number = int(token)
    except ValueError:
        if field.number is int:
            raise source.error(token, f"{field.key} takes a whole number") from None
        return float(token)
    if not -(2**63) <= number < 2**63:
        if field.number is int:
            raise source.error(token, f"{field.key} takes a 64-bit number")
        return float(token)
    return number


def _field(token: Token, vocabulary: Vocabulary, source: _Source) -> tuple[str, Field, str]:
    """Entity, field and the key as it was spelled."""
    prefix, dot, rest = _split(str(token))
    entity: str | None = vocabulary.prefixes.get(prefix) if dot else "attribute"
    if entity is None:
        known = ", ".join(sorted(vocabulary.prefixes))
        raise source.error(token, f"there is no prefix {prefix!r}; there are {known}")
    key = rest if dot else prefix
    if not dot and key in vocabulary.only_prefixed:
        raise source.error(token, f"{key} has a prefix, such as {vocabulary.only_prefixed[key]}")
    field = vocabulary.field(entity, key)
    if field is None:
        names = vocabulary.attributes if entity == "attribute" else vocabulary.dataset
        raise source.error(
            token, f"there is no {entity} {key!r}; there are {', '.join(sorted(names))}"
        )
    return entity, field, key


def _split(key: str) -> tuple[str, str, str]:
    """Prefix, dot and rest, the quotes removed."""
    quote = key[0]
    if quote in '`"':
        end = key.index(quote, 1)
        prefix, rest = key[1:end], key[end + 1 :]
        return prefix, rest[:1], _bare(rest[1:])
    prefix, dot, rest = key.partition(".")
    return prefix, dot, _bare(rest)


def _bare(key: str) -> str:
    return key[1:-1] if key[:1] in ("`", '"') else key


def _unquoted(text: str) -> str:
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)
