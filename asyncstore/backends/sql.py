"""A database as a storage: SQLite, PostgreSQL, MySQL and MariaDB, SQL Server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import anyio.to_thread

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.sql_uri import SqlRoot, parse_root
from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError
from asyncstore.files.reading import ContentType
from asyncstore.multipart import MultipartUpload

__all__ = ["SqlBackend", "open_backend"]

MAX_CONCURRENCY = 64


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a directory in a database. Nobody is asked for anything yet.

    Args:
        uri: A URI of a database as MLflow writes it, with a path behind it; see `parse_root`.
        storage_options: Arguments of `asyncstore.filesystems.sql.SqlFileSystem`.

    Raises:
        InvalidParameterError: The URI or an option is not acceptable.
        MissingDependencyError: The database's driver is not installed.
    """
    root = parse_root(uri)

    def make() -> Any:
        # SQLAlchemy takes a good part of a second to import.
        from asyncstore.filesystems.sql import SqlFileSystem

        return SqlFileSystem(root.database, shown=root.shown, **storage_options)

    try:
        fs = await anyio.to_thread.run_sync(make)
    except TypeError as error:
        raise InvalidParameterError(f"open {root.shown}: {error}") from error
    await fs.connect()
    return SqlBackend(fs, root)


class SqlBackend(Backend):
    """A directory in a database."""

    def __init__(self, fs: Any, root: SqlRoot) -> None:
        sqlite = fs.connections.dialect == "sqlite"
        capabilities = Capabilities(
            # One writes at a time there.
            parallel_parts=not sqlite,
            directories=True,
            versions=True,
            batch_writes=True,
            max_concurrency=int(min(fs.connections.count, MAX_CONCURRENCY)),
        )
        super().__init__(fs, root.path, capabilities)
        self._root = root

    def at(self, uri: str) -> Backend | None:
        """Another directory of the same database, over the same connections."""
        scheme = uris.scheme_of(uri).partition("+")[0]
        if scheme not in ("sqlite", "postgresql", "mysql", "mssql"):
            return None
        root = parse_root(uri)
        if root.database != self._root.database:
            return None
        backend = SqlBackend(self.fs, root)
        backend.retry = self.retry
        return backend

    async def info(self, path: str) -> FileInfo:
        """One row."""
        if not path:
            return FileInfo("", True, None)
        entry = await self.fs.find(self.full_path(path))
        if entry is None:
            raise self.missing(path)
        return _entry(entry, path)

    async def exists(self, path: str) -> bool:
        """One row; a database that is missing is an error."""
        return not path or await self.fs.find(self.full_path(path)) is not None

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """By the index of the directory, a page at a time."""
        async with aclosing(self.fs.entries(self.full_path(path))) as entries:
            async for entry in entries:
                name = entry["name"].rpartition("/")[2]
                yield _entry(entry, f"{path}/{name}" if path else name)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Chunk by chunk."""
        async with aclosing(self.fs.pieces(self.full_path(path), start, end, etag)) as pieces:
            async for piece in pieces:
                yield piece

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """In one transaction, but for large ones: those as an upload."""
        await self.fs._pipe_file(self.full_path(path), data)  # noqa: SLF001  fsspec's name for a public step

    async def write_many(
        self, files: Sequence[tuple[str, bytes | memoryview, ContentType]]
    ) -> None:
        """In one transaction."""
        await self.fs.write_many([(self.full_path(path), data) for path, data, _ in files])

    async def start_upload(self, path: str, content_type: ContentType) -> MultipartUpload:
        """A new version, which becomes the file when it is complete."""
        upload: MultipartUpload = await self.fs.start_upload(self.full_path(path))
        return upload

    async def make_directory(self, path: str) -> None:
        """With its parents."""
        await self.fs._makedirs(self.full_path(path), exist_ok=True)  # noqa: SLF001  fsspec's name for a public step

    async def delete(self, paths: Sequence[str]) -> None:
        """In one transaction."""
        await self.fs.remove([self.full_path(path) for path in paths])

    async def delete_directory(self, path: str) -> None:
        """The whole tree, in transactions of bounded size."""
        await self.fs.remove_tree(self.full_path(path))

    async def aclose(self) -> None:
        """Close the pool."""
        await self.fs.aclose()


def _entry(entry: Mapping[str, Any], path: str) -> FileInfo:
    if entry["type"] == "directory":
        return FileInfo(path, True, None)
    return FileInfo(path, False, entry["size"], entry["etag"])
