"""Any other fsspec filesystem, by its protocol alone.

It is driven through fsspec's synchronous face in worker threads: that face is the one that every
filesystem has, and whatever it does, it does not do it on the event loop.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import fsspec

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    MissingDependencyError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.files.reading import ContentType
from asyncstore.multipart import MultipartUpload, Part, abandoned, plan_parts

__all__ = ["ThreadedBackend", "open_backend"]

T = TypeVar("T")
READ_SIZE = 4 * 1024 * 1024
MAX_CONCURRENCY = 16


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a URI of any protocol that fsspec or one of its entry points knows.

    Args:
        uri: The root.
        storage_options: Arguments of the filesystem.

    Raises:
        MissingDependencyError: The filesystem's library is not installed.
        InvalidParameterError: fsspec does not know the protocol, or refuses the options.
    """

    def connect() -> tuple[Any, str]:
        fs, root = fsspec.url_to_fs(uri, **storage_options)
        return fs, root.rstrip("/")

    shown = uris.redact(uri)
    scheme = uris.scheme_of(uri)
    if not uri[len(scheme) :].startswith(("://", "::")) and scheme != "data":
        # fsspec would take it for a local path.
        raise InvalidParameterError(f"{shown}: write {scheme}://...")
    try:
        fs, root = await anyio.to_thread.run_sync(connect)
    except ImportError as error:
        raise MissingDependencyError(f"open {shown}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"open {shown}: {error}") from error
    except OSError as error:
        raise UnavailableError(f"open {shown}: {error}") from error
    return ThreadedBackend(fs, root, anyio.CapacityLimiter(MAX_CONCURRENCY))


class ThreadedBackend(Backend):
    """A filesystem behind fsspec's synchronous methods."""

    def __init__(self, fs: Any, root: str, threads: anyio.CapacityLimiter) -> None:
        super().__init__(fs, root, Capabilities(max_concurrency=MAX_CONCURRENCY))
        self._threads = threads

    async def run(self, path: str, call: Callable[[], T]) -> T:
        """Do one filesystem call in a worker thread, with its errors as asyncstore's."""
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._threads)
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except PermissionError as error:
            raise PermissionDeniedError(f"{self.full_path(path)}: {error}") from error
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise InvalidParameterError(f"{self.full_path(path)}: {error}") from error
        except NotImplementedError as error:
            raise UnsupportedError(
                f"{self.full_path(path)}: {type(self.fs).__name__} cannot do this"
            ) from error
        except (ConnectionError, TimeoutError) as error:
            raise UnavailableError(f"{self.full_path(path)}: {error}") from error
        except OSError as error:
            raise AsyncStoreError(f"{self.full_path(path)}: {error}") from error

    def at(self, uri: str) -> Backend | None:
        """Another root of the same filesystem instance's protocol."""
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol
        own_options = fsspec.utils.infer_storage_options(uri)
        same_host = own_options.get("host") == getattr(self.fs, "host", own_options.get("host"))
        if uris.scheme_of(uri) not in protocols or not same_host:
            return None
        root = self.fs._strip_protocol(uri)  # noqa: SLF001  fsspec's name for a public step
        backend = ThreadedBackend(self.fs, root.rstrip("/"), self._threads)
        backend.retry = self.retry
        return backend

    async def info(self, path: str) -> FileInfo:
        """fsspec's `info`."""
        if not path:
            return FileInfo("", True, None)
        full = self.full_path(path)
        try:
            return _entry(await self.run(path, lambda: self.fs.info(full)), path)
        except InvalidParameterError as error:
            # A part of the path is a file.
            raise self.missing(path) from error

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """fsspec's `ls`, past its cache."""
        full = self.full_path(path)

        def ls() -> list[dict[str, Any]]:
            self.fs.invalidate_cache(full)
            return list(self.fs.ls(full, detail=True))

        try:
            found = await self.retry.run(lambda: self.run(path, ls))
        except (NotFoundError, InvalidParameterError):
            return
        for item in found:
            name = item["name"].rstrip("/")
            # A file lists as itself, and some storages list a directory's own marker.
            if name.strip("/") != full.strip("/"):
                leaf = name.rpartition("/")[2]
                yield _entry(item, f"{path}/{leaf}" if path else leaf)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """By `cat_file`, some MiB at a time: files that `open` returns may share one position."""
        full = self.full_path(path)
        if end is None:
            end = (await self.info(path)).file_size
        if end is None:
            yield await self.run(path, lambda: self.fs.cat_file(full))
            return
        for part in plan_parts(end - start, READ_SIZE) if end > start else ():
            first, last = start + part.offset, start + part.offset + part.size
            yield await self.run(path, partial(self.fs.cat_file, full, start=first, end=last))

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Through an upload of one part."""
        upload = await self.start_upload(path, content_type)
        try:
            await upload.upload_part(Part(1, 0, len(data)), data)
            await upload.complete()
        except BaseException as error:
            await abandoned(upload, error)
            raise

    async def start_upload(self, path: str, content_type: ContentType) -> MultipartUpload:
        """Open for writing without committing, so that a failure can discard."""
        full = self.full_path(path)

        def open_file() -> Any:
            self.fs.makedirs(full.rpartition("/")[0], exist_ok=True)
            return self.fs.open(full, "wb", autocommit=False)

        return StreamUpload(self, path, await self.run(path, open_file))

    async def delete(self, paths: Sequence[str]) -> None:
        """One by one, as not every filesystem deletes many."""
        for path in paths:
            full = self.full_path(path)
            try:
                await self.run(path, partial(self.fs.rm_file, full))
            except NotFoundError:
                continue

    async def delete_directory(self, path: str) -> None:
        """Directories that the storage keeps by themselves.

        Not by `rm`, which takes a name such as `a*` for a pattern and deletes what matches it.
        """

        def remove(directory: str) -> None:
            self.fs.invalidate_cache(directory)
            for item in self.fs.ls(directory, detail=True):
                if item["type"] == "directory" and item["name"].strip("/") != directory.strip("/"):
                    remove_if_there(item["name"])
            self.fs.rmdir(directory)

        def remove_if_there(directory: str) -> None:
            # Where directories are prefixes, one goes with its last file.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                remove(directory)

        full = self.full_path(path)
        if await self.run(path, lambda: self.fs.isdir(full)):
            await self.run(path, partial(remove_if_there, full))

    async def aclose(self) -> None:
        """fsspec shares instances between users and closes them itself."""


class StreamUpload:
    """One stream; the parts arrive in order.

    Nobody knows how much of a failed write arrived, so no step of it is worth a retry.
    """

    def __init__(self, backend: ThreadedBackend, path: str, file: Any) -> None:
        self._backend = backend
        self._path = path
        self._file = file

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Append."""
        await self._once(lambda: self._file.write(bytes(data)))

    async def complete(self) -> None:
        """Close and commit."""

        def commit() -> None:
            self._file.close()
            # Filesystems without transactions have neither: closing is their commit.
            if hasattr(self._file, "commit"):
                self._file.commit()

        await self._once(commit)

    async def _once(self, call: Callable[[], object]) -> None:
        try:
            await self._backend.run(self._path, call)
        except UnavailableError as error:
            raise AsyncStoreError(
                f"{error}; the upload broke off", error_code=error.error_code
            ) from error

    async def abort(self) -> None:
        """Discard; where the filesystem cannot, close and delete."""

        def discard() -> None:
            if hasattr(self._file, "discard"):
                self._file.discard()
            else:
                self._file.close()
                self._backend.fs.rm_file(self._backend.full_path(self._path))

        await self._backend.run(self._path, discard)


def _entry(info: Mapping[str, Any], path: str) -> FileInfo:
    is_dir = info.get("type") == "directory"
    size = info.get("size")
    return FileInfo(path, is_dir, None if is_dir or size is None else int(size))
