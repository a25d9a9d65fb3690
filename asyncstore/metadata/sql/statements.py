"""Pieces of SQL that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, String, Table, any_, bindparam, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["among", "chunks", "insert_for"]

T = TypeVar("T")


def insert_for(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def among(dialect: str, column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """`column IN values`, as one variable: any number of values, and one prepared statement."""
    if dialect == "postgresql":
        listed = literal(list(values), postgresql.ARRAY(column.type))
        return column == any_(listed)
    listed_json = bindparam(None, json.dumps(list(values)), String())
    return column.in_(select(func.json_each(listed_json).table_valued("value").c.value))


def chunks(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Rows in pieces of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
