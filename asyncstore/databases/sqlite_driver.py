"""aiosqlite with one trip to its thread for each statement.

SQLAlchemy makes a cursor, executes, fetches and closes the cursor, and each of the four waits for
the connection's thread. A statement of a metadata store takes less time than the trip.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import aiosqlite
import anyio
import anyio.to_thread

from asyncstore.databases.fork_gate import inside_sqlite

__all__ = ["connect"]

CLOSE_WITHIN = 5.0


async def connect(database: str, **options: Any) -> DirectConnection:
    """Connect, for SQLAlchemy's `async_creator`.

    Args:
        database: A path, or a `file:` URI.
        **options: Arguments of `sqlite3.connect`.

    Returns:
        A connection that is set up.

    A cancellation closes the connection.
    """

    def open_file() -> sqlite3.Connection:
        with inside_sqlite:
            opened: sqlite3.Connection = sqlite3.connect(database, **options)
            return opened

    connection = DirectConnection(open_file, 64)
    # A store that somebody forgot to close must not keep the interpreter from exiting.
    thread = connection._thread  # noqa: SLF001  as SQLAlchemy does for connections it makes
    thread.daemon = True
    try:
        await connection
        # Foreign keys and LIKE are as MLflow sets them. FULL: a commit that returned is on disk.
        await connection.executescript(
            "PRAGMA foreign_keys = ON; PRAGMA case_sensitive_like = ON; PRAGMA synchronous = FULL;"
        )
    except BaseException:
        with anyio.move_on_after(CLOSE_WITHIN, shield=True):
            await connection.close()
            # The thread answers once more to the event loop, which must not be closed by then.
            await anyio.to_thread.run_sync(thread.join, CLOSE_WITHIN)
        raise
    return connection


class DirectConnection(aiosqlite.Connection):
    """A connection whose cursors do everything in one trip."""

    # Of `inside_sqlite`, since a transaction began.
    _inside = False

    def cursor(self) -> DirectCursor:  # type: ignore[override]  # not a coroutine, on purpose
        """A cursor, without asking the thread for it."""
        return DirectCursor(self)

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        """Add a function; at once, so that no cancellation can leave a connection half set up."""
        with inside_sqlite:
            self._conn.create_function(*arguments, **options)

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def execute() -> Any:
            if not self._inside:
                inside_sqlite.enter()
            try:
                return fn(*args, **kwargs)
            finally:
                # A child would inherit the locks of a transaction, with nobody to end it.
                self._inside = self._is_in_transaction()
                if not self._inside:
                    inside_sqlite.leave()

        return await super()._execute(execute)  # type: ignore[no-untyped-call]  # untyped there

    def _is_in_transaction(self) -> bool:
        try:
            return self.in_transaction
        except (sqlite3.ProgrammingError, ValueError):
            # It was closed.
            return False

    async def rollback(self) -> None:
        """Roll back, if there is something; SQLAlchemy asks after every read."""
        if self.in_transaction:
            await super().rollback()

    async def execute_all(self, sql: str, parameters: Any, *, many: bool) -> Outcome:
        """Execute a statement and fetch all its rows."""

        def execute() -> Outcome:
            cursor = (
                self._conn.executemany(sql, parameters)
                if many
                else self._conn.execute(sql, parameters)
            )
            try:
                rows = cursor.fetchall() if cursor.description else []
                return cursor.description, rows, cursor.rowcount, cursor.lastrowid
            finally:
                cursor.close()

        outcome: Outcome = await self._execute(execute)
        return outcome


Outcome = tuple[Any, list[Any], int, int | None]


class DirectCursor:
    """What SQLAlchemy uses of a cursor; rows are there when a statement has been executed.

    Args:
        connection: The connection.
    """

    arraysize = 1

    def __init__(self, connection: DirectConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self._next = 0
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> DirectCursor:
        return self

    def __await__(self) -> Generator[Any, Any, DirectCursor]:
        # SQLAlchemy 2.0 awaits a cursor, 2.1 enters it.
        return self.__aenter__().__await__()

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> DirectCursor:
        """Execute a statement and fetch its rows."""
        return await self._run(sql, parameters, many=False)

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> DirectCursor:
        """Execute a statement for each of the parameters."""
        return await self._run(sql, parameters, many=True)

    async def _run(self, sql: str, parameters: Any, *, many: bool) -> DirectCursor:
        outcome = await self._connection.execute_all(sql, parameters, many=many)
        self.description, self._rows, self.rowcount, self.lastrowid = outcome
        self._next = 0
        return self

    async def fetchall(self) -> list[Any]:
        """The rows that were not fetched yet."""
        return await self.fetchmany(len(self._rows))

    async def fetchmany(self, size: int = 1) -> list[Any]:
        """The next rows."""
        begin, self._next = self._next, self._next + size
        return self._rows[begin : self._next]

    async def fetchone(self) -> Any:
        """The next row, or None."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def close(self) -> None:
        """Forget the rows."""
        self._rows = []
