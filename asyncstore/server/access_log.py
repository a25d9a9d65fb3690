"""The access log: a line of JSON for each answer, written off the event loop.

No line has a query string, a header or a body: tokens and passwords travel in those.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from datetime import UTC, datetime
from typing import IO

import anyio.to_thread
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AccessLogMiddleware", "LineWriter"]

logger = logging.getLogger(__name__)
# A line is about 200 bytes; more of them mean that nobody reads the log.
MAX_WAITING = 20_000
MAX_PATH = 1000
GATHERING_SECONDS = 0.1
# POSIX: PIPE_BUF is 4096 on Linux, and 512 at least.
MAX_BLOCK = 4096 if sys.platform == "linux" else 512


class LineWriter:
    """Writes lines in a thread of its own, so that a slow reader of the log holds up no request.

    Args:
        file: Where lines go; None takes standard output. Lines that it does not take are dropped,
            and counted in the next one.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file = sys.stdout if file is None else file
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._dropped = 0

    def write(self, line: str) -> None:
        """Hand a line over; never waits."""
        if self._lines.qsize() >= MAX_WAITING:
            self._dropped += 1
            return
        if self._dropped:
            self._lines.put(json.dumps({"dropped": self._dropped}))
            self._dropped = 0
        self._lines.put(line)
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits. Blocks, `timeout` seconds at most; a later line starts anew."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._lines.put(None)
            self._closing.set()
            thread.join(timeout)

    def _run(self) -> None:
        try:
            while self._write_what_waits(self._lines.get()):
                pass
        except (OSError, ValueError) as error:
            logger.error("the access log cannot be written: %s", error)  # noqa: TRY400  the error says it all

    def _write_what_waits(self, line: str | None) -> bool:
        if line is not None:
            # A thread that woke for each line would take turns from the event loop.
            self._closing.wait(GATHERING_SECONDS)
        block: list[str] = []
        size = 0
        while line is not None:
            # Short writes of several workers to one pipe do not mix.
            if block and size + len(line) >= MAX_BLOCK:
                self._write(block)
                block, size = [], 0
            block.append(line)
            size += len(line) + 1
            if self._lines.empty():
                self._write(block)
                return True
            line = self._lines.get()
        if block:
            self._write(block)
        return False

    def _write(self, block: list[str]) -> None:
        self._file.write("\n".join(block) + "\n")
        self._file.flush()


class AccessLogMiddleware:
    """Logs every request when its answer has ended, or was given up.

    Args:
        app: What it stands before.
        writer: Takes the lines; None writes to standard output.
    """

    def __init__(self, app: ASGIApp, writer: LineWriter | None = None) -> None:
        self._app = app
        self._writer = writer or LineWriter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "lifespan":

            async def flushing_send(message: Message) -> None:
                if message["type"].startswith("lifespan.shutdown."):
                    await anyio.to_thread.run_sync(self._writer.close)
                await send(message)

            await self._app(scope, receive, flushing_send)
            return
        began, clock = datetime.now(UTC), time.perf_counter()
        status: int | None = None
        sent = received = 0
        complete = False

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent, complete
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
                complete = not message.get("more_body", False)

        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            user = scope.get("user")
            client = scope.get("client")
            entry = {
                "time": began.isoformat(timespec="milliseconds"),
                "client": client[0] if client else None,
                "user": getattr(user, "name", None),
                "method": scope["method"],
                "path": scope["path"][:MAX_PATH],
                # None when the client got no answer.
                "status": status,
                "complete": complete,
                "duration_ms": round((time.perf_counter() - clock) * 1000, 1),
                "bytes_received": received,
                "bytes_sent": sent,
            }
            self._writer.write(msgspec.json.encode(entry).decode())
