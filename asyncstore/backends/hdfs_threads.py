"""Calls of a library that blocks and cannot be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from asyncstore.concurrency import task_group

__all__ = ["Threads"]

T = TypeVar("T")
GRACE = 5.0


class Threads:
    """Worker threads that a cancellation waits for, but not for ever.

    Args:
        size: How many calls at once.
        grace: Seconds that a cancelled call may take to end. Then it is left to itself: a machine
            that hangs must not hold up who goes away.
    """

    def __init__(self, size: int, grace: float = GRACE) -> None:
        self._limiter = anyio.CapacityLimiter(size)
        self._grace = grace

    async def run(self, call: Callable[[], T]) -> T:
        """Call in a thread.

        Args:
            call: The call.

        Returns:
            What it returns.

        A cancellation comes out when the call has ended, or after the grace.
        """
        results: list[T] = []
        async with task_group() as tasks:
            with anyio.CancelScope(shield=True) as shield:
                tasks.start_soon(self._watch, shield)
                results.append(
                    await anyio.to_thread.run_sync(
                        call, abandon_on_cancel=True, limiter=self._limiter
                    )
                )
            tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()
        return results[0]

    async def _watch(self, shield: anyio.CancelScope) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            shield.deadline = anyio.current_time() + self._grace
