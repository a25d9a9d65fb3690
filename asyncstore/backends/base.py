"""What a storage does for `ArtifactRepository`, and what it can."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncstore import uris
from asyncstore.backends.presigned import Presigning
from asyncstore.entities import FileInfo
from asyncstore.errors import NotFoundError
from asyncstore.files.reading import ContentType, LocalFile, OpenFile
from asyncstore.multipart import MultipartUpload
from asyncstore.retry import RetryPolicy

__all__ = ["Backend", "Capabilities", "grouped"]


@dataclass(frozen=True)
class Capabilities:
    """What a storage can do, and its limits.

    Args:
        parallel_parts: Parts of one upload may be sent at once and in any order.
        ranges: A read may start in the middle of a file.
        directories: A directory exists by itself, even when it is empty.
        min_part_size: Smallest part but the last, in bytes.
        max_parts: Most parts of an upload; None for no limit.
        max_file_size: Largest file that `write_file` takes, in bytes; None where there is none.
            Without `parallel_parts` all large files up to it go that way.
        max_concurrency: Most requests at once; None for no limit.
        writable: Whether anything can be stored or deleted; otherwise those methods raise
            `UnsupportedError`.
        versions: Entries carry an etag, and a read notices that the file was replaced meanwhile.
        upload_chunk_size: Bytes of an upload part, where the storage's own variable says so; None
            leaves it to the general one.
        download_chunk_size: The same for a range.
        batch_writes: `write_many` stores several small files in one request.
        resumable: `write_file` takes several requests, and bounds and repeats each by itself with
            the backend's `request_timeout` and `retry`.
        removes_trees: `delete_directory` removes what is in it, too.
        range_size: Bytes of a range when no variable says so; None leaves it to the scheduler.
        request_timeout: Seconds that one request may take, its content included, when
            MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT is not set; None for no limit.
    """

    parallel_parts: bool = False
    ranges: bool = True
    directories: bool = False
    min_part_size: int = 1
    max_parts: int | None = None
    max_file_size: int | None = None
    max_concurrency: int | None = None
    writable: bool = True
    versions: bool = False
    upload_chunk_size: int | None = None
    download_chunk_size: int | None = None
    batch_writes: bool = False
    resumable: bool = False
    removes_trees: bool = False
    range_size: int | None = None
    request_timeout: float | None = None


class Backend(abc.ABC):
    """A storage, seen from a root.

    Paths are artifact paths, already checked, relative to the root. Methods raise the errors of
    `asyncstore.errors`; `UnavailableError` means that the same call may succeed if repeated.

    Args:
        fs: The fsspec filesystem; None where there is none that will do.
        root: The root in the filesystem's own form, without a slash at the end.
        capabilities: What the storage can do.
    """

    def __init__(self, fs: Any, root: str, capabilities: Capabilities) -> None:
        self.fs = fs
        self.root = root
        self.capabilities = capabilities
        # Of one page of a listing, which nobody above can repeat by itself, and its time.
        self.retry = RetryPolicy(attempts=1)
        self.request_timeout: float | None = None
        # Bytes of a part, for `write_file` that cuts by itself.
        self.part_size: int | None = None

    def full_path(self, path: str) -> str:
        """The path in the filesystem's own form."""
        if not path:
            return self.root
        return f"{self.root.rstrip('/')}/{path}" if self.root else path

    @abc.abstractmethod
    async def info(self, path: str) -> FileInfo:
        """The entry at a path.

        Raises:
            NotFoundError: There is none.
        """

    @abc.abstractmethod
    def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """The direct children of a directory, in any order; nothing where there is no directory."""

    async def walk(self, path: str) -> AsyncGenerator[FileInfo]:
        """Every file below a directory, in any order, in constant memory per level of depth.

        Links to directories are followed, as reading does.

        Storages that list a whole tree in one go override it.
        """
        async for entry in self.list(path):
            if entry.is_dir:
                async for below in self.walk(entry.path):
                    yield below
            else:
                yield entry

    @abc.abstractmethod
    def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """The bytes of a file from `start` up to `end`, in pieces; None reads to the end.

        With an `etag`, a file that is not that very content any more is an `IntegrityError`,
        where the storage can tell.
        """

    @abc.abstractmethod
    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Store a whole file; a reader sees the old one or the new one, never a part."""

    async def write_many(
        self, files: Sequence[tuple[str, bytes | memoryview, ContentType]]
    ) -> None:
        """Store several small files in one request, each whole or not at all.

        Only storages with `batch_writes` have it.

        Args:
            files: Path, content and type of each.
        """
        raise NotImplementedError

    async def write_file(self, file: LocalFile, source: OpenFile) -> None:
        """Store a file in one request, in constant memory.

        Storages with a `max_file_size` have it; elsewhere a large file goes in parts.
        """
        raise NotImplementedError

    @abc.abstractmethod
    async def start_upload(self, path: str, content_type: ContentType) -> MultipartUpload:
        """Start an upload in parts."""

    async def make_directory(self, path: str) -> None:
        """Make an empty directory; only storages with `directories` have such a thing."""
        raise NotImplementedError

    @abc.abstractmethod
    async def delete(self, paths: Sequence[str]) -> None:
        """Delete files; a missing one is no error."""

    @abc.abstractmethod
    async def delete_directory(self, path: str) -> None:
        """Remove a directory whose files are gone; nothing to do where directories are prefixes."""

    def presigning(self) -> Presigning | None:
        """What gives others access to one artifact for a while; None where there is no such way."""
        return None

    @abc.abstractmethod
    def at(self, uri: str) -> Backend | None:
        """The same connections seen from another root; None when the URI is on another storage."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Close every connection."""

    async def exists(self, path: str) -> bool:
        """Whether there is a file or directory at a path."""
        try:
            await self.info(path)
        except NotFoundError:
            return False
        return True

    def missing(self, path: str) -> NotFoundError:
        """The error for a path that does not exist."""
        return NotFoundError(f"there is no artifact {path!r} in {uris.redact(self.root) or '/'}")


async def grouped(pieces: AsyncIterator[bytes], size: int) -> AsyncGenerator[list[bytes]]:
    """Group small pieces until they hold at least `size` bytes: fewer hops to a worker thread."""
    held: list[bytes] = []
    held_size = 0
    async for piece in pieces:
        held.append(piece)
        held_size += len(piece)
        if held_size >= size:
            yield held
            held, held_size = [], 0
    if held:
        yield held
