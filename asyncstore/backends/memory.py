"""`memory:`, the dictionary of files that fsspec shares within a process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
from fsspec.implementations.memory import MemoryFileSystem

from asyncstore import uris
from asyncstore.backends.base import Backend
from asyncstore.backends.threaded import ThreadedBackend
from asyncstore.errors import InvalidParameterError
from asyncstore.files.reading import ContentType
from asyncstore.multipart import MultipartUpload, Part

__all__ = ["MemoryBackend", "open_backend"]


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a directory of fsspec's memory.

    Args:
        uri: `memory://directory`.
        storage_options: Arguments of fsspec's `MemoryFileSystem`.

    Raises:
        InvalidParameterError: The URI has no `//`, or an option is not acceptable.
    """
    if not uri.partition(":")[2].startswith("//"):
        raise InvalidParameterError(f"{uri}: write memory://directory")
    try:
        fs = MemoryFileSystem(**storage_options)
    except TypeError as error:
        raise InvalidParameterError(f"open {uri}: {error}") from error
    root = uri.partition("://")[2].strip("/")
    # One thread: the lists inside are not made for more.
    return MemoryBackend(fs, f"/{root}" if root else "", anyio.CapacityLimiter(1))


class MemoryBackend(ThreadedBackend):
    """fsspec's memory, but for its way of writing: it shows a file from its first byte on."""

    def at(self, uri: str) -> Backend | None:
        """Another directory."""
        if uris.scheme_of(uri) != "memory":
            return None
        root = uri.partition("://")[2].strip("/")
        return MemoryBackend(self.fs, f"/{root}" if root else "", self._threads)

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """One step: the dictionary gets the new file."""
        full = self.full_path(path)
        await self.run(path, lambda: self.fs.pipe_file(full, bytes(data)))

    async def start_upload(self, path: str, content_type: ContentType) -> MultipartUpload:
        """Parts are kept until all are there."""
        return MemoryUpload(self, path)


class MemoryUpload:
    """The parts of one file."""

    def __init__(self, backend: MemoryBackend, path: str) -> None:
        self._backend = backend
        self._path = path
        self._parts: dict[int, bytes] = {}

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Keep it."""
        self._parts[part.number] = bytes(data)

    async def complete(self) -> None:
        """Store the file."""
        content = b"".join(self._parts[number] for number in sorted(self._parts))
        await self._backend.write(self._path, content, ContentType())

    async def abort(self) -> None:
        """Forget the parts."""
        self._parts.clear()
