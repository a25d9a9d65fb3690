"""Files that appear whole or not at all. Everything here blocks: call it in a worker thread."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

__all__ = ["STAGED_SUFFIX", "StagedFile", "staged_name", "write_file"]

STAGED_SUFFIX = ".asyncstore-part"
MAKE_ATTEMPTS = 5


def staged_name() -> str:
    """A new name for a file that is being written; no listing shows it."""
    return f".{uuid.uuid4().hex}{STAGED_SUFFIX}"


class StagedFile:
    """A file that appears at its path only when it is whole.

    It is written beside its destination under a name of its own, then synced and renamed: on one
    file system, NFS included, the rename is atomic. Methods block; call them in a worker thread.

    Args:
        path: The destination; its directories are made.
        size: Bytes to reserve, so that a full disk shows at once; 0 reserves nothing.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._staged = path.with_name(staged_name())
        self._identity: tuple[int, int] | None = None
        self._made: list[Path] = []
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        for left in range(MAKE_ATTEMPTS, -1, -1):
            try:
                self._fd = os.open(self._staged, flags, 0o666)
                break
            except FileNotFoundError:
                # Another one that was given up may remove a directory that both made.
                if not left:
                    raise
            self._made = [each for each in path.parents if not each.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
        if size:
            try:
                _reserve(self._fd, size)
            except OSError as error:
                self.discard()
                raise OSError(error.errno, error.strerror, str(path)) from error

    def write(self, pieces: Sequence[bytes | memoryview], offset: int) -> None:
        """Write all pieces, one after the other, from `offset` on."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written

    def commit(self) -> None:
        """Sync and rename; NFS reports a failed write at sync or close, so both count."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                try:
                    os.fsync(fd)
                    self._identity = _identity(os.fstat(fd))
                finally:
                    os.close(fd)
            except OSError as error:
                # Not to be tried again: a second sync would not bring the lost bytes back.
                self._staged.unlink(missing_ok=True)
                reason = f"what was written is lost: {error.strerror}"
                raise OSError(errno.EIO, reason, str(self._path)) from error
        try:
            self._staged.replace(self._path)
        except FileNotFoundError:
            # Over NFS a rename whose answer was lost is sent again, and finds nothing to rename.
            if _identity(self._path.stat()) != self._identity:
                raise

    def discard(self) -> None:
        """Remove what was written, and directories that were made for it, unless committed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)
        self._staged.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Those that others use by now are not empty.
            for directory in self._made:
                directory.rmdir()
        self._made = []


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(fd, size)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file: staged, synced, renamed, and nothing left when that fails."""
    staged = StagedFile(path)
    try:
        staged.write([data], 0)
        staged.commit()
    except BaseException:
        staged.discard()
        raise
