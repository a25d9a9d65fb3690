"""The part protocol: how a large file is cut, and what a storage does with the parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from asyncstore.concurrency import shielded
from asyncstore.errors import AsyncStoreError, InvalidParameterError
from asyncstore.retry import RetryPolicy

__all__ = ["MultipartUpload", "Part", "abandoned", "plan_parts"]

ABORT_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a file.

    Args:
        number: From 1.
        offset: First byte.
        size: Bytes.
    """

    number: int
    offset: int
    size: int


class MultipartUpload(Protocol):
    """An upload in parts that has been started on a storage.

    Exactly one of `complete` and `abort` ends it.
    """

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Send one part; safe to repeat.

        Args:
            part: Which one.
            data: Its bytes.
        """

    async def complete(self) -> None:
        """Make the file visible, whole, at its path."""

    async def abort(self) -> None:
        """Discard every part; nothing of the upload is left on the storage."""


async def abandoned(
    upload: MultipartUpload, reason: BaseException, retry: RetryPolicy | None = None
) -> None:
    """Abort an upload, cancelled or not; a trouble with that does not hide the reason for it.

    Args:
        upload: What to abort.
        reason: The error or cancellation that ended it; gets a note when parts may be left.
        retry: How to repeat the abort; None tries once.
    """
    policy = retry or RetryPolicy(attempts=1)
    try:
        await shielded(lambda: policy.run(upload.abort), within=ABORT_WITHIN)
    except AsyncStoreError as error:
        reason.add_note(f"what was sent before could not be removed: {error}")


def plan_parts(
    size: int, part_size: int, *, min_part_size: int = 1, max_parts: int | None = None
) -> Iterator[Part]:
    """Cut a file in parts. No I/O.

    Args:
        size: Bytes of the file, 1 or more.
        part_size: Wanted bytes of a part; raised to `min_part_size`, and as far as `max_parts`
            demands.
        min_part_size: Smallest part that the storage takes, the last one excepted (S3: 5 MiB).
        max_parts: Most parts that the storage takes (S3: 10,000); None for no limit.

    Yields:
        Parts in order that cover the file exactly once, all of one size but the last.

    Raises:
        InvalidParameterError: A size is not positive.
    """
    if size < 1 or part_size < 1:
        raise InvalidParameterError(f"cannot cut {size} bytes in parts of {part_size} bytes")
    part_size = max(part_size, min_part_size)
    if max_parts is not None:
        part_size = max(part_size, -(-size // max_parts))
    for number, offset in enumerate(range(0, size, part_size), 1):
        yield Part(number, offset, min(part_size, size - offset))
