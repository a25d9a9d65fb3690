"""HDFS: hdfs-native where it is installed, else pyarrow with Hadoop's libhdfs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.hdfs_errors import translated
from asyncstore.backends.hdfs_protocol import PIECE, Client, Reader, Status, Writer
from asyncstore.backends.hdfs_threads import Threads
from asyncstore.backends.hdfs_uris import Cluster, check_name, parse, read_configuration
from asyncstore.concurrency import shielded, task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    MissingDependencyError,
    NotFoundError,
)
from asyncstore.files.reading import ContentType
from asyncstore.files.writing import STAGED_SUFFIX, staged_name
from asyncstore.multipart import Part

__all__ = ["HDFSBackend", "open_backend"]

T = TypeVar("T")
# Each open file takes a thread of a DataNode, which counts on a whole block for it.
STREAMS = 64
LIST_BATCH = 500
DELETE_WINDOW = 16
CLEAN_UP_WITHIN = 30.0
# What Hadoop's own client waits for a machine that does not answer, twice.
REQUEST_TIMEOUT = 120.0

CAPABILITIES = Capabilities(
    directories=True,
    versions=True,
    max_concurrency=STREAMS,
    request_timeout=REQUEST_TIMEOUT,
)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a directory of HDFS. It connects when something is asked for.

    Args:
        uri: `hdfs://host:port/path`, `hdfs:/path`, `hdfs:///path` or `viewfs://table/path`.
        storage_options: Hadoop's properties, above the variables; `user` and `kerb_ticket`.

    Raises:
        InvalidParameterError: The URI, an option or a variable is not acceptable, or there is no
            default NameNode.
        MissingDependencyError: Neither hdfs-native nor pyarrow with libhdfs is installed.
    """

    def connect() -> HDFSBackend:
        find = partial(parse, storage_options=storage_options, configuration=read_configuration())
        cluster, root = find(uri)
        with translated(f"open {uris.redact(uri)}"):
            client = _connector()(cluster)
        # One for a part each, and for what looks or removes meanwhile.
        threads = Threads(STREAMS + DELETE_WINDOW)
        return HDFSBackend(cluster, root, client, threads, find)

    return await anyio.to_thread.run_sync(connect)


def _connector() -> Callable[[Cluster], Client]:
    try:
        from asyncstore.backends import hdfs_client
    except ImportError:
        try:
            from asyncstore.backends import hdfs_arrow
        except ImportError as error:
            raise MissingDependencyError(
                "hdfs: needs the library hdfs_native; run: pip install 'asyncstore[hdfs]'"
            ) from error
        return hdfs_arrow.connect
    return hdfs_client.connect


class HDFSBackend(Backend):
    """A directory of a cluster.

    Args:
        cluster: Which.
        root: The absolute path of the directory.
        client: Connections to it.
        threads: Where the client's calls run.
        find: Takes a URI apart as that of this backend was.
    """

    def __init__(
        self,
        cluster: Cluster,
        root: str,
        client: Client,
        threads: Threads,
        find: Callable[[str], tuple[Cluster, str]],
    ) -> None:
        super().__init__(client.fs, root, CAPABILITIES)
        self._cluster = cluster
        self.client = client
        self._threads = threads
        self._find = find

    def at(self, uri: str) -> Backend | None:
        """The same connections for another directory of the same cluster."""
        if uris.scheme_of(uri) not in ("hdfs", "viewfs"):
            return None
        cluster, root = self._find(uri)
        if cluster != self._cluster:
            return None
        backend = HDFSBackend(cluster, root, self.client, self._threads, self._find)
        backend.retry = self.retry
        return backend

    def shown(self, path: str) -> str:
        """A path for messages."""
        return f"{self._cluster.url}{super().full_path(path)}"

    def full_path(self, path: str) -> str:
        """The absolute path in the cluster.

        Raises:
            InvalidParameterError: It has a colon.
        """
        check_name(path, self.shown(path))
        return super().full_path(path)

    async def run(self, action: str, call: Callable[[], T]) -> T:
        """Call the library in a thread, with its errors as asyncstore's.

        Args:
            action: What is being done to what.
            call: The call.
        """
        with translated(action):
            return await self._threads.run(call)

    async def info(self, path: str) -> FileInfo:
        """One request."""
        call = partial(self.client.status, self.full_path(path))
        try:
            return _entry(path, await self.run(f"look at {self.shown(path)}", call))
        except NotFoundError as error:
            if not path:
                return FileInfo("", True, None)
            raise self.missing(path) from error

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """As the NameNode gives the names, some hundred to a request."""
        full = self.full_path(path)
        action = f"list {self.shown(path)}"
        try:
            listing = await self.run(action, partial(self.client.list, full))
            while batch := await self.run(action, lambda: list(islice(listing, LIST_BATCH))):
                for found in batch:
                    name = found.path.rpartition("/")[2]
                    # A file lists as itself.
                    if found.path != full and not name.endswith(STAGED_SUFFIX):
                        yield _entry(f"{path}/{name}" if path else name, found)
        except NotFoundError:
            return

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """One stream, from the machines that have the blocks; a trip to a thread for each piece."""
        full = self.full_path(path)
        action = f"read {self.shown(path)}"
        opened: list[Reader] = []

        def first() -> tuple[Iterator[bytes], bytes, int]:
            reader = self.client.open(full)
            opened.append(reader)
            # Behind the opening: a file that is still the same was the same then.
            if etag and _entry(path, self.client.status(full)).etag != etag:
                raise IntegrityError(f"{self.shown(path)} changed since it was looked at")
            stop = reader.size if end is None else min(end, reader.size)
            size = max(stop - start, 0)
            pieces = iter(reader.pieces(start, stop) if size else ())
            piece = next(pieces, b"")
            if len(piece) == size:
                opened.clear()
                reader.close()
            return pieces, piece, size

        try:
            pieces, piece, left = await self.run(action, first)
            while piece:
                yield piece
                left -= len(piece)
                if not left:
                    return
                piece = await self.run(action, partial(next, pieces, b""))
        finally:
            for reader in opened:
                close = partial(self.run, action, reader.close)
                await shielded(close, within=CLEAN_UP_WITHIN)

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Under another name, then renamed; one trip to a thread."""
        full, staged = self.full_path(path), self._staged(path)

        def write() -> None:
            writer = self.client.create(staged)
            try:
                for start in range(0, len(data), PIECE):
                    writer.write(data[start : start + PIECE])
                writer.close()
            except BaseException:
                writer.abandon()
                raise
            self.client.rename(staged, full)

        try:
            await self.run(f"write {self.shown(path)}", write)
        except BaseException:
            await self.discard(staged)
            raise

    def _staged(self, path: str) -> str:
        directory = uris.parent(path)
        return self.full_path(f"{directory}/{staged_name()}" if directory else staged_name())

    async def start_upload(self, path: str, content_type: ContentType) -> HDFSUpload:
        """One stream into a file under another name."""
        staged = self._staged(path)
        try:
            create = partial(self.client.create, staged)
            writer = await self.run(f"write {self.shown(path)}", create)
        except BaseException:
            await self.discard(staged)
            raise
        return HDFSUpload(self, path, staged, writer)

    async def rename(self, staged: str, path: str, size: int) -> None:
        """Give a file that is whole its name."""
        call = partial(self.client.rename, staged, self.full_path(path))
        try:
            await self.run(f"write {self.shown(path)}", call)
        except NotFoundError:
            # The answer to an earlier attempt may have been lost.
            if (await self.info(path)).file_size != size:
                raise

    async def discard(self, staged: str) -> None:
        """Remove a file that did not become whole, cancelled or not."""
        action = f"remove {self._cluster.url}{staged}"
        remove = partial(self.run, action, partial(self.client.delete, staged))
        try:
            await shielded(lambda: self.retry.run(remove), within=CLEAN_UP_WITHIN)
        except AsyncStoreError:
            # As unreachable as what failed before.
            return

    async def make_directory(self, path: str) -> None:
        """With its parents."""
        call = partial(self.client.make_directory, self.full_path(path))
        await self.run(f"make {self.shown(path)}", call)

    async def delete(self, paths: Sequence[str]) -> None:
        """Some at once, one request each."""
        window = anyio.Semaphore(DELETE_WINDOW)

        async def remove(path: str) -> None:
            try:
                call = partial(self.client.delete, self.full_path(path))
                await self.run(f"delete {self.shown(path)}", call)
            finally:
                window.release()

        async with task_group() as tasks:
            for path in paths:
                await window.acquire()
                tasks.start_soon(remove, path)

    async def delete_directory(self, path: str) -> None:
        """The whole tree, in one request."""
        full = self.full_path(path)

        def remove() -> None:
            if not self.client.status(full).is_dir:
                return
            # That of the whole file system stays.
            trees = [full] if full != "/" else [found.path for found in self.client.list(full)]
            for tree in trees:
                self.client.delete(tree, recursive=True)

        with contextlib.suppress(NotFoundError):
            await self.run(f"delete {self.shown(path)}", remove)

    async def aclose(self) -> None:
        """The connections go with the last reference."""
        held = [self.fs, self.client]
        self.fs = None
        del self.client
        await anyio.to_thread.run_sync(held.clear)


class HDFSUpload:
    """One stream into a file under another name."""

    def __init__(self, backend: HDFSBackend, path: str, staged: str, writer: Writer) -> None:
        self._backend = backend
        self._path = path
        self._action = f"write {backend.shown(path)}"
        self._staged = staged
        self._writer = writer
        # None while nobody knows: behind an attempt that failed.
        self._written: int | None = 0
        self._whole = False

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Append."""
        self._check(part.offset)
        self._written = None
        for start in range(0, len(data), PIECE):
            write = partial(self._writer.write, data[start : start + PIECE])
            await self._backend.run(self._action, write)
        self._written = part.offset + len(data)

    async def complete(self) -> None:
        """Close, then rename."""
        size = self._check(self._written)
        if not self._whole:
            self._written = None
            await self._backend.run(self._action, self._writer.close)
            self._written, self._whole = size, True
        await self._backend.rename(self._staged, self._path, size)

    def _check(self, offset: int | None) -> int:
        if offset is None or offset != self._written:
            raise AsyncStoreError(
                f"{self._action}: the stream broke off, and HDFS takes none up again; send the "
                "file once more"
            )
        return offset

    async def abort(self) -> None:
        """Remove the file."""
        if not self._whole:
            await self._backend.run(self._action, self._writer.abandon)
        await self._backend.discard(self._staged)


def _entry(path: str, found: Status) -> FileInfo:
    if found.is_dir:
        return FileInfo(path, True, None)
    return FileInfo(path, False, found.size, f"{found.modified}-{found.size}")
