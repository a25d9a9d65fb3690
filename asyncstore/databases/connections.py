"""A pool of connections, and transactions that end whatever happens to who awaits them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from asyncstore.concurrency import Turnstile, shielded, task_group
from asyncstore.databases.engines import connections_of, create_engine
from asyncstore.databases.errors import DRIVER_ERRORS, RetrySafely, is_rolled_back, translate
from asyncstore.errors import AsyncStoreError, UnavailableError
from asyncstore.retry import RetryPolicy

__all__ = ["Connections"]

T = TypeVar("T")
Body = Callable[[AsyncConnection], Awaitable[T]]

# What a statement that runs may still take when its caller is cancelled. A server that does not
# answer by then loses the connection; SQLite waits for the writer of another process, and its
# thread cannot be left alone.
GRACE = 5.0
SQLITE_GRACE = 30.0
CLOSE_WITHIN = 10.0
# SQLAlchemy takes the event loop half a millisecond for each.
STARTS_PER_TURN = 2
RETRY = RetryPolicy(attempts=8, backoff=0.02, max_backoff=1.0)


class Connections:
    """A database for short transactions, on one event loop.

    Args:
        uri: The database, as MLflow names it.
        shown: The same for messages, without secrets.
    """

    def __init__(self, uri: str, shown: str) -> None:
        self._uri = uri
        self._shown = shown
        self._engine: AsyncEngine | None = None
        # SQLite has one writer; those of this process wait here, in order and without polling.
        self._turn = anyio.Lock()
        # One wait that can be cancelled, so that the pool's own never happens.
        self._places = anyio.CapacityLimiter(1)
        self._turnstile = Turnstile(STARTS_PER_TURN)

    @property
    def engine(self) -> AsyncEngine:
        """The engine, once `connect` was awaited."""
        if self._engine is None:
            raise RuntimeError("not connected")
        return self._engine

    @property
    def dialect(self) -> str:
        """`sqlite`, `postgresql`, `mysql` or `mssql`."""
        return self.engine.dialect.name

    @property
    def count(self) -> float:
        """Most connections at once."""
        return self._places.total_tokens

    async def connect(self) -> None:
        """Load the driver and make the engine; connections follow when they are needed.

        Raises:
            InvalidParameterError: The URI cannot be parsed.
            MissingDependencyError: The driver is not installed.
        """
        make = partial(create_engine, self._uri, for_content=True)
        self._engine = await anyio.to_thread.run_sync(make)
        self._places.total_tokens = connections_of(self._engine)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            await self._engine.dispose()

    async def read(self, doing: str, body: Body[T]) -> T:
        """Run `body`, which only reads, each of its statements by itself.

        Args:
            doing: What for, to begin an error's message with.
            body: Awaits statements on the connection; may be called again after an error.

        Returns:
            What it returns.

        A cancellation comes out when the statement that runs has ended, within seconds.
        """
        return await self._run(doing, lambda: self._in_place(body, write=False))

    async def write(self, doing: str, body: Body[T]) -> T:
        """Run `body` in a transaction.

        Args:
            doing: What for, to begin an error's message with.
            body: Awaits statements on the connection. Called again when the database rolled it
                back, or when it raises `RetrySafely`.

        Returns:
            What it returns.

        A cancellation comes out when the transaction is done or undone, within seconds.
        """
        if self.dialect != "sqlite":
            return await self._run(doing, lambda: self._in_place(body, write=True))

        async def in_turn() -> T:
            async with self._turn:
                return await self._in_place(body, write=True)

        return await self._run(doing, in_turn)

    async def _run(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        number = 1
        while True:
            try:
                return await attempt()
            except AsyncStoreError:
                raise  # also an OSError, some of them
            except (*DRIVER_ERRORS, RetrySafely) as error:
                if not is_rolled_back(error) or number >= RETRY.attempts:
                    raise translate(error, doing, self._shown) from error
            await anyio.sleep(RETRY.wait(number, None))
            number += 1

    async def _in_place(self, body: Body[T], *, write: bool) -> T:
        async with self._places:
            await self._turnstile.enter()
            grace = SQLITE_GRACE if self.dialect == "sqlite" else GRACE
            return await _with_grace(lambda: self._transaction(body, write=write), grace)

    async def _transaction(self, body: Body[T], *, write: bool) -> T:
        async with self._connection() as connection:
            if self.dialect == "sqlite" and write:
                # One that begins to write late fails at once where another one writes.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif self.dialect == "postgresql" and not write:
                # Spares the trips of BEGIN and ROLLBACK.
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            result = await body(connection)
            if write:
                await connection.commit()
            return result

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        connection = self.engine.connect()
        try:
            await connection.start()
            yield connection
        except BaseException as error:
            # Cut off in the middle of an answer, it is of no use to anybody.
            if not isinstance(error, Exception) and connection.sync_connection is not None:
                await shielded(connection.invalidate, within=CLOSE_WITHIN)
            raise
        finally:
            # The pool's bookkeeping must come to its end, or the pool would lose a place.
            if connection.sync_connection is not None:
                await shielded(connection.close, within=CLOSE_WITHIN)


async def _with_grace(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await `call`; a cancellation, of whichever kind, lets it go on for some seconds."""
    results: list[T] = []
    scope = anyio.CancelScope(shield=True)

    async def run() -> None:
        try:
            with scope:
                results.append(await call())
        except (*DRIVER_ERRORS, RetrySafely):
            # Who is cancelled wants to hear that, and not what came of it.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise
        finally:
            tasks.cancel_scope.cancel()

    async def limit() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            scope.deadline = anyio.current_time() + seconds

    async with task_group() as tasks:
        tasks.start_soon(limit)
        tasks.start_soon(run)
    if not results:
        raise UnavailableError(f"no answer within {seconds:g} s")
    return results[0]
