"""Pieces of SQL that the databases spell differently."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Executable,
    LargeBinary,
    Select,
    String,
    Table,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from asyncstore.errors import UnsupportedError
from asyncstore.metadata.sql.merge import Merge

__all__ = [
    "among",
    "among_parameter",
    "chunks",
    "compare_exactly",
    "greater",
    "insert_missing",
    "locked",
    "matches",
    "parameter",
    "upsert",
]

T = TypeVar("T")


def insert_missing(dialect: str, table: Table) -> Executable:
    """An INSERT that leaves rows whose key exists as they are; how many it wrote is not told.

    Args:
        dialect: The dialect's name.
        table: The table; executed with rows, a dict each.
    """
    match dialect:
        case "mssql":
            return Merge(table)
        case "mysql":
            # INSERT IGNORE would also ignore what does not fit a column.
            insert = mysql.insert(table)
            key = next(iter(table.primary_key.columns))
            return insert.on_duplicate_key_update({key.name: key})
    return _insert(dialect, table).on_conflict_do_nothing()


def upsert(
    dialect: str, table: Table, update: Sequence[str], newer: Sequence[str] = ()
) -> Executable:
    """An INSERT that changes rows whose primary key exists.

    Args:
        dialect: The dialect's name.
        table: The table; executed with rows, a dict each.
        update: The columns to change.
        newer: Change a row only if the new one is greater in these columns, compared in order;
            they must be the last of `update`, in reverse. Empty for always.
    """
    if dialect == "mssql":
        return Merge(table, update, newer)
    if dialect == "mysql":
        return _mysql_upsert(table, update, newer)
    insert = _insert(dialect, table)
    new = insert.excluded
    return insert.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key.columns],
        set_={name: new[name] for name in update},
        where=greater(dialect, [new[name] for name in newer], [table.c[name] for name in newer])
        if newer
        else None,
    )


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def _mysql_upsert(table: Table, update: Sequence[str], newer: Sequence[str]) -> mysql.Insert:
    insert = mysql.insert(table)
    new = insert.inserted
    if not newer:
        return insert.on_duplicate_key_update([(name, new[name]) for name in update])
    is_newer = tuple_(*(new[name] for name in newer)) > tuple_(*(table.c[name] for name in newer))
    # MySQL assigns from left to right, and a condition sees what was assigned before it: so the
    # column that decides first is changed last.
    return insert.on_duplicate_key_update(
        [(name, func.if_(is_newer, new[name], table.c[name])) for name in update]
    )


def among(dialect: str, column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """`column IN values`, as one variable: any number of values, and one prepared statement."""
    if len(values) == 1:
        # So an index that begins with the column can give the order too.
        return column == literal(values[0], column.type)
    return _among(dialect, column, key=None, value=parameter(dialect, values))


def among_parameter(dialect: str, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """`column IN values` in a statement that is kept; executed with `parameter` as its `name`."""
    return _among(dialect, column, key=name)


def _among(dialect: str, column: ColumnElement[Any], **bound: Any) -> ColumnElement[bool]:
    match dialect:
        case "postgresql":
            return column == any_(bindparam(**bound, type_=postgresql.ARRAY(column.type)))
        case "mysql":
            # aiomysql writes values into the statement.
            return column.in_(bindparam(**bound, expanding=True))
        case "mssql":
            listed = func.openjson(bindparam(**bound, type_=String()))
        case _:
            listed = func.json_each(bindparam(**bound, type_=String()))
    return column.in_(select(listed.table_valued("value").c.value))


def parameter(dialect: str, values: Sequence[Any]) -> Any:
    """Values as `among_parameter` takes them."""
    return list(values) if dialect in ("postgresql", "mysql") else json.dumps(list(values))


def compare_exactly(
    dialect: str, column: ColumnElement[Any], operator: str, value: str
) -> ColumnElement[bool]:
    """`=`, `!=` or `LIKE` of texts, with upper and lower case told apart, as MLflow has it."""
    other = literal(value, column.type)
    if dialect == "mssql":
        # The collation that MLflow uses; the database's own seldom tells them apart.
        other = other.collate("Japanese_BIN2")  # type: ignore[assignment]  # as good a literal
    plain: ColumnElement[bool] = column.op(operator, is_comparison=True)(other)
    if dialect != "mysql":
        return plain
    # The plain one is what an index can answer.
    exact: ColumnElement[bool] = cast(column, LargeBinary()).op(operator, is_comparison=True)(other)
    return or_(plain, exact) if operator == "!=" else and_(plain, exact)


def matches(dialect: str, column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """Whether a text matches a regular expression, with upper and lower case told apart."""
    if dialect == "mssql":
        raise UnsupportedError("SQL Server has no RLIKE; use LIKE or ILIKE")
    if dialect == "mysql":
        exact = cast(literal(pattern), LargeBinary())
        return cast(column, LargeBinary()).op("REGEXP", is_comparison=True)(exact)
    return column.regexp_match(pattern)


def greater(
    dialect: str, columns: Sequence[ColumnElement[Any]], others: Sequence[Any]
) -> ColumnElement[bool]:
    """Whether a row of columns is greater than another, compared column by column."""
    if dialect != "mssql":
        as_one: ColumnElement[bool] = tuple_(*columns) > tuple_(*others)
        return as_one
    (column, *rest), (other, *other_rest) = columns, others
    first: ColumnElement[bool] = column > other
    if not rest:
        return first
    return or_(first, and_(column == other, greater(dialect, rest, other_rest)))


def locked(query: Select[Any], table: Table) -> Select[Any]:
    """A query in a transaction that writes, which holds its rows of a table until the end."""
    # Others may go on to refer to the rows. SQL Server has a hint, and SQLite locks everything.
    return query.with_hint(table, "WITH (UPDLOCK)", "mssql").with_for_update(key_share=True)


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Rows in pieces of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
