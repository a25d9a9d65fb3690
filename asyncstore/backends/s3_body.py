"""What an upload to S3 sends: content, and the checksum that every server checks."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

from asyncstore.files.threads import run_in_thread

__all__ = ["body", "content_md5", "md5_base64"]

SEND_SIZE = 256 * 1024
SMALL = 64 * 1024


def body(data: bytes | memoryview) -> Any:
    """Content in the form that is sent best: a small one goes out together with its headers."""
    return bytes(data) if len(data) <= SMALL else Body(data)


class Body(io.BytesIO):
    """Content as the file that botocore and aiohttp want, without the copy that `BytesIO` makes.

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


async def content_md5(data: bytes | memoryview) -> str:
    """Content-MD5 of a body, hashed in a worker thread when it is large."""

    if len(data) <= SMALL:
        return md5_base64(data)
    return await run_in_thread(lambda: md5_base64(data))


def md5_base64(data: bytes | memoryview) -> str:
    """MD5 in the form that HTTP headers have it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
