"""Presigned URLs of Google Cloud Storage, and uploads in parts of its XML API."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from typing_extensions import override

from asyncstore.backends.gcs_body import media_type
from asyncstore.backends.presigned import (
    PARTS_EXPIRE,
    CreateMultipartUploadResponse,
    CreatePresignedUploadResponse,
    MultipartUploadCredential,
    MultipartUploadPart,
    PresignedDownloadUrlResponse,
    Presigning,
    attachment,
)
from asyncstore.errors import UnavailableError
from asyncstore.files.reading import ContentType

if TYPE_CHECKING:
    from asyncstore.backends.gcs import GcsBackend

__all__ = ["GcsPresigning", "to_sign"]

ALGORITHM = "GOOG4-RSA-SHA256"
UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")


class GcsPresigning(Presigning):
    """Signs with the private key of a service account; other credentials cannot.

    Args:
        backend: The bucket and prefix.
    """

    def __init__(self, backend: GcsBackend) -> None:
        self._backend = backend
        self._client = backend.client

    def _url(self, path: str) -> str:
        """The object's URL of the XML API."""
        key = quote(self._backend.key(path), safe="/~")
        return f"{self._client.endpoint}/{quote(self._backend.bucket)}/{key}"

    async def _sign(
        self,
        method: str,
        path: str,
        expiration: int,
        queries: Sequence[Mapping[str, str]],
        headers: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The URLs of requests that differ in their queries."""
        action = f"sign {self._backend.shown(path)}"
        email = self._client.credentials.signer_email(action)
        now = datetime.now(UTC)
        url = self._url(path)
        prepared = [
            to_sign(
                method, url, email, now, expiration, {**query, **self._client.everywhere}, headers
            )
            for query in queries
        ]
        signatures = await self._client.credentials.sign([text for _, text in prepared])
        return [
            f"{signed}&X-Goog-Signature={signature.hex()}"
            for (signed, _), signature in zip(prepared, signatures, strict=True)
        ]

    @override
    async def create(
        self, path: str, num_parts: int, content_type: ContentType
    ) -> CreateMultipartUploadResponse:
        """https://cloud.google.com/storage/docs/xml-api/post-object-multipart."""
        action = f"write {self._backend.shown(path)}"
        # Told before there is an upload.
        self._client.credentials.signer_email(action)
        answer = await self._client.call(
            action,
            "POST",
            self._url(path),
            query={"uploads": ""},
            headers={"Content-Type": media_type(content_type), "Content-Length": "0"},
        )
        found = UPLOAD_ID.search(answer.content)
        if found is None:
            raise UnavailableError(f"{action}: the answer names no upload")
        upload_id = html.unescape(found[1].decode())
        numbers = range(1, num_parts + 1)
        queries = [{"partNumber": str(number), "uploadId": upload_id} for number in numbers]
        try:
            urls = await self._sign("PUT", path, PARTS_EXPIRE, queries)
        except Exception:
            await self.abort(path, upload_id)
            raise
        return CreateMultipartUploadResponse(
            upload_id,
            [
                MultipartUploadCredential(url, number, {})
                for number, url in zip(numbers, urls, strict=True)
            ],
        )

    @override
    async def complete(
        self, path: str, upload_id: str | None, parts: Sequence[MultipartUploadPart]
    ) -> None:
        """https://cloud.google.com/storage/docs/xml-api/post-object-complete."""
        listed = "".join(
            f"<Part><PartNumber>{part.part_number}</PartNumber>"
            f"<ETag>{html.escape(part.etag or '')}</ETag></Part>"
            for part in parts
        )
        await self._client.call(
            f"write {self._backend.shown(path)}",
            "POST",
            self._url(path),
            query={"uploadId": upload_id or ""},
            headers={"Content-Type": "application/xml"},
            body=f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode(),
        )

    @override
    async def abort(self, path: str, upload_id: str | None) -> None:
        """https://cloud.google.com/storage/docs/xml-api/delete-multipart."""
        await self._client.call(
            f"abort {self._backend.shown(path)}",
            "DELETE",
            self._url(path),
            query={"uploadId": upload_id or ""},
            accept=(404,),
        )

    @override
    async def upload_url(
        self, path: str, content_type: ContentType, expiration: int
    ) -> CreatePresignedUploadResponse:
        """PUT of an object, with its content type."""
        headers = {"Content-Type": media_type(content_type)}
        (url,) = await self._sign("PUT", path, expiration, [{}], headers)
        return CreatePresignedUploadResponse(url, headers)

    @override
    async def download_url(self, path: str, expiration: int) -> PresignedDownloadUrlResponse:
        """GET of an object."""
        found = await self._backend.info(path)
        if found.is_dir:
            raise self._backend.missing(path)
        query = {"response-content-disposition": attachment(path)}
        (url,) = await self._sign("GET", path, expiration, [query])
        return PresignedDownloadUrlResponse(url, {}, found.file_size)


def to_sign(
    method: str,
    url: str,
    email: str,
    now: datetime,
    expiration: int,
    query: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> tuple[str, bytes]:
    """What a signature covers: https://cloud.google.com/storage/docs/authentication/signatures.

    Args:
        method: Of HTTP.
        url: The object, without a query.
        email: The service account.
        now: When the URL begins to count, in UTC.
        expiration: Seconds that it counts.
        query: More parameters.
        headers: What the request must carry.

    Returns:
        The URL with its query but for the signature, and the bytes to sign.
    """
    parts = urlsplit(url)
    signed = {"host": parts.netloc, **{k.lower(): v for k, v in (headers or {}).items()}}
    names = ";".join(sorted(signed))
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/auto/storage/goog4_request"
    parameters = {
        **query,
        "X-Goog-Algorithm": ALGORITHM,
        "X-Goog-Credential": f"{email}/{scope}",
        "X-Goog-Date": moment,
        "X-Goog-Expires": str(expiration),
        "X-Goog-SignedHeaders": names,
    }
    canonical_query = urlencode(sorted(parameters.items()), quote_via=quote, safe="~")
    lines = [f"{name}:{signed[name].strip()}" for name in sorted(signed)]
    request = [method, parts.path, canonical_query, *lines, "", names, "UNSIGNED-PAYLOAD"]
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    return f"{url}?{canonical_query}", "\n".join([ALGORITHM, moment, scope, digest]).encode()
