"""FTP and FTPS, over a bounded pool of connections.

fsspec's class has one connection for everything, so that one transfer waits for the other.
"""

from __future__ import annotations

import contextlib
import ftplib
import re
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.ftp_client import READ_SIZE, Connection, Server, translated
from asyncstore.backends.pool import Pool
from asyncstore.concurrency import shielded
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from asyncstore.files.reading import ContentType, LocalFile, OpenFile
from asyncstore.files.threads import run_in_thread
from asyncstore.files.writing import STAGED_SUFFIX, staged_name
from asyncstore.multipart import Part, abandoned

__all__ = ["FTPBackend", "open_backend"]

T = TypeVar("T")
FORM = "ftp://user:password@host:port/path"
CONNECTIONS = 16
CLEAN_UP_WITHIN = 30.0
# When to look again for a file that was not there to be removed, in seconds.
LATE_FILES = (0.1, 0.3)
# On a fast network ranges cost more than they bring: 512 MiB took 0.7 s in one stream, and 1.3 s in
# ranges of 64 MiB.
RANGE_SIZE = 512 * 1024 * 1024
# Bytes in one go of a worker thread, and one step of the progress.
SEND_SIZE = 4 * 1024 * 1024

# As `ls -l` writes it: mode, links, owner, group, size, date, name.
UNIX = re.compile(r"([-dl])\S{9}\S*\s+\d+\s+\S+\s+\S+\s+(\d+)\s+\S+\s+\S+\s+\S+ (.*)")
# As IIS writes it: date, time, size or <DIR>, name.
WINDOWS = re.compile(r"\d\d-\d\d-\d{2,4}\s+\d\d:\d\d(?:AM|PM)?\s+(<DIR>|\d+) +(.*)")

CAPABILITIES = Capabilities(
    directories=True,
    max_concurrency=CONNECTIONS,
    # FTP knows no limit.
    max_file_size=sys.maxsize,
    resumable=True,
    range_size=RANGE_SIZE,
)


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a directory of an FTP server. It connects when something is asked for.

    Args:
        uri: `ftp://user:password@host:port/path`, or `ftps://...` for TLS, which begins with AUTH
            TLS on the usual port.
        storage_options: `username`, `password` above the URI's; `ssl_context`, an
            `ssl.SSLContext` for FTPS.

    Raises:
        InvalidParameterError: The URI has no host, or a part of it or an option is not acceptable.
    """
    server, root = await anyio.to_thread.run_sync(_server, uri, dict(storage_options))
    server.warn_of_clear_text()

    async def connect() -> Connection:
        connection = Connection(server)
        try:
            await connection.run(Connection.log_in)
        except BaseException:
            # Cancelled when it had just succeeded, for instance.
            connection.close()
            raise
        return connection

    async def disconnect(connection: Connection) -> None:
        connection.close()

    return FTPBackend(server, root, Pool(connect, disconnect, size=CONNECTIONS))


def _server(uri: str, options: dict[str, Any]) -> tuple[Server, str]:
    location = uris.parse_location(uri, FORM)
    if not location.host:
        raise InvalidParameterError(f"{uris.redact(uri)} names no host; write {FORM}")
    user = options.pop("username", location.user)
    password = options.pop("password", location.password)
    context = options.pop("ssl_context", None)
    if options:
        raise InvalidParameterError(f"FTP has no option {', '.join(sorted(options))}")
    if location.scheme == "ftps":
        context = context or ssl.create_default_context()
    for part in (user, password, location.path):
        if part and ("\r" in part or "\n" in part):
            raise InvalidParameterError(f"{uris.redact(uri)}: FTP has no names with a line break")
    complete = uris.Location(
        location.scheme, user, password, location.host, location.port, location.path
    )
    return Server(complete, context), "/" + location.path.strip("/")


class FTPBackend(Backend):
    """A directory of a server.

    Args:
        server: Where.
        root: The absolute path of the directory.
        pool: Connections to the server.
    """

    def __init__(self, server: Server, root: str, pool: Pool[Connection]) -> None:
        super().__init__(None, root, CAPABILITIES)
        self._server = server
        self._pool = pool
        self._making = anyio.Lock()

    def at(self, uri: str) -> Backend | None:
        """The same connections for another directory of the same server and user."""
        mine = self._server.location
        if uris.scheme_of(uri) != mine.scheme:
            return None
        theirs = uris.parse_location(uri, FORM)
        same = (theirs.host, theirs.port, theirs.user or mine.user) == (
            mine.host,
            mine.port,
            mine.user,
        )
        if not same or theirs.password not in (None, mine.password):
            return None
        backend = FTPBackend(self._server, "/" + theirs.path.strip("/"), self._pool)
        backend.retry = self.retry
        backend.request_timeout = self.request_timeout
        return backend

    def shown(self, path: str) -> str:
        """A path for messages."""
        return f"{self._server.shown}{self.full_path(path)}"

    async def run(self, action: str, call: Callable[[Connection], T]) -> T:
        """Do something on a connection, in a worker thread."""
        async with self._pool.connection() as connection:
            with translated(action):
                return await connection.run(call)

    async def info(self, path: str) -> FileInfo:
        """The size says that it is a file, going there that it is a directory."""
        full = self.full_path(path)

        def look(connection: Connection) -> FileInfo:
            try:
                return FileInfo(path, False, connection.size(full))
            except ftplib.error_perm:
                connection.command(f"CWD {full}")
                return FileInfo(path, True, None)

        try:
            return await self.run(f"look at {self.shown(path)}", look)
        except NotFoundError as error:
            if not path:
                return FileInfo("", True, None)
            raise self.missing(path) from error

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """MLSD, or what `ls` says where the server does not know that."""
        full = self.full_path(path)

        try:
            found = await self.retry.run(
                lambda: self.run(f"list {self.shown(path)}", lambda c: _list(c, full))
            )
        except NotFoundError:
            return
        for kind, name, size in found:
            if name.endswith(STAGED_SUFFIX):
                continue
            below = f"{path}/{name}" if path else name
            if kind == "link":
                with contextlib.suppress(NotFoundError):
                    yield await self.info(below)
            else:
                yield FileInfo(below, kind == "dir", None if kind == "dir" else size)

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """RETR from the first byte on; a range is left at its end."""
        full = self.full_path(path)
        if start == end:
            await self._expect_file(path)
            return
        size = READ_SIZE if end is None else min(READ_SIZE, end - start)

        def begin(connection: Connection) -> bytes:
            connection.begin(full, start, whole=end is None)
            piece = connection.piece(size)
            if len(piece) < size:
                # A small file takes one trip to a worker thread.
                connection.end(whole=True)
            return piece

        async with self._pool.connection() as connection:
            with translated(f"read {self.shown(path)}"):
                try:
                    piece = await connection.run(begin)
                except ftplib.error_perm:
                    # Some refuse to begin at the end or behind it.
                    if start and start >= await connection.run(lambda c: c.size(full)):
                        return
                    raise
                if piece:
                    yield piece
                if len(piece) < size:
                    return
                offset, whole = start + size, True
                while end is None or offset < end:
                    size = READ_SIZE if end is None else min(READ_SIZE, end - offset)
                    piece = await connection.run(partial(Connection.piece, size=size))
                    offset += len(piece)
                    if piece:
                        yield piece
                    if len(piece) < size:
                        break
                else:
                    whole = False
                await connection.run(lambda c: c.end(whole=whole))

    async def _expect_file(self, path: str) -> None:
        if (await self.info(path)).is_dir:
            raise InvalidParameterError(f"{self.shown(path)} is a directory")

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """Under another name, then renamed."""
        staged = self.staged(path)
        try:
            await self.store(path, staged, data, 0)
            await self.rename(path, staged)
        except BaseException:
            await self.discard(staged)
            raise

    def staged(self, path: str) -> str:
        """A name beside a path, for a file that is not whole yet."""
        directory = uris.parent(path)
        return self.full_path(f"{directory}/{staged_name()}" if directory else staged_name())

    async def store(self, path: str, staged: str, data: bytes | memoryview, offset: int) -> None:
        """Write into a staged file; its directories are made with its first bytes."""
        action = f"write {self.shown(path)}"

        async def store() -> None:
            await self.run(action, lambda c: c.store(staged, data, offset))

        if offset:
            await store()
        else:
            await self._with_directories(staged, store)

    async def _with_directories(self, staged: str, store: Callable[[], Awaitable[None]]) -> None:
        """Directories are made for the first file that misses them."""
        try:
            await store()
        except (NotFoundError, PermissionDeniedError):
            await self._make_directories(staged.rpartition("/")[0])
            await store()

    async def write_file(self, file: LocalFile, source: OpenFile) -> None:
        """One stream; what breaks off goes on from there."""
        upload = FTPUpload(self, file.artifact_path)
        try:
            await self.retry.run(lambda: upload.send(source, file.size))
            await run_in_thread(source.check_unchanged)
            await self.retry.run(upload.complete)
        except BaseException as error:
            await abandoned(upload, error)
            raise

    async def stream(
        self, path: str, staged: str, source: OpenFile, size: int, *, resume: bool
    ) -> None:
        """Fill a staged file from a local one; `resume` sends what it misses."""

        async def send() -> None:
            async with self._pool.connection() as connection:
                with translated(f"write {self.shown(path)}"):
                    offset = await connection.run(lambda c: c.begin_store(staged, resume=resume))
                    while offset < size:
                        length = min(SEND_SIZE, size - offset)
                        await connection.run(
                            partial(Connection.send, source=source, offset=offset, size=length)
                        )
                        offset += length
                        source.sent(offset)
                    await connection.run(Connection.end_store)

        await self._with_directories(staged, send)

    async def _make_directories(self, full: str) -> None:
        async with self._making:
            await self.run(f"make {self._server.shown}{full}", lambda c: _make_directories(c, full))

    async def rename(self, path: str, staged: str) -> None:
        """Give a file that is whole its name."""
        full = self.full_path(path)

        def rename(connection: Connection) -> None:
            try:
                connection.rename(staged, full)
            except ftplib.error_perm:
                # Some do not replace: for a moment there is no file.
                if not _is_file(connection, full):
                    raise
                connection.size(staged)
                connection.command(f"DELE {full}")
                connection.rename(staged, full)

        # Not to be interrupted: there could be neither the old file nor the new one.
        await shielded(
            lambda: self.run(f"write {self.shown(path)}", rename), within=CLEAN_UP_WITHIN
        )

    async def discard(self, staged: str) -> None:
        """Remove a file that did not become whole, cancelled or not."""

        async def remove() -> None:
            await self.run(
                f"remove {self._server.shown}{staged}", lambda c: c.command(f"DELE {staged}")
            )

        async def remove_when_there() -> None:
            # A server may still be at the STOR of a connection that was broken, and make the file.
            for wait in (*LATE_FILES, None):
                try:
                    await self.retry.run(remove)
                except NotFoundError:
                    if wait is not None:
                        await anyio.sleep(wait)
                else:
                    return

        # As unreachable as what failed before.
        with contextlib.suppress(AsyncStoreError):
            await shielded(remove_when_there, within=CLEAN_UP_WITHIN)

    async def start_upload(self, path: str, content_type: ContentType) -> FTPUpload:
        """Parts are written one behind the other into a file under another name."""
        return FTPUpload(self, path)

    async def make_directory(self, path: str) -> None:
        """With its parents."""
        await self._make_directories(self.full_path(path))

    async def delete(self, paths: Sequence[str]) -> None:
        """One by one, on one connection."""

        def delete(connection: Connection) -> None:
            for path in paths:
                full = self.full_path(path)
                try:
                    connection.command(f"DELE {full}")
                except ftplib.error_perm:
                    # 550 is what servers say of all their troubles.
                    if _is_file(connection, full):
                        raise PermissionDeniedError(
                            f"delete {self.shown(path)}: the server refuses"
                        ) from None

        await self.run(f"delete {self.shown(paths[0] if paths else '')}", delete)

    async def delete_directory(self, path: str) -> None:
        """The whole tree, below it first; a link is removed, and never what it leads to."""
        full = self.full_path(path)
        names: list[tuple[str, bool]] = []

        def look(connection: Connection) -> None:
            names.clear()
            _collect(connection, full, names)

        def delete(connection: Connection) -> None:
            for name, is_dir in names:
                with contextlib.suppress(ftplib.error_perm):
                    connection.command(f"{'RMD' if is_dir else 'DELE'} {name}")
            connection.command("CWD /")
            with contextlib.suppress(ftplib.error_perm):
                connection.command(f"RMD {full}")

        try:
            await self.run(f"list {self.shown(path)}", look)
        except NotFoundError:
            return
        await self.run(f"delete {self.shown(path)}", delete)
        if path and await self.exists(path):
            raise PermissionDeniedError(f"delete {self.shown(path)}: the server refuses")

    async def aclose(self) -> None:
        """Hang up."""
        await self._pool.aclose()


class FTPUpload:
    """Parts of one file under another name, in order; each may be repeated."""

    def __init__(self, backend: FTPBackend, path: str) -> None:
        self._backend = backend
        self._path = path
        self._staged = backend.staged(path)
        self._size = 0
        self._begun = False

    async def send(self, source: OpenFile, size: int) -> None:
        """A whole local file; called again, what is missing of it."""
        resume, self._begun = self._begun, True
        self._size = size
        await self._backend.stream(self._path, self._staged, source, size, resume=resume)

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """STOR from the part's offset on."""
        await self._backend.store(self._path, self._staged, data, part.offset)
        self._size = part.offset + part.size

    async def complete(self) -> None:
        """Rename.

        Raises:
            UnavailableError: The server has another size; worth another look.
        """
        staged = self._staged

        def size(connection: Connection) -> int | None:
            try:
                return connection.size(staged)
            except ftplib.error_perm:
                return None

        found = await self._backend.run(f"look at {self._backend.shown(self._path)}", size)
        if found is None:
            # The answer to an earlier attempt may have been lost.
            if (await self._backend.info(self._path)).file_size == self._size:
                return
            raise NotFoundError(f"{self._backend.shown(self._path)}: what was sent is gone")
        if found != self._size:
            raise UnavailableError(
                f"{self._backend.shown(self._path)}: {found} bytes arrived of {self._size}"
            )
        await self._backend.rename(self._path, staged)

    async def abort(self) -> None:
        """Remove the file."""
        await self._backend.discard(self._staged)


def _mlsd(line: str) -> tuple[str, str, int | None]:
    facts, _, name = line.partition(" ")
    found = dict(fact.lower().partition("=")[::2] for fact in facts.rstrip(";").split(";") if fact)
    kind = found.get("type", "file")
    kind = "link" if kind.startswith("os.unix=s") else kind
    size = found.get("size", "")
    return kind, name, int(size) if size.isdigit() else None


def _ls(line: str) -> tuple[str, str, int | None] | None:
    if found := UNIX.fullmatch(line):
        kind = {"d": "dir", "l": "link", "-": "file"}[found[1]]
        name = found[3].partition(" -> ")[0] if kind == "link" else found[3]
        return kind, name, int(found[2])
    if found := WINDOWS.fullmatch(line):
        is_dir = found[1] == "<DIR>"
        return "dir" if is_dir else "file", found[2], None if is_dir else int(found[1])
    # A total, or a line that no listing should have.
    return None


def _is_file(connection: Connection, full: str) -> bool:
    try:
        connection.size(full)
    except ftplib.error_perm:
        return False
    return True


def _make_directories(connection: Connection, full: str) -> None:
    if full in ("", "/"):
        return
    try:
        connection.command(f"MKD {full}")
    except ftplib.error_perm:
        try:
            connection.command(f"CWD {full}")
        except ftplib.error_perm:
            _make_directories(connection, full.rpartition("/")[0])
            connection.command(f"MKD {full}")


def _list(connection: Connection, full: str) -> list[tuple[str, str, int | None]]:
    """Kind, name and size of what is in a directory."""
    # An argument of the listing itself would be taken for options or a pattern.
    connection.command(f"CWD {full}")
    if "MLST" in connection.features or "MLSD" in connection.features:
        found = [_mlsd(line) for line in connection.lines("MLSD")]
    else:
        try:
            lines = connection.lines("LIST -a")
        except ftplib.error_perm:
            lines = connection.lines("LIST")
        found = [entry for line in lines if (entry := _ls(line))]
    return [e for e in found if e[0] not in ("cdir", "pdir") and e[1] not in (".", "..")]


def _collect(connection: Connection, full: str, names: list[tuple[str, bool]]) -> None:
    """Everything below a directory, what is in a directory before the directory."""
    for kind, name, _ in _list(connection, full):
        below = f"{full.rstrip('/')}/{name}"
        if kind == "dir":
            _collect(connection, below, names)
        names.append((below, kind == "dir"))
