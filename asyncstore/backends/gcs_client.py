"""Requests to Google Cloud Storage's JSON API, over gcsfs's session and credentials."""

from __future__ import annotations

import inspect
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import anyio
import anyio.to_thread
import gcsfs  # type: ignore[import-untyped]  # it ships no types
from fsspec.asyn import AsyncFileSystem
from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]  # it ships no types
from yarl import URL

from asyncstore import __version__, settings, uris
from asyncstore.backends.gcs_credentials import Credentials, application_default, from_token
from asyncstore.backends.gcs_errors import failure, parsed, translated
from asyncstore.concurrency import Turnstile
from asyncstore.errors import InvalidParameterError
from asyncstore.sockets import Sockets

__all__ = ["MAX_CONNECTIONS", "Answer", "Client", "connect"]

MAX_CONNECTIONS = 64
CONNECT_WITHIN = 30.0
REQUESTS_PER_TURN = 8
READ_BUFFER = 256 * 1024
JSON_SIZE = 256 * 1024
HOST = re.compile(r"[\w.:-]+")
OWN_OPTIONS = ("asynchronous", "loop", "skip_instance_cache")


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Client:
    """Sends requests, each once: whoever asks for one decides whether to repeat it.

    Args:
        fs: The filesystem whose session it uses.
        session: That session.
        credentials: Who asks.
        sockets: Those of the session.
    """

    def __init__(self, fs: Any, session: Any, credentials: Credentials, sockets: Sockets) -> None:
        self._session = session
        self.credentials = credentials
        self._sockets = sockets
        self._turnstile = Turnstile(REQUESTS_PER_TURN)
        self.endpoint = fs.base.removesuffix("/storage/v1/")
        self._user_agent = f"asyncstore/{__version__} gcsfs/{gcsfs.__version__}"
        paying = fs.requester_pays
        # Parameters of every request.
        self.everywhere: dict[str, str] = (
            {"userProject": paying if isinstance(paying, str) else fs.project} if paying else {}
        )

    def objects(self, bucket: str, key: str | None = None, *, upload: bool = False) -> str:
        """The URL of an object, or of a bucket's objects."""
        base = f"{self.endpoint}{'/upload' if upload else ''}/storage/v1/b/{quote(bucket)}/o"
        return base if key is None else f"{base}/{quote(key, safe='')}"

    async def call(
        self,
        action: str,
        method: str,
        url: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | aiohttp.Payload | None = None,
        accept: tuple[int, ...] = (),
    ) -> Answer:
        """Send one request and take the whole answer.

        Args:
            action: What it is about, for the error.
            method: Of HTTP.
            url: Without a query, or with one that goes as it is when `query` is None.
            query: Its parameters.
            headers: Beside those that every request has.
            body: Its content.
            accept: Statuses beside 2xx that are no error.

        Raises:
            AsyncStoreError: What the answer means, when it is none of those.
        """
        async with self.stream(
            action, method, url, query=query, headers=headers, body=body, accept=accept
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def json(self, action: str, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        """Send one request and take the resource that it is answered with.

        Args:
            action: What it is about, for the error.
            method: Of HTTP.
            url: As for `call`.
            kwargs: As for `call`.
        """
        answer = await self.call(action, method, url, **kwargs)
        if len(answer.content) < JSON_SIZE:
            return parsed(action, *answer)
        return await anyio.to_thread.run_sync(parsed, action, *answer)

    @asynccontextmanager
    async def stream(
        self,
        action: str,
        method: str,
        url: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | aiohttp.Payload | None = None,
        accept: tuple[int, ...] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; its answer is read in the block, and its errors are translated there.

        The arguments are those of `call`. A cancellation closes the connection.
        """
        if query is not None:
            url = f"{url}?{urlencode({**query, **self.everywhere}, quote_via=quote)}"
        await self._turnstile.enter()
        with translated(action):
            own = {"User-Agent": self._user_agent, **await self.credentials.headers()}
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers={**own, **(headers or {})},
                data=body,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_WITHIN),
                # Objects come as they are stored, also those that are compressed.
                auto_decompress="Accept-Encoding" not in (headers or {}),
                # A resumable upload is answered with 308; and a token goes to nobody else.
                allow_redirects=False,
                read_bufsize=READ_BUFFER,
                skip_auto_headers=("Content-Type",),
            ) as response:
                try:
                    if response.status >= 300 and response.status not in accept:
                        content = await response.read()
                        raise failure(action, response.status, response.headers, content)
                    yield response
                finally:
                    # Without effect on an answer that was read to its end; otherwise the
                    # connection cannot be used again.
                    response.close()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._sockets.hang_up()


async def connect(action: str, storage_options: Mapping[str, Any]) -> tuple[Any, Client]:
    """Make a filesystem and a client over its session.

    Args:
        action: What it is for, for the errors.
        storage_options: Arguments of `gcsfs.GCSFileSystem`; they go above the variables.

    Returns:
        Both; nothing was sent to the storage yet.

    Raises:
        InvalidParameterError: An option or a variable is not acceptable.
        UnauthenticatedError: The credentials that were found cannot be used.
    """
    options = dict(storage_options)
    _check(action, options)
    emulator = settings.STORAGE_EMULATOR_HOST.get()
    if "endpoint_url" not in options and emulator:
        options["endpoint_url"] = emulator if "://" in emulator else f"http://{emulator}"
    if options.get("endpoint_url"):
        options["endpoint_url"] = _endpoint(action, options["endpoint_url"])
    token = options.pop("token", None)
    access = options.get("access", "full_control")
    if token is None and emulator:
        token = "anon"  # noqa: S105  gcsfs's word for none
    elif token in (None, "google_default"):
        token = await application_default(action, access, anonymous=token is None) or "anon"
    sockets = Sockets()

    def make() -> Any:
        # The class that `import gcsfs` offers asks for the type of every bucket by gRPC, which
        # emulators do not answer; asyncstore has no use for what it finds out.
        return GCSFileSystem(
            **options, token=from_token(token), asynchronous=True, skip_instance_cache=True
        )

    try:
        with translated(action):
            fs = await anyio.to_thread.run_sync(make)
    except InvalidParameterError:
        raise
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise InvalidParameterError(f"{action}: {type(error).__name__}: {error}") from error
    # A client certificate of Google's is set up by gcsfs, with a connector of its own.
    own: dict[str, Any] = _proxy(fs.base)
    if not fs._use_client_cert:  # noqa: SLF001  not to be had otherwise
        own["connector"] = aiohttp.TCPConnector(
            limit=2 * MAX_CONNECTIONS, socket_factory=sockets.make
        )
    fs.session_kwargs = {**own, **fs.session_kwargs}
    try:
        session = await fs._set_session()  # noqa: SLF001  as gcsfs's documentation does
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"{action}: session_kwargs: {error}") from error
    return fs, Client(fs, session, Credentials(fs.credentials.credentials), sockets)


def _check(action: str, options: Mapping[str, Any]) -> None:
    known = {
        name
        for kind in (GCSFileSystem, AsyncFileSystem)
        for name in inspect.signature(kind.__init__).parameters
    }
    known |= {"use_listings_cache", "listings_expiry_time", "max_paths"}
    known -= {"self", "args", "kwargs", "storage_options", *OWN_OPTIONS}
    if unknown := sorted(set(options) - known):
        raise InvalidParameterError(
            f"{action}: gcsfs has no option {', '.join(unknown)}, or asyncstore sets it"
        )


def _endpoint(action: str, text: Any) -> str:
    try:
        url = URL(str(text))
    except ValueError:
        url = URL()
    plain = url.scheme in ("http", "https") and not (url.query_string or url.user)
    if not plain or not HOST.fullmatch(url.host or ""):
        raise InvalidParameterError(
            f"{action}: {uris.redact(str(text))!r} is no endpoint; STORAGE_EMULATOR_HOST and "
            "endpoint_url take http://host:port"
        )
    return str(text).rstrip("/")


def _proxy(endpoint: str) -> dict[str, Any]:
    """The proxy of the environment; aiohttp would look for it anew with each request."""
    url = URL(endpoint)
    named = urllib.request.getproxies().get(url.scheme)
    if not named or urllib.request.proxy_bypass(url.host or ""):
        return {}
    return {"proxy": named}
