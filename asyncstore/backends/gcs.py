"""Google Cloud Storage, through gcsfs's session and credentials."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio

from asyncstore import settings, uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.gcs_body import Crc32c, crc32c, media_type, related
from asyncstore.backends.gcs_client import MAX_CONNECTIONS, Client, connect
from asyncstore.backends.gcs_composite import COMPOSED_AT_ONCE, CompositeUpload
from asyncstore.backends.gcs_presigned import GcsPresigning
from asyncstore.backends.gcs_resumable import ResumableUpload
from asyncstore.concurrency import task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnavailableError,
)
from asyncstore.files.reading import ContentType, LocalFile, OpenFile
from asyncstore.files.writing import STAGED_SUFFIX

__all__ = ["GcsBackend", "open_backend"]

T = TypeVar("T")
MIB = 1024 * 1024
READ_SIZE = 256 * 1024
LIST_PAGE = 1000
DELETING = 16
DEFAULT_CHUNK_SIZE = 100 * MIB
# https://cloud.google.com/storage/docs/buckets#naming
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")

# https://cloud.google.com/storage/quotas
CAPABILITIES = Capabilities(
    parallel_parts=True,
    # Three levels of composing.
    max_parts=COMPOSED_AT_ONCE**3,
    max_file_size=5 * 1024 * 1024 * MIB,
    max_concurrency=MAX_CONNECTIONS,
    versions=True,
    # As MLflow's default.
    request_timeout=60,
    resumable=True,
)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open the bucket of a `gs://bucket/prefix` URI.

    Args:
        uri: The root of the repository.
        storage_options: Arguments of `gcsfs.GCSFileSystem`; they go above the variables.

    Raises:
        InvalidParameterError: The URI names no bucket, or a variable or option is not acceptable.
        UnauthenticatedError: The credentials that were found cannot be used.
    """
    root = _root(uri)
    capabilities = replace(
        CAPABILITIES,
        upload_chunk_size=settings.MLFLOW_GCS_UPLOAD_CHUNK_SIZE.get(),
        download_chunk_size=settings.MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE.get(),
    )
    fs, client = await connect(f"open {uris.redact(uri)}", storage_options)
    return GcsBackend(fs, root, capabilities, client)


def _root(uri: str) -> str:
    form = "gs://bucket/path"
    shown = uris.redact(uri)
    _, separator, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    if not separator or not bucket:
        raise InvalidParameterError(f"{shown} names no bucket; write {form}")
    if "@" in bucket or ":" in bucket:
        raise InvalidParameterError(
            f"{shown}: a bucket stands without user and port; write {form}, and set "
            "STORAGE_EMULATOR_HOST for another server"
        )
    if not BUCKET.fullmatch(bucket):
        raise InvalidParameterError(
            f"{shown}: {bucket!r} is no name of a bucket: 3 or more of a-z, 0-9, '-', '_' and '.', "
            "a letter or digit first and last"
        )
    uris.root_path(uri, path)
    return f"{bucket}/{path}".rstrip("/")


class GcsBackend(Backend):
    """A prefix of a bucket."""

    def __init__(self, fs: Any, root: str, capabilities: Capabilities, client: Client) -> None:
        super().__init__(fs, root, capabilities)
        self.client = client
        self.bucket, _, self._prefix = root.partition("/")

    def at(self, uri: str) -> Backend | None:
        """The same client for another root, in any bucket."""
        if uris.scheme_of(uri) not in ("gs", "gcs"):
            return None
        backend = GcsBackend(self.fs, _root(uri), self.capabilities, self.client)
        backend.retry = self.retry
        backend.request_timeout = self.request_timeout
        return backend

    def key(self, path: str) -> str:
        """The name of an object in the bucket."""
        return "/".join(part for part in (self._prefix, path) if part)

    def shown(self, path: str) -> str:
        """An object as a person names it."""
        return f"gs://{self.bucket}/{self.key(path)}"

    def _directory_key(self, path: str) -> str:
        key = self.key(path)
        return key + "/" if key else ""

    def _path(self, key: str) -> str:
        return key.removeprefix(self._directory_key("")).removesuffix("/")

    async def repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await one of several requests, bounded in time and with retries."""
        timeout = self.request_timeout

        async def bounded() -> T:
            with anyio.move_on_after(timeout):
                return await call()
            raise UnavailableError(f"no answer within {timeout:g} s")

        return await self.retry.run(bounded if timeout else call)

    async def resource(self, path: str, fields: str) -> dict[str, Any]:
        """What the storage says of an object."""
        return await self.client.json(
            f"look at {self.shown(path)}",
            "GET",
            self.client.objects(self.bucket, self.key(path)),
            query={"fields": fields},
        )

    async def info(self, path: str) -> FileInfo:
        """The object, else a listing for a directory."""
        if path and self.key(path):
            try:
                return _info(path, await self.resource(path, "generation,size"))
            except NotFoundError:
                pass
        async for page in self.pages(self._directory_key(path)):
            # The root is there when its bucket is.
            if not path or any(_visible(entry) for entry in page["items"]):
                return FileInfo(path, True, None)
        raise self.missing(path)

    async def pages(self, prefix: str, delimiter: str = "") -> AsyncGenerator[dict[str, Any]]:
        """A listing, page by page.

        Args:
            prefix: That all names share.
            delimiter: Names that have it behind the prefix are told by what is before it.

        Yields:
            Pages with `items`, `prefixes` or nothing in them.
        """
        query = {
            "prefix": prefix,
            "maxResults": LIST_PAGE,
            "fields": "items(generation,name,size),nextPageToken,prefixes",
        }
        if delimiter:
            query["delimiter"] = delimiter
        url = self.client.objects(self.bucket)
        action = f"list gs://{self.bucket}/{prefix}"
        while True:
            page = await self.repeated(
                partial(self.client.json, action, "GET", url, query=dict(query))
            )
            yield {"items": page.get("items") or [], "prefixes": page.get("prefixes") or []}
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _files(self, page: Mapping[str, Any]) -> list[FileInfo]:
        return [
            _info(self._path(entry["name"]), entry)
            for entry in page["items"]
            if _visible(entry) and not entry["name"].endswith("/")
        ]

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """One page at a time."""
        async for page in self.pages(self._directory_key(path), "/"):
            for prefix in page["prefixes"]:
                yield FileInfo(self._path(prefix), True, None)
            for entry in self._files(page):
                yield entry

    async def walk(self, path: str) -> AsyncGenerator[FileInfo]:
        """The whole tree in one flat listing."""
        async for page in self.pages(self._directory_key(path)):
            for entry in self._files(page):
                yield entry

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """A ranged GET of one generation, as it is stored, and checked when it is the whole."""
        if start == end:
            # HTTP has no range for that.
            await self.resource(path, "size")
            return
        query = {"alt": "media", **({"ifGenerationMatch": etag} if etag else {})}
        # Else the server would decompress what was stored compressed, and give no ranges of it.
        headers = {"Accept-Encoding": "gzip"}
        ranged = bool(start) or end is not None
        if ranged:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        action = f"read {self.shown(path)}"
        async with self.client.stream(
            action,
            "GET",
            self.client.objects(self.bucket, self.key(path)),
            query=query,
            headers=headers,
            accept=(416,),
        ) as answer:
            if answer.status == 416:
                return
            generation = answer.headers.get("X-Goog-Generation")
            if etag and generation and generation != etag:
                raise IntegrityError(f"{action}: it was replaced meanwhile; read it again")
            skip = start if ranged and answer.status == 200 else 0
            left = None if end is None else end - start
            check = Crc32c(answer.headers.getall("X-Goog-Hash", []))
            while left != 0 and (piece := await answer.content.read(READ_SIZE)):
                check.update(piece)
                if skip:
                    piece, skip = piece[skip:], max(0, skip - len(piece))
                if left is not None:
                    piece = piece[:left]
                    left -= len(piece)
                if piece:
                    yield piece
            if answer.status == 200 and answer.content.at_eof() and check.failed:
                raise IntegrityError(f"{action}: it did not arrive as it is stored; read it again")

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Metadata and content in one request, with the CRC32C that the server checks."""
        metadata = {
            "name": self.key(path),
            "contentType": media_type(content_type),
            "crc32c": await crc32c(data),
        }
        kind, body = related(metadata, data)
        await self.client.json(
            f"write {self.shown(path)}",
            "POST",
            self.client.objects(self.bucket, upload=True),
            query={"uploadType": "multipart", "fields": "generation"},
            headers={"Content-Type": kind},
            body=body,
        )

    async def write_file(self, file: LocalFile, source: OpenFile) -> None:
        """One resumable upload, in chunks."""
        chunk_size = self.capabilities.upload_chunk_size or DEFAULT_CHUNK_SIZE
        await ResumableUpload(self, file, source, chunk_size).send()

    async def start_upload(self, path: str, content_type: ContentType) -> CompositeUpload:
        """Components are composed in the end; the server learns of the first one by itself."""
        return CompositeUpload(self, path, self.key(path), content_type)

    def presigning(self) -> GcsPresigning:
        """By the key of a service account."""
        return GcsPresigning(self)

    async def delete(self, paths: Sequence[str]) -> None:
        """One request each, some at once."""
        await self.delete_keys([self.key(path) for path in paths])

    async def delete_keys(self, keys: Sequence[str]) -> None:
        """Delete objects by their names in the bucket; a missing one is no error."""
        left = iter(keys)

        async def work() -> None:
            for key in left:
                await self.client.call(
                    f"delete gs://{self.bucket}/{key}",
                    "DELETE",
                    self.client.objects(self.bucket, key),
                    query={},
                    accept=(404,),
                )

        async with task_group() as tasks:
            for _ in range(min(DELETING, len(keys))):
                tasks.start_soon(work)

    async def delete_directory(self, path: str) -> None:
        """A directory is a prefix and went with its last file, but for names that mark it.

        And but for what killed uploads left.
        """
        async for page in self.pages(self._directory_key(path)):
            names = [entry["name"] for entry in page["items"]]
            await self.delete_keys([name for name in names if name.endswith(("/", STAGED_SUFFIX))])

    async def aclose(self) -> None:
        """Close every connection."""
        await self.client.aclose()


def _visible(entry: Mapping[str, Any]) -> bool:
    # A name that ends in a slash marks a directory: consoles make them.
    return not str(entry["name"]).endswith(STAGED_SUFFIX)


def _info(path: str, resource: Mapping[str, Any]) -> FileInfo:
    return FileInfo(path, False, int(resource["size"]), str(resource["generation"]))
