"""aiomysql, as SQLAlchemy is to use it."""

from __future__ import annotations

import inspect
from typing import Any

import aiomysql  # type: ignore[import-untyped]  # it ships no types

__all__ = ["OPTIONS", "connect"]

#: What a URI may set behind its question mark, by aiomysql's names.
OPTIONS = frozenset(inspect.signature(aiomysql.Connection).parameters)


class _Connection(aiomysql.Connection):  # type: ignore[misc]  # aiomysql ships no types
    """A connection that can send bytes, and that is closed when it says so."""

    #: What it was made with.
    options: dict[str, Any]

    def escape(self, value: Any) -> Any:
        """A literal of SQL for a value."""
        if isinstance(value, bytes):
            # aiomysql's own way is gone from PyMySQL 1.2, and took the loop 40 ms a MiB before.
            return f"_binary X'{value.hex()}'"
        return super().escape(value)

    async def interrupt(self) -> None:
        """Have the server end the statement that runs; the connection stays."""
        other = await connect(**self.options)
        try:
            async with other.cursor() as cursor:
                await cursor.execute(f"KILL QUERY {self.thread_id()}")
        finally:
            other.close()

    async def rollback(self) -> None:
        """Roll back, if there is something; SQLAlchemy asks after every read."""
        if not self.get_autocommit() or self.get_transaction_status():
            await super().rollback()

    async def ensure_closed(self) -> None:
        """Say goodbye, and close even where the server does not listen any more."""
        try:
            await super().ensure_closed()
        except OSError:
            pass
        finally:
            self.close()


async def connect(**options: Any) -> _Connection:
    """Connect, for SQLAlchemy's `async_creator`.

    Args:
        **options: Arguments of `aiomysql.connect`.

    Returns:
        A connection. A cancellation closes it, as it does during any statement.
    """
    connection = _Connection(**options)
    connection.options = options
    try:
        await connection._connect()  # noqa: SLF001  what aiomysql.connect awaits
    except BaseException:
        connection.close()
        raise
    return connection
