"""The way from synchronous code to asyncstore: one event loop in a background thread.

A process has one portal, made when it is first needed. It may be used from any thread, also from
inside a running event loop, which waits meanwhile as for any synchronous call. A child that was
forked gets a portal of its own; what the parent's had open stays the parent's.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from asyncstore.client import Client
from asyncstore.concurrency import task_group
from asyncstore.errors import InvalidStateError

__all__ = ["Portal", "get_portal"]

T = TypeVar("T")
_logger = logging.getLogger(__name__)

#: Seconds that the exit of the interpreter waits for what is under way.
EXIT_WITHIN = 60.0
#: Clients of artifacts that are kept open, each for other variables.
ARTIFACT_CLIENTS = 4


class _ArtifactClient:
    """A client, and how many calls use it now."""

    def __init__(self) -> None:
        self.client = Client()
        self.calls = 0


class Portal:
    """A background event loop, and the clients that live on it. Made by `get_portal`."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str | None, str | None], Client] = {}
        # The one used last is last. On the loop only.
        self._artifact_clients: dict[str, _ArtifactClient] = {}
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._closed = True
        self._ended = threading.Event()

    def open(self) -> None:
        """Start the loop."""
        started: Future[BlockingPortal] = Future()
        # A daemon, so that a call that hangs cannot keep the interpreter from exiting for ever.
        self._thread = threading.Thread(
            target=anyio.run, args=(self._serve, started), name="asyncstore-portal", daemon=True
        )
        self._thread.start()
        self._blocking = started.result()
        self._closed = False

    async def _serve(self, started: Future[BlockingPortal]) -> None:
        try:
            async with BlockingPortal() as blocking:
                started.set_result(blocking)
                await blocking.sleep_until_stopped()
        finally:
            self._ended.set()

    @property
    def closed(self) -> bool:
        """Whether the interpreter is exiting; then nothing can be called any more."""
        return self._closed

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine function on the portal's loop and wait for it.

        Args:
            function: Called on the loop without arguments.

        Returns:
            What it returns.

        Raises:
            InvalidStateError: The caller is on the portal's own loop, where waiting would be for
                ever, or the interpreter is exiting.

        An interrupt (KeyboardInterrupt) cancels the call, whose cleanup goes on in the background
        and is waited for at exit.
        """
        future = self.start(function)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, function: Callable[[], Awaitable[T]]) -> Future[T]:
        """Start a coroutine function on the portal's loop and do not wait.

        Args:
            function: Called on the loop without arguments.

        Returns:
            Its future; cancelling the future cancels the call.

        Raises:
            InvalidStateError: As for `call`.
        """
        if self._closed:
            raise InvalidStateError("asyncstore is closed: the interpreter is exiting")
        if self._thread is threading.current_thread():
            raise InvalidStateError(
                "a synchronous call from asyncstore's own event loop would wait for itself; await "
                "asyncstore.Client there"
            )
        return self._blocking.start_task_soon(function)

    def client(self, tracking_uri: str | None, artifact_location: str | None) -> Client:
        """The client of a database, one for the process.

        Args:
            tracking_uri: As for `Client`.
            artifact_location: As for `Client`.
        """
        # One operation on a dictionary, so that threads need no lock; opening comes later.
        return self._clients.setdefault(
            (tracking_uri, artifact_location),
            Client(tracking_uri, artifact_location=artifact_location),
        )

    @asynccontextmanager
    async def artifact_client(self, environment: str) -> AsyncIterator[Client]:
        """The client that opens artifacts as the process's variables say; on the loop.

        Those of variables that have changed since are closed, but for the last few, when no call
        uses them any more.

        Args:
            environment: Tells the variables apart; see `settings.storage_environment`.
        """
        used = self._artifact_clients.pop(environment, None) or _ArtifactClient()
        self._artifact_clients[environment] = used
        used.calls += 1
        try:
            yield used.client
        finally:
            used.calls -= 1
            idle = [key for key, each in self._artifact_clients.items() if not each.calls]
            for key in idle[: max(0, len(self._artifact_clients) - ARTIFACT_CLIENTS)]:
                await self._finish(self._artifact_clients.pop(key).client.aclose)

    def before_closing(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Have something awaited on the loop before the clients are closed at exit.

        Args:
            finish: Called without arguments, once.
        """
        self._closing.append(finish)

    def close(self) -> None:
        """Finish what is under way, close every client and end the loop. Bounded at 60 s."""
        if self._closed:
            return
        closing = self._blocking.start_task_soon(self._close)
        self._closed = True
        try:
            closing.result(EXIT_WITHIN)
        except TimeoutError:
            _logger.warning("asyncstore was not done within %g s of the exit", EXIT_WITHIN)
        except Exception:
            _logger.exception("asyncstore could not finish at the exit")
        self._blocking.start_task_soon(self._blocking.stop, True)
        self._ended.wait(EXIT_WITHIN)

    async def _close(self) -> None:
        for finish in self._closing:
            await self._finish(finish)
        of_artifacts = [each.client for each in self._artifact_clients.values()]
        async with task_group() as tasks:
            for client in (*self._clients.values(), *of_artifacts):
                tasks.start_soon(self._finish, client.aclose)

    async def _finish(self, finish: Callable[[], Awaitable[None]]) -> None:
        try:
            await finish()
        except Exception:
            # What comes after it must not be lost with it.
            _logger.exception("asyncstore could not finish")


_lock = threading.Lock()
_portal: Portal | None = None
_exiting = False
# What a forked child has of its parent: dropping it would end connections that the parent uses.
_of_the_parent: list[Portal] = []


def get_portal() -> Portal:
    """The portal of this process, started if need be; a closed one while the interpreter exits."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            if not _exiting:
                _portal.open()
        return _portal


def _close() -> None:
    global _exiting
    _exiting = True
    if _portal is not None:
        _portal.close()


def _after_fork() -> None:
    global _portal, _lock
    _lock = threading.Lock()
    if _portal is not None:
        _of_the_parent.append(_portal)
        _portal = None


os.register_at_fork(after_in_child=_after_fork)
# Functions of `atexit` run when no thread can be started any more, and after the executors that
# name resolution needs have ended; concurrent.futures closes itself through this one too.
threading._register_atexit(_close)  # type: ignore[attr-defined]  # noqa: SLF001  not public
