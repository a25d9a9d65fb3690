"""Group commit: small writes that wait at the same time share one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from asyncstore.concurrency import in_own_task, shielded
from asyncstore.errors import UnavailableError

__all__ = ["Entry", "GroupCommit"]

T = TypeVar("T")

# Enough to make the cost of a commit vanish, and few enough that the first does not wait long.
MAX_WEIGHT = 5000
# Longer than any transaction of a database that works.
COMMIT_WITHIN = 90.0


@dataclass(eq=False)
class Entry(Generic[T]):
    """One caller's write: what to write, and how it went.

    Args:
        write: What to write.
        weight: How many rows, about.
        error: Why it was not written; None when it was, once `done`.
        done: Whether it is settled.
    """

    write: T
    weight: int = 1
    error: BaseException | None = None
    done: bool = field(default=False)


class GroupCommit(Generic[T]):
    """Collects writes and commits those that have gathered while the one before was committing.

    There is no background task and no waiting for company: a caller that finds nobody at work
    commits at once, and takes along whatever is queued.

    Args:
        commit: Writes entries in one transaction and returns. It sets the `error` of an entry that
            cannot be written, for a reason of its own, and writes the others. When it raises, none
            of them was written.
    """

    def __init__(self, commit: Callable[[list[Entry[T]]], Awaitable[None]]) -> None:
        self._commit = commit
        self._queue: deque[Entry[T]] = deque()
        self._turn = anyio.Lock(fast_acquire=True)

    async def submit(self, write: T, weight: int = 1) -> None:
        """Write, and return when it is committed.

        Args:
            write: What `commit` understands.
            weight: How many rows, about.

        Raises:
            AsyncStoreError: What `commit` raised, or set as the error of this entry.

        A cancellation that comes before the transaction has begun leaves nothing written; one that
        comes later is raised at once, and the write is done with the others of its group. The
        caller whose turn it is to commit is held until the transaction has ended.
        """
        entry = Entry(write, weight)
        self._queue.append(entry)
        try:
            async with self._turn:
                if not entry.done:
                    await in_own_task(self._lead)
        except BaseException:
            if entry in self._queue:
                self._queue.remove(entry)
            raise
        if entry.error is not None:
            raise entry.error

    async def _lead(self) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        group = self._take()
        try:
            await self._settle(group)
        finally:
            for entry in group:
                entry.done = True

    def _take(self) -> list[Entry[T]]:
        group = [self._queue.popleft()]
        weight = group[0].weight
        while self._queue and weight + self._queue[0].weight <= MAX_WEIGHT:
            group.append(self._queue.popleft())
            weight += group[-1].weight
        return group

    async def _settle(self, group: list[Entry[T]]) -> None:
        try:
            await shielded(lambda: self._commit(group), within=COMMIT_WITHIN)
        except UnavailableError as error:
            for entry in group:
                entry.error = _own(error)
        except Exception as error:  # noqa: BLE001  every caller gets the error of its own entry
            if len(group) == 1:
                group[0].error = error
                return
            # Something in the group is to blame; alone, the others pass.
            for entry in group:
                entry.error = None
                await self._settle([entry])


def _own(error: UnavailableError) -> UnavailableError:
    # An error raised by several tasks would collect the tracebacks of all of them.
    own = UnavailableError(error.message, retry_after=error.retry_after)
    own.__cause__ = error.__cause__
    return own
