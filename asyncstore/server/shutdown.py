"""The end of a server: what is in flight finishes, or fails in a way that clients understand.

uvicorn stops listening, waits for requests as long as ASYNCSTORE_SERVER_SHUTDOWN_TIMEOUT says, and
cancels the rest without waiting for them.
"""

from __future__ import annotations

import asyncio

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncstore.server.refusals import refuse

__all__ = ["ShutdownMiddleware"]

# For what a cancelled request leaves to be cleaned up, such as a multipart upload.
CLEANUP_SECONDS = 30.0
ANSWER_SECONDS = 1.0


class ShutdownMiddleware:
    """Answers cancelled requests, and lets the app close only when the last one has ended.

    Args:
        app: What it stands before.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running = 0
        self._idle = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "lifespan":

            async def receive_when_idle() -> Message:
                message = await receive()
                if message["type"] == "lifespan.shutdown":
                    await self._wait()
                return message

            await self._app(scope, receive_when_idle, send)
            return
        answered = False

        async def watched_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        self._running += 1
        try:
            await self._app(scope, receive, watched_send)
        except asyncio.CancelledError:
            if not answered and scope["type"] == "http":
                with anyio.move_on_after(ANSWER_SECONDS, shield=True):
                    await refuse(
                        send,
                        503,
                        "TEMPORARILY_UNAVAILABLE",
                        "The server is being stopped; try again",
                        [(b"retry-after", b"1"), (b"connection", b"close")],
                    )
            raise
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _wait(self) -> None:
        with anyio.move_on_after(CLEANUP_SECONDS):
            while self._running:
                self._idle = anyio.Event()
                await self._idle.wait()
