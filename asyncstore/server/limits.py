"""What one client may take of the server: the size and pace of a body, and requests a second."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncstore.server.refusals import header, refuse
from asyncstore.server.routing import AsgiRoute, route_of

__all__ = ["BodyLimitMiddleware", "RateLimitMiddleware"]

_CLIENTS = 10_000
_DISCONNECT = {"type": "http.disconnect"}
_CLOSE = (b"connection", b"close")


class BodyLimitMiddleware:
    """Ends requests whose body is too long, or does not come.

    To the app it looks as if the client had gone, so that nothing is kept of such a body.

    Args:
        app: What it stands before.
        max_body: Longest body that is held in memory, in bytes; None means no limit.
        max_upload: Longest artifact that is streamed to a storage, in bytes; as above.
        timeout: Seconds in which a body must be there whole; of one that is streamed, its next
            piece. None means no limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body: int | None,
        max_upload: int | None,
        timeout: float | None,
    ) -> None:
        self._app = app
        self._max_body = _limit(max_body)
        self._max_upload = _limit(max_upload)
        self._timeout = _limit(timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        streamed = _streams(scope)
        limit = self._max_upload if streamed else self._max_body
        length = header(scope, b"content-length")
        # Whoever parsed the request has seen that it is a number.
        if length is not None and int(length) > limit:
            await _refuse_length(send, limit)
            return
        if length == b"0" or (length is None and header(scope, b"transfer-encoding") is None):
            await self._app(scope, receive, send)
            return
        await _Body(receive, send, limit, self._timeout, streamed=streamed).run(self._app, scope)


def _streams(scope: Scope) -> bool:
    route = route_of(scope).route
    # What is a `Route` is JSON, which is held in memory, also of a multipart upload.
    return isinstance(route, AsgiRoute) and "artifact" in route.path


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


class _Body:
    def __init__(
        self, receive: Receive, send: Send, limit: float, timeout: float, *, streamed: bool
    ) -> None:
        self._receive, self._send = receive, send
        self._limit, self._timeout, self._streamed = limit, timeout, streamed
        self._deadline = anyio.current_time() + timeout
        self._length = 0
        self._more = True
        self._fault: str | None = None
        self._answered = False

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._next, self._forward)
        except Exception:
            # What an app raises when it believes that the client has gone.
            if self._fault is None:
                raise
        if self._fault is None or self._answered:
            return
        if self._fault == "length":
            await _refuse_length(self._send, self._limit)
        else:
            message = f"The body did not arrive within {self._timeout:g} seconds"
            await refuse(self._send, 408, "DEADLINE_EXCEEDED", message, [_CLOSE])

    async def _next(self) -> Message:
        if self._fault:
            return _DISCONNECT
        if not self._more:
            return await self._receive()
        if self._streamed:
            self._deadline = anyio.current_time() + self._timeout
        with anyio.CancelScope(deadline=self._deadline):
            message = await self._receive()
            self._more = message.get("more_body", False)
            self._length += len(message.get("body", b""))
            if self._length <= self._limit:
                return message
            self._fault = "length"
            return _DISCONNECT
        self._fault = "time"
        return _DISCONNECT

    async def _forward(self, message: Message) -> None:
        if self._fault is None or self._answered:
            self._answered = True
            await self._send(message)


async def _refuse_length(send: Send, limit: float) -> None:
    message = f"The body is longer than the {limit:.0f} bytes that this server takes"
    # The rest of it is not worth waiting for.
    await refuse(send, 413, "INVALID_PARAMETER_VALUE", message, [_CLOSE])


class RateLimitMiddleware:
    """Gives each client a number of requests a second, and as many again at once (token bucket).

    Args:
        app: What it stands before.
        rate: Requests a second for each address, in each worker process.
        clock: Seconds.
    """

    def __init__(
        self, app: ASGIApp, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._rate = rate
        # A browser that opens the UI asks a dozen things at once.
        self._burst = max(rate * 2, 20.0)
        self._clock = clock
        # What is in the bucket of a client, and since when; those that asked longest ago go first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "http":
            wait = self._take((scope.get("client") or ("",))[0])
            if wait > 0:
                retry = (b"retry-after", str(math.ceil(wait)).encode())
                message = f"More than {self._rate:g} requests a second; wait and try again"
                await refuse(send, 429, "REQUEST_LIMIT_EXCEEDED", message, [retry])
                return
        await self._app(scope, receive, send)

    def _take(self, client: str) -> float:
        """Seconds to wait; 0 when the request may go on."""
        now = self._clock()
        left, since = self._buckets.pop(client, (self._burst, now))
        left = min(left + (now - since) * self._rate, self._burst)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left), now
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate
