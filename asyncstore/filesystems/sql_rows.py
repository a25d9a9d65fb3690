"""What is done to the rows of files: each function is a transaction, or a part of one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Insert, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.databases.errors import RetrySafely
from asyncstore.errors import AsyncStoreError, InvalidParameterError
from asyncstore.filesystems.sql_tables import artifacts, chunks, key_of

__all__ = [
    "Chunk",
    "NewFile",
    "abandoned",
    "add_chunks",
    "begin",
    "children",
    "condemn",
    "content",
    "find",
    "finish",
    "first_content",
    "make_directories",
    "now_ms",
    "parents",
    "publish",
    "remove_directory",
    "remove_files",
    "sweep",
    "touch",
]

Row = Any
#: Version, first byte and content.
Chunk = tuple[bytes, int, bytes | memoryview]
#: Chunks of one statement: 1 MiB, as chunks are made.
READ_CHUNKS = 4
# More rows would keep the event loop from its turn for too long.
LIST_PAGE = 100
#: What is removed along with the row of its file; the rest goes in transactions of its own.
SMALL = 8 * 1024 * 1024
SWEEP_CHUNKS = 64
#: Bytes of chunks that go to the driver at once.
TOGETHER = 512 * 1024


class NewFile(NamedTuple):
    """A file and the version that is to be its content."""

    path: str
    version: bytes
    size: int


_COLUMNS = (
    artifacts.c.id,
    artifacts.c.path,
    artifacts.c.version,
    artifacts.c.size,
    artifacts.c.written,
)
# SQL Server has its lock in a hint, and the others behind the statement.
_KEEP = "WITH (REPEATABLEREAD, ROWLOCK)"
_TAKE = "WITH (UPDLOCK, HOLDLOCK, ROWLOCK)"

_FIND = select(*_COLUMNS).where(artifacts.c.id == bindparam("id"))
_CHILDREN = (
    select(*_COLUMNS)
    .where(artifacts.c.parent == bindparam("parent"), artifacts.c.id > bindparam("after"))
    .order_by(artifacts.c.id)
    .limit(LIST_PAGE)
)
_FIRST_CONTENT = (
    select(artifacts.c.version, artifacts.c.size, chunks.c.start, chunks.c.data)
    .select_from(artifacts)
    .outerjoin(
        chunks,
        (chunks.c.version == artifacts.c.version)
        & (chunks.c.start >= 0)
        & (chunks.c.start < bindparam("end")),
    )
    .where(artifacts.c.id == bindparam("id"))
    .order_by(chunks.c.start)
    .limit(READ_CHUNKS)
)
_earlier = chunks.alias("earlier")
_CONTENT = (
    select(chunks.c.start, chunks.c.data)
    .where(
        chunks.c.version == bindparam("version"),
        chunks.c.start
        >= select(func.max(_earlier.c.start))
        .where(_earlier.c.version == bindparam("version"), _earlier.c.start <= bindparam("begin"))
        .scalar_subquery(),
        chunks.c.start < bindparam("end"),
    )
    .order_by(chunks.c.start)
    .limit(READ_CHUNKS)
)
_KEPT = (
    select(*_COLUMNS)
    .where(artifacts.c.id.in_(bindparam("ids", expanding=True)))
    .with_for_update(read=True, key_share=True)
    .with_hint(artifacts, _KEEP, "mssql")
)
_KEPT_UPLOAD = (
    select(artifacts.c.written)
    .where(artifacts.c.id == bindparam("id"))
    .with_for_update(read=True)
    .with_hint(artifacts, _KEEP, "mssql")
)
_TAKEN = (
    select(*_COLUMNS)
    .where(artifacts.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(artifacts.c.id)
    .with_for_update()
    .with_hint(artifacts, _TAKE, "mssql")
)
_ANY_CHILD = select(artifacts.c.id).where(artifacts.c.parent == bindparam("parent")).limit(1)
_ABANDONED = (
    select(artifacts.c.version)
    .where(artifacts.c.parent.is_(None), artifacts.c.written <= bindparam("before"))
    .limit(LIST_PAGE)
)
_INSERT = insert(artifacts)
_INSERT_CHUNK = insert(chunks)
_REPLACE = update(artifacts).where(
    artifacts.c.id == bindparam("own"), artifacts.c.version == bindparam("old")
)
_TOUCH = (
    update(artifacts)
    .where(artifacts.c.id == bindparam("own"), artifacts.c.written > 0)
    .values(written=bindparam("now"))
)
_CONDEMN = update(artifacts).where(artifacts.c.id == bindparam("own")).values(written=0)
_REMOVE = delete(artifacts).where(artifacts.c.id.in_(bindparam("ids", expanding=True)))
_REMOVE_CONTENT = delete(chunks).where(chunks.c.version.in_(bindparam("ids", expanding=True)))
_REMOVE_CHUNKS = delete(chunks).where(
    chunks.c.version == bindparam("own"),
    chunks.c.start >= bindparam("begin"),
    chunks.c.start < bindparam("end"),
)
_STARTS = (
    select(chunks.c.start)
    .where(chunks.c.version == bindparam("version"))
    .order_by(chunks.c.start)
    .limit(SWEEP_CHUNKS)
)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def parents(path: str) -> Iterator[str]:
    """The directories above a path, without the root, from the top down."""
    for index, letter in enumerate(path):
        if letter == "/":
            yield path[:index]


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _upload(version: bytes) -> bytes:
    """The id of a version that is no file."""
    return hashlib.sha256(version).digest()


# Reading


async def find(connection: AsyncConnection, path: str) -> Row | None:
    """The row of a file or directory."""
    return (await connection.execute(_FIND, {"id": key_of(path)})).first()


async def children(connection: AsyncConnection, path: str, after: bytes) -> Sequence[Row]:
    """A page of the rows in a directory, in the order of their ids.

    Args:
        connection: A connection.
        path: The directory.
        after: The last id of the page before; empty for the first.
    """
    found = await connection.execute(_CHILDREN, {"parent": key_of(path), "after": after})
    return found.all()


async def first_content(connection: AsyncConnection, path: str, end: int) -> Sequence[Row]:
    """Version, size and the first chunks of a file, as they are at one moment.

    Rows of version, size, start, data; the last two are None where there is no content.
    """
    return (await connection.execute(_FIRST_CONTENT, {"id": key_of(path), "end": end})).all()


async def content(
    connection: AsyncConnection, version: bytes, begin: int, end: int
) -> Sequence[Row]:
    """Some chunks, rows of start and data: the one that holds byte `begin` first."""
    wanted = {"version": version, "begin": begin, "end": end}
    return (await connection.execute(_CONTENT, wanted)).all()


# Writing


async def begin(connection: AsyncConnection, path: str, version: bytes) -> None:
    """Say that a version is being written."""
    await connection.execute(_INSERT, _pending(path, version, None, now_ms()))


def _pending(path: str, version: bytes, size: int | None, written: int) -> dict[str, Any]:
    return {
        "id": _upload(version),
        "parent": None,
        "path": path,
        "version": version,
        "size": size,
        "written": written,
    }


async def touch(connection: AsyncConnection, version: bytes) -> None:
    """Say that it is still being written."""
    await connection.execute(_TOUCH, {"own": _upload(version), "now": now_ms()})


async def add_chunks(connection: AsyncConnection, pieces: Sequence[Chunk], *, again: bool) -> None:
    """Write chunks of a version that `begin` announced.

    Args:
        connection: A transaction.
        pieces: The chunks, of one version and in order.
        again: Whether the same may have been written before.

    Raises:
        AsyncStoreError: The version was removed, as one that nobody writes any more.
    """
    version, begin, _ = pieces[0]
    written = (await connection.execute(_KEPT_UPLOAD, {"id": _upload(version)})).scalar()
    if not written:
        raise AsyncStoreError(
            "this upload rested for so long that another process took it for abandoned and "
            "removed it; send the file again"
        )
    if again:
        stretch = {"own": version, "begin": begin, "end": pieces[-1][1] + 1}
        await connection.execute(_REMOVE_CHUNKS, stretch)
    await _insert_chunks(connection, pieces)


async def _insert_chunks(connection: AsyncConnection, pieces: Sequence[Chunk]) -> None:
    if sum(len(data) for _, _, data in pieces) <= TOGETHER:
        await _insert(connection, _INSERT_CHUNK, [_chunk_row(piece) for piece in pieces])
        return
    # One by one: the event loop gets its turn between them, and only one is copied at a time.
    for piece in pieces:
        await connection.execute(_INSERT_CHUNK, _chunk_row(piece))


def _chunk_row(piece: Chunk) -> dict[str, Any]:
    version, start, data = piece
    return {"version": version, "start": start, "data": bytes(data)}


async def publish(
    connection: AsyncConnection, files: Sequence[NewFile], pieces: Sequence[Chunk] = ()
) -> list[bytes]:
    """Make versions the content of files.

    Args:
        connection: A transaction.
        files: The files, each once.
        pieces: Their chunks, where they are not written yet.

    Returns:
        The versions that were the content before, where they are left to be swept.

    Raises:
        RetrySafely: Somebody else was faster; do it again in a new transaction.
        InvalidParameterError: A directory is there, or a part of the path is a file.
    """
    directories = {key_of(_directory(file.path)): _directory(file.path) for file in files}
    keys = {key_of(file.path): file for file in files}
    rows = (await connection.execute(_KEPT, {"ids": [*keys, *directories]})).all()
    found = {row.id: row for row in rows}
    for key, directory in directories.items():
        if directory and key not in found:
            await make_directories(connection, directory)
        elif directory and found[key].version is not None:
            raise _is_a_file(directory, f"{directory}/...")
    await _insert_chunks(connection, pieces)
    new: list[dict[str, Any]] = []
    replaced: list[Row] = []
    # In one order everywhere, so that two writers of the same files wait instead of deadlocking.
    for key, file in sorted(keys.items()):
        values = {"version": file.version, "size": file.size, "written": now_ms()}
        current = found.get(key)
        if current is None:
            above = key_of(_directory(file.path))
            new.append({"id": key, "parent": above, "path": file.path, **values})
            continue
        if current.version is None:
            raise InvalidParameterError(f"{file.path!r} is a directory")
        done = await connection.execute(
            _REPLACE.values(**values), {"own": key, "old": current.version}
        )
        if done.rowcount != 1:
            raise RetrySafely
        replaced.append(current)
    await _insert(connection, _INSERT, new)
    return await _discard(connection, replaced)


async def _insert(connection: AsyncConnection, statement: Insert, rows: Sequence[Any]) -> None:
    if not rows:
        return
    try:
        await connection.execute(statement, rows if len(rows) > 1 else rows[0])
    except IntegrityError as error:
        raise RetrySafely from error


async def _discard(connection: AsyncConnection, files: Sequence[Row]) -> list[bytes]:
    """Remove what small files held, and condemn what large ones did; the versions of those."""
    small = [row.version for row in files if row.size <= SMALL]
    large = [row for row in files if row.size > SMALL]
    if small:
        await connection.execute(_REMOVE_CONTENT, {"ids": small})
    for row in large:
        await connection.execute(_INSERT, _pending(row.path, row.version, row.size, 0))
    return [row.version for row in large]


async def finish(connection: AsyncConnection, path: str, version: bytes, size: int) -> list[bytes]:
    """`publish` a version that `begin` announced; a second time does nothing.

    Raises:
        AsyncStoreError: The version was removed, as one that nobody writes any more.
    """
    own = _upload(version)
    upload = (await connection.execute(_TAKEN, {"ids": [own]})).first()
    if upload is None or not upload.written:
        current = await find(connection, path)
        if current is not None and current.version == version:
            return []
        raise AsyncStoreError(
            f"{path!r} was replaced, or its upload removed as abandoned, while it was completed"
        )
    old = await publish(connection, [NewFile(path, version, size)])
    await connection.execute(_REMOVE, {"ids": [own]})
    return old


async def make_directories(connection: AsyncConnection, path: str) -> None:
    """Make a directory and those above it, where they are missing.

    Raises:
        RetrySafely: Somebody else was faster; do it again in a new transaction.
        InvalidParameterError: A part of the path is a file.
    """
    wanted = [*parents(path), path]
    rows = (await connection.execute(_KEPT, {"ids": [key_of(each) for each in wanted]})).all()
    found = {row.id: row for row in rows}
    for each in wanted:
        row = found.get(key_of(each))
        if row is None:
            made = {"id": key_of(each), "parent": key_of(_directory(each)), "path": each}
            values = {"version": None, "size": None, "written": now_ms()}
            await _insert(connection, _INSERT, [{**made, **values}])
        elif row.version is not None:
            raise _is_a_file(each, path)


def _is_a_file(directory: str, path: str) -> InvalidParameterError:
    return InvalidParameterError(f"{directory!r} is a file, so there cannot be {path!r}")


# Removing


async def remove_files(connection: AsyncConnection, paths: Sequence[str]) -> list[bytes]:
    """Remove files; what is none, or is missing, stays as it is.

    Returns:
        Versions that are left to be swept.
    """
    rows = (await connection.execute(_TAKEN, {"ids": [key_of(path) for path in paths]})).all()
    files = [row for row in rows if row.version is not None]
    if not files:
        return []
    left = await _discard(connection, files)
    await connection.execute(_REMOVE, {"ids": [row.id for row in files]})
    return left


async def remove_directory(connection: AsyncConnection, path: str) -> None:
    """Remove a directory, unless there is something in it."""
    row = (await connection.execute(_TAKEN, {"ids": [key_of(path)]})).first()
    if row is None or row.version is not None:
        return
    if (await connection.execute(_ANY_CHILD, {"parent": row.id})).first() is None:
        await connection.execute(_REMOVE, {"ids": [row.id]})


async def abandoned(connection: AsyncConnection, before: int) -> Sequence[bytes]:
    """Versions that nobody has written to since a time, in ms, and those that are condemned."""
    return (await connection.execute(_ABANDONED, {"before": before})).scalars().all()


async def condemn(connection: AsyncConnection, version: bytes) -> None:
    """Let nobody write to a version any more."""
    await connection.execute(_CONDEMN, {"own": _upload(version)})


async def sweep(connection: AsyncConnection, version: bytes) -> bool:
    """Remove some chunks of a condemned version, and at last its row; whether that was all."""
    starts = (await connection.execute(_STARTS, {"version": version})).scalars().all()
    if not starts:
        await connection.execute(_REMOVE, {"ids": [_upload(version)]})
        return True
    stretch = {"own": version, "begin": starts[0], "end": starts[-1] + 1}
    await connection.execute(_REMOVE_CHUNKS, stretch)
    return False
