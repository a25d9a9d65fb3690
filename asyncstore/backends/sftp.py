"""SFTP, by asyncssh.

sshfs, fsspec's class over asyncssh, is not used: it connects from its constructor on a loop of its
own, checks no host key unless told to, and leaves requests running when it is cancelled.
"""

from __future__ import annotations

import stat
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import asyncssh

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.pool import Pool
from asyncstore.backends.sftp_client import Server, Session, connect, disconnect, translated
from asyncstore.concurrency import shielded, task_group
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
)
from asyncstore.files.reading import ContentType
from asyncstore.files.writing import STAGED_SUFFIX
from asyncstore.multipart import Part

__all__ = ["SFTPBackend", "open_backend"]

FORM = "sftp://user@host:port/path"
CONNECTIONS = 4
REQUESTS_PER_CONNECTION = 16
# Blocks of one transfer that are under way at once.
WINDOW = 4
CLEAN_UP_WITHIN = 30.0
DELETE_WINDOW = 16

CAPABILITIES = Capabilities(
    parallel_parts=True,
    directories=True,
    max_concurrency=CONNECTIONS * REQUESTS_PER_CONNECTION,
)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a directory of an SFTP server. It connects when something is asked for.

    Args:
        uri: `sftp://user@host:port/path` or `ssh://...`; the host may be an alias of ssh_config.
        storage_options: Arguments of `asyncssh.connect`, above the URI's: `client_keys`,
            `passphrase`, `known_hosts`, `config`, ... `known_hosts=None` checks no host key.

    Raises:
        InvalidParameterError: The URI has no host, or a part of it is not acceptable.
    """
    server, root = _server(uri, storage_options)
    server.warn_of_password()
    pool: Pool[Session] = Pool(
        partial(connect, server),
        disconnect,
        size=CONNECTIONS,
        sharing=REQUESTS_PER_CONNECTION,
    )
    return SFTPBackend(server, root, pool)


def _server(uri: str, options: Mapping[str, Any]) -> tuple[Server, str]:
    location = uris.parse_location(uri, FORM)
    if not location.host:
        raise InvalidParameterError(f"{uris.redact(uri)} names no host; write {FORM}")
    return Server(location, options), "/" + location.path.strip("/")


class SFTPBackend(Backend):
    """A directory of a server.

    Args:
        server: Where.
        root: The absolute path of the directory.
        pool: Connections to the server.
    """

    def __init__(self, server: Server, root: str, pool: Pool[Session]) -> None:
        super().__init__(None, root, CAPABILITIES)
        self._server = server
        self._pool = pool
        self._making = anyio.Lock()

    def at(self, uri: str) -> Backend | None:
        """The same connections for another directory of the same server and user."""
        if uris.scheme_of(uri) not in ("sftp", "ssh"):
            return None
        other, root = _server(uri, self._server.options)
        mine, theirs = self._server.location, other.location
        if (mine.user, mine.password, mine.host, mine.port) != (
            theirs.user,
            theirs.password,
            theirs.host,
            theirs.port,
        ):
            return None
        backend = SFTPBackend(self._server, root, self._pool)
        backend.retry = self.retry
        return backend

    def shown(self, path: str) -> str:
        """A path for messages."""
        return f"{self._server.shown}{self.full_path(path)}"

    @asynccontextmanager
    async def session(self, action: str, path: str) -> AsyncGenerator[Session]:
        """A connection for the block, with asyncssh's errors as asyncstore's."""
        async with self._pool.connection() as session:
            with translated(f"{action} {self.shown(path)}"):
                yield session

    async def info(self, path: str) -> FileInfo:
        """Follows links, as reading does."""
        try:
            async with self.session("look at", path) as session:
                found = await session.sftp.stat(self.full_path(path))
        except NotFoundError as error:
            if not path:
                return FileInfo("", True, None)
            raise self.missing(path) from error
        except AsyncStoreError as error:
            if await self._is_below_a_file(path, error):
                raise self.missing(path) from error
            raise
        return _entry(path, found)

    async def _is_below_a_file(self, path: str, error: AsyncStoreError) -> bool:
        # SFTP 3 has no code for "not a directory".
        if not isinstance(error.__cause__, asyncssh.SFTPFailure) or not path:
            return False
        return not (await self.info(uris.parent(path))).is_dir

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """As the server gives the names; links are followed."""
        try:
            async with self.session("list", path) as session:
                full = self.full_path(path)
                if not stat.S_ISDIR((await session.sftp.stat(full)).permissions or 0):
                    return
                found = [
                    (_text(item.filename), item.attrs) async for item in session.sftp.scandir(full)
                ]
        except NotFoundError:
            return
        for name, attributes in found:
            if name in (".", "..") or name.endswith(STAGED_SUFFIX):
                continue
            below = f"{path}/{name}" if path else name
            if stat.S_ISLNK(attributes.permissions or 0):
                try:
                    yield await self.info(below)
                except NotFoundError:
                    # It leads to nothing.
                    continue
            else:
                yield _entry(below, attributes)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Several blocks at once; the size is asked for with the first of them."""
        full = self.full_path(path)
        async with self.session("read", path) as session:
            file = await session.sftp.open(full, asyncssh.FXF_READ, block_size=0, encoding=None)
            try:
                found = await file.stat()
                if stat.S_ISDIR(found.permissions or 0):
                    raise InvalidParameterError(f"{self.shown(path)} is a directory")
                if etag and _etag(found) != etag:
                    raise IntegrityError(f"{self.shown(path)} changed since it was looked at")
                size = found.size or 0
                stop = size if end is None else min(end, size)
                for offset in range(start, stop, WINDOW * session.block):
                    last = min(offset + WINDOW * session.block, stop)
                    piece = await _read(file, offset, last, session.block)
                    yield piece
                    if len(piece) < last - offset:
                        return
            finally:
                await self._close(file)

    async def _close(self, file: asyncssh.SFTPClientFile) -> None:
        await shielded(file.close, within=CLEAN_UP_WITHIN)

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Under another name, then renamed."""
        staged = self.staged(path)
        try:
            async with self.session("write", path) as session:
                await self.write_at(session, staged, data, 0, create=True)
                await self._rename(session, staged, path)
        except BaseException:
            await self.discard(staged)
            raise

    def staged(self, path: str) -> str:
        """A name beside a path, for a file that is not whole yet."""
        return self.full_path(
            "/".join(
                part for part in (uris.parent(path), f".{uuid.uuid4().hex}{STAGED_SUFFIX}") if part
            )
        )

    async def write_at(
        self,
        session: Session,
        full: str,
        data: bytes | memoryview,
        offset: int,
        *,
        create: bool,
    ) -> None:
        """Write into a file, several blocks at once.

        Args:
            session: A connection.
            full: The file.
            data: What.
            offset: Where to.
            create: Whether the file and its directories are to be made.
        """
        flags = asyncssh.FXF_WRITE | (asyncssh.FXF_CREAT if create else 0)
        try:
            file = await session.sftp.open(full, flags, block_size=0, encoding=None)
        except asyncssh.SFTPNoSuchFile:
            if not create:
                raise
            await self._make_directories(session, full.rpartition("/")[0])
            file = await session.sftp.open(full, flags, block_size=0, encoding=None)
        try:
            await _write(file, memoryview(data), offset, session.block)
        except BaseException:
            await self._close(file)
            raise
        # Errors of a full disk may come with the close.
        await file.close()

    async def _make_directories(self, session: Session, full: str) -> None:
        async with self._making:
            await _make_directories(session.sftp, full)

    async def _rename(self, session: Session, staged: str, path: str) -> None:
        full = self.full_path(path)
        try:
            await session.sftp.posix_rename(staged, full)
        except asyncssh.SFTPOpUnsupported:
            # The rename of SFTP 3 does not replace: for a moment there is no file.
            if await session.sftp.exists(full):
                await session.sftp.remove(full)
            await session.sftp.rename(staged, full)
        except asyncssh.SFTPFailure as error:
            if await session.sftp.isdir(full):
                raise InvalidParameterError(f"{self.shown(path)} is a directory") from error
            raise

    async def discard(self, staged: str) -> None:
        """Remove a file that did not become whole, cancelled or not."""

        async def remove() -> None:
            async with self._pool.connection() as session:
                with translated(f"remove {self._server.shown}{staged}"):
                    await session.sftp.remove(staged)

        try:
            await shielded(lambda: self.retry.run(remove), within=CLEAN_UP_WITHIN)
        except AsyncStoreError:
            # Gone already, or as unreachable as what failed before.
            return

    async def start_upload(self, path: str, content_type: ContentType) -> SFTPUpload:
        """Parts are written in place into a file under another name."""
        staged = self.staged(path)
        try:
            async with self.session("write", path) as session:
                await self.write_at(session, staged, b"", 0, create=True)
        except BaseException:
            await self.discard(staged)
            raise
        return SFTPUpload(self, path, staged)

    async def finish(self, path: str, staged: str) -> None:
        """Give a file that is whole its name."""
        try:
            async with self.session("write", path) as session:
                await self._rename(session, staged, path)
        except NotFoundError:
            # The answer to an earlier attempt may have been lost.
            await self.info(path)

    async def make_directory(self, path: str) -> None:
        """With its parents."""
        async with self.session("make", path) as session:
            await self._make_directories(session, self.full_path(path))

    async def delete(self, paths: Sequence[str]) -> None:
        """One by one."""
        for path in paths:
            try:
                async with self.session("delete", path) as session:
                    await session.sftp.remove(self.full_path(path))
            except NotFoundError:
                continue

    async def delete_directory(self, path: str) -> None:
        """The whole tree; a link is removed, and never what it leads to."""
        full = self.full_path(path)
        try:
            async with self.session("delete", path) as session:
                kind = (await session.sftp.lstat(full)).permissions or 0
                if stat.S_ISLNK(kind) and path:
                    await session.sftp.remove(full)
                elif stat.S_ISLNK(kind):
                    # A root that is a link stays one.
                    await _remove_content(session.sftp, full)
                elif stat.S_ISDIR(kind):
                    await _remove_content(session.sftp, full)
                    await session.sftp.rmdir(full)
        except NotFoundError:
            return

    async def aclose(self) -> None:
        """Log out."""
        await self._pool.aclose()


class SFTPUpload:
    """Parts of one file under another name."""

    def __init__(self, backend: SFTPBackend, path: str, staged: str) -> None:
        self._backend = backend
        self._path = path
        self._staged = staged

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Write in place."""
        async with self._backend.session("write", self._path) as session:
            await self._backend.write_at(session, self._staged, data, part.offset, create=False)

    async def complete(self) -> None:
        """Rename."""
        await self._backend.finish(self._path, self._staged)

    async def abort(self) -> None:
        """Remove the file."""
        await self._backend.discard(self._staged)


async def _read(file: asyncssh.SFTPClientFile, start: int, end: int, block: int) -> bytes:
    """The bytes of a stretch, fewer when the file ends in it."""
    blocks: dict[int, bytes] = {}

    async def read(offset: int, size: int) -> None:
        data = b""
        while len(data) < size:
            more: bytes = await file.read(size - len(data), offset + len(data))
            if not more:
                break
            data += more
        blocks[offset] = data

    async with task_group() as tasks:
        for offset in range(start, end, block):
            tasks.start_soon(read, offset, min(block, end - offset))
    return b"".join(blocks[offset] for offset in sorted(blocks))


async def _write(file: asyncssh.SFTPClientFile, data: memoryview, offset: int, block: int) -> None:
    window = anyio.Semaphore(WINDOW)

    async def write(first: int) -> None:
        try:
            await file.write(bytes(data[first : first + block]), offset + first)
        finally:
            window.release()

    async with task_group() as tasks:
        for first in range(0, len(data), block):
            await window.acquire()
            tasks.start_soon(write, first)


async def _make_directories(sftp: asyncssh.SFTPClient, full: str) -> None:
    try:
        await sftp.mkdir(full)
    except asyncssh.SFTPNoSuchFile:
        await _make_directories(sftp, full.rpartition("/")[0] or "/")
        await sftp.mkdir(full)
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists) as error:
        # SFTP 3 has no code for "exists".
        if not await sftp.isdir(full):
            raise InvalidParameterError(f"{full} is a file, not a directory") from error


async def _remove_content(sftp: asyncssh.SFTPClient, full: str) -> None:
    window = anyio.Semaphore(DELETE_WINDOW)

    async def remove(path: str) -> None:
        try:
            await sftp.remove(path)
        except asyncssh.SFTPNoSuchFile:
            return
        finally:
            window.release()

    async with task_group() as tasks:
        async for item in sftp.scandir(full):
            name = _text(item.filename)
            if name in (".", ".."):
                continue
            below = f"{full}/{name}"
            if stat.S_ISDIR(item.attrs.permissions or 0):
                await _remove_content(sftp, below)
                await sftp.rmdir(below)
            else:
                await window.acquire()
                tasks.start_soon(remove, below)


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="surrogateescape")


def _entry(path: str, found: asyncssh.SFTPAttrs) -> FileInfo:
    is_dir = stat.S_ISDIR(found.permissions or 0)
    return FileInfo(path, is_dir, None if is_dir else found.size or 0, _etag(found))


def _etag(found: asyncssh.SFTPAttrs) -> str:
    return f"{found.size}-{found.mtime}"
