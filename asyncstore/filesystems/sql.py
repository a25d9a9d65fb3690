"""A filesystem in two tables of a SQL database."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.databases.connections import Connections
from asyncstore.errors import (
    AlreadyExistsError,
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnavailableError,
)
from asyncstore.filesystems import sql_rows as rows
from asyncstore.filesystems.sql_tables import create_tables, tables_exist
from asyncstore.filesystems.sql_uploads import (
    PART_SIZE,
    SqlUpload,
    chunked,
    clean,
    new_version,
    sweep,
)
from asyncstore.multipart import Part, abandoned, plan_parts

__all__ = ["SqlFileSystem"]

DAY = 24 * 60 * 60.0
CLEAN_WITHIN = 5.0
# A transaction that removes files ends at so many bytes of content.
REMOVE_BYTES = 64 * 1024 * 1024


class SqlFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Files and directories in a database, on one event loop.

    `connect` opens it, `aclose` closes it. The tables are made when something is first written.

    Args:
        uri: The database, as MLflow names it.
        shown: The same for messages, without secrets; None shows the kind of database only.
        abandoned_after: Seconds after which an upload that nobody has written to is removed, by the
            first write of any filesystem that is opened later.
    """

    protocol: ClassVar[tuple[str, ...]] = ("asyncstore-sql",)
    cachable = False
    root_marker = ""

    def __init__(self, uri: str, *, shown: str | None = None, abandoned_after: float = DAY) -> None:
        super().__init__(asynchronous=True, skip_instance_cache=True)
        self.connections = Connections(uri, shown or f"{uri.partition(':')[0]}://...")
        self._abandoned_after = abandoned_after
        self._made = False
        self._cleaned = False
        self._making = anyio.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.strip("/")

    async def connect(self) -> None:
        """Load the driver. Connections follow when they are needed.

        Raises:
            InvalidParameterError: The URI cannot be parsed.
            MissingDependencyError: The driver is not installed.
        """
        await self.connections.connect()

    async def aclose(self) -> None:
        """Close every connection."""
        await self.connections.aclose()

    # The tables

    async def _has_tables(self) -> bool:
        if not self._made:
            self._made = await self.connections.read(
                "looking for the tables of artifacts",
                lambda connection: connection.run_sync(tables_exist),
            )
        return self._made

    async def _need_tables(self) -> None:
        async with self._making:
            if not await self._has_tables():
                await self._make_tables()
        if not self._cleaned:
            self._cleaned = True
            with suppress(AsyncStoreError), anyio.move_on_after(CLEAN_WITHIN):
                await clean(self.connections, self._abandoned_after)

    async def _make_tables(self) -> None:
        doing = "making the tables of artifacts"
        if self.connections.dialect == "sqlite":
            # Readers and the writer do not wait for each other.
            await self.connections.read(doing, _use_wal)
        await self.connections.write(doing, lambda connection: connection.run_sync(create_tables))
        self._made = True

    async def clean(self, older_than: float | None = None) -> int:
        """Remove uploads that were abandoned and contents that were replaced.

        Args:
            older_than: Seconds that nobody has written to an upload; None for `abandoned_after`.

        Returns:
            How many versions it removed.
        """
        if not await self._has_tables():
            return 0
        return await clean(
            self.connections, self._abandoned_after if older_than is None else older_than
        )

    # Looking

    async def find(self, path: str) -> dict[str, Any] | None:
        """What `info` says of a path; None where there is nothing."""
        if not path:
            return {"name": "", "type": "directory", "size": 0}
        if not await self._has_tables():
            return None
        row = await self.connections.read(f"looking at {path!r}", partial(rows.find, path=path))
        return None if row is None else _entry(row)

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        entry = await self.find(name)
        if entry is None:
            raise NotFoundError(f"there is no artifact {name!r}")
        return entry

    async def _exists(self, path: str, **_: Any) -> bool:
        return await self.find(self._strip_protocol(path)) is not None

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        name = self._strip_protocol(path)
        info = await self._info(name)
        if info["type"] == "file":
            found = [info]
        else:
            async with aclosing(self.entries(name)) as entries:
                found = [entry async for entry in entries]
        return found if detail else [entry["name"] for entry in found]

    async def entries(self, path: str) -> AsyncGenerator[dict[str, Any]]:
        """The children of a directory as `info` describes them, in constant memory.

        Nothing where there is no directory. What is written meanwhile may be among them or not.
        """
        if not await self._has_tables():
            return
        after = b""
        while True:
            page = await self.connections.read(
                f"listing {path!r}", partial(rows.children, path=path, after=after)
            )
            for row in page:
                yield _entry(row)
            if len(page) < rows.LIST_PAGE:
                return
            after = page[-1].id

    # Reading

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        name = self._strip_protocol(path)
        if (start or 0) < 0 or (end or 0) < 0:
            size = (await self._info(name))["size"]
            start, end, _step = slice(start, end).indices(size)
        async with aclosing(self.pieces(name, start or 0, end)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def pieces(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """The bytes of a file from `start` up to `end`, about a MiB held at a time.

        No connection is held between the pieces.

        Args:
            path: The file.
            start: First byte.
            end: Byte to stop before; None for the end of the file.
            etag: The version that is wanted, as `info` says it; None for the present one.

        Raises:
            NotFoundError: There is no such file.
            IntegrityError: It is not that version, or not any more.
            UnavailableError: Without `etag`: it was replaced meanwhile; read it again.
        """
        doing = f"reading {path!r}"
        stop = sys.maxsize if end is None else end
        found = None
        if await self._has_tables():
            found = await self.connections.read(doing, partial(_open, path, start, stop))
        if found is None:
            raise NotFoundError(f"there is no artifact {path!r}")
        version, size, page = found
        if version is None:
            raise InvalidParameterError(f"{path!r} is a directory")
        if etag is not None and version.hex() != etag:
            raise _replaced(path, etag)
        stop = min(stop, size)
        position = start
        while position < stop:
            for begin, data in page:
                piece = data[position - begin : stop - begin] if begin <= position else b""
                if not piece:
                    raise _replaced(path, etag)
                position += len(piece)
                yield piece
            if position < stop:
                page = await self.connections.read(
                    doing, partial(rows.content, version=version, begin=position, end=stop)
                )
                if not page:
                    raise _replaced(path, etag)

    async def _get_file(
        self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        name = self._strip_protocol(rpath)
        info = await self._info(name)
        local = Path(lpath)
        if info["type"] == "directory":
            await anyio.to_thread.run_sync(partial(local.mkdir, parents=True, exist_ok=True))
            return
        callback.set_size(info["size"])
        async with (
            await anyio.open_file(local, "wb") as file,
            aclosing(self.pieces(name, etag=info["etag"])) as pieces,
        ):
            async for piece in pieces:
                await file.write(piece)
                callback.relative_update(len(piece))

    # Writing

    async def _pipe_file(
        self, path: str, value: bytes | memoryview, mode: str = "overwrite", **_: Any
    ) -> None:
        name = self._strip_protocol(path)
        if not name:
            raise InvalidParameterError("a file needs a name")
        if mode == "create" and await self._exists(name):
            raise AlreadyExistsError(f"{name!r} exists")
        if len(value) > PART_SIZE:
            await self._pipe_large(name, memoryview(value))
            return
        await self.write_many([(name, value)])

    async def write_many(self, files: Sequence[tuple[str, bytes | memoryview]]) -> None:
        """Store files, each of a few MiB at most, in one transaction.

        Args:
            files: Path and content of each.
        """
        await self._need_tables()
        contents = dict(files)
        new = [rows.NewFile(path, new_version(), len(data)) for path, data in contents.items()]
        pieces = [piece for file in new for piece in chunked(file.version, contents[file.path])]
        body = partial(rows.publish, files=new, pieces=pieces)
        doing = f"writing {new[0].path!r}" + (f" and {len(new) - 1} others" if new[1:] else "")
        await sweep(self.connections, await self.connections.write(doing, body))

    async def _pipe_large(self, path: str, value: memoryview) -> None:
        upload = await self.start_upload(path)
        try:
            for part in plan_parts(len(value), PART_SIZE):
                await upload.upload_part(part, value[part.offset : part.offset + part.size])
            await upload.complete()
        except BaseException as error:
            await abandoned(upload, error)
            raise

    async def start_upload(self, path: str) -> SqlUpload:
        """Begin a new version of a file, in parts; `complete` or `abort` ends it."""
        await self._need_tables()
        upload = SqlUpload(self.connections, path)
        await upload.begin()
        return upload

    async def _put_file(
        self,
        lpath: str,
        rpath: str,
        mode: str = "overwrite",
        callback: Any = DEFAULT_CALLBACK,
        **_: Any,
    ) -> None:
        name = self._strip_protocol(rpath)
        if await anyio.Path(lpath).is_dir():
            await self._makedirs(name, exist_ok=True)
            return
        if mode == "create" and await self._exists(name):
            raise AlreadyExistsError(f"{name!r} exists")
        upload = await self.start_upload(name)
        try:
            offset = 0
            async with await anyio.open_file(lpath, "rb") as file:
                while data := await file.read(PART_SIZE):
                    await upload.upload_part(Part(0, offset, len(data)), data)
                    offset += len(data)
                    callback.relative_update(len(data))
            await upload.complete()
        except BaseException as error:
            await abandoned(upload, error)
            raise

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        await self._makedirs(path, exist_ok=False)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        name = self._strip_protocol(path)
        if not exist_ok and await self._exists(name):
            raise AlreadyExistsError(f"{name!r} exists")
        if name:
            await self._need_tables()
            await self.connections.write(
                f"making the directory {name!r}", partial(rows.make_directories, path=name)
            )

    # Removing

    async def remove(self, paths: list[str]) -> None:
        """Remove files; what is no file stays."""
        if await self._has_tables():
            body = partial(rows.remove_files, paths=paths)
            doing = f"deleting {len(paths)} files"
            await sweep(self.connections, await self.connections.write(doing, body))

    async def remove_tree(self, path: str) -> None:
        """Remove a directory with all that is in it, in transactions of bounded size.

        What somebody writes into it meanwhile may stay.
        """
        if not await self._has_tables():
            return
        batch: list[str] = []
        size = 0
        async with aclosing(self.entries(path)) as entries:
            async for entry in entries:
                if entry["type"] == "directory":
                    await self.remove_tree(entry["name"])
                    continue
                batch.append(entry["name"])
                size += min(entry["size"], rows.SMALL)
                if size >= REMOVE_BYTES or len(batch) >= rows.LIST_PAGE:
                    await self.remove(batch)
                    batch, size = [], 0
        if batch:
            await self.remove(batch)
        if path:
            await self.connections.write(
                f"deleting the directory {path!r}", partial(rows.remove_directory, path=path)
            )

    async def _rm_file(self, path: str, **_: Any) -> None:
        name = self._strip_protocol(path)
        if (await self._info(name))["type"] == "directory":
            raise InvalidParameterError(f"{name!r} is a directory")
        await self.remove([name])

    async def _rm(self, path: Any, recursive: bool = False, **_: Any) -> None:
        for each in [path] if isinstance(path, str) else path:
            name = self._strip_protocol(each)
            if recursive and (await self._info(name))["type"] == "directory":
                await self.remove_tree(name)
            else:
                await self._rm_file(name)


async def _use_wal(connection: AsyncConnection) -> None:
    # A file system that cannot share memory between processes leaves the journal as it is.
    await connection.exec_driver_sql("PRAGMA journal_mode = WAL")


async def _open(path: str, start: int, stop: int, connection: AsyncConnection) -> Any:
    """Version and size of a file, and rows of its content from `start` on; None: there is none."""
    if start == 0:
        found = await rows.first_content(connection, path, stop)
        if not found:
            return None
        page = [(row.start, row.data) for row in found if row.start is not None]
        return found[0].version, found[0].size, page
    row = await rows.find(connection, path)
    if row is None:
        return None
    if row.version is None or start >= min(stop, row.size):
        return row.version, row.size, []
    return row.version, row.size, await rows.content(connection, row.version, start, stop)


def _entry(row: Any) -> dict[str, Any]:
    entry = {"name": row.path, "created": row.written / 1000}
    if row.version is None:
        return {**entry, "type": "directory", "size": 0}
    return {**entry, "type": "file", "size": row.size, "etag": row.version.hex()}


def _replaced(path: str, etag: str | None) -> AsyncStoreError:
    message = f"{path!r} was replaced while it was being read; read it again"
    return IntegrityError(message) if etag is not None else UnavailableError(message)
