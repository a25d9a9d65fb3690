"""MLflow's asynchronous artifacts (`log_image(synchronous=False)`) on asyncstore's event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from os import register_at_fork

import anyio
from mlflow.utils.async_logging.run_operations import RunOperations

from asyncstore import uris
from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import AsyncStoreError, InvalidStateError
from asyncstore.mlflow_plugin.artifact_calls import shared
from asyncstore.mlflow_plugin.errors import translated
from asyncstore.mlflow_plugin.portal import get_portal

__all__ = ["AsyncArtifacts", "async_artifacts"]

_logger = logging.getLogger(__name__)

#: Artifacts that are encoded and sent at once.
AT_ONCE = 16


class AsyncArtifacts:
    """Artifacts that are sent while the caller goes on, many at once; at exit the rest of them."""

    def __init__(self) -> None:
        self.start_empty()

    def start_empty(self) -> None:
        """Forget what waits."""
        # Changed from many threads, in single operations.
        self._waiting: set[Future[None]] = set()
        self._turn: anyio.Semaphore | None = None

    def log(
        self, artifact_uri: str, name: str, action: Callable[[ArtifactRepository], Awaitable[None]]
    ) -> RunOperations:
        """Queue something and return at once.

        Args:
            artifact_uri: The root.
            name: What it is about, for a message.
            action: What to do with the repository.

        Returns:
            MLflow's handle, to wait for the outcome.

        Raises:
            InvalidStateError: The interpreter is exiting.
        """
        portal = get_portal()
        done: Future[None] = Future()
        act = shared(portal, artifact_uri, action)

        async def run() -> None:
            if self._turn is None:
                self._turn = anyio.Semaphore(AT_ONCE)
                portal.before_closing(self._finish)
            try:
                async with self._turn:
                    await act()
            except Exception as error:  # noqa: BLE001  the caller gets it
                _logger.warning("%s in %s: not logged: %s", name, uris.redact(artifact_uri), error)
                done.set_exception(
                    translated(error) if isinstance(error, AsyncStoreError) else error
                )
            except BaseException:
                done.cancel()
                raise
            else:
                done.set_result(None)

        # Before it starts, so that an exit that comes in between waits for it.
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        try:
            portal.start(run)
        except InvalidStateError:
            done.cancel()
            raise
        return RunOperations([done])

    def flush(self) -> None:
        """Wait until all that was queued is logged, or has failed."""
        wait(self._waiting.copy())

    async def _finish(self) -> None:
        while waiting := self._waiting.copy():
            await asyncio.wait([asyncio.wrap_future(each) for each in waiting])


#: Of the process, as the loop is.
async_artifacts = AsyncArtifacts()
# What waits is the parent's, which logs it.
register_at_fork(after_in_child=async_artifacts.start_empty)
