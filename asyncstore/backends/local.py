"""A directory of this machine, or of an NFS server mounted on it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fsspec.implementations.local import LocalFileSystem

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.concurrency import shielded
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnavailableError,
)
from asyncstore.files.reading import ContentType
from asyncstore.files.threads import patiently, run_in_thread
from asyncstore.files.writing import STAGED_SUFFIX, StagedFile, write_file
from asyncstore.multipart import Part

__all__ = ["LocalBackend", "open_backend"]

T = TypeVar("T")
READ_SIZE = 1024 * 1024
LIST_BATCH = 1000
CLOSE_WITHIN = 10.0
# What Linux's NFS client makes of a file that is deleted while it is open.
SILLY = re.compile(r"\.nfs[0-9a-f]{24}")
IN_USE = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a directory; it is made when the first file is written.

    Args:
        uri: A path or a `file:` URI.
        storage_options: Arguments of fsspec's `LocalFileSystem`.

    Raises:
        InvalidParameterError: The path is a file, or an option is not acceptable.
    """
    root = uris.local_path(uri)
    try:
        fs = LocalFileSystem(**storage_options, skip_instance_cache=True)
    except TypeError as error:
        raise InvalidParameterError(f"open {uri}: {error}") from error
    if await run_in_thread(root.is_file):
        raise InvalidParameterError(f"{root} is a file; an artifact repository is a directory")
    return LocalBackend(fs, str(root))


class LocalBackend(Backend):
    """A directory, with plain system calls in worker threads."""

    def __init__(self, fs: Any, root: str) -> None:
        super().__init__(
            fs,
            root,
            Capabilities(parallel_parts=True, directories=True, versions=True, batch_writes=True),
        )

    def _local(self, path: str) -> Path:
        return Path(self.root, path) if path else Path(self.root)

    def at(self, uri: str) -> Backend | None:
        """Another directory."""
        if uris.scheme_of(uri) not in ("", "file", "local"):
            return None
        return LocalBackend(self.fs, str(uris.local_path(uri)))

    async def info(self, path: str) -> FileInfo:
        """Follows links, as reading does."""
        local = self._local(path)
        try:
            status = await run_in_thread(local.stat)
        except (NotFoundError, InvalidParameterError) as error:
            raise self.missing(path) from error
        is_dir = stat.S_ISDIR(status.st_mode)
        return FileInfo(path, is_dir, None if is_dir else status.st_size, _etag(status))

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """In batches, one hop to a worker thread each."""
        local = self._local(path)
        try:
            entries = await run_in_thread(lambda: os.scandir(local))
        except (NotFoundError, InvalidParameterError):
            return
        visible = _visible(entries, path)
        try:
            # A directory handle goes on behind what it gave: not to be repeated.
            while batch := await run_in_thread(
                lambda: list(islice(visible, LIST_BATCH)), repeat=False
            ):
                for entry in batch:
                    yield entry
        finally:
            await _closed(entries)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Pieces of 1 MiB; the file is opened on the trip that reads the first one."""
        local = self._local(path)
        file: BinaryIO | None = None

        def piece(size: int, offset: int) -> bytes:
            nonlocal file
            if file is None:
                file = local.open("rb", buffering=0)
            data = os.pread(file.fileno(), size, offset)
            if etag and _etag(os.fstat(file.fileno())) != etag:
                raise IntegrityError(f"{local} changed while it was being read; read it again")
            if len(data) < size or offset + size == end:
                file.close()
            return data

        offset = start
        try:
            while end is None or offset < end:
                size = READ_SIZE if end is None else min(READ_SIZE, end - offset)
                data = await run_in_thread(partial(piece, size, offset))
                if data:
                    yield data
                if len(data) < size:
                    # A file gives less than it is asked for at its end only.
                    return
                offset += size
        finally:
            if file is not None and not file.closed:
                await _closed(file)

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Staged, synced, renamed."""
        local = self._local(path)
        await run_in_thread(lambda: write_file(local, data))

    async def write_many(
        self, files: Sequence[tuple[str, bytes | memoryview, ContentType]]
    ) -> None:
        """All on one trip to a worker thread."""

        def write() -> None:
            for path, data, _ in files:
                write_file(self._local(path), data)

        await run_in_thread(write)

    async def start_upload(self, path: str, content_type: ContentType) -> LocalUpload:
        """Parts are written in place into a staged file."""
        local = self._local(path)
        return LocalUpload(await run_in_thread(lambda: StagedFile(local)))

    async def make_directory(self, path: str) -> None:
        """With its parents."""
        local = self._local(path)
        await run_in_thread(lambda: local.mkdir(parents=True, exist_ok=True))

    async def delete(self, paths: Sequence[str]) -> None:
        """One hop for all."""

        def unlink() -> None:
            for path in paths:
                self._local(path).unlink(missing_ok=True)

        await run_in_thread(unlink)

    async def delete_directory(self, path: str) -> None:
        """The whole tree; a link is removed, and never what it leads to."""
        local = self._local(path)

        def remove() -> None:
            if not local.is_symlink():
                if local.is_dir():
                    _remove_tree(local)
            elif path:
                local.unlink()
            elif local.is_dir():
                # A root that is a link stays one.
                _remove_tree(local.resolve())
                local.resolve().mkdir()

        await run_in_thread(remove)

    async def aclose(self) -> None:
        """Nothing is held open."""


class LocalUpload:
    """Parts of one staged file."""

    def __init__(self, staged: StagedFile) -> None:
        self._staged = staged

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Write in place."""
        await run_in_thread(lambda: self._staged.write([data], part.offset))

    async def complete(self) -> None:
        """Sync and rename."""
        await run_in_thread(self._staged.commit)

    async def abort(self) -> None:
        """Remove the staged file."""
        await run_in_thread(self._staged.discard)


async def _closed(handle: Any) -> None:
    """Close a file or directory; on an NFS server that can take its time."""
    await shielded(lambda: run_in_thread(handle.close), within=CLOSE_WITHIN)


def _remove_tree(directory: Path) -> None:
    """Remove all that can be removed, and then say what could not.

    Raises:
        UnavailableError: Something is in use; on NFS a file that was deleted keeps its directory
            until its last reader closes it.
    """
    held: list[Path] = []

    def look(_: object, path: str, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):
            # Somebody else deletes here too.
            return
        if not isinstance(error, OSError) or error.errno not in IN_USE:
            raise error
        held.append(Path(path))

    if sys.version_info >= (3, 12):
        shutil.rmtree(directory, onexc=look)
    else:
        shutil.rmtree(directory, onerror=lambda call, path, info: look(call, path, info[1]))
    # It comes first, and its directories behind it.
    if held:
        raise UnavailableError(
            f"{held[0]} is in use: somebody reads what was deleted, or writes; delete it again "
            "when that has ended"
        )


def _visible(entries: Iterator[os.DirEntry[str]], path: str) -> Iterator[FileInfo]:
    for entry in entries:
        if entry.name.endswith(STAGED_SUFFIX) or SILLY.fullmatch(entry.name):
            continue
        below = f"{path}/{entry.name}" if path else entry.name
        try:
            status = patiently(entry.stat)
        except FileNotFoundError:
            # Deleted since it was listed, or a link to nothing.
            continue
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            continue
        is_dir = stat.S_ISDIR(status.st_mode)
        yield FileInfo(below, is_dir, None if is_dir else status.st_size, _etag(status))


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
