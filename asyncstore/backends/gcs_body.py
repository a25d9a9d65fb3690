"""What an upload to Google Cloud Storage sends: content, and the checksum that is checked there."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import aiohttp
import google_crc32c
from anyio.streams.memory import MemoryObjectReceiveStream

from asyncstore.files.reading import ContentType, OpenFile
from asyncstore.files.threads import run_in_thread
from asyncstore.multipart import Part, plan_parts

__all__ = [
    "Body",
    "Crc32c",
    "StreamedBody",
    "crc32c",
    "encoded",
    "file_crc32c",
    "media_type",
    "related",
]

MIB = 1024 * 1024
SEND_SIZE = 256 * 1024
SMALL = 64 * 1024
HASHED_AT_ONCE = 64 * MIB


class Body(aiohttp.Payload):
    """Content that goes out in pieces, from the buffers that hold it.

    Args:
        buffers: One after the other.

    Attributes:
        sent: Whether all of it was given to the network.
    """

    def __init__(self, *buffers: bytes | memoryview) -> None:
        super().__init__(buffers)
        self._size = sum(map(len, buffers))
        self.sent = False

    async def write(self, writer: Any) -> None:
        """Send it."""
        self.sent = False
        for buffer in self._value:
            view = memoryview(buffer)
            for start in range(0, len(view), SEND_SIZE):
                await writer.write(view[start : start + SEND_SIZE])
        self.sent = True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Nobody asks for it as text."""
        raise TypeError("content is no text")


class StreamedBody(aiohttp.Payload):
    """Content that is read while it goes out.

    Args:
        pieces: Somebody puts them in.
        size: Bytes of all of them.
    """

    def __init__(self, pieces: MemoryObjectReceiveStream[memoryview], size: int) -> None:
        super().__init__(pieces)
        self._size = size
        self._begun = False

    async def write(self, writer: Any) -> None:
        """Send what comes, once."""
        if self._begun:
            # aiohttp does it when a connection that was used before turns out to be gone.
            raise ConnectionResetError("the connection was lost while content was being sent")
        self._begun = True
        async for piece in self._value:
            await writer.write(piece)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Nobody asks for it as text."""
        raise TypeError("content is no text")


def related(metadata: Mapping[str, Any], data: bytes | memoryview) -> tuple[str, Body]:
    """Metadata and content as one body, and its content type.

    https://cloud.google.com/storage/docs/uploading-objects (a multipart upload of the JSON API).
    """
    boundary = uuid.uuid4().hex
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(metadata)}\r\n"
        f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    parts = (b"".join((head, data, tail)),) if len(data) <= SMALL else (head, data, tail)
    return f"multipart/related; boundary={boundary}", Body(*parts)


def media_type(content_type: ContentType) -> str:
    """The content type of an object. Its encoding is not stored, as MLflow does not.

    With it the server would decompress a `.gz` file for whoever downloads it.
    """
    return content_type.type or "application/octet-stream"


def encoded(resource: Mapping[str, Any]) -> bytes:
    """A resource as it goes over the wire."""
    return json.dumps(resource).encode()


async def crc32c(data: bytes | memoryview) -> str:
    """CRC32C of content as object resources have it; of much of it in a worker thread."""
    if len(data) <= SMALL:
        return _text(google_crc32c.extend(0, bytes(data)))

    def work() -> str:
        value = 0
        view = memoryview(data)
        for start in range(0, len(view), MIB):
            # The library takes nothing but bytes.
            value = google_crc32c.extend(value, bytes(view[start : start + MIB]))
        return _text(value)

    return await run_in_thread(work)


async def file_crc32c(source: OpenFile, size: int) -> str:
    """CRC32C of a file, some of it at a time, so that a cancellation need not wait long."""
    value = 0

    def work(stretch: Part) -> int:
        crc = value
        for piece in plan_parts(stretch.size, MIB):
            content = source.read(Part(1, stretch.offset + piece.offset, piece.size))
            crc = google_crc32c.extend(crc, bytes(content))
            source.recycle(content)
        return crc

    for stretch in plan_parts(size, HASHED_AT_ONCE):
        value = await run_in_thread(partial(work, stretch))
    return _text(value)


def _text(value: int) -> str:
    return base64.b64encode(value.to_bytes(4, "big")).decode()


class Crc32c:
    """Checks content against the hashes of a download, where they name its CRC32C.

    Args:
        headers: The values of `X-Goog-Hash`, each `crc32c=...`, `md5=...` or both with a comma.
    """

    def __init__(self, headers: Sequence[str]) -> None:
        hashes = [item.strip() for header in headers for item in header.split(",")]
        named = [item.removeprefix("crc32c=") for item in hashes if item.startswith("crc32c=")]
        self._expected = named[0] if named else None
        self._value = 0

    def update(self, piece: bytes) -> None:
        """Take the next piece; the processor has an instruction for that."""
        if self._expected:
            self._value = google_crc32c.extend(self._value, piece)

    @property
    def failed(self) -> bool:
        """Whether it is not what the hash was taken of."""
        return self._expected is not None and self._expected != _text(self._value)
