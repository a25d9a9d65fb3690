"""Artifacts that a tracking server passes on to its storage: `mlflow-artifacts:`."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple

from asyncstore import settings, uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.spooled import SpooledUpload, spool_directory
from asyncstore.concurrency import task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError
from asyncstore.files.reading import ContentType, LocalFile, OpenFile, find
from asyncstore.files.threads import run_in_thread
from asyncstore.filesystems.mlflow_artifacts import ROUTE, MlflowArtifactsFileSystem

__all__ = ["MlflowArtifactsBackend", "open_backend"]

FORM = "mlflow-artifacts:/path or mlflow-artifacts://host:port/path"
# Below that a file is read in one request anyhow.
LARGE = 1024 * 1024
CAPABILITIES = Capabilities(
    # From the storage itself, where the server says so.
    ranges=False,
    # A server handles an upload in one request, and holds a thread for it.
    max_concurrency=32,
    max_file_size=sys.maxsize,
    resumable=True,
    removes_trees=True,
)


class _Root(NamedTuple):
    """A directory of a server."""

    server: str
    path: str


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Prepare for a directory of a tracking server's artifacts; no request is sent yet.

    Args:
        uri: `mlflow-artifacts:/path`, on the server of the tracking URI, or
            `mlflow-artifacts://host:port/path`, on another one that is reached in the same way.
        storage_options: `tracking_uri`; without it MLFLOW_TRACKING_URI.

    Raises:
        InvalidParameterError: The URI is not acceptable, or the tracking URI is not of HTTP.
    """
    options = dict(storage_options)
    tracking_uri = options.pop("tracking_uri", None) or settings.MLFLOW_TRACKING_URI.get()
    if options:
        raise InvalidParameterError(
            f"{uris.redact(uri)}: there is no option {', '.join(options)}; there is tracking_uri"
        )
    root = _resolved(uri, tracking_uri)
    return MlflowArtifactsBackend(MlflowArtifactsFileSystem(root.server), root, tracking_uri)


def _resolved(uri: str, tracking_uri: str | None) -> _Root:
    """Server and path of a URI, by the rules of `MlflowArtifactsRepository.resolve_uri`."""
    shown = uris.redact(uri)
    if tracking_uri is None or uris.scheme_of(tracking_uri) not in ("http", "https"):
        raise InvalidParameterError(
            f"{shown} is on the server that the tracking URI names, and that is "
            f"{uris.redact(tracking_uri) if tracking_uri else 'not set'}; "
            "set MLFLOW_TRACKING_URI=http://host:port"
        )
    rest = uri.partition(":")[2]
    named = uris.parse_location(
        uri if rest.startswith("//") else f"mlflow-artifacts:///{rest.lstrip('/')}", FORM
    )
    if named.host.isdigit():
        raise InvalidParameterError(f"{shown} has a port and no host; write {FORM}")
    path = named.path.strip("/")
    # A run's artifact URI may say the route too.
    path = path.removeprefix(f"{ROUTE}/artifacts".strip("/")).strip("/")
    server = tracking_uri.rstrip("/")
    if named.host:
        scheme, _, after = server.partition("://")
        authority = uri.partition("://")[2].partition("/")[0]
        prefix = after.partition("/")[2]
        server = f"{scheme}://{authority}" + (f"/{prefix}" if prefix else "")
    return _Root(server, uris.artifact_path(path))


class MlflowArtifactsBackend(Backend):
    """A directory of a tracking server's artifacts.

    Args:
        fs: The filesystem.
        root: The directory.
        tracking_uri: What a URI without a host refers to.
    """

    def __init__(self, fs: Any, root: _Root, tracking_uri: str | None) -> None:
        super().__init__(fs, root.path, CAPABILITIES)
        self._server = root.server
        self._tracking_uri = tracking_uri

    def at(self, uri: str) -> Backend | None:
        """Another directory of the same server, over the same connections."""
        if uris.scheme_of(uri) != "mlflow-artifacts":
            return None
        root = _resolved(uri, self._tracking_uri)
        if root.server != self._server:
            return None
        backend = MlflowArtifactsBackend(self.fs, root, self._tracking_uri)
        backend.retry = self.retry
        backend.part_size = self.part_size
        return backend

    def _prepare(self) -> None:
        """Tell the filesystem what the scheduler decided, for calls of several requests."""
        self.fs.retry = self.retry
        self.fs.part_size = self.part_size or self.fs.part_size

    async def info(self, path: str) -> FileInfo:
        """By the listing of the directory that it is in: asking for a file would send it."""
        if not path:
            return FileInfo("", True, None)
        entry = await self.fs._info(self.full_path(path))  # noqa: SLF001  fsspec's name for a public step
        await self._learn(entry)
        return _entry(entry, path)

    async def _learn(self, entry: Mapping[str, Any]) -> None:
        """Whether the server has ranges, once there is a file that it matters for."""
        if (entry["size"] or 0) > LARGE:
            self._prepare()
            self.capabilities = replace(self.capabilities, ranges=await self.fs.ranges())

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """One request."""
        for entry in await self.retry.run(lambda: self.fs.entries(self.full_path(path))):
            await self._learn(entry)
            name = entry["name"].rpartition("/")[2]
            yield _entry(entry, f"{path}/{name}" if path else name)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Through the server; a stretch from the storage itself, where that can be."""
        async with aclosing(self.fs.pieces(self.full_path(path), start, end)) as pieces:
            async for piece in pieces:
                yield piece

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """One request."""
        await self.fs._pipe_file(self.full_path(path), data)  # noqa: SLF001  fsspec's name for a public step

    async def write_file(self, file: LocalFile, source: OpenFile) -> None:
        """As a stream; in parts to the storage itself, where that can be."""
        self._prepare()
        await self.fs.send(self.full_path(file.artifact_path), file, source)

    async def start_upload(self, path: str, content_type: ContentType) -> SpooledUpload:
        """Collects the parts in a local file: the server wants to know their number beforehand."""

        async def send(spool: Any) -> None:
            file = await run_in_thread(lambda: find(spool, path))
            source = await run_in_thread(lambda: OpenFile(file))
            try:
                await self.write_file(file, source)
            finally:
                source.close()

        directory = await run_in_thread(spool_directory)
        return SpooledUpload(directory, "content", send)

    async def delete(self, paths: Sequence[str]) -> None:
        """One request for each."""
        async with task_group() as tasks:
            for path in paths:
                tasks.start_soon(self.fs.remove, self.full_path(path))

    async def delete_directory(self, path: str) -> None:
        """One request; the server removes what is in it."""
        await self.fs.remove(self.full_path(path))

    async def aclose(self) -> None:
        """Close every connection."""
        await self.fs.aclose()


def _entry(entry: Mapping[str, Any], path: str) -> FileInfo:
    if entry["type"] == "directory":
        return FileInfo(path, True, None)
    return FileInfo(path, False, entry["size"])
