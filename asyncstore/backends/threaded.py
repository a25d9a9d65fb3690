"""Any other fsspec filesystem, by its protocol alone.

It is driven through fsspec's synchronous face in worker threads: that face is the one that every
filesystem has, and whatever it does, it does not do it on the event loop.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import fsspec

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.spooled import SpooledUpload, spool_directory
from asyncstore.backends.threaded_errors import translate
from asyncstore.backends.threaded_protocols import KNOWN
from asyncstore.backends.threaded_upload import StreamUpload, commits, discard, renames
from asyncstore.concurrency import shielded
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    InvalidParameterError,
    MissingDependencyError,
    NotFoundError,
)
from asyncstore.files.reading import ContentType
from asyncstore.files.threads import run_in_thread
from asyncstore.files.writing import STAGED_SUFFIX, staged_name
from asyncstore.multipart import MultipartUpload, Part, abandoned, plan_parts

__all__ = ["ThreadedBackend", "open_backend"]

T = TypeVar("T")
MIB = 1024 * 1024
# One request each where the storage is remote; handed on in pieces of 1 MiB.
READ_SIZE = 4 * MIB
LIST_BATCH = 1000
MAX_CONCURRENCY = 16
CLOSE_WITHIN = 10.0


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a URI of any protocol that fsspec or one of its entry points knows.

    Args:
        uri: The root.
        storage_options: Arguments of the filesystem; they go above the variables.

    Raises:
        MissingDependencyError: The filesystem's library is not installed.
        InvalidParameterError: The URI is not in the protocol's form, fsspec does not know the
            protocol, or the filesystem refuses the options.
    """
    shown = uris.redact(uri)
    scheme = uris.scheme_of(uri)
    if not uri[len(scheme) :].startswith(("://", "::")) and scheme != "data":
        # fsspec would take it for a local path.
        raise InvalidParameterError(f"{shown}: write {scheme}://...")
    known = KNOWN.get(scheme)
    # An instance that others share could not be closed.
    options: dict[str, Any] = {"skip_instance_cache": True}
    if known is not None:
        known.check(uri)
        options |= known.options
    options |= storage_options

    def connect() -> tuple[Any, str]:
        fs, root = fsspec.url_to_fs(uri, **options)
        # Every file that does not commit by itself would be kept for a transaction, which never is.
        with contextlib.suppress(NotImplementedError):
            fs.transaction.files = deque(maxlen=0)
        return fs, root.rstrip("/")

    try:
        fs, root = await anyio.to_thread.run_sync(connect)
    except ImportError as error:
        install = f"; run: pip install 'asyncstore[{scheme}]'" if known else ""
        raise MissingDependencyError(f"open {shown}: {error}{install}") from error
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"open {shown}: {uris.redact(str(error))}") from error
    except Exception as error:
        raise translate(f"open {shown}", error) from error
    threads = anyio.CapacityLimiter(MAX_CONCURRENCY)
    return ThreadedBackend(fs, root, threads, whole_files=known is not None)


class ThreadedBackend(Backend):
    """A filesystem behind fsspec's synchronous methods.

    Args:
        fs: The filesystem.
        root: The root in its own form.
        threads: How many calls at once.
        whole_files: Whether `put_file` and `pipe_file` store a file in one step. Elsewhere a file
            is written under a name of its own and renamed, where the filesystem does not do so.
    """

    def __init__(
        self, fs: Any, root: str, threads: anyio.CapacityLimiter, *, whole_files: bool = False
    ) -> None:
        super().__init__(fs, root, Capabilities(max_concurrency=MAX_CONCURRENCY))
        self._threads = threads
        self._whole_files = whole_files
        self._stages: bool | None = None

    async def run(self, path: str, call: Callable[[], T]) -> T:
        """Do one filesystem call in a worker thread, with its errors as asyncstore's."""
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._threads)
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except NotImplementedError as error:
            action = f"{self.full_path(path)}: {type(self.fs).__name__} cannot do this"
            raise translate(action, error) from error
        except Exception as error:
            raise translate(self.full_path(path), error) from error

    def at(self, uri: str) -> Backend | None:
        """Another root of the same filesystem instance's protocol."""
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else self.fs.protocol
        scheme = uris.scheme_of(uri)
        own_options = fsspec.utils.infer_storage_options(uri)
        same_host = own_options.get("host") == getattr(self.fs, "host", own_options.get("host"))
        if scheme not in protocols or not same_host:
            return None
        if scheme in KNOWN:
            KNOWN[scheme].check(uri)
        root = self.fs._strip_protocol(uri)  # noqa: SLF001  fsspec's name for a public step
        backend = ThreadedBackend(
            self.fs, root.rstrip("/"), self._threads, whole_files=self._whole_files
        )
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

        def ls() -> list[FileInfo]:
            self.fs.invalidate_cache(full)
            return list(_entries(self.fs.ls(full, detail=True), full, path))

        try:
            found = await self.retry.run(lambda: self.run(path, ls))
        except (NotFoundError, InvalidParameterError):
            return
        for number, entry in enumerate(found):
            if number % LIST_BATCH == LIST_BATCH - 1:
                await anyio.lowlevel.checkpoint()
            yield entry

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """By `cat_file`, some MiB at a time: files that `open` returns may share one position."""
        full = self.full_path(path)
        if end is None:
            end = (await self.info(path)).file_size
        if end is None:
            async for piece in self._stream(path, start):
                yield piece
            return
        for part in plan_parts(end - start, READ_SIZE) if end > start else ():
            first, last = start + part.offset, start + part.offset + part.size

            def cut(first: int = first, last: int = last) -> list[bytes]:
                data = self.fs.cat_file(full, start=first, end=last)
                return [data[offset : offset + MIB] for offset in range(0, len(data), MIB)]

            for piece in await self.run(path, cut):
                yield piece

    async def _stream(self, path: str, start: int) -> AsyncGenerator[bytes]:
        """A file whose size nobody knows."""
        file = await self.run(path, lambda: self.fs.open(self.full_path(path), "rb"))
        try:
            while piece := await self.run(path, partial(file.read, MIB)):
                skipped = min(start, len(piece))
                start -= skipped
                if skipped < len(piece):
                    yield piece[skipped:]
        finally:
            await shielded(lambda: self.run(path, file.close), within=CLOSE_WITHIN)

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """In one call where that stores whole files, else through an upload of one part."""
        if self._whole_files:
            full = self.full_path(path)
            await self.run(path, lambda: self.fs.pipe_file(full, bytes(data)))
            return
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
        if self._whole_files:
            directory = await run_in_thread(spool_directory)

            async def send(file: Path) -> None:
                await self.run(path, lambda: self.fs.put_file(str(file), full))

            return SpooledUpload(directory, path.rpartition("/")[2], send)
        return await self.run(path, lambda: self._open(path, full))

    def _open(self, path: str, full: str) -> StreamUpload:
        run = partial(self.run, path)
        directory = full.rpartition("/")[0]
        self.fs.makedirs(directory, exist_ok=True)
        staged = f"{directory}/{staged_name()}"
        if self._stages is None:
            # Opening the destination itself could empty it.
            file = self.fs.open(staged, "wb", autocommit=False)
            shows = not commits(file) or self.fs.exists(staged)
            self._stages = shows and renames(self.fs)
            if self._stages:
                return StreamUpload(self.fs, run, file, staged, full)
            discard(self.fs, file, staged)
        target = staged if self._stages else full
        file = self.fs.open(target, "wb", autocommit=False)
        return StreamUpload(self.fs, run, file, target, full)

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

        if self._whole_files:
            # Such a directory is a prefix, and that of a bucket would be the bucket itself.
            return
        full = self.full_path(path)
        if await self.run(path, lambda: self.fs.isdir(full)):
            await self.run(path, partial(remove_if_there, full))

    async def aclose(self) -> None:
        """The filesystem's own `close`, where it has one; and the end of the instance.

        Those of fsspec that hold connections close them when the last reference goes, which may
        take a moment: not on the event loop.
        """
        held = [self.fs]
        self.fs = None

        def close() -> None:
            fs = held.pop()
            if callable(getattr(fs, "close", None)):
                fs.close()

        await anyio.to_thread.run_sync(close)


def _entries(found: Any, full: str, path: str) -> Any:
    for item in found:
        name = item["name"].rstrip("/")
        leaf = name.rpartition("/")[2]
        # A file lists as itself, and some storages list a directory's own marker.
        if name.strip("/") != full.strip("/") and not leaf.endswith(STAGED_SUFFIX):
            yield _entry(item, f"{path}/{leaf}" if path else leaf)


def _entry(info: Mapping[str, Any], path: str) -> FileInfo:
    is_dir = info.get("type") == "directory"
    size = info.get("size")
    return FileInfo(path, is_dir, None if is_dir or size is None else int(size))
