"""MLflow's asynchronous logging (`log_metric_async` and its like) on asyncstore's event loop."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from os import register_at_fork
from typing import NamedTuple

import anyio
from mlflow.utils.async_logging.run_operations import RunOperations

from asyncstore.concurrency import task_group
from asyncstore.entities import Metric, Param
from asyncstore.errors import AsyncStoreError, InvalidStateError
from asyncstore.mlflow_plugin.errors import translated
from asyncstore.mlflow_plugin.portal import get_portal

__all__ = ["AsyncLogging"]

_logger = logging.getLogger(__name__)

# A batch of MLflow's `log_batch` may have this many metrics, params and tags, and of all together.
_LIMITS: tuple[int, ...] = (1000, 100, 100, 1000)

LogBatch = Callable[[str, list[Metric], list[Param], dict[str, str]], Awaitable[None]]


class _Call(NamedTuple):
    """What one call logs."""

    run_id: str
    metrics: list[Metric]
    params: list[Param]
    tags: dict[str, str]
    done: Future[None]


class AsyncLogging:
    """A queue that one task on the portal's loop empties, in order for each run.

    What waits is logged together, in batches as large as MLflow's `log_batch` takes. When such a
    batch is refused, its calls are made one by one, so that each has its own result.

    Args:
        log_batch: Logs a batch; awaited on the portal's loop.
    """

    def __init__(self, log_batch: LogBatch) -> None:
        self._log_batch = log_batch
        self._start_empty()
        _all.add(self)

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._used = False
        self._draining: anyio.Lock | None = None

    def log(
        self, run_id: str, metrics: list[Metric], params: list[Param], tags: dict[str, str]
    ) -> RunOperations:
        """Queue a batch and return at once.

        Args:
            run_id: The run.
            metrics: Values of metrics.
            params: Parameters.
            tags: Tags.

        Returns:
            MLflow's handle, to wait for the outcome.

        Raises:
            InvalidStateError: The interpreter is exiting.
        """
        done: Future[None] = Future()
        with self._lock:
            self._waiting.append(_Call(run_id, metrics, params, tags, done))
            first = len(self._waiting) == 1
            self._used = True
        if first:
            try:
                get_portal().start(self._drain)
            except InvalidStateError as error:
                self._give_up(error)
                raise
        return RunOperations([done])

    def _give_up(self, error: InvalidStateError) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            _logger.warning("run %s: not logged: %s", call.run_id, error)
            call.done.set_exception(translated(error))

    def flush(self) -> None:
        """Wait until all that was queued is logged, or has failed."""
        with self._lock:
            if not self._used:
                return
        get_portal().call(self._drain)

    async def _drain(self) -> None:
        if self._draining is None:
            self._draining = anyio.Lock()
            get_portal().before_closing(self._drain)
        # Who is interrupted while it waits ends the waiting and not the logging, which the exit of
        # the interpreter bounds.
        with anyio.CancelScope(shield=True):
            await self._drain_in_turn(self._draining)

    async def _drain_in_turn(self, turn: anyio.Lock) -> None:
        async with turn:
            while True:
                with self._lock:
                    taken, self._waiting = self._waiting, []
                if not taken:
                    return
                await self._log_all(taken)

    async def _log_all(self, calls: Sequence[_Call]) -> None:
        by_run: dict[str, list[_Call]] = {}
        for call in calls:
            by_run.setdefault(call.run_id, []).append(call)
        async with task_group() as tasks:
            for of_run in by_run.values():
                tasks.start_soon(self._log_in_order, of_run)

    async def _log_in_order(self, calls: Sequence[_Call]) -> None:
        for batch in _batches(calls):
            await self._log(batch)

    async def _log(self, batch: Sequence[_Call]) -> None:
        run_id = batch[0].run_id
        metrics = [metric for call in batch for metric in call.metrics]
        params = [param for call in batch for param in call.params]
        tags = {key: value for call in batch for key, value in call.tags.items()}
        try:
            await self._log_batch(run_id, metrics, params, tags)
        except Exception as error:  # noqa: BLE001  each caller gets it, and the others go on
            if len(batch) > 1:
                for call in batch:
                    await self._log([call])
                return
            _logger.warning("run %s: not logged: %s", run_id, error)
            batch[0].done.set_exception(
                translated(error) if isinstance(error, AsyncStoreError) else error
            )
        except BaseException:
            for call in batch:
                call.done.cancel()
            raise
        else:
            for call in batch:
                call.done.set_result(None)


def _batches(calls: Sequence[_Call]) -> Iterator[list[_Call]]:
    """Neighbours together, as many as fit. A call that is too large stays alone."""
    batch: list[_Call] = []
    room = _LIMITS
    for call in calls:
        counts = (len(call.metrics), len(call.params), len(call.tags))
        sizes = (*counts, sum(counts))
        left = tuple(free - size for free, size in zip(room, sizes, strict=True))
        if batch and min(left) < 0:
            yield batch
            batch, left = [], tuple(free - n for free, n in zip(_LIMITS, sizes, strict=True))
        batch.append(call)
        room = left
    if batch:
        yield batch


_all: weakref.WeakSet[AsyncLogging] = weakref.WeakSet()


def _after_fork() -> None:
    # What waits is the parent's, which logs it; the child's would log it twice.
    for each in _all:
        each._start_empty()  # noqa: SLF001  of this module


register_at_fork(after_in_child=_after_fork)
