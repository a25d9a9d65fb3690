"""The connection to an MLflow tracking server: who asks, how long to wait, when to ask again."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from io import BytesIO
from json import dumps, loads
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import anyio
import anyio.to_thread
from multidict import CIMultiDict
from yarl import URL

from asyncstore import settings, uris
from asyncstore.concurrency import in_own_task, shielded
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    InvalidStateError,
    UnavailableError,
)
from asyncstore.rest.credentials import Answered, PreparedRequest, identify, server_of
from asyncstore.rest.errors import error_from_response
from asyncstore.rest.transport import UNREACHED, Response, redirected, tls, translated
from asyncstore.retry import RetryPolicy
from asyncstore.sockets import Sockets

__all__ = ["Connection"]

logger = logging.getLogger("asyncstore.rest")

MAX_CONNECTIONS = 64
MAX_REDIRECTS = 10
MAX_WAIT = 120.0
CLOSE_WITHIN = 10.0
# Below the 5 s after which uvicorn hangs up, so that no request meets a connection that just ended.
KEEP_ALIVE = 4.0
READ_BUFFER = 256 * 1024
SMALL = 64 * 1024
# JSON from this size on is read in a worker thread.
LARGE_JSON = 256 * 1024
MAX_ERROR_SIZE = 64 * 1024
# Those of mlflow/utils/request_utils.py.
TRANSIENT = {408, 429, 500, 502, 503, 504}
# Answers of a server that did not begin with what it was asked.
NOT_DONE = {429, 503}

#: What a request may send.
Content = bytes | AsyncIterable[bytes] | aiohttp.Payload | None


@dataclass(frozen=True)
class _Opened:
    """What there is from the first request on."""

    session: aiohttp.ClientSession
    loop: asyncio.AbstractEventLoop
    proxies: Mapping[str, str]
    retry: RetryPolicy
    respect_retry_after: bool
    timeout: int


class Connection:
    """Requests to a tracking server, over at most 64 connections, which are kept.

    Nothing is opened before the first request; from then on it belongs to that event loop. The
    variables of retries, timeouts and TLS are read when it opens; those of credentials for each
    request, in a worker thread, since plugins take their time. A redirect is followed on the same
    server, or from http to https of the same host.

    Args:
        uri: As for `credentials.server_of`: `http://host:port`, `databricks`,
            `databricks://profile`.
        repeats: Whether it repeats by itself what fails. Otherwise what may pass is an
            UnavailableError, for its user to repeat.

    A cancelled call leaves no task and no connection. Whether the server still does what it was
    asked nobody knows.
    """

    def __init__(self, uri: str, *, repeats: bool = True) -> None:
        self.uri = uri
        self._repeats = repeats
        self._databricks = uris.scheme_of(uri) not in ("http", "https")
        self._sockets = Sockets()
        self._opening = anyio.Lock()
        self._opened: _Opened | None = None
        self._closed = False
        self._under_way = 0
        self._idle = anyio.Event()

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        idempotent: bool | None = None,
    ) -> dict[str, Any]:
        """Ask for something, again where that may help, and take the answer's JSON.

        Args:
            method: Of HTTP.
            path: Below the server's URL, percent-encoded: `/api/2.0/mlflow/runs/get`.
            json: What the body says; None for no body.
            params: The query: texts, numbers, booleans, lists of them. None leaves one out.
            headers: Beside those of every request; None for none.
            body: The body itself, instead of `json`; None for none.
            idempotent: Whether asking twice does no more than asking once. What is not is repeated
                only when it surely was not done: no connection came about, or the server answered
                429 or 503. None says no for a POST and yes for everything else.

        Returns:
            The JSON object of the answer; an empty one for an empty answer.

        Raises:
            AsyncStoreError: What the server says is wrong, in the class that fits.
            UnavailableError: The server cannot be reached, or does not answer.
            UnauthenticatedError: The server wants other credentials, or a plugin gives none.
            InvalidParameterError: A variable or an argument is not acceptable, or the server is
                somewhere else.
            InvalidStateError: The connection is closed, or another event loop's.
        """
        more = dict(headers or {})
        if json is not None:
            body = dumps(json).encode()
            more.setdefault("Content-Type", "application/json")
        repeatable = method != "POST" if idempotent is None else idempotent
        prepare = partial(self._prepared, method, path, params, more, body)
        content = await in_own_task(lambda: self._ask(prepare, body, repeatable=repeatable))
        doing = f"{method} {uris.redact(self.uri)}{path}"
        if len(content) >= LARGE_JSON:
            return await anyio.to_thread.run_sync(_parsed, doing, content)
        return _parsed(doing, content)

    async def _ask(
        self, prepare: partial[PreparedRequest], body: bytes | None, *, repeatable: bool
    ) -> bytes:
        opened = await self._open()
        number = 1
        while True:
            retry_after = None
            try:
                async with self._exchange(prepare, body) as response:
                    if response.status < 400:
                        return await response.read()
                    error = await self._refusal(response)
                    retry_after = self._retry_after(response)
                    again = response.status in TRANSIENT
                    again = again and (repeatable or response.status in NOT_DONE)
            except UnavailableError as caught:
                error, again = caught, repeatable or isinstance(caught.__cause__, UNREACHED)
            if not again or number >= opened.retry.attempts:
                raise error
            wait = opened.retry.wait(number, retry_after)
            logger.warning("%s; trying again in %.1f s", error, wait)
            await anyio.sleep(wait)
            number += 1

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Content = None,
        accept: Collection[int] = (),
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send one request, once; its answer is read in the block, and its errors translated there.

        Args:
            method: As for `call`, as are the path, the query and the headers.
            path: See there.
            params: See there.
            headers: See there.
            body: What to send; a stream goes out in pieces, as long as a Content-Length header says
                if there is one. Auth plugins do not see a stream.
            accept: Statuses from 400 on that are no error.

        Yields:
            The answer, whose status is below 400 or accepted; its content as it was sent.

        Raises:
            AsyncStoreError: As for `call`.

        An answer that is not read to its end, as when cancelled, closes its connection.
        """
        known = body if isinstance(body, bytes) else None
        # A file that is compressed stays so.
        more = {"Accept-Encoding": "identity", **(headers or {})}
        prepare = partial(self._prepared, method, path, params, more, known)
        async with self._exchange(prepare, body, auto_decompress=False) as response:
            if response.status >= 400 and response.status not in accept:
                raise await self._refusal(response)
            yield response

    def _prepared(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> PreparedRequest:
        """The request with what says who asks. Blocks."""
        server = server_of(self.uri)
        url = f"{server.url}{path}{_query(params)}"
        if not (url.isascii() and url.isprintable()) or " " in url:
            raise InvalidParameterError(f"{method} {uris.redact(url)}: the path is not encoded")
        request = PreparedRequest(method, url, CIMultiDict(headers), body)
        identify(request, server.authorization, databricks=self._databricks)
        return request

    @asynccontextmanager
    async def _exchange(
        self, prepare: partial[PreparedRequest], body: Content, **options: Any
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        opened = await self._open()
        self._under_way += 1
        try:
            request = await anyio.to_thread.run_sync(prepare)
            doing = f"{request.method} {uris.redact(request.url.partition('?')[0])}"
            with translated(doing, opened.timeout):
                response = await self._final(doing, opened, request, body, options)
                try:
                    if request.hooks:
                        await anyio.to_thread.run_sync(_tell, request, response)
                    yield response
                finally:
                    response.hang_up()
        finally:
            self._under_way -= 1
            if self._closed and not self._under_way:
                self._idle.set()

    async def _final(
        self,
        doing: str,
        opened: _Opened,
        request: PreparedRequest,
        body: Content,
        options: Mapping[str, Any],
    ) -> Response:
        url = URL(request.url, encoded=True)
        for _ in range(MAX_REDIRECTS):
            response: Any = await opened.session.request(
                request.method,
                url,
                headers=request.headers,
                # From a file it goes out in pieces, between which others have their turn.
                data=BytesIO(body) if isinstance(body, bytes) and len(body) > SMALL else body,
                allow_redirects=False,
                proxy=opened.proxies.get(url.scheme),
                skip_auto_headers=("Content-Type", "User-Agent"),
                **options,
            )
            try:
                target = redirected(doing, request.method, response, body)
            except BaseException:
                response.hang_up()
                raise
            if target is None:
                found: Response = response
                return found
            response.hang_up()
            url = target
        raise AsyncStoreError(f"{doing}: more than {MAX_REDIRECTS} redirects")

    async def _refusal(self, response: aiohttp.ClientResponse) -> AsyncStoreError:
        content = bytearray()
        async for piece in response.content.iter_any():
            content += piece
            if len(content) >= MAX_ERROR_SIZE:
                break
        retry_after = self._retry_after(response)
        error = error_from_response(
            response.status,
            bytes(content),
            f"{response.method} {uris.redact(str(response.url.with_query(None)))}",
            retry_after=retry_after,
        )
        if self._repeats or response.status not in TRANSIENT or isinstance(error, UnavailableError):
            return error
        passing = UnavailableError(error.message, retry_after=retry_after)
        passing.error_code = error.error_code
        return passing

    def _retry_after(self, response: aiohttp.ClientResponse) -> float | None:
        asked = response.headers.get("Retry-After", "").strip()
        if self._opened is None or not self._opened.respect_retry_after or not asked:
            return None
        if asked.isascii() and asked.isdigit():
            return float(asked)
        try:
            at = parsedate_to_datetime(asked)
        except ValueError:
            return None
        return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())

    async def _open(self) -> _Opened:
        if self._opened is None:
            async with self._opening:
                self._check_open()
                if self._opened is None:
                    self._opened = await self._connect()
        if self._opened.loop is not asyncio.get_running_loop():
            raise InvalidStateError(
                "this connection belongs to the event loop of its first request; "
                "open one in each loop"
            )
        self._check_open()
        return self._opened

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidStateError(f"the connection to {uris.redact(self.uri)} is closed")

    async def _connect(self) -> _Opened:
        verified = await anyio.to_thread.run_sync(tls)
        proxies = await anyio.to_thread.run_sync(self._proxies)
        timeout: int = settings.MLFLOW_HTTP_REQUEST_TIMEOUT.get()
        retry = RetryPolicy(
            attempts=1 + (settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() if self._repeats else 0),
            backoff=settings.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(),
            max_backoff=MAX_WAIT,
            jitter=settings.MLFLOW_HTTP_REQUEST_BACKOFF_JITTER.get(),
        )
        respect = settings.MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.get()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                keepalive_timeout=KEEP_ALIVE,
                ssl=verified,
                socket_factory=self._sockets.make,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            read_bufsize=READ_BUFFER,
            response_class=Response,
        )
        return _Opened(session, asyncio.get_running_loop(), proxies, retry, respect, timeout)

    def _proxies(self) -> Mapping[str, str]:
        host = URL(server_of(self.uri).url).host or ""
        return {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()

    async def aclose(self) -> None:
        """Refuse new calls, wait up to 10 s for those under way, close every connection.

        Closing again does nothing. A cancellation comes out when the connections are closed.
        """
        if self._closed:
            return
        self._closed = True
        await in_own_task(lambda: shielded(self._close, within=2 * CLOSE_WITHIN))

    async def _close(self) -> None:
        async with self._opening:
            if self._opened is None:
                return
        if self._under_way:
            with anyio.move_on_after(CLOSE_WITHIN):
                await self._idle.wait()
        await self._opened.session.close()
        await self._sockets.hang_up()


def _query(params: Mapping[str, Any] | None) -> str:
    given = {
        name: [_text(each) for each in value] if isinstance(value, list) else _text(value)
        for name, value in (params or {}).items()
        if value is not None
    }
    return f"?{urlencode(given, doseq=True, quote_via=quote)}" if given else ""


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell(request: PreparedRequest, response: aiohttp.ClientResponse) -> None:
    """Show the answer to what asked to see it. Blocks."""
    seen = Answered(response.status, CIMultiDict(response.headers), str(response.url), request)
    for hook in request.hooks:
        hook(seen)


def _parsed(doing: str, content: bytes) -> dict[str, Any]:
    # The second is what servers built on Armeria say.
    if content.strip() in (b"", b"200 OK"):
        return {}
    try:
        found = loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise AsyncStoreError(f"{doing}: the answer is no JSON object; is it a tracking server?")
    return found
