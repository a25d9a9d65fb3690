"""From a request to its handler, and from what that returns or raises to the answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import anyio
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    InvalidStateError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.rest.errors import error_to_json
from asyncstore.server.decoding import Decoding
from asyncstore.server.refusals import header
from asyncstore.server.routing import AsgiRoute, Route, Routes, route_of
from asyncstore.server.state import Server
from asyncstore.server.unsupported import is_unsupported

__all__ = ["Endpoint"]

logger = logging.getLogger(__name__)
_ENCODER = msgspec.json.Encoder()
_JSON = (b"content-type", b"application/json")
_API = ("/api/", "/ajax-api/")
# Messages quote what was sent.
LONGEST_MESSAGE = 4000
Answer = tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]


class _ClientGone(Exception):
    """The client hung up before its request was there."""


class Endpoint:
    """Answers the requests of the table, and leaves the others to what stands behind.

    Args:
        app: What stands behind.
        server: What handlers work on.
        routes: The table.
    """

    def __init__(self, app: ASGIApp, server: Server, routes: Routes) -> None:
        self._app = app
        self._server = server
        self._decodings = {
            route: Decoding(route.request) for route in routes if isinstance(route, Route)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = route_of(scope)
        match found.route:
            case Route() as route:
                await self._json(route, scope, receive, send)
            case AsgiRoute() as route:
                await self._asgi(route, scope, receive, send)
            case _ if is_unsupported(self._path(scope)):
                message = f"asyncstore's server does not do {scope['method']} {scope['path']}"
                await _send(send, *_of_error(UnsupportedError(message), scope))
            case _ if found.methods:
                await _no_such_method(scope, send, found.methods)
            case _ if self._path(scope).startswith(_API):
                await _no_such_path(scope, send)
            case _:
                await self._app(scope, receive, send)

    def _path(self, scope: Scope) -> str:
        path: str = scope["path"]
        return path.removeprefix(self._server.options.static_prefix)

    async def _json(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await self._request(route, scope, receive)
        except AsyncStoreError as error:
            await _send(send, *_of_error(error, scope))
            return
        except _ClientGone:
            return

        async def answer() -> Answer:
            try:
                return 200, _ENCODER.encode(await route.handler(self._server, request)), ()
            except AsyncStoreError as error:
                return _of_error(error, scope)
            except Exception:  # noqa: BLE001  an answer must not tell how the server is made
                return _of_bug(scope)

        if route.searches:
            # A write that has begun is finished, though nobody waits for it.
            answered = await _unless_gone(receive, answer)
        else:
            answered = await answer()
        if answered is not None:
            await _send(send, *answered)

    async def _request(self, route: Route, scope: Scope, receive: Receive) -> object:
        decoding = self._decodings[route]
        query: bytes = scope["query_string"]
        if route.method == "GET" and (query or scope["path_params"]):
            return decoding.from_query(query, scope["path_params"])
        body = await _body(receive)
        if route.method in ("POST", "PUT", "PATCH"):
            # Another site's form can send any other type, and not this one.
            kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                raise InvalidParameterError(
                    "the Content-Type of the request must be application/json"
                )
        return decoding.from_body(body, scope["path_params"])

    async def _asgi(self, route: AsgiRoute, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await route.handler(self._server, scope, receive, watched)
        except AsyncStoreError as error:
            if begun:
                raise
            status, body, headers = _of_error(error, scope)
        except Exception:
            if begun:
                raise
            status, body, headers = _of_bug(scope)
        else:
            return
        await _send(send, status, body, headers)


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        return body
    parts = [body]
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    if message["type"] != "http.request":
        raise _ClientGone
    return b"".join(parts)


async def _unless_gone(receive: Receive, work: Callable[[], Awaitable[Answer]]) -> Answer | None:
    """What `work`, which raises nothing, returns; None when the client hung up before."""
    answer: Answer | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        answer = await work()
        group.cancel_scope.cancel()
    return answer


def _of_error(error: AsyncStoreError, scope: Scope) -> Answer:
    status, content = error_to_json(error)
    if len(content["message"]) > LONGEST_MESSAGE:
        content["message"] = f"{content['message'][:LONGEST_MESSAGE]}..."
    if isinstance(error, InvalidStateError):
        # MLflow's server says 500, which its clients try again for minutes.
        status = 409
    if status >= 500 and not isinstance(error, UnsupportedError):
        logger.error("%s %s: %s", scope["method"], scope["path"], error, exc_info=error)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, UnavailableError) and error.retry_after is not None:
        headers = ((b"retry-after", str(round(error.retry_after)).encode()),)
    return status, _ENCODER.encode(content), headers


def _of_bug(scope: Scope) -> Answer:
    logger.exception("%s %s", scope["method"], scope["path"])
    content = {
        "error_code": "INTERNAL_ERROR",
        "message": "the server failed to answer; its log says why",
    }
    return 500, _ENCODER.encode(content), ()


async def _send(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


async def _no_such_method(scope: Scope, send: Send, methods: Iterable[str]) -> None:
    allowed = ", ".join(sorted(methods))
    content = {
        "error_code": "ENDPOINT_NOT_FOUND",
        "message": f"{scope['path']} takes {allowed}, and not {scope['method']}",
    }
    await _send(send, 405, _ENCODER.encode(content), [(b"allow", allowed.encode())])


async def _no_such_path(scope: Scope, send: Send) -> None:
    content = {
        "error_code": "ENDPOINT_NOT_FOUND",
        "message": f"this server has no {scope['method']} {scope['path']}",
    }
    await _send(send, 404, _ENCODER.encode(content))
