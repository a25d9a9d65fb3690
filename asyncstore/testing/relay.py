"""One connection through the fault proxy: two endpoints, and a pipe in each direction."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

from asyncstore.testing.faults import Answer, Fault, Hang, Request, Reset, Truncate
from asyncstore.testing.framing import Framer, Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncstore.testing.fault_proxy import FaultProxy

# Bytes on their way in one direction: more than latency times bandwidth of any loopback test.
_MAX_IN_FLIGHT = 32 * 2**20
_WRITE_BUFFER = 2**20
# With a limited rate bytes leave in slices of this many seconds.
_SLICE_SECONDS = 0.02
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


Event: TypeAlias = "Head | bytes | None"


class _Pipe:
    """Bytes on their way to one endpoint: late by the latency, no faster than the rate."""

    def __init__(self, proxy: FaultProxy, source: _Endpoint, target: _Endpoint) -> None:
        self._proxy = proxy
        self._source = source
        self._target = target
        self._queue: deque[tuple[float, bytes | Callable[[], None]]] = deque()
        self._queued = 0
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._blocked = False

    def hold_until(self, when: float) -> None:
        """Let nothing depart before this moment of the loop's clock."""
        self._free_at = when

    def send(self, data: bytes) -> None:
        if not data:
            return
        latency, rate = self._proxy.latency, self._proxy.bytes_per_second
        if not latency and not rate and not self._queue:
            self._target.write(data)
            return
        departure = max(asyncio.get_running_loop().time(), self._free_at)
        if not rate:
            self._put(departure + latency, data)
        else:
            size = max(1, int(rate * _SLICE_SECONDS))
            for start in range(0, len(data), size):
                piece = data[start : start + size]
                departure += len(piece) / rate
                self._put(departure + latency, piece)
            self._free_at = departure
        self._arrange()

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when all that was sent has arrived, a latency later."""
        departure = max(asyncio.get_running_loop().time(), self._free_at)
        if not self._queue and not self._proxy.latency:
            action()
            return
        self._put(departure + self._proxy.latency, action)
        self._arrange()

    def block(self, blocked: bool) -> None:
        """The target's socket takes no more, or does again."""
        self._blocked = blocked
        self._arrange()

    def discard(self) -> None:
        """Forget what is on its way."""
        self._queue.clear()
        self._queued = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, due: float, item: bytes | Callable[[], None]) -> None:
        if self._queue:
            # The latency may have been lowered meanwhile; the order stays.
            due = max(due, self._queue[-1][0])
        self._queue.append((due, item))
        if isinstance(item, bytes):
            self._queued += len(item)

    def _arrange(self) -> None:
        if self._queue and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._queue[0][0], self._deliver)
        rate = self._proxy.bytes_per_second
        limit = 2**16 + rate * self._proxy.latency if rate else _MAX_IN_FLIGHT
        full = self._blocked or self._queued > limit
        if full != self._full:
            self._full = full
            self._source.pause(full)

    def _deliver(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0][0] <= now:
            _, item = self._queue.popleft()
            if isinstance(item, bytes):
                self._queued -= len(item)
                self._target.write(item)
            else:
                item()
        self._arrange()


class _Endpoint(asyncio.Protocol):
    """One of the two sockets of a connection."""

    def __init__(self, on_data: Callable[[bytes], None]) -> None:
        self._on_data = on_data
        self.on_lost: Callable[[bool], None]
        self.on_made: Callable[[], None] = lambda: None
        self.incoming: _Pipe
        self._transport: asyncio.Transport | None = None

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        self.on_made()

    def data_received(self, data: bytes) -> None:
        self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.on_lost(exc is not None)

    def pause_writing(self) -> None:
        self.incoming.block(True)

    def resume_writing(self) -> None:
        self.incoming.block(False)

    def pause(self, paused: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is None:
            return
        with contextlib.suppress(OSError):
            # No lingering: closing sends RST.
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self._transport.abort()


@dataclass(slots=True)
class _Exchange:
    """A request on its way, and the fault that meets it."""

    request: Request
    fault: Fault | None
    # Whether the server's last answer to it has begun, after those like 100 Continue.
    final: bool = False
    _passed: int = 0

    @property
    def swallowed(self) -> bool:
        """Whether the server never sees the request."""
        if isinstance(self.fault, Answer):
            return not self.fault.forward
        return isinstance(self.fault, Hang)

    def breaks_off(self, event: Event, after: int, passing: list[bytes]) -> bool:
        """Let pass what may pass of a message that breaks off after so many bytes of its body."""
        if isinstance(event, bytes):
            piece = event[: after - self._passed]
            self._passed += len(piece)
            passing.append(piece)
        elif event is not None and after:
            passing.append(event.raw)
        return self._passed >= after


class Relay:
    """A client's connection and ours to the server."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        http = proxy.http
        self._receive = self._from_client if http else self._raw_from_client
        # What the client said before the server was there: some Pythons (3.11.2) read on although
        # `connection_made` paused them.
        self._early: list[bytes] = []
        self.client = _Endpoint(self._client_said)
        self._server = _Endpoint(self._from_server if http else self._raw_from_server)
        self._to_server = _Pipe(proxy, self.client, self._server)
        self._to_client = _Pipe(proxy, self._server, self.client)
        self._server.incoming, self.client.incoming = self._to_server, self._to_client
        self.client.on_made = self._connect
        self.client.on_lost = self._client_lost
        self._server.on_lost = self._server_lost
        self.gone = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._requests = Framer()
        self._responses = Framer(has_body=self._response_has_body, until_close=True)
        # The request that is being sent, and those that the server owes an answer.
        self._current: _Exchange | None = None
        self._pending: deque[_Exchange] = deque()

    # The life of the connection

    def _connect(self) -> None:
        self._proxy.opened(self)
        self.client.pause(True)
        loop = asyncio.get_running_loop()
        # A handshake costs a round trip, before which a client could not have sent anything.
        self._to_server.hold_until(loop.time() + 2 * self._proxy.latency)
        self._connecting = loop.create_task(self._connect_to_server())

    async def _connect_to_server(self) -> None:
        host, port = self._proxy.target
        try:
            await asyncio.get_running_loop().create_connection(lambda: self._server, host, port)
        except OSError:
            self.client.reset()
            return
        finally:
            self._connecting = None
            self._check_gone()
        if not self._proxy.http:
            request = Request()
            self._current = _Exchange(request, self._proxy.begin(self, request))
            self._current.final = True
            self._pending.append(self._current)
        early, self._early = self._early, []
        for data in early:
            self._receive(data)
        self.client.pause(False)

    def reset(self) -> None:
        """Cut both sides off, at once."""
        self._to_client.discard()
        self._to_server.discard()
        self.client.reset()
        self._server.reset()

    def _client_lost(self, broken: bool) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        self._proxy.closed()
        self._to_client.discard()
        self._proxy.end(self)
        self._to_server.then(self._server.reset if broken else self._server.close)
        self._check_gone()

    def _server_lost(self, broken: bool) -> None:
        self._to_server.discard()
        self._to_client.then(self.client.reset if broken else self.client.close)
        self._check_gone()

    def _check_gone(self) -> None:
        if self._connecting is None and not self.client.connected and not self._server.connected:
            self.gone.set()
            self._proxy.gone(self)

    def _client_said(self, data: bytes) -> None:
        if self._connecting is None:
            self._receive(data)
        else:
            self._early.append(data)

    # HTTP

    def _from_client(self, data: bytes) -> None:
        passing: list[bytes] = []
        try:
            for event in self._requests.feed(data):
                self._request_event(event, passing)
        except ValueError:
            self.reset()
            return
        self._to_server.send(b"".join(passing))

    def _request_event(self, event: Event, passing: list[bytes]) -> None:
        if isinstance(event, Head):
            self._current = self._begin(event)
        exchange = self._current
        if exchange is None:
            return
        fault = exchange.fault
        if isinstance(fault, Reset) and fault.of == "request":
            if exchange.breaks_off(event, fault.after, passing):
                self._to_server.send(b"".join(passing))
                self._to_server.then(self.reset)
                passing.clear()
                self._current = None
        elif not exchange.swallowed:
            passing.append(_wire(event))
        elif isinstance(fault, Answer) and event is None:
            exchange.request.status = fault.status
            self._to_client.send(fault.encode(exchange.request))
            self._proxy.end(self, exchange.request)

    def _begin(self, head: Head) -> _Exchange:
        method, target, _ = head.start
        path, _, query = target.partition("?")
        request = Request(method, path, query, head.headers)
        exchange = _Exchange(request, self._proxy.begin(self, request))
        if not exchange.swallowed:
            self._pending.append(exchange)
        elif isinstance(exchange.fault, Answer) and "expect" in head.headers:
            self._to_client.send(_CONTINUE)
        return exchange

    def _from_server(self, data: bytes) -> None:
        passing: list[bytes] = []
        try:
            for event in self._responses.feed(data):
                if self._response_event(event, passing):
                    break
        except ValueError:
            self.reset()
            return
        self._to_client.send(b"".join(passing))

    def _response_event(self, event: Event, passing: list[bytes]) -> bool:
        """Let a part of an answer pass, or not; True when the connection breaks off."""
        if not self._pending:
            # An answer without a request, 408 for instance: the server is about to close.
            passing.append(_wire(event))
            return False
        exchange = self._pending[0]
        fault = exchange.fault
        if isinstance(event, Head):
            exchange.final = not _is_interim(event)
            if exchange.final:
                exchange.request.status = int(event.start[1])
        if not exchange.final:
            passing.append(_wire(event))
            return False
        if isinstance(fault, Answer):
            if event is None:
                exchange.request.status = fault.status
                passing.append(fault.encode(exchange.request))
        elif isinstance(fault, Truncate) or (isinstance(fault, Reset) and fault.of == "response"):
            if exchange.breaks_off(event, fault.after, passing):
                self._to_client.send(b"".join(passing))
                passing.clear()
                self._break_off(fault)
                return True
        else:
            passing.append(_wire(event))
        if event is None:
            self._pending.popleft()
            self._proxy.end(self, exchange.request)
        return False

    def _response_has_body(self, head: Head) -> bool:
        if _is_interim(head) or head.start[1] in ("204", "304"):
            return False
        return not (self._pending and self._pending[0].request.method == "HEAD")

    def _break_off(self, fault: Reset | Truncate) -> None:
        """End the client's connection once it has all that may pass; the server's ends at once."""
        self._server.on_lost = lambda _: self._check_gone()
        self._server.reset()
        self._to_client.then(
            self.client.close if isinstance(fault, Truncate) else self.client.reset
        )

    # Anything else

    def _raw_from_client(self, data: bytes) -> None:
        passing: list[bytes] = []
        self._request_event(data, passing)
        self._to_server.send(b"".join(passing))

    def _raw_from_server(self, data: bytes) -> None:
        passing: list[bytes] = []
        self._response_event(data, passing)
        self._to_client.send(b"".join(passing))


def _wire(event: Event) -> bytes:
    return event.raw if isinstance(event, Head) else event or b""


def _is_interim(head: Head) -> bool:
    return head.start[1].startswith("1") and head.start[1] != "101"
