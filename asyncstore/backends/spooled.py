"""Local files on the way to and from storages that only take and give whole files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from asyncstore.concurrency import shielded
from asyncstore.files.threads import run_in_thread
from asyncstore.multipart import Part

__all__ = ["SpooledUpload", "pieces_of", "spool_directory", "spooled"]

MIB = 1024 * 1024
REMOVE_WITHIN = 30.0


def spool_directory() -> Path:
    """A new directory of this machine. Blocks."""
    return Path(tempfile.mkdtemp(prefix="asyncstore-spool-"))


@asynccontextmanager
async def spooled() -> AsyncIterator[Path]:
    """A directory for the block; it goes with it, cancelled or not."""
    directory = await run_in_thread(spool_directory)
    try:
        yield directory
    finally:
        await shielded(lambda: _remove(directory), within=REMOVE_WITHIN)


async def pieces_of(file: Path, start: int, end: int | None) -> AsyncGenerator[bytes]:
    """The bytes of a local file from `start` up to `end`, in pieces of 1 MiB."""
    stream = await run_in_thread(lambda: file.open("rb"))
    try:
        await run_in_thread(partial(stream.seek, start))
        left = None if end is None else end - start
        while left != 0:
            size = MIB if left is None else min(MIB, left)
            piece = await run_in_thread(partial(stream.read, size))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece
    finally:
        stream.close()


async def _remove(directory: Path) -> None:
    await run_in_thread(lambda: shutil.rmtree(directory, ignore_errors=True))


class SpooledUpload:
    """Parts that are kept in a local file until all are there; then the file is sent as one.

    Args:
        directory: A directory of its own, from `spool_directory`; removed with the upload.
        name: The name that the file is to have, without directories.
        send: Stores the whole local file.
    """

    def __init__(
        self, directory: Path, name: str, send: Callable[[Path], Awaitable[object]]
    ) -> None:
        self._directory = directory
        self._file = directory / name
        self._send = send

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Write in place."""

        def write() -> None:
            self._file.touch()
            with self._file.open("r+b") as stream:
                stream.seek(part.offset)
                stream.write(data)

        await run_in_thread(write)

    async def complete(self) -> None:
        """Send the file."""
        await self._send(self._file)
        await _remove(self._directory)

    async def abort(self) -> None:
        """Remove the file."""
        await _remove(self._directory)
