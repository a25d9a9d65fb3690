"""A training loop that never waits for its logging.

    python examples/training_loop.py

Metrics go into a bounded queue, and a task in the background sends them in batches. When the block
ends, the queue is flushed and whatever went wrong in the background is raised. The loop itself is
never slowed down, and never killed, by a slow or broken database.

If every point must be stored before training goes on, await `run.log_metrics` instead: asyncstore
is fast enough for that in most loops.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import numpy as np

import asyncstore
from asyncstore.entities import Metric
from asyncstore.errors import AsyncStoreError

BATCH = 500  # MLflow takes at most 1,000 metrics a batch
FLUSH_WITHIN = 30.0  # seconds, also when the training is cancelled


class BackgroundLog:
    """Metrics on their way to a run."""

    def __init__(self, run: asyncstore.ActiveRun, capacity: int) -> None:
        self._run = run
        self._points, self._arrivals = anyio.create_memory_object_stream[Metric](capacity)
        self._scope = anyio.CancelScope(shield=True)
        self._errors: list[Exception] = []
        self._dropped = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics; returns at once. What does not fit is counted and reported at the end."""
        now = time.time_ns() // 1_000_000
        for key, value in metrics.items():
            try:
                self._points.send_nowait(Metric(key, float(value), now, step))
            except anyio.WouldBlock:
                self._dropped += 1

    async def send(self) -> None:
        """Send until the queue is closed and empty."""
        with self._scope, self._arrivals:
            async for first in self._arrivals:
                batch = [first]
                while len(batch) < BATCH:
                    try:
                        batch.append(self._arrivals.receive_nowait())
                    except (anyio.WouldBlock, anyio.EndOfStream):
                        break
                try:
                    await self._run.log_batch(metrics=batch)
                except AsyncStoreError as error:
                    # Kept for the end of the run; the loop goes on.
                    self._errors.append(error)

    def close(self) -> None:
        """Take no more; what is queued has `FLUSH_WITHIN` seconds left."""
        self._points.close()
        self._scope.deadline = anyio.current_time() + FLUSH_WITHIN

    def raise_problems(self) -> None:
        """Raise everything that went wrong, in one group."""
        problems = list(self._errors)
        if self._dropped:
            problems.append(BufferError(f"{self._dropped} metric values did not fit in the queue"))
        if self._scope.cancelled_caught:
            problems.append(TimeoutError(f"the queue was not sent within {FLUSH_WITHIN:g} s"))
        if problems:
            raise ExceptionGroup("logging in the background failed", problems)


@asynccontextmanager
async def background_log(
    run: asyncstore.ActiveRun, capacity: int = 10_000
) -> AsyncGenerator[BackgroundLog]:
    """Log to a run in the background for the block.

    Args:
        run: The run.
        capacity: Metric values that may wait.

    Yields:
        The queue.

    Raises:
        ExceptionGroup: Something went wrong in the background; the training had ended by then.
    """
    log = BackgroundLog(run, capacity)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.send)
        try:
            yield log
        except Exception as error:  # noqa: BLE001  raised below, as itself
            failure = error
        finally:
            log.close()
    if failure is not None:
        raise failure
    log.raise_problems()


class Regression:
    """Something to train: the slope of a noisy line."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        self._x = random.normal(size=1000)
        self._y = 3 * self._x + random.normal(scale=0.1, size=1000)
        self.slope = 0.0

    def step(self) -> dict[str, float]:
        """One step of gradient descent. Blocks."""
        difference = self.slope * self._x - self._y
        self.slope -= 0.05 * float((difference * self._x).mean())
        return {"loss": float((difference**2).mean()), "slope": self.slope}


async def train(run: asyncstore.ActiveRun, steps: int) -> Regression:
    """Train, and log every step without waiting for it."""
    model = Regression()
    async with background_log(run) as log:
        for step in range(steps):
            log.log_metrics(await anyio.to_thread.run_sync(model.step), step)
    return model


async def main(steps: int = 500) -> str:
    """Train in a run; returns its id."""
    async with (
        asyncstore.Client() as client,
        client.start_run(experiment_name="training loop") as run,
    ):
        model = await train(run, steps)
        await run.log_param("steps", steps)
        await run.log_text(f"{model.slope}\n", "slope.txt")
        return run.run_id


if __name__ == "__main__":
    print(anyio.run(main))
