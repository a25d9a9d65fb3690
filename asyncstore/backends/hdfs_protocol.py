"""What the HDFS backend asks of a library. Everything here blocks: call it in a worker thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

__all__ = ["PIECE", "Client", "Reader", "Status", "Writer"]

#: Bytes of a piece, which a cancellation may have to wait for.
PIECE = 1024 * 1024


class Status(NamedTuple):
    """A file or directory.

    Args:
        path: Absolute.
        is_dir: Whether it is a directory.
        size: Bytes.
        modified: Milliseconds since 1970.
    """

    path: str
    is_dir: bool
    size: int
    modified: int


class Reader(Protocol):
    """A file as it was when it was opened."""

    @property
    def size(self) -> int:
        """Bytes."""

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, at most `PIECE` at a time."""

    def close(self) -> None:
        """Let go of it."""


class Writer(Protocol):
    """A new file."""

    def write(self, data: bytes | memoryview) -> None:
        """Append at most `PIECE`."""

    def close(self) -> None:
        """Make it a whole file, with all its blocks on their machines."""

    def abandon(self) -> None:
        """Let go of it as it is; raises nothing. Who made the file removes it."""


class Client(Protocol):
    """A library's connections to one cluster. Paths are absolute; errors are the library's.

    Attributes:
        fs: Its fsspec filesystem.
    """

    fs: Any

    def status(self, path: str) -> Status:
        """Look at a file or directory."""

    def list(self, path: str) -> Iterator[Status]:
        """What is in a directory; a file may be in itself."""

    def open(self, path: str) -> Reader:
        """Open a file for reading."""

    def create(self, path: str) -> Writer:
        """Make a file that is not there yet, and its directories."""

    def make_directory(self, path: str) -> None:
        """With its parents."""

    def rename(self, path: str, to: str) -> None:
        """Rename a file, over another one if there is one."""

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file or directory; a missing one is no error."""
