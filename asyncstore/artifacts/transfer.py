"""The scheduler: parts and files of all transfers of a repository under two budgets."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from fsspec.callbacks import Callback

from asyncstore import settings, uris
from asyncstore.backends.base import Backend, Capabilities, grouped
from asyncstore.concurrency import ByteBudget, shielded, task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError, OperationTimeoutError, UnavailableError
from asyncstore.files.reading import LocalFile, OpenFile
from asyncstore.files.threads import run_in_thread
from asyncstore.files.writing import StagedFile, write_file
from asyncstore.multipart import MultipartUpload, Part, abandoned, plan_parts
from asyncstore.retry import RetryPolicy

__all__ = ["Transfer", "TransferOptions"]

T = TypeVar("T")
MIB = 1024 * 1024
DEFAULT_CHUNK_SIZE = 8 * MIB
WRITE_SIZE = MIB
# Reading a file of this size takes less time than the trip to a worker thread.
SMALL = 64 * 1024
GROUP = 16
# What one stream holds at most: the group being written, the next one, and the buffers below.
STREAM_MEMORY = 4 * MIB
REQUEST_WITHIN = 90.0
ABORT_WITHIN = 30.0


@dataclass(frozen=True)
class TransferOptions:
    """How to transfer. None takes the variable, or the scheduler's choice where it is not set.

    Args:
        multipart_upload_chunk_size: Bytes of an upload part; default 8 MiB.
            Variable: MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE.
        multipart_upload_minimum_file_size: Bytes from which a file is sent in parts; default: above
            one part. Variable: MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE.
        multipart_download_chunk_size: Bytes of a range; default 8 MiB.
            Variable: MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE.
        multipart_download_minimum_file_size: Bytes from which a file is read by ranges; default:
            above one range. Variable: MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE.
        timeout: Seconds for one whole upload or download, -1 for no limit; default no limit of
            the whole, and the storage's own of each request (Azure: 600, GCS: 60).
            Variable: MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT.
        max_concurrency: Requests in flight at once, over all transfers of the repository.
        max_memory: Bytes of content held at once, over all transfers of the repository; one part
            always fits.
        retry: How often and when a failed request is sent again.
    """

    multipart_upload_chunk_size: int | None = None
    multipart_upload_minimum_file_size: int | None = None
    multipart_download_chunk_size: int | None = None
    multipart_download_minimum_file_size: int | None = None
    timeout: float | None = None
    max_concurrency: int = 64
    max_memory: int = 64 * MIB
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        for name, value in vars(self).items():
            if name not in ("timeout", "retry") and value is not None and value < 1:
                raise InvalidParameterError(f"{name} is {value}; it must be at least 1")

    def resolve(self, storage: Capabilities) -> TransferOptions:
        """The same options with every None replaced by its variable, where that is set.

        Args:
            storage: Its own variables go before the general ones.

        Raises:
            InvalidParameterError: A variable is not acceptable.
        """
        variables: dict[str, settings.Setting[Any]] = {
            "multipart_upload_chunk_size": settings.MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE,
            "multipart_upload_minimum_file_size": (
                settings.MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE
            ),
            "multipart_download_chunk_size": settings.MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE,
            "multipart_download_minimum_file_size": (
                settings.MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE
            ),
            "timeout": settings.MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT,
        }
        unset = {name: v.get() for name, v in variables.items() if getattr(self, name) is None}
        own = {
            "multipart_upload_chunk_size": storage.upload_chunk_size,
            "multipart_download_chunk_size": storage.download_chunk_size,
        }
        unset |= {name: size for name, size in own.items() if size and name in unset}
        return replace(self, **unset)


class Transfer:
    """Sends and receives files, many at once.

    A window slides over parts and files: the next one starts when a request and its bytes fit in
    the budgets, never in groups.

    Args:
        options: Sizes, budgets and retries, resolved.
        storage: What the storage allows.
    """

    def __init__(self, options: TransferOptions, storage: Capabilities) -> None:
        self.options = options
        limit = min(options.max_concurrency, storage.max_concurrency or options.max_concurrency)
        self.request_timeout = None if options.timeout is not None else storage.request_timeout
        self._files = limit
        self._requests = anyio.CapacityLimiter(limit)
        self.memory = ByteBudget(options.max_memory)

    @contextmanager
    def deadline(self, action: str) -> Iterator[None]:
        """Bound an operation in time.

        Raises:
            OperationTimeoutError: The timeout of the options passed.
        """
        timeout = self.options.timeout
        if timeout is None or timeout < 0:
            yield
            return
        with anyio.move_on_after(timeout) as scope:
            yield
        if scope.cancelled_caught:
            raise OperationTimeoutError(
                f"{action} took longer than {timeout:g} s; raise "
                "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT (-1 for no limit)"
            )

    def slot(self) -> _slot:
        """One request of the budget, held for a block."""
        return _slot(self._requests)

    async def request(self, call: Callable[[], Awaitable[T]]) -> T:
        """One request, under the budget of requests and with retries."""
        timeout = self.request_timeout

        async def bounded() -> T:
            with anyio.move_on_after(timeout):
                return await call()
            raise UnavailableError(
                f"no answer within {timeout:g} s; MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT sets "
                "another limit (-1 for none)"
            )

        async with self.slot():
            return await self.options.retry.run(bounded if timeout else call)

    async def for_each(
        self, items: AsyncIterable[T], call: Callable[[T], Awaitable[object]]
    ) -> None:
        """Await `call` for every item, as many at once as requests are allowed."""
        slots = anyio.Semaphore(self._files)

        async def run(item: T) -> None:
            try:
                await call(item)
            finally:
                slots.release()

        async with task_group() as tasks:
            async for item in items:
                await slots.acquire()
                tasks.start_soon(run, item)

    async def upload_all(
        self, backend: Backend, files: Sequence[LocalFile], callback: Callback
    ) -> None:
        """Send files, many at once; small ones are read several to a trip to a worker thread.

        Args:
            backend: Where to.
            files: What.
            callback: Told the bytes that arrived.

        Raises:
            IntegrityError: A file changed while it was being sent; it was not stored.

        A cancellation leaves the files that had arrived.
        """

        async def send(group: Sequence[LocalFile]) -> None:
            if len(group) == 1:
                await self.upload(backend, group[0], callback)
            else:
                await self._upload_small(backend, group, callback)

        await self.for_each(self._groups(backend, files), send)

    async def _groups(
        self, backend: Backend, files: Sequence[LocalFile]
    ) -> AsyncGenerator[Sequence[LocalFile]]:
        group: list[LocalFile] = []
        for file in files:
            if file.size > SMALL or not self._goes_whole(backend, file):
                yield [file]
                continue
            group.append(file)
            if len(group) == GROUP:
                yield group
                group = []
        if group:
            yield group

    async def _upload_small(
        self, backend: Backend, files: Sequence[LocalFile], callback: Callback
    ) -> None:
        async def send(file: LocalFile, data: bytes | memoryview) -> None:
            await self.request(lambda: backend.write(file.artifact_path, data, file.content_type))
            callback.relative_update(file.size)

        async with self.memory.hold(sum(file.size for file in files)):
            contents = await run_in_thread(lambda: [file.read() for file in files])
            if backend.capabilities.batch_writes:
                batch = [
                    (file.artifact_path, data, file.content_type)
                    for file, data in zip(files, contents, strict=True)
                ]
                await self.request(lambda: backend.write_many(batch))
                callback.relative_update(sum(file.size for file in files))
                return
            async with task_group() as tasks:
                for file, data in zip(files, contents, strict=True):
                    tasks.start_soon(send, file, data)

    def part_size(self, backend: Backend) -> int:
        """Bytes of an upload part."""
        chunk_size = self.options.multipart_upload_chunk_size or DEFAULT_CHUNK_SIZE
        return max(chunk_size, backend.capabilities.min_part_size)

    def _goes_whole(self, backend: Backend, file: LocalFile) -> bool:
        part_size = self.part_size(backend)
        minimum = self.options.multipart_upload_minimum_file_size or part_size + 1
        return file.size < minimum and file.size <= part_size

    async def upload(self, backend: Backend, file: LocalFile, callback: Callback) -> None:
        """Send one file; readers see the old one or the new one.

        Args:
            backend: Where to.
            file: What.
            callback: Told the bytes that arrived.

        Raises:
            IntegrityError: The file changed while it was being sent; nothing is stored.

        A cancellation leaves nothing on the storage.
        """
        part_size = self.part_size(backend)
        minimum = self.options.multipart_upload_minimum_file_size or part_size + 1
        limits = backend.capabilities
        streams = limits.max_file_size is not None and file.size <= limits.max_file_size
        if self._goes_whole(backend, file):
            await self._upload_whole(backend, file)
            callback.relative_update(file.size)
        elif streams and (file.size < minimum or not limits.parallel_parts):
            await self._upload_stream(backend, file, callback)
        else:
            await self._upload_parts(backend, file, part_size, callback)

    async def _upload_whole(self, backend: Backend, file: LocalFile) -> None:
        async with self.memory.hold(file.size):
            data = await run_in_thread(file.read)
            await self.request(lambda: backend.write(file.artifact_path, data, file.content_type))

    async def _upload_stream(self, backend: Backend, file: LocalFile, callback: Callback) -> None:
        source = await run_in_thread(lambda: OpenFile(file, callback.relative_update))
        try:
            if backend.capabilities.resumable:
                async with self.slot():
                    await backend.write_file(file, source)
            else:
                await self.request(lambda: backend.write_file(file, source))
            source.sent(file.size)
        finally:
            source.close()

    async def _upload_parts(
        self, backend: Backend, file: LocalFile, chunk_size: int, callback: Callback
    ) -> None:
        limits = backend.capabilities
        parts = plan_parts(
            max(file.size, 1),
            chunk_size,
            min_part_size=limits.min_part_size,
            max_parts=limits.max_parts,
        )
        upload: MultipartUpload | None = None

        async def start() -> MultipartUpload:
            # Not to be interrupted: the storage would have an upload whose id nobody knows.
            return await shielded(
                lambda: backend.start_upload(file.artifact_path, file.content_type),
                within=REQUEST_WITHIN,
            )

        source = await run_in_thread(lambda: OpenFile(file))
        try:
            upload = await self.request(start)
            send = self._sender(upload, source, callback)
            if limits.parallel_parts:
                async with task_group() as tasks:
                    for part in parts:
                        await self.memory.acquire(part.size)
                        tasks.start_soon(send, part)
            else:
                for part in parts:
                    await self.memory.acquire(part.size)
                    await send(part)
            await run_in_thread(source.check_unchanged)
            complete = upload.complete
            # An abort that overtakes the completion could leave a torn file.
            await self.request(lambda: shielded(complete, within=REQUEST_WITHIN))
        except BaseException as error:
            if upload is not None:
                await abandoned(upload, error, self.options.retry)
            raise
        finally:
            source.close()

    def _sender(
        self, upload: MultipartUpload, source: OpenFile, callback: Callback
    ) -> Callable[[Part], Coroutine[Any, Any, None]]:
        async def send(part: Part) -> None:
            try:
                data = await run_in_thread(lambda: source.read(part))
                await self.request(lambda: upload.upload_part(part, data))
                source.recycle(data)
                callback.relative_update(part.size)
            finally:
                self.memory.release(part.size)

        return send

    async def download(
        self, backend: Backend, entry: FileInfo, destination: Path, callback: Callback
    ) -> None:
        """Receive one file; readers of the destination see the old one or the new one.

        Args:
            backend: Where from.
            entry: What, as the storage listed it.
            destination: Where to; directories are made.
            callback: Told the bytes that arrived.

        Raises:
            IntegrityError: The file on the storage changed while it was being received.

        A cancellation leaves the destination as it was.
        """
        size = entry.file_size
        if size is not None and size <= WRITE_SIZE:
            await self._download_whole(backend, entry, size, destination)
            callback.relative_update(size)
            return
        chunk_size = (
            self.options.multipart_download_chunk_size
            or backend.capabilities.range_size
            or DEFAULT_CHUNK_SIZE
        )
        minimum = self.options.multipart_download_minimum_file_size or chunk_size + 1
        staged = await run_in_thread(lambda: StagedFile(destination, size or 0))
        try:
            if size is None or size < minimum or not backend.capabilities.ranges:
                await self._receive(backend, entry, Part(1, 0, size or 0), staged, callback)
            else:
                slots = anyio.Semaphore(self._files)

                async def receive(part: Part) -> None:
                    try:
                        await self._receive(backend, entry, part, staged, callback)
                    finally:
                        slots.release()

                async with task_group() as tasks:
                    for part in plan_parts(size, chunk_size):
                        await slots.acquire()
                        tasks.start_soon(receive, part)
            await run_in_thread(staged.commit)
        finally:
            # Without effect on what was committed.
            await shielded(lambda: run_in_thread(staged.discard), within=ABORT_WITHIN)

    async def _download_whole(
        self, backend: Backend, entry: FileInfo, size: int, destination: Path
    ) -> None:
        async def attempt() -> bytes:
            async with aclosing(backend.read(entry.path, etag=entry.etag)) as pieces:
                data = b"".join([piece async for piece in pieces])
            if len(data) != size:
                raise UnavailableError(
                    f"{entry.path!r} was listed with {size} bytes and came with {len(data)}"
                )
            return data

        async with self.memory.hold(size):
            data = await self.request(attempt) if size else b""
            await run_in_thread(lambda: write_file(destination, data))

    async def _receive(
        self, backend: Backend, entry: FileInfo, part: Part, staged: StagedFile, callback: Callback
    ) -> None:
        """Receive a stretch of a file; a retry goes on where the stream broke off."""
        offset = part.offset
        whole = part.offset == 0 and part.size == (entry.file_size or 0)
        end = None if whole else part.offset + part.size

        async def attempt() -> None:
            nonlocal offset
            stream = backend.read(entry.path, offset, end, entry.etag)
            async with aclosing(stream), aclosing(grouped(stream, WRITE_SIZE)) as groups:
                async for pieces in groups:
                    await run_in_thread(partial(staged.write, pieces, offset))
                    size = sum(map(len, pieces))
                    offset += size
                    callback.relative_update(size)
            if entry.file_size is not None and offset != part.offset + part.size:
                raise UnavailableError(f"{entry.path!r}: the stream ended at byte {offset}")

        async with self.memory.hold(STREAM_MEMORY):
            await self.request(attempt)

    async def stream(
        self, backend: Backend, path: str, start: int, end: int | None
    ) -> AsyncGenerator[bytes]:
        """The bytes of a file in pieces, held as one request while they are read."""
        async with (
            self.memory.hold(STREAM_MEMORY),
            self.slot(),
            aclosing(backend.read(path, start, end)) as pieces,
        ):
            async for piece in pieces:
                yield piece


class _slot:  # noqa: N801  reads as a verb
    """One token of a limiter for the block, whichever task runs it.

    `CapacityLimiter` counts one token a task; a task that streams a file and lists another needs
    two.
    """

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter

    async def __aenter__(self) -> None:
        await self._limiter.acquire_on_behalf_of(self)

    async def __aexit__(self, *exc_info: object) -> None:
        self._limiter.release_on_behalf_of(self)


def check_name(path: str) -> str:
    """Refuse a name that a listing returned and that cannot be a file below a directory.

    Raises:
        InvalidParameterError: It would leave the destination, or is not in normal form.
    """
    if uris.artifact_path(path) != path:
        raise InvalidParameterError(
            f"the storage has a file named {path!r}, which is no file name here; nothing was "
            "written for it. Rename or delete it on the storage"
        )
    return path
