"""Structured concurrency with the two things that anyio leaves to its users."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from asyncstore.errors import UnavailableError

__all__ = [
    "ByteBudget",
    "Turnstile",
    "in_own_task",
    "opened_in_own_task",
    "shielded",
    "task_group",
    "unless_cancelled",
]

T = TypeVar("T")


class _Closeable(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=_Closeable)


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group that raises the first error itself instead of a group of them.

    The other tasks are cancelled and awaited before the error comes out.
    """
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        error = _first(group)
        raise error from error.__cause__


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    # What is not an Exception, such as KeyboardInterrupt, must not hide behind one that is.
    beyond = group.split(Exception)[1]
    error: BaseException = beyond or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def in_own_task(call: Callable[[], Awaitable[T]]) -> T:
    """Await `call` in a task of its own, and be cancelled with it.

    `asyncio.Task.cancel`, which is how `asyncio.timeout` and web servers cancel, breaks through the
    shield of a cancel scope and leaves worker threads behind. It hits the caller here, and reaches
    the task inside as the cancellation of a scope, which shields and threads respect.

    Args:
        call: The work.

    Returns:
        What it returns.

    A cancellation comes out when the work and its cleanup have ended.
    """
    results: list[T] = []

    async def run() -> None:
        results.append(await call())

    async with task_group() as tasks:
        tasks.start_soon(run)
    return results[0]


async def opened_in_own_task(call: Callable[[], Awaitable[C]], *, close_within: float) -> C:
    """`in_own_task` for what opens something, which is closed when nobody gets it.

    Args:
        call: Opens it, and leaves nothing open when it is cancelled.
        close_within: Seconds that closing may take.

    Returns:
        What is open.

    A cancellation that comes when the work has just ended, too late for `call`, closes it.
    """
    opened: list[C] = []

    async def open_() -> None:
        opened.append(await call())

    try:
        await in_own_task(open_)
    except BaseException:
        for each in opened:
            await shielded(each.aclose, within=close_within)
        raise
    return opened[0]


async def shielded(call: Callable[[], Awaitable[T]], *, within: float) -> T:
    """Await `call` to its end even when its scope is cancelled, but not for ever.

    Args:
        call: A step that must not be left half done, such as the abort of an upload.
        within: Seconds after which it is cancelled all the same.

    Returns:
        What it returns.

    Raises:
        UnavailableError: The time is up.
    """
    with anyio.move_on_after(within, shield=True):
        return await call()
    raise UnavailableError(f"no answer within {within:g} s")


async def unless_cancelled(call: Callable[[], Awaitable[T]]) -> T:
    """Await `call` in a task that a worker thread starts, by `anyio.from_thread.run`.

    Such a task hears of a cancellation that comes while it runs, and not of one that came before:
    it would wait for it at the first checkpoint for ever, and the thread with it.

    Args:
        call: The work.

    Returns:
        What it returns. To the thread, a cancellation is an `asyncio.CancelledError`, which it
        must not hand on: it may not be one that anyio knows.
    """
    if anyio.current_effective_deadline() == -math.inf:
        raise anyio.get_cancelled_exc_class()
    return await call()


class Turnstile:
    """Lets a few callers through in each turn of the event loop, in order.

    Work that takes the loop a good part of a millisecond each, such as building and signing a
    request, stalls it when hundreds of tasks do it in the same turn.

    Args:
        per_turn: How many callers a turn lets through.
    """

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._armed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a turn with room. A cancellation takes none."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _next_turn(self) -> None:
        self._left = self._per_turn
        while self._waiting and self._left:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self._left -= 1
        self._armed = bool(self._waiting)
        if self._armed:
            asyncio.get_running_loop().call_soon(self._next_turn)


class ByteBudget:
    """Bytes that may be held at once; who asks first is served first.

    Args:
        total: The budget, in bytes. A larger demand counts as all of it.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes are free and take them.

        A cancellation while waiting takes nothing.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        size = min(size, self._total)
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        granted = anyio.Event()
        entry = (size, granted)
        self._waiting.append(entry)
        try:
            await granted.wait()
        except BaseException:
            if granted.is_set():
                self.release(size)
            else:
                self._waiting.remove(entry)
                self._grant()
            raise

    def release(self, size: int) -> None:
        """Give back what `acquire` took for the same size."""
        self._free += min(size, self._total)
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, granted = self._waiting.popleft()
            self._free -= size
            granted.set()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """`acquire` on entry, `release` on exit."""
        await self.acquire(size)
        try:
            yield
        finally:
            self.release(size)
