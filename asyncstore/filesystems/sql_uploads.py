"""Versions that are written in several transactions, and what becomes of those that are not wanted.

A version that is being written has a row of its own, which says when somebody last wrote to it. One
that rests for too long is abandoned: its writer was killed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import anyio
import anyio.lowlevel

from asyncstore.databases.connections import Connections
from asyncstore.errors import AsyncStoreError
from asyncstore.filesystems import sql_rows as rows
from asyncstore.multipart import Part

__all__ = ["CHUNK_SIZE", "PART_SIZE", "SqlUpload", "chunked", "clean", "new_version", "sweep"]

#: The event loop converts a chunk in a few milliseconds, on the slowest driver.
CHUNK_SIZE = 256 * 1024
#: Bytes of one transaction.
PART_SIZE = 8 * 1024 * 1024
#: A version in progress says that it lives this often, in ms.
TOUCH_EVERY = 10 * 60 * 1000


def new_version() -> bytes:
    """An id that no other content has."""
    return secrets.token_bytes(16)


def chunked(version: bytes, data: bytes | memoryview, offset: int = 0) -> Iterator[rows.Chunk]:
    """Cut the content that begins at byte `offset` of a file in chunks, without a copy."""
    view = memoryview(data)
    for start in range(0, len(view), CHUNK_SIZE):
        yield version, offset + start, view[start : start + CHUNK_SIZE]


class SqlUpload:
    """A version in progress, a `MultipartUpload`; its parts may be written in any order, and again.

    Args:
        connections: The database.
        path: The file that it is to be.
    """

    def __init__(self, connections: Connections, path: str) -> None:
        self.version = new_version()
        self._connections = connections
        self._path = path
        self._doing = f"writing {path!r}"
        self._sizes: dict[int, int] = {}
        self._tried: set[int] = set()
        self._touched = rows.now_ms()

    async def begin(self) -> None:
        """Announce it."""
        body = partial(rows.begin, path=self._path, version=self.version)
        await self._connections.write(self._doing, body)

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Write a stretch of the file, in one transaction.

        Raises:
            AsyncStoreError: Another process took the upload for abandoned.
        """
        if rows.now_ms() - self._touched > TOUCH_EVERY:
            self._touched = rows.now_ms()
            await self._connections.write(self._doing, partial(rows.touch, version=self.version))
        again = part.offset in self._tried
        self._tried.add(part.offset)
        if data:
            pieces = [*chunked(self.version, data, part.offset)]
            body = partial(rows.add_chunks, pieces=pieces, again=again)
            await self._connections.write(self._doing, body)
        self._sizes[part.offset] = len(data)

    async def complete(self) -> None:
        """Make it the content of the file. A second time does nothing.

        Raises:
            InvalidParameterError: A directory is there, or a part of the path is a file.
        """
        size = sum(self._sizes.values())
        body = partial(rows.finish, path=self._path, version=self.version, size=size)
        await sweep(self._connections, await self._connections.write(self._doing, body))

    async def abort(self) -> None:
        """Remove it."""
        doing = f"removing what was written for {self._path!r}"
        await self._connections.write(doing, partial(rows.condemn, version=self.version))
        await _remove(self._connections, self.version, doing)


async def sweep(connections: Connections, versions: list[bytes]) -> None:
    """Remove condemned versions; what fails is left for `clean`."""
    with suppress(AsyncStoreError):
        for version in versions:
            await _remove(connections, version, "removing what was replaced")


async def clean(connections: Connections, older_than: float) -> int:
    """Remove the versions that are condemned, and those that nobody has written to for a while.

    Args:
        connections: The database.
        older_than: How long, in seconds.

    Returns:
        How many it removed.
    """
    doing = "removing abandoned uploads"
    before = rows.now_ms() - int(older_than * 1000)
    count = 0
    while found := await connections.read(doing, partial(rows.abandoned, before=before)):
        for version in found:
            await connections.write(doing, partial(rows.condemn, version=version))
            await _remove(connections, version, doing)
            count += 1
    return count


async def _remove(connections: Connections, version: bytes, doing: str) -> None:
    while not await connections.write(doing, partial(rows.sweep, version=version)):
        await anyio.lowlevel.checkpoint()
