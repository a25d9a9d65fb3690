"""Files on a web server: HTTP and HTTPS, read only, through fsspec's filesystem and aiohttp."""

from __future__ import annotations

import re
import warnings
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
import anyio.to_thread
from yarl import URL

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.http_client import MAX_CONNECTIONS, WebServer, failure
from asyncstore.backends.http_listing import children
from asyncstore.concurrency import task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.files.reading import ContentType
from asyncstore.multipart import MultipartUpload

__all__ = ["HttpBackend", "open_backend"]

MIB = 1024 * 1024
FORM = "https://host/path"
READ_SIZE = 256 * 1024
# Files of a listing that are looked at together, while the ones before are downloaded.
LOOK_AT_ONCE = 32
MAX_PAGE = 64 * MIB
# Below that a file is read in one request anyhow.
PROBE_FROM = MIB
CAPABILITIES = Capabilities(
    ranges=True, max_concurrency=MAX_CONNECTIONS, writable=False, versions=True
)
_TOTAL = re.compile(r"bytes (?:\*|(?P<start>\d+)-\d+)/(?P<total>\d+|\*)")


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Prepare for the files below a URL; no request is sent yet.

    Args:
        uri: `http://host/path` or `https://...`, with `user:password@` for basic authentication.
        storage_options: Arguments of fsspec's `HTTPFileSystem`, `client_kwargs` for instance.

    Raises:
        InvalidParameterError: The URI is not acceptable, or an option is not.
    """
    location, origin, root = _parse(uri)
    if location.scheme == "http" and location.password is not None:
        warnings.warn(
            f"{uris.redact(uri)}: over http the password is sent in the clear; use https",
            stacklevel=2,
        )
    authorization = None
    if location.user is not None:
        credentials = f"{location.user}:{location.password or ''}"
        authorization = f"Basic {b64encode(credentials.encode()).decode()}"
    try:
        server = await WebServer.open(origin, authorization, storage_options)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"open {uris.redact(uri)}: {error}") from error
    return HttpBackend(server, root, (location.user, location.password))


def _parse(uri: str) -> tuple[uris.Location, URL, str]:
    location = uris.parse_location(uri, FORM, decode_path=False)
    if not location.host:
        raise InvalidParameterError(f"{uris.redact(uri)} names no host; write {FORM}")
    try:
        origin = URL.build(scheme=location.scheme, host=location.host, port=location.port).origin()
    except ValueError as error:
        raise InvalidParameterError(f"{uris.redact(uri)}: {error}; write {FORM}") from error
    # Escapes stay as they are written; what may not stand in a URL is escaped.
    path = quote(location.path, safe="/%:@!$&'()*+,;=~").rstrip("/")
    return location, origin, f"{origin}{path}"


class HttpBackend(Backend):
    """A directory of a web server.

    Args:
        server: The connections.
        root: Its URL, without a slash at the end and without credentials.
        user: Name and password, so that `at` knows what is the same.
    """

    def __init__(
        self, server: WebServer, root: str, user: tuple[str | None, str | None] = (None, None)
    ) -> None:
        super().__init__(server.fs, root, CAPABILITIES)
        self._server = server
        self._user = user
        self._ranges: bool | None = None
        self._head = True

    def at(self, uri: str) -> Backend | None:
        """Another directory of the same server, for the same user."""
        if uris.scheme_of(uri) not in ("http", "https"):
            return None
        location, origin, root = _parse(uri)
        if origin != self._server.origin or (location.user, location.password) != self._user:
            return None
        backend = HttpBackend(self._server, root, self._user)
        backend.retry = self.retry
        return backend

    def _url(self, path: str) -> URL:
        return URL(f"{self.root}/{quote(path)}" if path else self.root, encoded=True)

    def _directory_url(self, path: str) -> URL:
        return URL(f"{self._url(path)}/", encoded=True)

    async def info(self, path: str) -> FileInfo:
        """HEAD, or a GET of the first byte where the server has no HEAD.

        A directory is what redirects to the same path with a slash, or exists only with one.
        """
        if not path:
            return FileInfo("", True, None)
        url = self._url(path)
        try:
            entry = await self._look(path, url)
        except NotFoundError as error:
            try:
                await self._look(path, self._directory_url(path))
            except AsyncStoreError:
                raise self.missing(path) from error
            return FileInfo(path, True, None)
        if entry.file_size and entry.file_size > PROBE_FROM and self._ranges is None:
            await self._probe(url)
        return entry

    async def _look(self, path: str, url: URL) -> FileInfo:
        if self._head:
            async with self._server.request("HEAD", url) as response:
                if response.status not in (405, 501):
                    entry = self._entry(path, url, response)
                    if entry.is_dir or entry.file_size is not None:
                        return entry
                else:
                    self._head = False
        # To a GET the server may say more; of the body no more than a byte is read.
        async with self._server.request("GET", url, {"Range": "bytes=0-0"}) as response:
            return self._entry(path, url, response)

    def _entry(self, path: str, url: URL, response: aiohttp.ClientResponse) -> FileInfo:
        if response.status >= 300 and response.status != 416:
            raise failure(f"{response.method} {url}", response)
        if response.url.raw_path.endswith("/") and not url.raw_path.endswith("/"):
            return FileInfo(path, True, None)
        size: int | None = None
        if found := _TOTAL.match(response.headers.get("Content-Range", "")):
            size = None if found["total"] == "*" else int(found["total"])
        elif response.status == 200 and "Content-Length" in response.headers:
            size = int(response.headers["Content-Length"])
        accepts = response.headers.get("Accept-Ranges", "").lower()
        if response.status == 206 or accepts == "bytes":
            self._ranges = self._ranges is not False
        elif accepts == "none":
            self._no_ranges()
        return FileInfo(path, False, size, _version(response))

    async def _probe(self, url: URL) -> None:
        """Ask for one byte of a large file, to learn whether the server has ranges."""
        async with self._server.request("GET", url, {"Range": "bytes=0-0"}) as response:
            if response.status == 206:
                self._ranges = True
            elif response.status == 200:
                self._no_ranges()

    def _no_ranges(self) -> None:
        # Each range would fetch the whole file.
        self._ranges = False
        self.capabilities = replace(self.capabilities, ranges=False)

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """The links of the directory's page; each file is looked at, for its size."""
        url = self._directory_url(path)
        try:
            page = await self.retry.run(lambda: self._page(url))
        except NotFoundError:
            return
        names = await anyio.to_thread.run_sync(children, *page)
        for first in range(0, len(names), LOOK_AT_ONCE):
            for entry in await self._look_at(path, names[first : first + LOOK_AT_ONCE]):
                yield entry

    async def _page(self, url: URL) -> tuple[str, str]:
        """The page about a directory, and its URL; empty for what is no page."""
        async with self._server.request("GET", url) as response:
            if response.status >= 300:
                raise failure(f"list {url}", response)
            if response.content_type != "text/html":
                return "", str(url)
            content = bytearray()
            while piece := await response.content.read(READ_SIZE):
                content += piece
                if len(content) > MAX_PAGE:
                    raise AsyncStoreError(f"list {url}: the page has more than {MAX_PAGE} bytes")
            return content.decode(errors="replace"), str(response.url)

    async def _look_at(self, path: str, names: Sequence[tuple[str, bool]]) -> Sequence[FileInfo]:
        found: dict[str, FileInfo] = {}

        async def look(name: str) -> None:
            below = f"{path}/{name}" if path else name
            try:
                found[name] = await self.retry.run(lambda: self._look(below, self._url(below)))
            except NotFoundError:
                # Deleted since it was listed, or a link to nothing.
                return

        async with task_group() as tasks:
            for name, is_dir in names:
                if is_dir:
                    found[name] = FileInfo(f"{path}/{name}" if path else name, True, None)
                else:
                    tasks.start_soon(look, name)
        return [found[name] for name, _ in names if name in found]

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """A ranged GET; what a server sends too much is cut off."""
        url = self._url(path)
        if start == end:
            # HTTP has no range for that.
            await self._look(path, url)
            return
        headers: dict[str, str] = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if etag and etag.startswith('"'):
            headers["If-Match"] = etag
        async with self._server.request("GET", url, headers) as response:
            if response.status == 416:
                return
            if response.status not in (200, 206):
                raise failure(f"GET {url}", response)
            if response.url.raw_path.endswith("/"):
                raise InvalidParameterError(f"{url} is a directory")
            if etag and _version(response) not in (etag, None):
                raise IntegrityError(f"{url} changed while it was being read; read it again")
            skip, left = self._cut(url, response, start, end)
            while left != 0 and (piece := await response.content.read(READ_SIZE)):
                if skip:
                    piece, skip = piece[skip:], max(0, skip - len(piece))
                if left is not None:
                    piece = piece[:left]
                    left -= len(piece)
                if piece:
                    yield piece

    def _cut(
        self, url: URL, response: aiohttp.ClientResponse, start: int, end: int | None
    ) -> tuple[int, int | None]:
        """How many bytes of the body to leave out, and how many to take."""
        wanted = None if end is None else end - start
        if response.status == 200:
            length = response.content_length
            if start or (wanted is not None and (length is None or length > wanted)):
                self._no_ranges()
            return start, wanted
        found = _TOTAL.match(response.headers.get("Content-Range", ""))
        if found is None or found["start"] is None or int(found["start"]) != start:
            raise AsyncStoreError(f"GET {url}: the server sent another range than the one asked")
        return 0, wanted

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(
            f"{self.root}: HTTP is read only; nothing can be stored or deleted there"
        )

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Refused."""
        self._refuse()

    async def start_upload(self, path: str, content_type: ContentType) -> MultipartUpload:
        """Refused."""
        self._refuse()

    async def delete(self, paths: Sequence[str]) -> None:
        """Refused."""
        self._refuse()

    async def delete_directory(self, path: str) -> None:
        """Refused."""
        self._refuse()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._server.aclose()


def _version(response: aiohttp.ClientResponse) -> str | None:
    """What changes when the file does, as far as the server says."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified")
