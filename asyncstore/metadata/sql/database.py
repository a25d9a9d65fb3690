"""Connections and transactions: the only code that knows which driver is underneath."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from asyncstore.concurrency import in_own_task, shielded, task_group
from asyncstore.databases.engines import connections_of, create_engine
from asyncstore.databases.errors import DRIVER_ERRORS, RetrySafely, is_rolled_back, translate
from asyncstore.errors import AsyncStoreError, InvalidStateError, UnavailableError
from asyncstore.metadata.sql.interruption import Interrupt, Interruption
from asyncstore.retry import RetryPolicy
from asyncstore.uris import redact

__all__ = ["Database"]

T = TypeVar("T")

# Above SQLite's busy timeout, so that the database's own words come out and not these.
WRITE_WITHIN = 60.0
CLOSE_WITHIN = 30.0
CONNECT_GRACE = 2.0
RETRY = RetryPolicy(attempts=5, backoff=0.05, max_backoff=1.0)


class Database:
    """One database and its pool of connections, for one event loop.

    Args:
        uri: The database, as MLflow names it.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._engine: AsyncEngine | None = None
        self._loop = asyncio.get_running_loop()
        self._under_way = 0
        self._idle = anyio.Event()
        self._closed = False
        # SQLite has one writer; those of this process wait here, in order and without polling.
        self._turn = anyio.Lock()
        # One wait that can be cancelled, so that the pool's own never happens.
        self._places = anyio.CapacityLimiter(1)

    @property
    def engine(self) -> AsyncEngine:
        """The engine, once `connect` was awaited."""
        if self._engine is None:
            raise InvalidStateError(f"{redact(self.uri)} is not open")
        return self._engine

    @property
    def dialect(self) -> str:
        """`sqlite`, `postgresql`, `mysql` or `mssql`."""
        return self.engine.dialect.name

    async def connect(self) -> None:
        """Load the driver and make the engine; connections follow when they are needed."""
        make = partial(create_engine, self.uri, autocommit=True)
        self._engine = await anyio.to_thread.run_sync(make)
        self._places.total_tokens = connections_of(self._engine)
        event.listen(self._engine.sync_engine, "begin", _begin)

    async def aclose(self) -> None:
        """Refuse new calls, wait for those under way, close every connection."""
        if self._closed:
            return
        self._check_loop()
        self._closed = True
        if self._engine is not None:
            await in_own_task(lambda: shielded(self._close, within=2 * CLOSE_WITHIN))

    async def _close(self) -> None:
        if self._under_way:
            with anyio.move_on_after(CLOSE_WITHIN):
                await self._idle.wait()
        await self.engine.dispose()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidStateError(
                "this MetadataStore belongs to the event loop that opened it; open one in each loop"
            )

    def check_usable(self) -> None:
        """Refuse a call on a closed store or from another event loop."""
        self._check_loop()
        if self._closed:
            raise InvalidStateError(
                f"the MetadataStore of {redact(self.uri)} is closed; open another"
            )

    async def read(
        self,
        doing: str,
        body: Callable[[AsyncConnection], Awaitable[T]],
        *,
        in_transaction: bool = False,
    ) -> T:
        """Run `body`, which only reads; each of its statements sees what is committed by then.

        Args:
            doing: What for, to begin an error's message with.
            body: Awaits statements on the connection; may be called again after an error.
            in_transaction: Whether to begin a transaction for it, which a result that is streamed
                needs on PostgreSQL.

        Returns:
            What `body` returns.

        A cancellation stops the statement that runs; the connection is kept or replaced.
        """
        interruption = Interruption()
        results: list[T] = []

        async def attempt() -> T:
            async with self._connection() as connection:
                if in_transaction:
                    connection = await connection.execution_options(asyncstore_begins="read")
                try:
                    with interruption.through(await self._interrupt(connection)):
                        return await body(connection)
                except DRIVER_ERRORS:
                    # Who is cancelled wants to hear that, and not what came of it.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    raise

        async def run() -> None:
            try:
                results.append(await self._repeat(doing, attempt, lambda: True))
            finally:
                interruption.done.set()

        async with self._under_way_one(), task_group() as tasks:
            tasks.start_soon(run)
            try:
                await interruption.done.wait()
            except BaseException:
                tasks.cancel_scope.cancel()
                await interruption.end()
                raise
        return results[0]

    async def _interrupt(self, connection: AsyncConnection) -> Interrupt | None:
        """What has the database end the statement that runs on a connection."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        match self.dialect:
            case "postgresql":
                return cast("Interrupt", driver.cancel_safe)
            case "mssql":  # ODBC's threads cannot be interrupted
                return None
        return cast("Interrupt", driver.interrupt)

    async def write(
        self,
        doing: str,
        body: Callable[[AsyncConnection], Awaitable[T]],
        *,
        repeatable: bool = False,
        in_this_task: bool = False,
    ) -> T:
        """Run `body` in a transaction that writes, to its end once it has begun.

        Args:
            doing: What for, to begin an error's message with.
            body: Awaits statements on the connection; may be called again after an error.
            repeatable: Whether it does no harm to do it twice. Otherwise a connection that is lost
                during COMMIT, when nobody knows whether it was done, is an error.
            in_this_task: Whether the caller already awaits this `in_own_task`.

        Returns:
            What `body` returns.

        A cancellation that comes before the transaction begins leaves nothing done; one that comes
        later is raised when it has ended.
        """
        committing = False

        async def transaction() -> T:
            nonlocal committing
            committing = False
            async with self._connection() as connection:
                connection = await connection.execution_options(asyncstore_begins="write")
                async with connection.begin() as begun:
                    result = await body(connection)
                    committing = True
                    await begun.commit()
                    return result

        return await self._run(
            doing, transaction, lambda: repeatable or not committing, in_this_task=in_this_task
        )

    async def outside_transactions(
        self, doing: str, body: Callable[[AsyncConnection], Awaitable[T]]
    ) -> T:
        """Run what cannot be in a transaction, such as a PRAGMA that changes the file."""

        async def run() -> T:
            async with self._connection() as connection:
                return await body(connection)

        return await self._run(doing, run, lambda: True)

    async def _run(
        self,
        doing: str,
        work: Callable[[], Awaitable[T]],
        may_repeat: Callable[[], bool],
        *,
        in_this_task: bool = False,
    ) -> T:
        async def attempt() -> T:
            if self.dialect != "sqlite":
                return await shielded(work, within=WRITE_WITHIN)
            async with self._turn:
                return await shielded(work, within=WRITE_WITHIN)

        async with self._under_way_one():
            if in_this_task:
                return await self._repeat(doing, attempt, may_repeat)
            return await in_own_task(lambda: self._repeat(doing, attempt, may_repeat))

    @asynccontextmanager
    async def _under_way_one(self) -> AsyncGenerator[None]:
        """A call, which closing waits for."""
        self.check_usable()
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                self._idle.set()

    async def _repeat(
        self, doing: str, attempt: Callable[[], Awaitable[T]], may_repeat: Callable[[], bool]
    ) -> T:
        number = 1
        while True:
            try:
                return await attempt()
            except AsyncStoreError:
                raise  # also an OSError, some of them
            except (*DRIVER_ERRORS, RetrySafely) as error:
                known = translate(error, doing, self.uri)
                again = is_rolled_back(error) or (
                    isinstance(known, UnavailableError) and may_repeat()
                )
                if not again or number >= RETRY.attempts:
                    raise known from error
            await anyio.sleep(RETRY.wait(number, None))
            number += 1

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AsyncConnection]:
        async with self._places:
            connection = self.engine.connect()
            try:
                await self._start(connection)
                yield connection
            finally:
                # The pool's bookkeeping must come to its end, or the pool would lose a place.
                if connection.sync_connection is not None:
                    await shielded(connection.close, within=CLOSE_WITHIN)

    async def _start(self, connection: AsyncConnection) -> None:
        pool: Any = self.engine.pool
        if isinstance(pool, AsyncAdaptedQueuePool) and pool.checkedin() and pool._recycle < 0:  # noqa: SLF001  there is no other way to ask
            with anyio.CancelScope(shield=True):
                await connection.start()
            return
        # Dropped half made, a connection or the task that ends it would stay behind.
        await _with_grace(connection.start)


async def _with_grace(call: Callable[[], Awaitable[object]]) -> None:
    """Await `call`; a cancellation lets it go on for some seconds."""
    async with task_group() as tasks:
        scope = anyio.CancelScope(shield=True)
        tasks.start_soon(_limit_when_cancelled, scope)
        with scope:
            await call()
        tasks.cancel_scope.cancel()


async def _limit_when_cancelled(scope: anyio.CancelScope) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = anyio.current_time() + CONNECT_GRACE


def _begin(connection: Any) -> None:
    # The drivers are told not to begin by themselves: a read by itself needs no transaction.
    begins = connection.get_execution_options().get("asyncstore_begins")
    if begins is None:
        return
    driver = connection.connection.dbapi_connection
    match connection.dialect.name:
        case "sqlite":
            # A transaction that begins to write late fails at once where another one writes.
            statement = "BEGIN IMMEDIATE" if begins == "write" else "BEGIN"
            driver.run_async(lambda sqlite: sqlite.execute(statement))
        case "postgresql":
            driver.run_async(lambda postgresql: postgresql.execute("BEGIN"))
        case "mysql":
            driver.run_async(lambda mysql: mysql.begin())
