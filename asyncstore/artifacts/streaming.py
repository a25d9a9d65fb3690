"""Uploads whose content comes piece by piece and whose length nobody knows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from asyncstore.artifacts.transfer import REQUEST_WITHIN, Transfer
from asyncstore.backends import Backend
from asyncstore.concurrency import shielded
from asyncstore.errors import InvalidParameterError
from asyncstore.files.reading import content_type_of
from asyncstore.multipart import MultipartUpload, Part, abandoned

__all__ = ["upload_stream"]


async def upload_stream(
    backend: Backend, transfer: Transfer, path: str, pieces: AsyncIterable[bytes]
) -> None:
    """Store what comes in, part by part; one part is held while the next one comes in.

    Args:
        backend: Where to.
        transfer: Its budgets. Memory counts while a part is sent, not while it comes in: a slow
            sender does not hold up the others.
        path: Which file.
        pieces: The content.

    Raises:
        InvalidParameterError: There are more parts than the storage takes.

    A cancellation, and an error of `pieces`, leaves nothing on the storage.
    """
    kind = content_type_of(path)
    size = transfer.part_size(backend)
    async with aclosing(_cut(pieces, size)) as parts:
        # A list, so that nothing here holds a part that was sent.
        beginning = [await anext(parts, b""), await anext(parts, b"")]
        if not beginning[1]:
            async with transfer.memory.hold(len(beginning[0])):
                await transfer.request(lambda: backend.write(path, beginning[0], kind))
            return
        upload: MultipartUpload = await transfer.request(
            # Not to be interrupted: the storage would have an upload whose id nobody knows.
            lambda: shielded(lambda: backend.start_upload(path, kind), within=REQUEST_WITHIN)
        )
        try:
            number = 0
            while beginning:
                number += 1
                await _send(backend, transfer, upload, number, beginning.pop(0))
            async for data in parts:
                number += 1
                await _send(backend, transfer, upload, number, data)
                del data
            await transfer.request(lambda: shielded(upload.complete, within=REQUEST_WITHIN))
        except BaseException as error:
            await abandoned(upload, error, transfer.options.retry)
            raise


async def _send(
    backend: Backend, transfer: Transfer, upload: MultipartUpload, number: int, data: bytes
) -> None:
    most = backend.capabilities.max_parts
    if most is not None and number > most:
        raise InvalidParameterError(
            f"the storage takes {most:,} parts of a file; set MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE "
            "to more"
        )
    # All parts but the last have the size of the first.
    part = Part(number, (number - 1) * transfer.part_size(backend), len(data))
    async with transfer.memory.hold(len(data)):
        await transfer.request(lambda: upload.upload_part(part, data))


async def _cut(pieces: AsyncIterable[bytes], size: int) -> AsyncGenerator[bytes]:
    """The same bytes in pieces of one size, the last one excepted."""
    held: list[memoryview] = []
    length = 0
    async for piece in pieces:
        rest = memoryview(piece)
        while length + len(rest) > size:
            held.append(rest[: size - length])
            rest = rest[size - length :]
            part = b"".join(held)
            held.clear()
            length = 0
            yield part
            # Nobody needs it while the next one comes in.
            del part
        if rest:
            held.append(rest)
            length += len(rest)
    if held:
        yield b"".join(held)
