"""Files and directories of an SFTP server, over one connection. Raises asyncssh's errors."""

from __future__ import annotations

import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
import asyncssh

from asyncstore.backends.sftp_client import Session
from asyncstore.backends.sftp_errors import LIBRARY
from asyncstore.concurrency import Turnstile, shielded, task_group
from asyncstore.errors import InvalidParameterError, UnavailableError
from asyncstore.files.writing import STAGED_SUFFIX

__all__ = [
    "Entry",
    "entries",
    "etag_of",
    "is_directory",
    "make_directories",
    "opened",
    "read_blocks",
    "read_small",
    "remove_content",
    "rename_over",
    "write_blocks",
]

File: TypeAlias = "asyncssh.SFTPClientFile"
Entry: TypeAlias = tuple[str, asyncssh.SFTPAttrs]
# Blocks of one transfer that are under way at once.
READ_WINDOW = 8
WRITE_WINDOW = 4
# Other requests of one call.
REQUEST_WINDOW = 16
ANSWER_WITHIN = 10.0


@asynccontextmanager
async def opened(session: Session, full: str, flags: int) -> AsyncIterator[File]:
    """A file for the block; closed on the server when the block is left in any way."""
    file = await _open(session, full, flags)
    try:
        yield file
    except BaseException:
        await _abandon(session, file)
        raise
    # A full disk may show with the close.
    await file.close()


async def _open(session: Session, full: str, flags: int) -> File:
    # Not to be interrupted: the server would have a handle that nobody knows.
    try:
        return await shielded(
            lambda: session.sftp.open(full, flags, encoding=None, block_size=0),
            within=ANSWER_WITHIN,
        )
    except UnavailableError:
        session.stuck = True
        raise


async def _abandon(session: Session, file: File) -> None:
    """Close a file, cancelled or not; the reason for it is not hidden by a trouble with that."""
    try:
        await shielded(file.close, within=ANSWER_WITHIN)
    except UnavailableError:
        session.stuck = True
    except LIBRARY:
        return


async def read_small(
    session: Session, full: str, start: int, size: int
) -> tuple[asyncssh.SFTPAttrs, bytes]:
    """Read what fits into one block.

    Args:
        session: A connection.
        full: The file.
        start: First byte.
        size: Bytes, not more than a block.

    Returns:
        What the file is, and the bytes; fewer when it ends before, and perhaps when the server
        chooses so.
    """
    file = await _open(session, full, asyncssh.FXF_READ)
    found: list[asyncssh.SFTPAttrs] = []

    async def look() -> None:
        found.append(await file.stat())
        await file.close()

    try:
        async with task_group() as tasks:
            # Its request goes out behind that of the read, before there is an answer to it.
            tasks.start_soon(look)
            data: bytes = await file.read(size, start) if size > 0 else b""
    except BaseException:
        await _abandon(session, file)
        raise
    return found[0], data


async def read_blocks(file: File, start: int, end: int, block: int) -> AsyncGenerator[bytes]:
    """The bytes of a stretch, several blocks at once; fewer when the file ends in it."""
    for first in range(start, end, READ_WINDOW * block):
        last = min(first + READ_WINDOW * block, end)
        blocks: dict[int, bytes] = {}

        async def read(offset: int, size: int, into: dict[int, bytes]) -> None:
            data = b""
            while len(data) < size:
                more: bytes = await file.read(size - len(data), offset + len(data))
                if not more:
                    break
                data = data + more if data else more
            into[offset] = data

        async with task_group() as tasks:
            for offset in range(first, last, block):
                tasks.start_soon(read, offset, min(block, last - offset), blocks)
        for offset in sorted(blocks):
            if blocks[offset]:
                yield blocks[offset]
        if sum(map(len, blocks.values())) < last - first:
            return


async def write_blocks(
    file: File, data: bytes | memoryview, offset: int, block: int, turnstile: Turnstile
) -> None:
    """Write into a file, several blocks at once."""
    if len(data) <= block:
        if data:
            await file.write(bytes(data), offset)
        return
    view = memoryview(data)
    window = anyio.Semaphore(WRITE_WINDOW)

    async def write(first: int) -> None:
        try:
            # To encrypt one takes the event loop the better part of a millisecond.
            await turnstile.enter()
            await file.write(bytes(view[first : first + block]), offset + first)
        finally:
            window.release()

    async with task_group() as tasks:
        for first in range(0, len(view), block):
            await window.acquire()
            tasks.start_soon(write, first)


async def rename_over(session: Session, source: str, target: str) -> None:
    """Rename, also over a file.

    Where the server cannot (posix-rename@openssh.com), for a moment there is no file.
    """
    sftp = session.sftp
    try:
        await sftp.posix_rename(source, target)
    except asyncssh.SFTPOpUnsupported:
        try:
            await sftp.rename(source, target)
        except asyncssh.SFTPFailure:
            if is_directory(await sftp.lstat(target)):
                raise

            async def replace() -> None:
                await sftp.remove(target)
                await sftp.rename(source, target)

            await shielded(replace, within=ANSWER_WITHIN)


async def make_directories(session: Session, full: str) -> None:
    """Make a directory with its parents; one that is there is no error.

    Raises:
        InvalidParameterError: There is a file.
    """
    try:
        await session.sftp.mkdir(full)
    except asyncssh.SFTPNoSuchFile:
        await make_directories(session, full.rpartition("/")[0] or "/")
        await make_directories(session, full)
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists) as error:
        # SFTP 3 has no code for "exists".
        if not is_directory(await session.sftp.stat(full)):
            raise InvalidParameterError(f"{full} is a file, not a directory") from error


async def entries(session: Session, full: str) -> list[Entry]:
    """What is in a directory, links followed; those that lead to nothing are left out."""
    found: list[Entry] = []
    links: list[str] = []
    async for item in session.sftp.scandir(full):
        name = str(item.filename)
        if name in (".", "..") or name.endswith(STAGED_SUFFIX):
            continue
        if stat.S_ISLNK(item.attrs.permissions or 0):
            links.append(name)
        else:
            found.append((name, item.attrs))
    window = anyio.Semaphore(REQUEST_WINDOW)

    async def follow(name: str) -> None:
        try:
            found.append((name, await session.sftp.stat(f"{full}/{name}")))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPLinkLoop):
            return
        finally:
            window.release()

    async with task_group() as tasks:
        for name in links:
            await window.acquire()
            tasks.start_soon(follow, name)
    return found


async def remove_content(session: Session, full: str) -> None:
    """Delete what is in a directory; links are removed, and never what they lead to."""
    window = anyio.Semaphore(REQUEST_WINDOW)
    directories: list[str] = []

    async def remove(path: str) -> None:
        try:
            await session.sftp.remove(path)
        except asyncssh.SFTPNoSuchFile:
            return
        finally:
            window.release()

    async with task_group() as tasks:
        async for item in session.sftp.scandir(full):
            below = f"{full}/{item.filename!s}"
            if item.filename in (".", ".."):
                continue
            if stat.S_ISDIR(item.attrs.permissions or 0):
                directories.append(below)
            else:
                await window.acquire()
                tasks.start_soon(remove, below)
    for directory in directories:
        await remove_content(session, directory)
        await session.sftp.rmdir(directory)


def is_directory(found: asyncssh.SFTPAttrs) -> bool:
    """Whether attributes are those of a directory."""
    return stat.S_ISDIR(found.permissions or 0)


def etag_of(found: asyncssh.SFTPAttrs) -> str:
    """What tells one content from another, as far as the protocol says: size and second."""
    return f"{found.size or 0}-{found.mtime or 0}"
