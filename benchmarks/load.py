"""A load on an HTTP server: some connections, each with one request after the other.

Written by hand on asyncio's streams, since the client must cost less than the server that is
measured: a request takes it about a tenth of a millisecond.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Connection", "Request", "drive", "json_request"]


class Request(NamedTuple):
    """A request, ready to be sent."""

    head: bytes
    body: bytes = b""


def json_request(method: str, url: str, content: object = None) -> Request:
    """A request with a JSON body, or with none."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    body = b"" if content is None else json.dumps(content).encode()
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return Request("\r\n".join([*lines, "", ""]).encode(), body)


class Connection:
    """One connection that is kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, request: Request) -> bytes:
        """Send a request; returns the body of the answer, which must be a success."""
        self._writer.write(request.head + request.body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        body = await self._body(head)
        if head.split(b" ", 2)[1] not in (b"200", b"204"):
            raise RuntimeError(f"{request.head[:60]!r}: {head[:60]!r} {body[:300]!r}")
        return body

    async def _body(self, head: bytes) -> bytes:
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if found:
            return await self._reader.readexactly(int(rest.partition(b"\r\n")[0]))
        pieces = []
        while b"\r\ntransfer-encoding: chunked" in head:
            size = int((await self._reader.readline()).split(b";")[0], 16)
            pieces.append((await self._reader.readexactly(size + 2))[:-2])
            if not size:
                break
        return b"".join(pieces)


async def drive(
    connections: Iterable[Connection], requests: Callable[[int], Request], count: int
) -> dict[str, float]:
    """Send requests, each by the next connection that is free.

    Args:
        connections: Open ones.
        requests: Makes the request of a number.
        count: How many.

    Returns:
        The 99th percentile of the time of a request, in milliseconds.
    """
    numbers = iter(range(count))
    times: list[float] = []

    async def one_after_the_other(connection: Connection) -> None:
        for number in numbers:
            request = requests(number)
            start = time.perf_counter()
            await connection.send(request)
            times.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as tasks:
        for connection in connections:
            tasks.create_task(one_after_the_other(connection))
    return {"p99_ms": sorted(times)[int(len(times) * 0.99)] * 1000}
