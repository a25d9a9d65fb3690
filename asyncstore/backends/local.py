"""A directory of this machine, or of an NFS server mounted on it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from fsspec.implementations.local import LocalFileSystem

from asyncstore import uris
from asyncstore.artifacts.multipart import Part
from asyncstore.backends.base import Backend, Capabilities, ContentType
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

__all__ = ["LocalBackend", "StagedFile", "open_backend", "run_in_thread"]

T = TypeVar("T")
READ_SIZE = 1024 * 1024
LIST_BATCH = 1000
STALE_ATTEMPTS = 5
STAGED_SUFFIX = ".asyncstore-part"
# Enough to keep a disk or an NFS server busy; more would only take the processor from the loop.
MAX_FILE_THREADS = 8
_FILE_THREADS: RunVar[anyio.CapacityLimiter] = RunVar("_FILE_THREADS")


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


async def run_in_thread(call: Callable[[], T], *, repeat: bool = True) -> T:
    """Do file work in a worker thread, with its errors as asyncstore's.

    A stale NFS handle (ESTALE: the server replaced the file under it) is tried again, since a
    second look-up by name finds the new one.

    Args:
        call: The work.
        repeat: Whether the work is safe to repeat.

    Raises:
        NotFoundError: A file or directory does not exist.
        PermissionDeniedError: The operating system refuses.
        UnavailableError: The handle stays stale; starting again by name may help.
        AsyncStoreError: Any other trouble with the file system, such as a full disk.
    """

    work = partial(_patiently, call) if repeat else call
    try:
        return await anyio.to_thread.run_sync(work, limiter=_limiter())
    except FileNotFoundError as error:
        raise NotFoundError(f"{error.filename} does not exist") from error
    except PermissionError as error:
        raise PermissionDeniedError(f"{error.filename}: {error.strerror}") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidParameterError(f"{error.filename}: {error.strerror}") from error
    except AsyncStoreError:
        raise
    except OSError as error:
        kind = UnavailableError if error.errno == errno.ESTALE else AsyncStoreError
        raise kind(f"{error.filename or 'file system'}: {error.strerror}") from error


def _patiently(call: Callable[[], T]) -> T:
    """Try again while a handle is stale."""
    for _ in range(STALE_ATTEMPTS - 1):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(0.05)
    return call()


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _FILE_THREADS.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(MAX_FILE_THREADS)
        _FILE_THREADS.set(limiter)
        return limiter


class StagedFile:
    """A file that appears at its path only when it is whole.

    It is written beside its destination under a name of its own, then synced and renamed: on one
    file system, NFS included, the rename is atomic. Methods block; call them in a worker thread.

    Args:
        path: The destination; its directories are made.
        size: Bytes to reserve, so that a full disk shows at once; 0 reserves nothing.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._staged = path.with_name(f".{uuid.uuid4().hex}{STAGED_SUFFIX}")
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            self._fd = os.open(self._staged, flags, 0o666)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._staged, flags, 0o666)
        if size:
            try:
                _reserve(self._fd, size)
            except OSError as error:
                self.discard()
                raise OSError(error.errno, error.strerror, str(path)) from error

    def write(self, pieces: Sequence[bytes | memoryview], offset: int) -> None:
        """Write all pieces, one after the other, from `offset` on."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written

    def commit(self) -> None:
        """Sync and rename; NFS reports a failed write at sync or close, so both count."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                # Not to be tried again: a second sync would not bring the lost bytes back.
                self._staged.unlink(missing_ok=True)
                reason = f"what was written is lost: {error.strerror}"
                raise OSError(errno.EIO, reason, str(self._path)) from error
        self._staged.replace(self._path)

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)
        self._staged.unlink(missing_ok=True)


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(fd, size)


class LocalBackend(Backend):
    """A directory, with plain system calls in worker threads."""

    def __init__(self, fs: Any, root: str) -> None:
        super().__init__(fs, root, Capabilities(parallel_parts=True, directories=True))

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
            entries.close()

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Pieces of 1 MiB."""
        local = self._local(path)
        file = await run_in_thread(lambda: local.open("rb", buffering=0))

        def piece(size: int, offset: int) -> bytes:
            data = os.pread(file.fileno(), size, offset)
            if etag and _etag(os.fstat(file.fileno())) != etag:
                raise IntegrityError(f"{local} changed while it was being read; read it again")
            return data

        with file:
            offset = start
            while end is None or offset < end:
                size = READ_SIZE if end is None else min(READ_SIZE, end - offset)
                data = await run_in_thread(partial(piece, size, offset))
                if not data:
                    return
                offset += len(data)
                yield data

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Staged, synced, renamed."""
        local = self._local(path)
        await run_in_thread(lambda: write_file(local, data))

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
                    shutil.rmtree(local)
            elif path:
                local.unlink()
            elif local.is_dir():
                # A root that is a link stays one.
                shutil.rmtree(local.resolve())
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


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file: staged, synced, renamed, and nothing left when that fails."""
    staged = StagedFile(path)
    try:
        staged.write([data], 0)
        staged.commit()
    except BaseException:
        staged.discard()
        raise


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _visible(entries: Iterator[os.DirEntry[str]], path: str) -> Iterator[FileInfo]:
    for entry in entries:
        if entry.name.endswith(STAGED_SUFFIX):
            continue
        below = f"{path}/{entry.name}" if path else entry.name
        try:
            status = _patiently(entry.stat)
        except FileNotFoundError:
            # Deleted since it was listed, or a link to nothing.
            continue
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            continue
        is_dir = stat.S_ISDIR(status.st_mode)
        yield FileInfo(below, is_dir, None if is_dir else status.st_size, _etag(status))
