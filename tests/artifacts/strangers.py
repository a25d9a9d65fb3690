"""What a client without asyncstore and without credentials does with presigned URLs."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio.to_thread

from asyncstore.backends.presigned import CreateMultipartUploadResponse, MultipartUploadPart

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message


class RefusedError(Exception):
    pass


async def request(
    method: str, url: str, headers: Mapping[str, str], data: bytes | None = None
) -> tuple[bytes, Message]:
    """Send one request to a URL."""

    def send() -> tuple[bytes, Message]:
        parts = urlsplit(url)
        # urllib.request would add a Content-Type that nobody signed.
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        try:
            connection.request(method, f"{parts.path}?{parts.query}", data, dict(headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RefusedError(answer.status, content)
        return content, answer.headers

    return await anyio.to_thread.run_sync(send)


async def send_parts(
    made: CreateMultipartUploadResponse, data: bytes, size: int
) -> list[MultipartUploadPart]:
    parts = []
    for credential in made.credentials:
        first = (credential.part_number - 1) * size
        piece = data[first : first + size]
        _, headers = await request("PUT", credential.url, credential.headers, piece)
        parts.append(MultipartUploadPart(credential.part_number, headers["ETag"], credential.url))
    return parts
