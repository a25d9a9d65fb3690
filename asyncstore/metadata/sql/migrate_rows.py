"""Rows of a migration: which of them a table can hold, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import String, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.metadata.file_store.entries import Entry
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import chunks, insert_missing

__all__ = ["ROWS_AT_ONCE", "RowWriter"]

ROWS_AT_ONCE = 250
#: Texts that may be cut to what their column holds; a shortened key or URI would be another one.
MAY_BE_CUT = frozenset(
    {
        *("value", "param_value", "tag_value", "description", "status_message"),
        *("request_preview", "response_preview", "trace_name", "source_name", "source_version"),
    }
)


class RowWriter:
    """Writes rows that are not there yet.

    Args:
        tables: The tables of the database's revision.
        dialect: The dialect's name.
        warn: Gets a line for each row that is left out or shortened.
    """

    def __init__(self, tables: Tables, dialect: str, warn: Callable[[str], None]) -> None:
        self._tables = tables
        self._dialect = dialect
        self._warn = warn

    async def insert(
        self, connection: AsyncConnection, name: str, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Insert rows, and leave those whose key exists as they are."""
        if not rows:
            return
        table: Table = getattr(self._tables, name)
        statement = insert_missing(self._dialect, table)
        for some in chunks(rows, ROWS_AT_ONCE):
            await connection.execute(statement, [self._tables.known(table, row) for row in some])

    def fitting(
        self, name: str, rows: Sequence[dict[str, Any]], entry: Entry
    ) -> list[dict[str, Any]]:
        """The rows that the table can hold, long texts cut; warns of those that it cannot."""
        if not rows:
            return []
        if name not in self._tables:
            version = self._tables.mlflow_version
            self._warn(
                f"{entry.kind} {entry.directory}: the database is at the schema of MLflow "
                f"{version}, which has no {name}; left out"
            )
            return []
        table: Table = getattr(self._tables, name)
        found: list[dict[str, Any]] = []
        for row in rows:
            fitting = dict(row)
            for key, value in row.items():
                if key not in table.c or not (problem := self.problem(table.c[key], value)):
                    continue
                where = f"{entry.kind} {entry.directory}: {key} of {name} {_shown(row)} {problem}"
                if key not in MAY_BE_CUT or value is None or not _is_text(value):
                    self._warn(f"{where}; left out")
                    break
                fitting[key] = value[: _length(table.c[key])]
                self._warn(f"{where}; shortened")
            else:
                found.append(fitting)
        return found

    def problem(self, column: Any, value: Any) -> str | None:
        """Why a column cannot hold a value; None when it can."""
        if value is None:
            return None if column.nullable else "is missing"
        if not isinstance(value, str):
            return None
        if not _is_text(value):
            return "is not text"
        length = _length(column)
        # SQLite does not mind, and neither does MLflow when it reads.
        if self._dialect != "sqlite" and length is not None and len(value) > length:
            return f"has {len(value)} characters, the database takes {length}"
        return None


def _length(column: Any) -> int | None:
    length: int | None = column.type.length if isinstance(column.type, String) else None
    return length


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _shown(row: dict[str, Any]) -> str:
    named = (row.get(key) for key in ("key", "name", "param_key", "tag_key", "alias"))
    return next((repr(str(name)[:100]) for name in named if name is not None), "")
