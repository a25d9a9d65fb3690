"""When to try again, and how long to wait first."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from asyncstore.errors import UnavailableError

__all__ = ["RetryPolicy"]

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    Args:
        attempts: How often to try at most, the first time included.
        backoff: The first wait, in seconds; doubles with every attempt.
        max_backoff: Upper bound of any wait, in seconds; also of what a Retry-After can ask.
        jitter: Up to how many seconds are added to a wait at random; None draws each wait from the
            upper half of what it would be.
    """

    attempts: int = 6
    backoff: float = 0.2
    max_backoff: float = 20.0
    jitter: float | None = None

    def wait(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1).

        Args:
            attempt: The attempt that failed.
            retry_after: What the server asked for, in seconds; None when it did not.
        """
        ceiling = min(self.max_backoff, self.backoff * 2 ** (attempt - 1))
        if self.jitter is None:
            jittered = random.uniform(ceiling / 2, ceiling)  # noqa: S311  not a secret
        else:
            jittered = ceiling + random.uniform(0, self.jitter)  # noqa: S311  not a secret
        return min(self.max_backoff, max(jittered, retry_after or 0))

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await `call`, again while it raises `UnavailableError` and attempts are left.

        Args:
            call: Makes a fresh awaitable for each attempt; must be safe to repeat.

        Returns:
            What the first successful attempt returned.

        Raises:
            UnavailableError: The last attempt failed too.
        """
        attempt = 1
        while True:
            try:
                return await call()
            except UnavailableError as error:
                if attempt >= self.attempts:
                    raise
                wait = self.wait(attempt, error.retry_after)
            await anyio.sleep(wait)
            attempt += 1
