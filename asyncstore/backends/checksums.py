"""Content-MD5, the checksum that S3, Azure and their likes check."""

from __future__ import annotations

import base64
import hashlib

from asyncstore.files.threads import run_in_thread

__all__ = ["content_md5", "md5_base64"]

SMALL = 64 * 1024


async def content_md5(data: bytes | memoryview) -> str:
    """Content-MD5 of a body, hashed in a worker thread when it is large."""
    if len(data) <= SMALL:
        return md5_base64(data)
    return await run_in_thread(lambda: md5_base64(data))


def md5_base64(data: bytes | memoryview) -> str:
    """MD5 in the form that HTTP headers have it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
