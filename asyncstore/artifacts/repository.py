"""`ArtifactRepository`: MLflow's artifact repository, awaited."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import shutil
import tempfile
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import anyio
from fsspec.callbacks import Callback, NoOpCallback
from typing_extensions import override

from asyncstore import uris
from asyncstore.artifacts.presigned import PresignedMethods
from asyncstore.artifacts.streaming import upload_stream
from asyncstore.artifacts.transfer import Transfer, TransferOptions, check_name
from asyncstore.backends import Backend, Capabilities, open_backend
from asyncstore.backends.base import grouped
from asyncstore.concurrency import in_own_task, shielded
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.files.reading import content_type_of, find, scan
from asyncstore.files.threads import run_in_thread

__all__ = ["ArtifactRepository"]

T = TypeVar("T")
StrPath = str | os.PathLike[str]
CLEANUP_WITHIN = 30.0
DELETE_BATCH = 1000


class ArtifactRepository(PresignedMethods):
    """The artifacts below one URI, on any storage.

    An async context manager: opened by `async with`, or by `await repository.open()` and closed by
    `await repository.aclose()`. It belongs to the event loop that opened it. Methods may be awaited
    at once from many tasks; their transfers share the budgets of `transfer`.

    Args:
        artifact_uri: The root: a path, `file:`, `s3:`, `memory:` or any other protocol of fsspec;
            `asyncstore+`, with which MLflow finds asyncstore, may stand before it.
        storage_options: Arguments of the fsspec filesystem, above the variables; None for none.
        transfer: Part sizes, budgets, timeout and retries; None takes the variables.
    """

    def __init__(
        self,
        artifact_uri: StrPath,
        *,
        storage_options: Mapping[str, Any] | None = None,
        transfer: TransferOptions | None = None,
    ) -> None:
        self.artifact_uri = os.fspath(artifact_uri)
        self._storage_options = storage_options
        self._options = transfer or TransferOptions()
        self._opened: tuple[Backend, Transfer, asyncio.AbstractEventLoop] | None = None
        self._opening = False
        self._closed = False
        self._owner: ArtifactRepository | None = None

    def __repr__(self) -> str:
        return f"ArtifactRepository({uris.redact(self.artifact_uri)!r})"

    async def __aenter__(self) -> ArtifactRepository:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> ArtifactRepository:
        """Connect to the storage.

        Returns:
            The repository itself.

        Raises:
            InvalidParameterError: Nobody knows the scheme, or a variable or an option is not
                acceptable.
            MissingDependencyError: The storage's library is not installed.
            InvalidStateError: It is open or was closed.

        A cancellation leaves it closed.
        """
        if self._opened or self._closed or self._opening:
            raise InvalidStateError(f"{self!r} was opened before; make a new one")
        self._opening = True
        try:
            # Reads the system's tables once, which takes the loop some 20 ms.
            await run_in_thread(lambda: mimetypes.guess_type(""))
            # A variable that is wrong is told before a server is asked.
            self._options.resolve(Capabilities())
            backend = await open_backend(self.artifact_uri, self._storage_options)
        finally:
            self._opening = False
        options = self._options.resolve(backend.capabilities)
        backend.retry = options.retry
        transfer = Transfer(options, backend.capabilities)
        backend.request_timeout = transfer.request_timeout
        backend.part_size = transfer.part_size(backend)
        self._opened = (backend, transfer, asyncio.get_running_loop())
        return self

    async def aclose(self) -> None:
        """Close every connection. Closing again does nothing."""
        opened, self._opened, self._closed = self._opened, None, True
        if opened and self._owner is None:
            backend = opened[0]
            await in_own_task(lambda: shielded(backend.aclose, within=CLEANUP_WITHIN))

    def at(self, artifact_uri: StrPath) -> ArtifactRepository | None:
        """Another root of the same storage, over the same connections and budgets.

        Args:
            artifact_uri: The other root.

        Returns:
            An open repository that need not be closed, and ends with this one; None when the URI is
            on another storage.
        """
        backend, transfer, loop = self._state()
        other = backend.at(uris.without_prefix(os.fspath(artifact_uri)))
        if other is None:
            return None
        repository = ArtifactRepository(artifact_uri, transfer=self._options)
        repository._opened = (other, transfer, loop)
        repository._owner = self
        return repository

    @property
    def fs(self) -> Any:
        """The fsspec filesystem underneath.

        Raises:
            UnsupportedError: The storage is reached without one.
        """
        fs = self._state()[0].fs
        if fs is None:
            raise UnsupportedError(f"{self!r} is reached without an fsspec filesystem")
        return fs

    @property
    def capabilities(self) -> Capabilities:
        """What the storage can do."""
        return self._state()[0].capabilities

    @property
    def presigns(self) -> bool:
        """Whether the storage has presigned URLs; its credentials may still not be able to sign."""
        return self._state()[0].presigning() is not None

    def _state(self) -> tuple[Backend, Transfer, asyncio.AbstractEventLoop]:
        if self._opened is None:
            state = "closed" if self._closed else "not open; use 'async with' or 'await open()'"
            raise InvalidStateError(f"{self!r} is {state}")
        if self._owner is not None:
            self._owner._state()  # noqa: SLF001  another repository
        if asyncio.get_running_loop() is not self._opened[2]:
            raise InvalidStateError(
                f"{self!r} belongs to another event loop; open one in this loop"
            )
        return self._opened

    @override
    async def _operation(self, action: str, call: Callable[[Backend, Transfer], Awaitable[T]]) -> T:
        backend, transfer, _ = self._state()

        async def bounded() -> T:
            with transfer.deadline(f"{action} {uris.redact(self.artifact_uri)}"):
                return await call(backend, transfer)
            raise AssertionError("unreachable")

        return await in_own_task(bounded)

    async def log_artifact(
        self,
        local_file: StrPath,
        artifact_path: str | None = None,
        *,
        callback: Callback | None = None,
    ) -> None:
        """Upload one file, under its own name.

        Args:
            local_file: The file; links are followed.
            artifact_path: The directory to put it in; None for the root.
            callback: Progress in bytes; None for none.

        Raises:
            NotFoundError: The file or the bucket does not exist.
            PermissionDeniedError: The file may not be read, or the storage refuses.
            InvalidParameterError: It is no file, or the path would leave the root.
            IntegrityError: The file changed while it was being sent; nothing was stored.
            OperationTimeoutError: The timeout passed.

        A cancellation leaves nothing on the storage: the file that was there stays.
        """
        progress = callback or NoOpCallback()
        directory = uris.artifact_path(artifact_path)
        path = Path(local_file)

        async def upload(backend: Backend, transfer: Transfer) -> None:
            file = await run_in_thread(
                lambda: find(path, f"{directory}/{path.name}" if directory else path.name)
            )
            progress.set_size(file.size)
            await transfer.upload(backend, file, progress)

        await self._operation(f"upload {path} to", upload)

    async def log_artifacts(
        self,
        local_dir: StrPath,
        artifact_path: str | None = None,
        *,
        callback: Callback | None = None,
    ) -> None:
        """Upload what is in a directory, many files at once.

        Everything is looked at before anything is sent. An empty directory is kept where the
        storage has directories.

        Args:
            local_dir: The directory; links are followed.
            artifact_path: The directory to put the contents in; None for the root.
            callback: Progress in bytes over all files; None for none.

        Raises:
            NotFoundError: The directory, what a link in it names, or the bucket does not exist.
            PermissionDeniedError: Something may not be read, or the storage refuses.
            InvalidParameterError: It is no directory, its links form a loop, or a name is not
                acceptable.
            IntegrityError: A file changed while it was being sent; it was not stored.
            OperationTimeoutError: The timeout passed.

        A cancellation leaves the files that had arrived, each whole, and nothing of the others.
        """
        progress = callback or NoOpCallback()
        target = uris.artifact_path(artifact_path)
        directory = Path(local_dir)

        async def upload(backend: Backend, transfer: Transfer) -> None:
            files, empty = await run_in_thread(lambda: scan(directory, target))
            progress.set_size(sum(file.size for file in files))
            if backend.capabilities.directories:
                for path in empty:
                    await backend.make_directory(path)
            await transfer.upload_all(backend, files, progress)

        await self._operation(f"upload {directory} to", upload)

    async def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a directory, not what is below its directories.

        Args:
            path: The directory; None for the root.

        Returns:
            Its entries, sorted by path; nothing for a file or a path that does not exist.

        Raises:
            InvalidParameterError: The path would leave the root.
        """
        directory = uris.artifact_path(path)

        async def collect(backend: Backend, transfer: Transfer) -> list[FileInfo]:
            async with transfer.slot(), aclosing(backend.list(directory)) as entries:
                return [entry async for entry in entries]

        found = await self._operation("list", collect)
        return sorted(found, key=lambda entry: entry.path)

    async def walk(self, path: str | None = None) -> AsyncGenerator[FileInfo]:
        """Every file below a directory, at any depth, in constant memory.

        Close the generator, best with `contextlib.aclosing`, when you leave it before its end.

        Args:
            path: The directory; None for the root.

        Yields:
            Files in no particular order.

        Raises:
            InvalidParameterError: The path would leave the root.
        """
        directory = uris.artifact_path(path)
        async with aclosing(self._state()[0].walk(directory)) as entries:
            async for entry in entries:
                yield entry

    async def info(self, path: str) -> FileInfo:
        """What is at a path.

        Raises:
            NotFoundError: Nothing is.
            InvalidParameterError: The path would leave the root.
        """
        name = uris.artifact_path(path)
        return await self._operation(
            "look at", lambda backend, transfer: transfer.request(lambda: backend.info(name))
        )

    async def exists(self, path: str) -> bool:
        """Whether there is a file or a directory at a path.

        Raises:
            InvalidParameterError: The path would leave the root.
        """
        name = uris.artifact_path(path)
        return await self._operation(
            "look at", lambda backend, transfer: transfer.request(lambda: backend.exists(name))
        )

    async def download_artifacts(
        self,
        artifact_path: str | None = None,
        dst_path: StrPath | None = None,
        *,
        callback: Callback | None = None,
    ) -> str:
        """Download a file or a directory, many files at once.

        Args:
            artifact_path: The file or directory; None for everything.
            dst_path: The directory to put it in, made if needed; the artifact keeps its path below
                it. None makes a temporary directory, which is the caller's to remove.
            callback: Progress in bytes over all files; None for none.

        Returns:
            The local path of what was asked for.

        Raises:
            NotFoundError: There is no such artifact.
            PermissionDeniedError: The storage or the local file system refuses.
            InvalidParameterError: The path, or a name on the storage, would leave the destination.
            IntegrityError: A file changed on the storage while it was being received.
            OperationTimeoutError: The timeout passed.

        A cancellation leaves the files that had arrived, each whole, and nothing of the others; a
        temporary directory that was made is removed.
        """
        progress = callback or NoOpCallback()
        name = uris.artifact_path(artifact_path)

        made: list[Path] = []

        async def download(backend: Backend, transfer: Transfer) -> str:
            source = await transfer.request(lambda: backend.info(name))
            if dst_path is None:
                made.append(await run_in_thread(_temporary_directory))
                root = made[0]
            else:
                root = await run_in_thread(lambda: _directory(Path(dst_path).absolute()))
            target = Path(root, name)
            inside = _Inside(root)
            if source.is_dir:
                await inside.check(target / "any")
                await run_in_thread(lambda: target.mkdir(parents=True, exist_ok=True))
            expected = 0

            async def receive(entry: FileInfo) -> None:
                nonlocal expected
                local = root / check_name(entry.path)
                await inside.check(local)
                if entry.file_size:
                    expected += entry.file_size
                    progress.set_size(expected)
                await transfer.download(backend, entry, local, progress)

            if source.is_dir:
                async with aclosing(backend.walk(name)) as entries:
                    await transfer.for_each(entries, receive)
            else:
                await receive(source)
            return str(target)

        try:
            return await self._operation("download from", download)
        except BaseException:
            # Out here, since a cancellation may also come when all is there and nobody has it yet.
            with anyio.move_on_after(CLEANUP_WITHIN, shield=True):
                for directory in made:
                    await run_in_thread(partial(shutil.rmtree, directory, ignore_errors=True))
            raise

    async def download_file(
        self, artifact_path: str, local_path: StrPath, *, callback: Callback | None = None
    ) -> None:
        """Download one file to a path of its own.

        Args:
            artifact_path: The file.
            local_path: Where to; directories are made. Readers of it see the old file or the new.
            callback: Progress in bytes; None for none.

        Raises:
            NotFoundError: There is no such file.
            InvalidParameterError: It is a directory, or the path would leave the root.
            IntegrityError: The file changed on the storage while it was being received.

        A cancellation leaves what was at `local_path`.
        """
        name = uris.artifact_path(artifact_path)
        progress = callback or NoOpCallback()
        destination = Path(local_path)

        async def download(backend: Backend, transfer: Transfer) -> None:
            entry = await transfer.request(lambda: backend.info(name))
            if entry.is_dir:
                raise InvalidParameterError(f"{name or 'the root'!r} is a directory")
            progress.set_size(entry.file_size)
            await transfer.download(backend, entry, destination, progress)

        await self._operation("download from", download)

    async def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or a whole directory; what does not exist is no error, as in MLflow.

        Args:
            artifact_path: The file or directory; None for everything below the root.

        Raises:
            InvalidParameterError: The path would leave the root.
            PermissionDeniedError: The storage refuses.

        A cancellation leaves some files deleted and the others whole.
        """
        name = uris.artifact_path(artifact_path)

        async def delete(backend: Backend, transfer: Transfer) -> None:
            if name:
                await transfer.request(lambda: _delete_file(backend, name))
            # Storages with directories remove a tree themselves: walking follows links.
            if not (backend.capabilities.directories or backend.capabilities.removes_trees):
                async with aclosing(backend.walk(name)) as entries:
                    await transfer.for_each(
                        _batches(entries),
                        lambda batch: transfer.request(lambda: backend.delete(batch)),
                    )
            await transfer.request(lambda: backend.delete_directory(name))

        await self._operation("delete from", delete)

    async def read_bytes(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            NotFoundError: There is no such file.
            InvalidParameterError: The path would leave the root.
        """
        name = uris.artifact_path(path)

        async def read(backend: Backend, transfer: Transfer) -> bytes:
            async def attempt() -> bytes:
                async with aclosing(backend.read(name)) as pieces:
                    return b"".join([piece async for piece in pieces])

            return await transfer.request(attempt)

        return await self._operation("read from", read)

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Store a file; readers see the old content or the new one.

        Args:
            path: Where to.
            data: The content.

        Raises:
            InvalidParameterError: The path would leave the root, or is the root.
            PermissionDeniedError: The storage refuses.

        A cancellation leaves the old content or the new one.
        """
        name = uris.artifact_path(path)
        if not name:
            raise InvalidParameterError("a file needs a name; the path is the repository's root")
        guessed = content_type_of(name)
        await self._operation(
            "write to",
            lambda backend, transfer: transfer.request(lambda: backend.write(name, data, guessed)),
        )

    async def write_stream(self, path: str, pieces: AsyncIterable[bytes]) -> None:
        """Store a file that comes piece by piece, in constant memory.

        Args:
            path: Where to.
            pieces: The content, in pieces of any size.

        Raises:
            InvalidParameterError: The path would leave the root, or is the root.
            PermissionDeniedError: The storage refuses.

        What `pieces` raises comes out. That or a cancellation leaves the file that was there.
        """
        name = uris.artifact_path(path)
        if not name:
            raise InvalidParameterError("a file needs a name; the path is the repository's root")
        await self._operation(
            "write to", lambda backend, transfer: upload_stream(backend, transfer, name, pieces)
        )

    @asynccontextmanager
    async def open_read(
        self, path: str, *, start: int = 0, end: int | None = None, chunk_size: int = 1024 * 1024
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a file.

        `async with repository.open_read(path) as pieces: async for piece in pieces: ...`. The
        stream counts as one request of the budget until it is left.

        Args:
            path: The file.
            start: First byte.
            end: Byte to stop before; None for the end of the file.
            chunk_size: Bytes that a piece has at least, the last one excepted.

        Yields:
            The pieces.

        Raises:
            NotFoundError: There is no such file; at the first piece.
            InvalidParameterError: The path would leave the root, or there is no such range.

        A cancellation closes the connection.
        """
        name = uris.artifact_path(path)
        if start < 0 or (end is not None and end < start):
            raise InvalidParameterError(
                f"there is no range from {start} to {end}; both count from the first byte, 0"
            )
        backend, transfer, _ = self._state()
        stream = transfer.stream(backend, name, start, end)
        async with aclosing(stream), aclosing(_joined(stream, chunk_size)) as pieces:
            yield pieces


async def _joined(pieces: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes]:
    async for group in grouped(pieces, size):
        yield b"".join(group)


async def _batches(entries: AsyncIterator[FileInfo]) -> AsyncGenerator[list[str]]:
    batch: list[str] = []
    async for entry in entries:
        batch.append(entry.path)
        if len(batch) == DELETE_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _delete_file(backend: Backend, path: str) -> None:
    try:
        is_dir = (await backend.info(path)).is_dir
    except NotFoundError:
        return
    if not is_dir:
        await backend.delete([path])


def _temporary_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="asyncstore-"))


def _directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


class _Inside:
    """Checks that no link below a destination leads out of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._checked: set[Path] = set()

    async def check(self, path: Path) -> None:
        """Refuse a path whose directory, links followed, is outside."""
        parent = path.parent
        if parent not in self._checked:
            if not await run_in_thread(lambda: self._is_inside(parent)):
                raise InvalidParameterError(
                    f"{parent} leads out of the destination {self._root}; remove the link"
                )
            self._checked.add(parent)

    def _is_inside(self, directory: Path) -> bool:
        try:
            return directory.resolve().is_relative_to(self._root.resolve())
        except RuntimeError:
            # Python below 3.13 says so of links that form a loop.
            return False
