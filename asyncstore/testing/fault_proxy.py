"""A proxy on loopback that makes the network between a client and a server slow, or breaks it.

    with FaultProxy("127.0.0.1:9000", latency=0.010) as proxy:
        proxy.faults.append(Answer(status=503, headers={"Retry-After": "1"}, every=5))
        ...  # a client on proxy.url
    assert proxy.requests[0].headers["x-amz-expected-bucket-owner"] == "123456789012"

From a shell: `python -m asyncstore.testing.fault_proxy 127.0.0.1:9000 --latency-ms 10`.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from asyncstore.testing.faults import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    Answer,
    Fault,
    Hang,
    Request,
    Reset,
    Truncate,
)
from asyncstore.testing.relay import Relay

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine, Sequence

__all__ = [
    "INTERNAL_ERROR",
    "SLOW_DOWN",
    "Answer",
    "Fault",
    "FaultProxy",
    "Hang",
    "Request",
    "Reset",
    "Truncate",
]

_HOST = "127.0.0.1"


class FaultProxy:
    """Forwards connections to `target`, and does to them what it is told.

    It runs on an event loop of its own in a thread of its own, so that any number of clients in any
    thread, event loop or process can use it, and none of its tasks shows among theirs. Everything
    may be changed while it runs.

    Attributes:
        latency: Seconds that bytes take each way. Bandwidth stays; connecting costs a round trip.
        bytes_per_second: The rate of each direction of each connection; None means no limit.
        faults: The first of these that meets a request is what happens to it.
        requests: What came, in order; stays empty unless `record` is set.
        connections: How many clients are connected now.
        connections_opened: How many have connected so far.
        requests_in_flight: How many requests wait for the end of their answer now.
        peak_requests_in_flight: The most there have been at once.
    """

    def __init__(
        self,
        target: str,
        *,
        port: int = 0,
        latency: float = 0.0,
        bytes_per_second: float | None = None,
        faults: Sequence[Fault] = (),
        http: bool = True,
        record: bool = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a proxy; `start()` or a `with` or `async with` block starts it.

        Args:
            target: The server, `host:port`.
            port: The port to listen on; 0 takes a free one.
            latency: See the attribute.
            bytes_per_second: See the attribute.
            faults: See the attribute.
            http: Whether clients speak HTTP/1.1. If not, nothing is recorded, and a fault meets a
                connection: `Reset` and `Truncate` count its bytes.
            record: Whether to keep the requests.
            ssl_context: Makes clients speak TLS with the proxy; it speaks plainly with the server.
        """
        host, _, target_port = target.rpartition(":")
        self.target = (host, int(target_port))
        self.latency = latency
        self.bytes_per_second = bytes_per_second
        self.faults = list(faults)
        self.http = http
        self.requests: list[Request] = []
        self.connections = 0
        self.connections_opened = 0
        self.peak_requests_in_flight = 0
        self._port = port
        self._record = record
        self._ssl_context = ssl_context
        self._relays: set[Relay] = set()
        self._in_flight: set[tuple[Relay, int]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._stop: asyncio.Event

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        return f"{_HOST}:{self._port}"

    @property
    def url(self) -> str:
        """Where it listens, with `http` or `https`."""
        return f"{'https' if self._ssl_context else 'http'}://{self.address}"

    @property
    def requests_in_flight(self) -> int:
        """How many requests wait for the end of their answer now."""
        return len(self._in_flight)

    def start(self) -> None:
        """Start listening.

        Raises:
            OSError: the port is taken.
        """
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="fault-proxy", daemon=True
        )
        self._thread.start()
        started.result()

    def close(self) -> None:
        """Cut every connection off and stop listening; idempotent."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._thread = self._loop = None

    def refuse_connections(self) -> None:
        """Let new connections be refused, as when the server is down; those that are open stay."""
        self._call(self._unlisten())

    def accept_connections(self) -> None:
        """Listen again on the same port."""
        self._call(self._listen())

    def reset_connections(self) -> None:
        """Reset every open connection, as when the server's machine goes down."""
        self._call(self._reset())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    # Called by the relays, on the proxy's own loop

    def opened(self, relay: Relay) -> None:
        """Count a connection."""
        self._relays.add(relay)
        self.connections += 1
        self.connections_opened += 1

    def closed(self) -> None:
        """Count a connection no more."""
        self.connections -= 1

    def gone(self, relay: Relay) -> None:
        """Forget a connection of which neither side is left."""
        self._relays.discard(relay)

    def begin(self, relay: Relay, request: Request) -> Fault | None:
        """Count a request, record it, and say which fault meets it."""
        if self.http and self._record:
            self.requests.append(request)
        self._in_flight.add((relay, id(request)))
        self.peak_requests_in_flight = max(self.peak_requests_in_flight, len(self._in_flight))
        return next((fault for fault in self.faults if fault.meets(request)), None)

    def end(self, relay: Relay, request: Request | None = None) -> None:
        """Count a request no more; None means all those of a connection that is gone."""
        if request is not None:
            self._in_flight.discard((relay, id(request)))
        else:
            self._in_flight -= {item for item in self._in_flight if item[0] is relay}

    # The thread

    async def _run(self, started: concurrent.futures.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self._listen()
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(None)
        await self._stop.wait()
        await self._unlisten()
        await self._reset()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Relay(self).client,
                _HOST,
                self._port,
                backlog=1024,
                reuse_address=True,
                ssl=self._ssl_context,
            )
            self._port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _reset(self) -> None:
        for relay in list(self._relays):
            relay.reset()
            await relay.gone.wait()

    def _call(self, coroutine: Coroutine[object, object, None]) -> None:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the proxy is not running")
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a proxy until SIGINT or SIGTERM; the first line of the output is its address."""
    parser = argparse.ArgumentParser(
        prog="python -m asyncstore.testing.fault_proxy", description=main.__doc__
    )
    parser.add_argument("target", help="the server, host:port")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0, help="milliseconds each way")
    parser.add_argument("--bytes-per-second", type=float, help="rate of each direction")
    parser.add_argument("--status", type=int, help="answer requests with this status")
    parser.add_argument("--retry-after", type=int, help="seconds in that answer's Retry-After")
    parser.add_argument("--reset-after", type=int, help="reset after so many bytes of an answer")
    parser.add_argument("--truncate-after", type=int, help="close after so many bytes of an answer")
    parser.add_argument("--every", type=int, default=1, help="do so to every n-th request")
    parser.add_argument("--first", type=int, help="do so only among the first n requests")
    parser.add_argument("--raw", action="store_true", help="do not read the bytes as HTTP")
    options = parser.parse_args(arguments)
    faults: list[Fault] = []
    when = {"every": options.every, "first": options.first}
    if options.status is not None:
        headers = {} if options.retry_after is None else {"Retry-After": str(options.retry_after)}
        faults.append(Answer(status=options.status, headers=headers, **when))
    if options.reset_after is not None:
        faults.append(Reset(after=options.reset_after, **when))
    if options.truncate_after is not None:
        faults.append(Truncate(after=options.truncate_after, **when))
    proxy = FaultProxy(
        options.target,
        port=options.port,
        latency=options.latency_ms / 1000,
        bytes_per_second=options.bytes_per_second,
        faults=faults,
        http=not options.raw,
        record=False,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with proxy:
        sys.stdout.write(f"{proxy.address}\n")
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        stop.wait()


if __name__ == "__main__":
    main()
