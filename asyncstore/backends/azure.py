"""Azure Blob Storage and Data Lake, through Azure's own client.

adlfs, fsspec's class over the same client, is not used: it makes the client itself, with the
client's own retries and timeouts, and those are the scheduler's here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import anyio
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobPrefix

from asyncstore import uris
from asyncstore.backends.azure_client import (
    MAX_CONNECTIONS,
    Account,
    Service,
    connect,
    content_settings,
    parse_uri,
    translated,
)
from asyncstore.backends.azure_presigned import AzurePresigning, block_id
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.checksums import content_md5
from asyncstore.backends.http_body import body
from asyncstore.concurrency import task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import IntegrityError, NotFoundError
from asyncstore.files.reading import ContentType
from asyncstore.multipart import Part

__all__ = ["AzureBackend", "open_backend"]

MIB = 1024 * 1024
# The client holds a whole answer, so a stream is read in requests of its share of the memory.
READ_SIZE = 4 * MIB
# Parsing a page of 5,000 entries would stall the loop for a good part of a second.
LIST_PAGE = 200
# What aiohttp sends in one go without holding up the loop.
PUT_SIZE = MIB
DELETE_WINDOW = 16

# https://learn.microsoft.com/azure/storage/blobs/scalability-targets
CAPABILITIES = Capabilities(
    parallel_parts=True,
    versions=True,
    max_parts=50_000,
    max_concurrency=MAX_CONNECTIONS,
    # MLflow's document: "Default: 600 for Azure blob".
    request_timeout=600,
)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Connect to a container.

    Args:
        uri: `wasb(s)://container@account.blob.core.windows.net/path`,
            `abfs(s)://container@account.dfs.core.windows.net/path` or `az://container/path`.
        storage_options: `connection_string`, `account_name`, `account_key`, `sas_token` or
            `credential`, above the variables; any other argument of `BlobServiceClient`.

    Raises:
        InvalidParameterError: The URI has no container or account, or a credential is malformed.
    """
    account = parse_uri(uri)
    with translated(f"open {uris.redact(uri)}"):
        service = await connect(account, storage_options)
    return AzureBackend(account, service)


class AzureBackend(Backend):
    """A prefix of a container."""

    def __init__(self, account: Account, service: Service) -> None:
        root = "/".join(part for part in (account.container, account.prefix) if part)
        super().__init__(None, root, CAPABILITIES)
        self._account = account
        self._service = service
        self._container = service.client.get_container_client(account.container)

    def at(self, uri: str) -> Backend | None:
        """The same client for another root of the same account."""
        if uris.scheme_of(uri) not in ("wasb", "wasbs", "abfs", "abfss", "az"):
            return None
        account = parse_uri(uri)
        if account.host != self._account.host:
            return None
        backend = AzureBackend(account, self._service)
        backend.retry = self.retry
        return backend

    def _name(self, path: str) -> str:
        return "/".join(part for part in (self._account.prefix, path) if part)

    def _directory(self, path: str) -> str:
        name = self._name(path)
        return name + "/" if name else ""

    def _path(self, name: str) -> str:
        return name.removeprefix(self._directory("")).removesuffix("/")

    def blob(self, path: str) -> Any:
        """The client of one blob."""
        return self._container.get_blob_client(self._name(path))

    def shown(self, path: str) -> str:
        """A path for messages."""
        return f"az://{self.full_path(path)}"

    async def info(self, path: str) -> FileInfo:
        """The blob's properties, else one listing for a directory."""
        if path and self._name(path):
            with translated(f"look at {self.shown(path)}"):
                try:
                    found = await self.blob(path).get_blob_properties()
                except HttpResponseError as error:
                    if error.status_code != 404:
                        raise
                else:
                    if not _is_directory(found):
                        return FileInfo(path, False, found.size, found.etag)
        async for _ in self._entries(path, 1, delimiter=False):
            return FileInfo(path, True, None)
        if path:
            raise self.missing(path)
        return FileInfo(path, True, None)

    async def _entries(
        self, path: str, page_size: int, *, delimiter: bool
    ) -> AsyncGenerator[list[Any]]:
        token: str | None = None
        prefix = self._directory(path)
        arguments: dict[str, Any] = {
            "name_starts_with": prefix,
            "results_per_page": page_size,
            "include": ["metadata"],
        }

        async def page() -> tuple[list[Any], str | None] | None:
            with translated(f"list {self.shown(path)}"):
                found = (
                    self._container.walk_blobs(delimiter="/", **arguments)
                    if delimiter
                    else self._container.list_blobs(**arguments)
                )
                pages: Any = found.by_page(token)
                try:
                    entries = await anext(pages)
                except StopAsyncIteration:
                    return None
                return [entry async for entry in entries], pages.continuation_token or None

        while answer := await self.retry.run(page):
            entries, token = answer
            if entries:
                yield entries
            if token is None:
                return

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """One page at a time."""
        async for entries in self._entries(path, LIST_PAGE, delimiter=True):
            for entry in entries:
                if isinstance(entry, BlobPrefix):
                    yield FileInfo(self._path(entry.name), True, None)
                elif not entry.name.endswith("/") and not _is_directory(entry):
                    yield FileInfo(self._path(entry.name), False, entry.size, entry.etag)

    async def walk(self, path: str) -> AsyncGenerator[FileInfo]:
        """The whole tree in one flat listing."""
        async for entries in self._entries(path, LIST_PAGE, delimiter=False):
            for entry in entries:
                if not entry.name.endswith("/") and not _is_directory(entry):
                    yield FileInfo(self._path(entry.name), False, entry.size, entry.etag)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Ranged requests, all of the same content."""
        offset, condition = start, etag
        while end is None or offset < end:
            size = READ_SIZE if end is None else min(READ_SIZE, end - offset)
            arguments: dict[str, Any] = {}
            if condition:
                arguments = {"etag": condition, "match_condition": MatchConditions.IfNotModified}
            with translated(f"read {self.shown(path)}"):
                try:
                    stream = await self.blob(path).download_blob(
                        offset=offset,
                        length=size,
                        max_concurrency=1,
                        # Stored bytes come back as stored.
                        decompress=False,
                        **arguments,
                    )
                except HttpResponseError as error:
                    if error.status_code == 416:
                        return
                    raise
                data = await stream.read()
            condition = stream.properties.etag
            if data:
                yield data
            offset += len(data)
            if len(data) < size:
                return
        if start == end:
            await self.info(path)

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Put Blob with Content-MD5; a larger one as a block, which goes out as a stream."""
        if len(data) > PUT_SIZE:
            upload = AzureUpload(self, path, content_type)
            await upload.upload_part(Part(1, 0, len(data)), data)
            await upload.complete()
            return
        md5 = await content_md5(data)
        with translated(f"write {self.shown(path)}"):
            await self.blob(path).upload_blob(
                bytes(data),
                length=len(data),
                overwrite=True,
                content_settings=content_settings(content_type),
                max_concurrency=1,
                headers={"Content-MD5": md5},
            )

    async def start_upload(self, path: str, content_type: ContentType) -> AzureUpload:
        """Nothing to ask for: blocks belong to a name."""
        return AzureUpload(self, path, content_type)

    def presigning(self) -> AzurePresigning:
        """By shared access signatures."""
        return AzurePresigning(self, self._service.client)

    async def delete(self, paths: Sequence[str]) -> None:
        """One request each, several at once."""
        window = anyio.Semaphore(DELETE_WINDOW)

        async def delete(path: str) -> None:
            try:
                with translated(f"delete {self.shown(path)}"):
                    await self.blob(path).delete_blob(delete_snapshots="include")
            except NotFoundError:
                return
            finally:
                window.release()

        async with task_group() as tasks:
            for path in paths:
                await window.acquire()
                tasks.start_soon(delete, path)

    async def delete_directory(self, path: str) -> None:
        """A directory is a prefix and went with its last file, but for blobs that mark it."""
        marks: list[str] = []
        async for entries in self._entries(path, LIST_PAGE, delimiter=False):
            marks += [self._path(entry.name) for entry in entries if _is_directory(entry)]
        if path and not marks:
            return
        # The deepest first: a hierarchical account keeps a directory that is not empty.
        for mark in [*sorted(marks, reverse=True), *([path] if path else [])]:
            await self.delete([mark])

    async def aclose(self) -> None:
        """Close the client and its connections."""
        await self._service.aclose()


class AzureUpload:
    """Staged blocks of one blob.

    Blocks that are never committed are not to be seen and cannot be deleted; Azure discards them
    after a week, or when the blob is written next.
    """

    def __init__(self, backend: AzureBackend, path: str, content_type: ContentType) -> None:
        self._backend = backend
        self._path = path
        self._content_type = content_type
        self._blocks: dict[int, str] = {}
        self._size = 0

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Put Block with Content-MD5."""
        md5 = await content_md5(data)
        block = block_id(part.number)
        with translated(f"write {self._backend.shown(self._path)}"):
            await self._backend.blob(self._path).stage_block(
                block, body(data), length=part.size, headers={"Content-MD5": md5}
            )
        if part.number not in self._blocks:
            self._size += part.size
        self._blocks[part.number] = block

    async def complete(self) -> None:
        """Put Block List.

        Raises:
            IntegrityError: The blocks are gone and the blob is not the one that was sent.
        """
        blocks = [BlobBlock(self._blocks[number]) for number in sorted(self._blocks)]
        try:
            with translated(f"write {self._backend.shown(self._path)}"):
                await self._backend.blob(self._path).commit_block_list(
                    blocks, content_settings=content_settings(self._content_type)
                )
        except NotFoundError as error:
            raise IntegrityError(f"{error}; another upload to it discarded the blocks") from error

    async def abort(self) -> None:
        """Nothing to do; see above."""


def _is_directory(entry: Any) -> bool:
    metadata = entry.metadata or {}
    return str(metadata.get("hdi_isfolder", metadata.get("Hdi_isfolder", ""))).lower() == "true"
