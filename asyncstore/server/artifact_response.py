"""An artifact as the answer to a request: streamed, in ranges, and never run by a browser."""

from __future__ import annotations

import logging
import math
import mimetypes
import re
import unicodedata
from urllib.parse import quote

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from asyncstore import uris
from asyncstore.artifacts import ArtifactRepository
from asyncstore.entities import FileInfo
from asyncstore.errors import AsyncStoreError, IntegrityError, InvalidParameterError

__all__ = ["artifact_response", "content_disposition", "content_type"]

logger = logging.getLogger(__name__)

CHUNK_SIZE = 256 * 1024
# Seconds that a client may take for a piece before the storage is left, and asked again later.
PATIENCE = 1.0
# MLflow's list of what its UI shows as text.
TEXT = {
    *(
        "txt",
        "log",
        "err",
        "cfg",
        "conf",
        "cnf",
        "cf",
        "ini",
        "properties",
        "prop",
        "hocon",
        "toml",
    ),
    *("yaml", "yml", "xml", "json", "js", "py", "py3", "csv", "tsv", "md", "rst", "ipynb"),
    *("MLmodel", "MLproject"),
}
# RFC 9110, section 14.1.2. Other units and several ranges at once are answered with the whole.
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)
# RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


async def artifact_response(
    request: Request, repository: ArtifactRepository, path: str, name: str | None = None
) -> Response:
    """The answer with a file, or the part of it that the request's Range asks for.

    Always an attachment, of a type that is not guessed from its content, and in a sandbox: what
    somebody uploaded must not run as a page of the server.

    Args:
        request: A GET or HEAD.
        repository: Where the file is.
        path: Its path.
        name: The name that a browser stores it under; None for the last one of the path.

    Raises:
        NotFoundError: There is no such file.
        InvalidParameterError: It is a directory, or the path would leave the repository.
    """
    path = uris.artifact_path(path)
    entry = await repository.info(path)
    if entry.is_dir:
        raise InvalidParameterError(f"artifact path {path!r} is a directory, not a file")
    file_name = name or path.rpartition("/")[2]
    headers = {
        "Content-Type": content_type(file_name),
        "Content-Disposition": content_disposition(file_name),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "no-cache",
    }
    size = entry.file_size
    if size is None:
        return _ArtifactResponse(repository, entry, 0, None, 200, headers)
    start, end, status = 0, size, 200
    if repository.capabilities.ranges:
        headers["Accept-Ranges"] = "bytes"
        etag = f'"{quote(entry.etag.strip(chr(34)), safe="")}"' if entry.etag else None
        if etag:
            headers["ETag"] = etag
        wanted = request.headers.get("range", "")
        if request.headers.get("if-range") in (None, etag) and (found := _range(wanted, size)):
            start, end = found
            if start >= end:
                return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers)
    return _ArtifactResponse(repository, entry, start, end, status, headers)


class _ArtifactResponse(Response):
    """Reads while it sends, a piece at a time; ends the reading when the client goes away."""

    def __init__(
        self,
        repository: ArtifactRepository,
        entry: FileInfo,
        start: int,
        end: int | None,
        status: int,
        headers: dict[str, str],
    ) -> None:
        self._repository = repository
        self._entry = entry
        self._range = start, end
        self.status_code = status
        self.background = None
        self._started = False
        self._failure: AsyncStoreError | None = None
        # No `body`, and so no length of it.
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer, reader = anyio.create_memory_object_stream[bytes]()

        async def stream() -> None:
            await self._send(reader, send)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(self._read, writer)
            group.start_soon(stream)
            # The server drops what is sent to a client that has gone, and would read on.
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()
        if self._failure is not None and not self._started:
            raise self._failure
        if self._failure is not None:
            # The answer has begun: that the connection closes early is all that can be said.
            logger.warning("the download of %s broke off: %s", self._entry.path, self._failure)

    async def _read(self, writer: MemoryObjectSendStream[bytes]) -> None:
        """Hand on the file; the storage is free for others while the client takes its time."""
        start, end = self._range
        patience = PATIENCE if self._repository.capabilities.ranges else math.inf
        try:
            with writer:
                while (piece := await self._pieces(writer, start, end, patience)) is not None:
                    waiting, start = piece
                    await writer.send(waiting)
                    if start == end:
                        return
                    entry = await self._repository.info(self._entry.path)
                    if (entry.etag, entry.file_size) != (self._entry.etag, self._entry.file_size):
                        raise IntegrityError(f"{entry.path} was replaced meanwhile")
        except AsyncStoreError as error:
            self._failure = error

    async def _pieces(
        self, writer: MemoryObjectSendStream[bytes], start: int, end: int | None, patience: float
    ) -> tuple[bytes, int] | None:
        """Hand on pieces; the one that the client keeps waiting, and what follows it, or None."""
        async with self._repository.open_read(
            self._entry.path, start=start, end=end, chunk_size=CHUNK_SIZE
        ) as pieces:
            async for large in pieces:
                # Of local files and S3 1 MiB and more; a slow client would hold three of them.
                for offset in range(0, len(large), CHUNK_SIZE):
                    piece = large[offset : offset + CHUNK_SIZE]
                    start += len(piece)
                    with anyio.move_on_after(patience) as scope:
                        await writer.send(piece)
                    if scope.cancelled_caught:
                        return piece, start
        return None

    async def _send(self, reader: MemoryObjectReceiveStream[bytes], send: Send) -> None:
        with reader:
            async for piece in reader:
                await self._start(send)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self._failure is None:
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        if not self._started:
            self._started = True
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})


def _range(value: str, size: int) -> tuple[int, int] | None:
    """From and to, which is left out; an empty range cannot be served; None is no range."""
    found = _RANGE.fullmatch(value)
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        return max(size - int(found[2]), 0), size
    start = int(found[1])
    if not found[2]:
        return start, size
    last = int(found[2])
    return None if last < start else (start, min(last + 1, size))


def content_type(name: str) -> str:
    """The MIME type that MLflow's server says a file of a name has."""
    extension = name.rpartition(".")[2] if "." in name.lstrip(".") else name
    if extension in TEXT:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def content_disposition(name: str) -> str:
    """The Content-Disposition with which a browser stores a file of a name (RFC 6266)."""
    if _TOKEN.fullmatch(name):
        return f"attachment; filename={name}"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r'[^ -~]|["\\]', "_", plain) or "download"
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
