"""SQL Server's MERGE, which SQLAlchemy has no construct for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ClauseElement, Executable, Table, bindparam
from sqlalchemy.ext.compiler import compiles

__all__ = ["Merge"]


class Merge(Executable, ClauseElement):
    """Insert a row, or change the one of the same primary key.

    Args:
        table: The table; executed with rows, a dict each, which name the columns.
        update: The columns to change; empty to leave rows that exist as they are.
        newer: Change a row only if the new one is greater in these columns, compared in order.
    """

    inherit_cache = False

    def __init__(self, table: Table, update: Sequence[str] = (), newer: Sequence[str] = ()) -> None:
        self.table = table
        self.update = update
        self.newer = newer


@compiles(Merge, "mssql")
def _merge(merge: Merge, compiler: Any, **_: Any) -> str:
    table = merge.table
    quote = compiler.preparer.quote
    names = compiler.column_keys or [column.name for column in table.c]
    compiler.isinsert = False
    values = ", ".join(
        compiler.process(bindparam(name, type_=table.c[name].type, required=True)) for name in names
    )
    columns = ", ".join(map(quote, names))
    key = [column.name for column in table.primary_key.columns if column.name in names]
    on = " AND ".join(f"old.{quote(name)} = new.{quote(name)}" for name in key)
    # HOLDLOCK: without it two sessions may both find no row and both insert.
    parts = [
        f"MERGE INTO {compiler.preparer.format_table(table)} WITH (HOLDLOCK) AS old",
        f"USING (VALUES ({values})) AS new ({columns})",
        f"ON {on}",
    ]
    if merge.update:
        changes = ", ".join(f"{quote(name)} = new.{quote(name)}" for name in merge.update)
        condition = f" AND {_newer(list(merge.newer), quote)}" if merge.newer else ""
        parts.append(f"WHEN MATCHED{condition} THEN UPDATE SET {changes}")
    inserted = ", ".join(f"new.{quote(name)}" for name in names)
    parts.append(f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({inserted});")  # noqa: S608  names of columns
    return " ".join(parts)


def _newer(names: list[str], quote: Any) -> str:
    name, rest = quote(names[0]), names[1:]
    first = f"new.{name} > old.{name}"
    if not rest:
        return first
    return f"({first} OR new.{name} = old.{name} AND {_newer(rest, quote)})"
