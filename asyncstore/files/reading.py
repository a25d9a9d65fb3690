"""The local end of an upload. Everything here blocks: call it in a worker thread."""

from __future__ import annotations

import errno
import hashlib
import io
import mimetypes
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncstore import uris
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
)
from asyncstore.multipart import Part, plan_parts

__all__ = ["ContentType", "LocalFile", "OpenFile", "content_type_of", "find", "scan"]

MIB = 1024 * 1024
MAPPED = 128 * 1024


@dataclass(frozen=True, slots=True)
class ContentType:
    """What a file holds, as `mimetypes.guess_type` says it.

    Args:
        type: MIME type; None when unknown.
        encoding: Content encoding such as gzip; None when there is none.
    """

    type: str | None = None
    encoding: str | None = None


def content_type_of(name: str) -> ContentType:
    """What a file of a name holds."""
    return ContentType(*mimetypes.guess_type(name))


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send, as it was when it was found.

    Args:
        path: Where it is.
        artifact_path: Where it goes.
        size: Bytes.
        mtime_ns: When it was last changed.
    """

    path: Path
    artifact_path: str
    size: int
    mtime_ns: int

    @property
    def content_type(self) -> ContentType:
        """Guessed from the name, as MLflow does."""
        return content_type_of(self.path.name)

    def read(self) -> bytes | memoryview:
        """The whole content.

        Raises:
            IntegrityError: The file is not the one that was found, or changed meanwhile.
        """
        with OpenFile(self) as file:
            data = file.read(Part(1, 0, self.size))
            file.check_unchanged()
            return data


class OpenFile:
    """A `LocalFile` that is being read, part by part.

    Args:
        file: Which one.
        on_progress: Told how many more bytes were sent, by those who say so with `sent`.
    """

    def __init__(
        self, file: LocalFile, on_progress: Callable[[int], object] = lambda _: None
    ) -> None:
        self._file = file
        self._on_progress = on_progress
        self._sent = 0
        self._spare: list[mmap.mmap] = []
        with _described(file.path):
            self.fd = os.open(file.path, os.O_RDONLY)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def read(self, part: Part) -> memoryview:
        """All bytes of a part.

        Raises:
            IntegrityError: The file has become shorter.
        """
        content = self._buffer(part.size)
        done = 0
        while done < part.size:
            read = os.preadv(self.fd, [content[done:]], part.offset + done)
            if not read:
                raise self._changed("became shorter")
            done += read
        return content

    def _buffer(self, size: int) -> memoryview:
        if size <= MAPPED:
            return memoryview(bytearray(size))
        # A map of its own goes back to the system when it is dropped; the allocator would keep
        # parts that were read in other threads, several times the memory budget. Getting one from
        # the system takes longer than filling it, so parts of one file take turns.
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = mmap.mmap(-1, size)
        return memoryview(spare if len(spare) >= size else mmap.mmap(-1, size))[:size]

    def recycle(self, content: memoryview) -> None:
        """Give back what `read` returned, once nobody looks at it any more."""
        if isinstance(content.obj, mmap.mmap):
            self._spare.append(content.obj)

    def sent(self, offset: int) -> None:
        """The file was sent up to an offset; an attempt that repeats a stretch counts once."""
        if offset > self._sent:
            self._on_progress(offset - self._sent)
            self._sent = offset

    def stream(self) -> io.BufferedReader:
        """The file from its beginning, for who reads by himself.

        Its last bytes come only when the file has not changed; else reading is an IntegrityError.
        """
        return io.BufferedReader(_Unchanged(self, self._file.size))

    def md5(self) -> bytes:
        """MD5 of the whole file."""
        digest = hashlib.md5(usedforsecurity=False)
        for part in plan_parts(self._file.size, MIB):
            digest.update(self.read(part))
        self.check_unchanged()
        return digest.digest()

    def check_unchanged(self) -> None:
        """Compare with what was found.

        Raises:
            IntegrityError: Size or time of change differ.
        """
        status = os.fstat(self.fd)
        if status.st_size != self._file.size:
            raise self._changed(f"went from {self._file.size} to {status.st_size} bytes")
        if status.st_mtime_ns != self._file.mtime_ns:
            raise self._changed("was written to")

    def _changed(self, how: str) -> IntegrityError:
        return IntegrityError(
            f"{_shown(self._file.path)} {how} while it was being sent; nothing was stored at "
            f"{self._file.artifact_path!r}. Send it when nobody writes to it"
        )


class _Unchanged(io.FileIO):
    def __init__(self, source: OpenFile, size: int) -> None:
        super().__init__(os.dup(source.fd))
        # Copies of a handle share one position, which an earlier reader moved.
        self.seek(0)
        self._source = source
        self._size = size

    def readinto(self, buffer: Any, /) -> int:
        read = super().readinto(buffer)
        if not read or self.tell() >= self._size:
            self._source.check_unchanged()
        return read


def find(path: Path, artifact_path: str) -> LocalFile:
    """Look at one file.

    Args:
        path: The file; links are followed.
        artifact_path: Where it goes.

    Raises:
        NotFoundError: It does not exist.
        PermissionDeniedError: It may not be read.
        InvalidParameterError: It is a directory or a device, its links form a loop, or the
            artifact path is not acceptable.
    """
    with _described(path):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise InvalidParameterError(f"{_shown(path)} is a directory; use log_artifacts")
    return _file(path, status, artifact_path)


def _file(path: Path, status: os.stat_result, artifact_path: str) -> LocalFile:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidParameterError(f"{_shown(path)} is neither a file nor a directory")
    return LocalFile(path, uris.artifact_path(artifact_path), status.st_size, status.st_mtime_ns)


def scan(directory: Path, artifact_path: str) -> tuple[list[LocalFile], list[str]]:
    """Look at every file below a directory, before anything is sent.

    Args:
        directory: The directory; links to files and directories are followed.
        artifact_path: Where it goes.

    Returns:
        The files, and the artifact paths of the empty directories.

    Raises:
        NotFoundError: The directory, or what a link names, does not exist.
        PermissionDeniedError: Something may not be read.
        InvalidParameterError: It is not a directory, links form a loop, or a name is not acceptable
            as an artifact path.
    """
    with _described(directory):
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise InvalidParameterError(f"{_shown(directory)} is not a directory; use log_artifact")
    files: list[LocalFile] = []
    empty: list[str] = []
    for entry in _walk(directory, artifact_path, ()):
        if isinstance(entry, str):
            empty.append(entry)
        else:
            files.append(entry)
    return files, empty


def _walk(
    directory: Path, artifact_path: str, above: tuple[tuple[int, int], ...]
) -> Iterator[LocalFile | str]:
    with _described(directory):
        status = directory.stat()
        names = sorted(os.listdir(directory))  # noqa: PTH208  iterdir would make a Path of each
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise InvalidParameterError(
            f"{_shown(directory)} is a link to a directory above it: a loop"
        )
    if not names:
        yield uris.artifact_path(artifact_path)
    for name in names:
        path = directory / name
        below = f"{artifact_path}/{name}" if artifact_path else name
        with _described(path):
            found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(path, below, (*above, identity))
        else:
            yield _file(path, found, below)


def _shown(path: Path) -> str:
    """The path in a form that can be printed: bytes that are not UTF-8 are escaped."""
    return str(path).encode(errors="backslashreplace").decode()


class _described:  # noqa: N801  reads as a verb
    """Raise asyncstore's errors for what the operating system says about a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        shown = _shown(self._path)
        if isinstance(error, FileNotFoundError):
            raise NotFoundError(f"{shown} does not exist") from error
        if isinstance(error, PermissionError):
            raise PermissionDeniedError(f"{shown} may not be read") from error
        if isinstance(error, NotADirectoryError):
            raise InvalidParameterError(f"{shown}: a part of it is not a directory") from error
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise InvalidParameterError(f"{shown}: its links form a loop") from error
