"""Requests to a web server: redirects without giving secrets away, and errors of asyncstore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from asyncstore.concurrency import Turnstile
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)

__all__ = ["MAX_CONNECTIONS", "WebServer", "failure", "translated"]

MAX_CONNECTIONS = 64
MAX_REDIRECTS = 10
REQUESTS_PER_TURN = 4
REDIRECTS = {301, 302, 303, 307, 308}
READ_BUFFER = 256 * 1024
# What may be secret, and is for one host only.
OWN = ("headers", "auth", "cookies")
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
ERRORS: dict[int, type[AsyncStoreError]] = {
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: UnavailableError,
    410: NotFoundError,
    412: IntegrityError,
    425: UnavailableError,
    429: UnavailableError,
}


async def _new_session(**arguments: Any) -> aiohttp.ClientSession:
    arguments.pop("loop", None)
    connector = arguments.pop("connector", None) or aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
    try:
        return aiohttp.ClientSession(connector=connector, **arguments)
    except BaseException:
        await connector.close()
        raise


class WebServer:
    """fsspec's filesystem of one server and its session.

    Args:
        fs: The filesystem.
        origin: Scheme, host and port. What the person gave to identify himself goes only there.
    """

    def __init__(self, fs: Any, origin: URL) -> None:
        self.fs = fs
        self.origin = origin
        self._session: Any = None
        self._turnstile = Turnstile(REQUESTS_PER_TURN)
        options = dict(fs.kwargs)
        options.pop("allow_redirects", None)
        self._own = {name: options.pop(name) for name in OWN if name in options}
        self._options = options

    @classmethod
    async def open(
        cls, origin: URL, authorization: str | None, storage_options: Mapping[str, Any]
    ) -> WebServer:
        """Make the filesystem and its session; no request is sent yet.

        Args:
            origin: Scheme, host and port.
            authorization: The header of that name, from the URI; None for none.
            storage_options: Arguments of fsspec's `HTTPFileSystem`, above what the URI says.

        Raises:
            TypeError: An option is not acceptable.
        """
        options = dict(storage_options)
        client = {
            "timeout": TIMEOUT,
            # A file that is compressed is kept as it is.
            "auto_decompress": False,
            "read_bufsize": READ_BUFFER,
            **(options.pop("client_kwargs", None) or {}),
        }
        # aiohttp sends a session's headers to every host that a redirect leads to.
        session_headers = dict(client.pop("headers", None) or {})
        headers = session_headers | dict(options.pop("headers", None) or {})
        own = {name: client.pop(name) for name in ("auth", "cookies") if client.get(name)}
        identified = "auth" in own or "auth" in options
        if authorization and not identified and "authorization" not in map(str.lower, headers):
            headers["Authorization"] = authorization
        options.setdefault("get_client", _new_session)
        fs = HTTPFileSystem(
            **{**own, **options},
            headers=headers,
            client_kwargs=client,
            asynchronous=True,
            skip_instance_cache=True,
        )
        server = cls(fs, origin)
        server._session = await fs.set_session()
        return server

    @asynccontextmanager
    async def request(
        self, method: str, url: URL, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, its body unread; redirects are followed.

        A connection whose body was not read to its end is closed.

        Raises:
            UnavailableError: The server does not answer.
        """
        with translated(f"{method} {url}"):
            async with await self._final(method, url, headers or {}) as response:
                yield response

    async def _final(
        self, method: str, url: URL, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        asked = url
        for _ in range(MAX_REDIRECTS):
            await self._turnstile.enter()
            own = dict(self._own) if url.origin() == self.origin else {}
            merged = {"Accept-Encoding": "identity", **own.pop("headers", {}), **headers}
            response: aiohttp.ClientResponse = await self._session.request(
                method,
                url,
                headers=merged,
                allow_redirects=False,
                raise_for_status=False,
                **own,
                **self._options,
            )
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or location is None:
                return response
            response.release()
            url = url.join(URL(location, encoded=True)).with_fragment(None)
            if url.scheme not in ("http", "https") or not url.host:
                raise AsyncStoreError(f"{method} {asked}: redirected to a URI that is not of HTTP")
        raise AsyncStoreError(f"{method} {asked}: more than {MAX_REDIRECTS} redirects")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


def failure(action: str, response: aiohttp.ClientResponse) -> AsyncStoreError:
    """The error that an answer means; the status is not that of a success."""
    status = response.status
    message = f"{action}: the server answered {status} {response.reason or ''}".rstrip()
    if status >= 500 or ERRORS.get(status) is UnavailableError:
        after = response.headers.get("Retry-After", "")
        return UnavailableError(message, retry_after=float(after) if after.isdigit() else None)
    return ERRORS.get(status, AsyncStoreError)(message)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn what aiohttp raises in the block into errors of asyncstore."""
    try:
        yield
    except (aiohttp.InvalidURL, UnicodeError) as error:
        raise InvalidParameterError(f"{action}: this is no URL, or no name of a host") from error
    except (aiohttp.ClientSSLError, aiohttp.ClientHttpProxyError) as error:
        raise AsyncStoreError(f"{action}: {error}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        if isinstance(error, AsyncStoreError):
            raise
        raise UnavailableError(f"{action}: {error or type(error).__name__}") from error
