"""What an upload over HTTP sends."""

from __future__ import annotations

import io
from typing import Any

__all__ = ["Body", "body"]

SEND_SIZE = 256 * 1024
SMALL = 64 * 1024


def body(data: bytes | memoryview) -> Any:
    """Content in the form that is sent best: a small one goes out together with its headers."""
    return bytes(data) if len(data) <= SMALL else Body(data)


class Body(io.BytesIO):
    """Content as the file that HTTP clients want, without the copy that `BytesIO` makes.

    aiohttp asks a `BytesIO` for its buffer and sends it in pieces from the event loop; any other
    file it reads through a thread, 64 KiB at a time.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__()
        self._view = memoryview(data)
        self._at = 0

    def getbuffer(self) -> memoryview:
        """The content."""
        return self._view[:]

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1, /) -> Any:
        """The next bytes, as a view; in larger pieces than aiohttp asks for, which are cheaper."""
        end = len(self._view) if size is None or size < 0 else self._at + max(size, SEND_SIZE)
        piece = self._view[self._at : end]
        self._at += len(piece)
        return piece
