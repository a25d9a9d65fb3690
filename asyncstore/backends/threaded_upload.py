"""Uploads through a stream of fsspec, so that a file appears whole."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from asyncstore.errors import AsyncStoreError, UnavailableError
from asyncstore.files.writing import STAGED_SUFFIX
from asyncstore.multipart import Part

__all__ = ["StreamUpload", "commits", "discard", "renames"]

RENAME_ATTEMPTS = 5


class StreamUpload:
    """One stream; the parts arrive in order.

    Nobody knows how much of a failed write arrived, so no step of it is worth a retry.

    Args:
        fs: The filesystem.
        run: Does a call in a worker thread, with its errors as asyncstore's.
        file: What the filesystem opened, not committing.
        opened: Where it was opened: `target` itself, or a name of its own beside it.
        target: Where the file is to be.
    """

    def __init__(
        self,
        fs: Any,
        run: Callable[[Callable[[], None]], Awaitable[None]],
        file: Any,
        opened: str,
        target: str,
    ) -> None:
        self._fs = fs
        self._run = run
        self._file = file
        self._opened = opened
        self._target = target

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Append."""

        def write() -> None:
            self._file.write(bytes(data))

        await self._once(write)

    async def complete(self) -> None:
        """Close, commit, and rename."""

        def commit() -> None:
            self._file.close()
            # Filesystems without transactions have neither: closing is their commit.
            if hasattr(self._file, "commit"):
                self._file.commit()
            if self._opened != self._target:
                _rename(self._fs, self._opened, self._target)

        await self._once(commit)

    async def _once(self, call: Callable[[], None]) -> None:
        try:
            await self._run(call)
        except UnavailableError as error:
            raise AsyncStoreError(
                f"{error}; the upload broke off", error_code=error.error_code
            ) from error

    async def abort(self) -> None:
        """Discard; where the filesystem cannot, close and delete."""
        await self._run(lambda: discard(self._fs, self._file, self._opened))


def commits(file: Any) -> bool:
    """Whether a file that was opened with `autocommit=False` appears by `commit` only."""
    commit = getattr(type(file), "commit", None)
    return commit not in (None, AbstractBufferedFile.commit) and hasattr(file, "discard")


def renames(fs: Any) -> bool:
    """Whether a filesystem can give a file another name, be it by copying."""
    kind = type(fs)
    return (
        hasattr(kind, "mv_file")
        or kind.mv is not AbstractFileSystem.mv
        or kind.cp_file is not AbstractFileSystem.cp_file
        or getattr(kind, "_cp_file", None) not in (None, AsyncFileSystem._cp_file)  # noqa: SLF001
    )


def _rename(fs: Any, source: str, target: str) -> None:
    def move() -> None:
        if hasattr(fs, "mv_file"):
            fs.mv_file(source, target)
        elif type(fs).mv is not AbstractFileSystem.mv:
            fs.mv(source, target)
        else:
            # Not fsspec's own `mv`, which takes names for patterns.
            fs.cp_file(source, target)
            fs.rm_file(source)

    for _ in range(RENAME_ATTEMPTS - 1):
        try:
            return move()
        except FileExistsError:
            # Such a server has no other way; somebody else may be on it too.
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(target)
    return move()


def discard(fs: Any, file: Any, target: str) -> None:
    """Give up a file that was opened for writing at `target`."""
    buffered = isinstance(file, AbstractBufferedFile)
    if commits(file):
        file.discard()
    elif not buffered:
        file.close()
    if buffered:
        # Closing it, which its finalizer does, would store what has been written so far.
        file.closed = True
    if target.endswith(STAGED_SUFFIX) or not (buffered or commits(file)):
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(target)
