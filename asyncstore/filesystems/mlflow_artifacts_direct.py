"""Between a client and the storage behind a tracking server, by URLs that the server signs."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import quote, unquote

import aiohttp
import anyio
import anyio.to_thread
from yarl import URL

from asyncstore import settings
from asyncstore.backends.http_body import body
from asyncstore.backends.http_client import TIMEOUT, failure, translated
from asyncstore.concurrency import shielded, task_group
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.files.reading import LocalFile, OpenFile
from asyncstore.multipart import Part, abandoned, plan_parts
from asyncstore.rest.connection import Connection
from asyncstore.rest.transport import Response
from asyncstore.retry import RetryPolicy
from asyncstore.sockets import Sockets

__all__ = ["DirectDownloads", "Storage", "plain", "quoted", "send_parts"]

MIB = 1024 * 1024
READ_SIZE = 256 * 1024
# The limits of S3, which those of Google's interoperable API follow.
MIN_PART_SIZE = 5 * MIB
MAX_PARTS = 10_000
PARTS_AT_ONCE = 8
START_WITHIN = 90.0
# Well below the 300 s for which a server signs a URL unless it is told otherwise.
USE_FOR = 60.0


def plain(path: str) -> str:
    """The same path, if a server takes it for the same.

    Raises:
        InvalidParameterError: It holds what MLflow's server decodes once more, and would then be
            another file.
    """
    if unquote(path) != path:
        raise InvalidParameterError(
            f"artifact path {path!r}: a tracking server takes it for {unquote(path)!r}; rename it"
        )
    return path


def quoted(path: str) -> str:
    """A path as a part of a URL; see `plain`."""
    return quote(plain(path))


class Storage:
    """Requests to the storage itself, without the credentials of the tracking server."""

    def __init__(self) -> None:
        self._sockets = Sockets()
        self._opened: tuple[aiohttp.ClientSession, Mapping[str, str]] | None = None

    @asynccontextmanager
    async def request(
        self,
        action: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: Any = None,
        accept: Collection[int] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request; a status of 400 or more is an error.

        Args:
            action: What it is about, for the errors; the URL is as good as a password.
            method: Of HTTP.
            url: As the server signed it.
            headers: As the server says, and more.
            data: The body.
            accept: Statuses from 400 on that are no error.
        """
        with translated(action):
            if not url.startswith(("http://", "https://")):
                raise AsyncStoreError(f"{action}: the server gave a URL that is not of HTTP")
            session, proxies = await self._open()
            async with session.request(
                method,
                URL(url, encoded=True),
                headers={"Accept-Encoding": "identity", **headers},
                data=data,
                auto_decompress=False,
                skip_auto_headers=("Content-Type",),
                ssl=not settings.MLFLOW_S3_IGNORE_TLS.get(),
                proxy=proxies.get(url.partition(":")[0]),
            ) as response:
                try:
                    if response.status >= 400 and response.status not in accept:
                        raise failure(action, response)
                    yield response
                finally:
                    # Of `Response`: what is not read to its end, or not sent, breaks off.
                    cast("Response", response).hang_up()

    async def _open(self) -> tuple[aiohttp.ClientSession, Mapping[str, str]]:
        if self._opened is None:
            proxies = await anyio.to_thread.run_sync(urllib.request.getproxies)
            self._opened = self._opened or (self._session(), proxies)
        return self._opened

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._sockets.make),
            timeout=TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=Response,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[0].close()
            await self._sockets.hang_up()


@dataclass
class _Signed:
    """Where a file is to be had."""

    url: str
    headers: Mapping[str, str]
    until: float
    etag: str | None = None


class DirectDownloads:
    """Stretches of files, from the storage itself.

    Args:
        connection: To the tracking server.
        storage: To the storage.
        route: Of the server's artifacts.
    """

    def __init__(self, connection: Connection, storage: Storage, route: str) -> None:
        self._connection = connection
        self._route = route
        self._storage = storage
        self._signed: dict[str, _Signed] = {}
        self._signing: dict[str, anyio.Lock] = {}
        #: Whether it is worth trying.
        self.work = True

    def forget(self, path: str) -> None:
        """The file may be another one by now."""
        self._signed.pop(path, None)

    async def pieces(self, path: str, start: int, end: int | None) -> AsyncGenerator[bytes]:
        """The bytes of a file from `start` up to `end`.

        Raises:
            UnsupportedError: The server's storage signs no URLs.
            IntegrityError: The file is another one than that of the stretches before.
            UnavailableError: The URL is too old by now, or the storage does not answer.
        """
        action = f"GET {path!r} from its storage"
        fresh, signed = await self._url_of(path)
        stretch = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            async with self._storage.request(
                action, "GET", signed.url, {**signed.headers, **stretch}, accept=(416,)
            ) as response:
                if response.status == 416:
                    return
                if response.status != 206:
                    raise UnsupportedError(f"{action}: it has no ranges")
                etag = response.headers.get("ETag")
                if signed.etag not in (None, etag):
                    raise IntegrityError(f"{path!r} changed while it was being read; read it again")
                signed.etag = etag
                while piece := await response.content.read(READ_SIZE):
                    yield piece
        except PermissionDeniedError as error:
            if fresh:
                raise
            self.forget(path)
            raise UnavailableError(f"{action}: its URL is too old") from error

    async def _url_of(self, path: str) -> tuple[bool, _Signed]:
        """Where the file is, and whether the server was asked just now."""
        # Ranges that begin together ask once.
        lock = self._signing.setdefault(path, anyio.Lock())
        try:
            async with lock:
                known = self._signed.get(path)
                if known is not None and time.monotonic() < known.until:
                    return False, known
                said = await self._ask(path)
                headers = {str(k): str(v) for k, v in (said.get("headers") or {}).items()}
                until = time.monotonic() + USE_FOR
                etag = None if known is None else known.etag
                signed = _Signed(str(said.get("url")), headers, until, etag)
                self._clean()
                self._signed[path] = signed
                return True, signed
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._signing.pop(path, None)

    async def _ask(self, path: str) -> Mapping[str, Any]:
        try:
            return await self._connection.call("GET", f"{self._route}/presigned/{quoted(path)}")
        except NotFoundError as error:
            if error.error_code != "ENDPOINT_NOT_FOUND":
                raise
            # A server that is older.
            raise UnsupportedError(error.message) from error

    def _clean(self) -> None:
        now = time.monotonic()
        for path in [path for path, signed in self._signed.items() if signed.until < now]:
            del self._signed[path]


class _Upload:
    """An upload in parts that the server began on its storage; see `MultipartUpload`."""

    def __init__(
        self,
        connection: Connection,
        storage: Storage,
        route: str,
        path: str,
        said: Mapping[str, Any],
    ) -> None:
        self._connection = connection
        self._storage = storage
        self._route = route
        self._directory, _, self._name = path.rpartition("/")
        self._path = path
        self._id = said.get("upload_id")
        self._credentials = {int(each["part_number"]): each for each in said["credentials"]}
        self._sent: dict[int, dict[str, Any]] = {}

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """PUT to the part's own URL."""
        credential = self._credentials[part.number]
        headers = {str(k): str(v) for k, v in (credential.get("headers") or {}).items()}
        action = f"PUT part {part.number} of {self._path!r} to its storage"
        async with self._storage.request(
            action, "PUT", credential["url"], headers, body(data)
        ) as response:
            await response.read()
            self._sent[part.number] = {
                "part_number": part.number,
                "etag": response.headers.get("ETag", ""),
                "url": credential["url"],
            }

    async def complete(self) -> None:
        """Have the server put the parts together."""
        await self._tell("complete", parts=[self._sent[number] for number in sorted(self._sent)])

    async def abort(self) -> None:
        """Have the server discard the parts."""
        await self._tell("abort")

    async def _tell(self, what: str, **more: Any) -> None:
        said = {"path": self._name, "upload_id": self._id, **more}
        url = f"{self._route}/mpu/{what}/{quoted(self._directory)}"
        await self._connection.call(
            "POST", url, json={k: v for k, v in said.items() if v is not None}
        )


async def send_parts(
    connection: Connection,
    storage: Storage,
    route: str,
    path: str,
    file: LocalFile,
    source: OpenFile,
    part_size: int,
    retry: RetryPolicy,
) -> None:
    """Store a local file in parts that go to the storage itself.

    Args:
        connection: To the tracking server.
        storage: To the storage.
        route: Of the server's artifacts.
        path: Where to, in a directory.
        file: What, of one byte at least.
        source: The same, open; told what was sent.
        part_size: Bytes of a part.
        retry: How to repeat a request.

    Raises:
        UnsupportedError: The server's storage has no parts, or the server does not want them.
        IntegrityError: The file changed meanwhile; nothing was stored.

    A cancellation or an error aborts the upload.
    """
    limits: dict[str, Any] = {"min_part_size": MIN_PART_SIZE, "max_parts": MAX_PARTS}
    parts = list(plan_parts(file.size, part_size, **limits))
    directory, _, name = path.rpartition("/")
    start = partial(
        connection.call,
        "POST",
        f"{route}/mpu/create/{quoted(directory)}",
        json={"path": plain(name), "num_parts": len(parts)},
    )
    # Not to be interrupted: the storage would have an upload whose id nobody knows.
    said = await retry.run(lambda: shielded(start, within=START_WITHIN))
    upload = _Upload(connection, storage, route, path, said)
    places = anyio.Semaphore(PARTS_AT_ONCE)
    sent = 0

    async def send(part: Part) -> None:
        nonlocal sent
        try:
            data = await anyio.to_thread.run_sync(source.read, part)
            await retry.run(lambda: upload.upload_part(part, data))
            source.recycle(data)
            sent += part.size
            source.sent(sent)
        finally:
            places.release()

    try:
        async with task_group() as tasks:
            for part in parts:
                await places.acquire()
                tasks.start_soon(send, part)
        await anyio.to_thread.run_sync(source.check_unchanged)
        # An abort that overtakes the completion could leave a torn file.
        await retry.run(lambda: shielded(upload.complete, within=START_WITHIN))
    except BaseException as error:
        await abandoned(upload, error, retry)
        raise
