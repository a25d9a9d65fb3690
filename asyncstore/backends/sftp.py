"""SFTP, by asyncssh.

sshfs, fsspec's class over asyncssh, is not used: it connects from its constructor on a loop of its
own, checks no host key unless told to, and takes no connection that somebody else made. `fs` is
None.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import asyncssh

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.pool import Pool
from asyncstore.backends.sftp_client import Server, Session, connect, disconnect
from asyncstore.backends.sftp_errors import translated
from asyncstore.backends.sftp_files import (
    Entry,
    entries,
    etag_of,
    is_directory,
    make_directories,
    opened,
    read_blocks,
    read_small,
    remove_content,
    rename_over,
    write_blocks,
)
from asyncstore.concurrency import Turnstile, shielded
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
)
from asyncstore.files.reading import ContentType
from asyncstore.files.writing import staged_name
from asyncstore.multipart import Part
from asyncstore.retry import RetryPolicy

__all__ = ["SFTPBackend", "open_backend"]

T = TypeVar("T")
FORM = "sftp://user@host:port/path"
# OpenSSH's server lets ten logins begin at once (MaxStartups). More than four are not faster:
# encrypting takes one processor here.
CONNECTIONS = 4
REQUESTS_PER_CONNECTION = 16
REQUESTS_PER_TURN = 8
DISCARD_WITHIN = 30.0

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
        self._turnstile = Turnstile(REQUESTS_PER_TURN)
        self._making = anyio.Lock()
        # How often each directory was made: who waited for the lock need not make it again.
        self._made: dict[str, int] = {}

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
        backend._turnstile = self._turnstile
        backend.retry = self.retry
        return backend

    def shown(self, path: str) -> str:
        """A path for messages."""
        return f"{self._server.shown}{self.full_path(path)}"

    @asynccontextmanager
    async def session(self, action: str, path: str) -> AsyncGenerator[Session]:
        """A connection for the block, with asyncssh's errors as asyncstore's.

        A cancellation does not end the connection, which others use at the same time: the answer
        to a request that nobody waits for is thrown away.
        """
        left: BaseException | None = None
        await self._turnstile.enter()
        async with self._pool.connection() as session:
            try:
                with translated(f"{action} {self.shown(path)}"):
                    yield session
            except (GeneratorExit, anyio.get_cancelled_exc_class()) as error:
                if not session.usable:
                    raise
                left = error
        if left is not None:
            raise left

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
        # SFTP 3 has no code for "not a directory"; OpenSSH says "no such file".
        if not isinstance(error.__cause__, asyncssh.SFTPFailure) or not path:
            return False
        return not (await self.info(uris.parent(path))).is_dir

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """A whole directory, before any of it is used: a consumer may take its time."""
        full = self.full_path(path)

        async def collect() -> list[Entry]:
            async with self.session("list", path) as session:
                try:
                    return await entries(session, full)
                except asyncssh.SFTPFailure:
                    if is_directory(await session.sftp.stat(full)):
                        raise
                    return []

        try:
            found = await self.retry.run(collect)
        except NotFoundError:
            return
        for name, attributes in found:
            yield _entry(f"{path}/{name}" if path else name, attributes)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """Several blocks at once; of a small file all there is to ask for at once."""
        full = self.full_path(path)
        async with self.session("read", path) as session:
            # It says the size, too.
            size = int(etag.partition("-")[0]) if etag else None
            stop = end if size is None else min(size, size if end is None else end)
            if stop is not None and stop - start <= session.block:
                found, data = await read_small(session, full, start, stop - start)
                self._check(path, found, etag)
                if len(data) == max(0, min(stop, found.size or 0) - start):
                    if data:
                        yield data
                    return
            async with opened(session, full, asyncssh.FXF_READ) as file:
                found = await file.stat()
                self._check(path, found, etag)
                stop = found.size or 0 if end is None else min(end, found.size or 0)
                async for piece in read_blocks(file, start, stop, session.block):
                    yield piece

    def _check(self, path: str, found: asyncssh.SFTPAttrs, etag: str | None) -> None:
        if is_directory(found):
            raise InvalidParameterError(f"{self.shown(path)} is a directory")
        if etag and etag_of(found) != etag:
            raise IntegrityError(f"{self.shown(path)} changed since it was looked at")

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Under another name, then renamed."""
        staged = self._staged(path)
        try:
            async with self.session("write", path) as session:
                await self._in_directory(
                    session, staged, lambda: self.write_at(session, staged, data, 0, create=True)
                )
                await self._rename(session, staged, path)
        except BaseException:
            await self.discard(staged)
            raise

    def _staged(self, path: str) -> str:
        """A name beside a path, for a file that is not whole yet."""
        directory = uris.parent(path)
        return self.full_path(f"{directory}/{staged_name()}" if directory else staged_name())

    async def write_at(
        self,
        session: Session,
        full: str,
        data: bytes | memoryview,
        offset: int,
        *,
        create: bool = False,
    ) -> None:
        """Write into a file, several blocks at once.

        Args:
            session: A connection.
            full: The file.
            data: What.
            offset: Where to.
            create: Whether the file is to be made.
        """
        flags = asyncssh.FXF_WRITE | (asyncssh.FXF_CREAT if create else 0)
        async with opened(session, full, flags) as file:
            await write_blocks(file, data, offset, session.block, self._turnstile)

    async def _in_directory(
        self, session: Session, full: str, call: Callable[[], Awaitable[T]]
    ) -> T:
        """Do what needs the directory of a path; it is made when that turns out to be missing."""
        directory = full.rpartition("/")[0]
        before = self._made.get(directory, 0)
        try:
            return await call()
        except asyncssh.SFTPNoSuchFile:
            async with self._making:
                if self._made.get(directory, 0) == before:
                    await make_directories(session, directory)
                    self._made[directory] = before + 1
        return await call()

    async def _rename(self, session: Session, staged: str, path: str) -> None:
        full = self.full_path(path)
        try:
            await rename_over(session, staged, full)
        except asyncssh.SFTPFailure as error:
            if is_directory(await session.sftp.stat(full)):
                raise InvalidParameterError(f"{self.shown(path)} is a directory") from error
            raise

    async def discard(self, staged: str) -> None:
        """Remove a file that did not become whole, cancelled or not."""

        async def remove() -> None:
            async with self._pool.connection() as session:
                with translated(f"remove {self._server.shown}{staged}"):
                    await session.sftp.remove(staged)

        # Of a server that is down nobody knows more after the sixth attempt.
        retry = RetryPolicy(min(2, self.retry.attempts), self.retry.backoff)
        try:
            await shielded(lambda: retry.run(remove), within=DISCARD_WITHIN)
        except AsyncStoreError:
            # Gone already, or as unreachable as what failed before.
            return

    async def start_upload(self, path: str, content_type: ContentType) -> SFTPUpload:
        """Parts are written in place into a file under another name."""
        staged = self._staged(path)
        try:
            async with self.session("write", path) as session:
                await self._in_directory(
                    session, staged, lambda: self.write_at(session, staged, b"", 0, create=True)
                )
        except BaseException:
            await self.discard(staged)
            raise
        return SFTPUpload(self, path, staged)

    async def finish(self, path: str, staged: str, size: int) -> None:
        """Give a file that is whole its name."""
        try:
            async with self.session("write", path) as session:
                await self._rename(session, staged, path)
        except NotFoundError:
            # An earlier attempt may have done it, and only its answer was lost.
            if (await self.info(path)).file_size != size:
                raise

    async def make_directory(self, path: str) -> None:
        """With its parents."""
        async with self.session("make", path) as session, self._making:
            await make_directories(session, self.full_path(path))

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
                    await remove_content(session, full)
                elif stat.S_ISDIR(kind):
                    await remove_content(session, full)
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
        self._size = 0

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Write in place."""
        async with self._backend.session("write", self._path) as session:
            await self._backend.write_at(session, self._staged, data, part.offset)
        self._size = max(self._size, part.offset + len(data))

    async def complete(self) -> None:
        """Rename."""
        await self._backend.finish(self._path, self._staged, self._size)

    async def abort(self) -> None:
        """Remove the file."""
        await self._backend.discard(self._staged)


def _entry(path: str, found: asyncssh.SFTPAttrs) -> FileInfo:
    is_dir = is_directory(found)
    return FileInfo(path, is_dir, None if is_dir else found.size or 0, etag_of(found))
