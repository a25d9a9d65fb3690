"""Presigned URLs of Amazon S3 and compatible servers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio.lowlevel
from typing_extensions import override

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
from asyncstore.backends.s3_errors import translated
from asyncstore.errors import NotFoundError, UnsupportedError
from asyncstore.files.reading import ContentType

if TYPE_CHECKING:
    from asyncstore.backends.s3 import S3Backend

__all__ = ["S3Presigning", "register"]

_signed: ContextVar[dict[str, str] | None] = ContextVar("_signed", default=None)


class S3Presigning(Presigning):
    """URLs that the client signs with its own credentials.

    Args:
        backend: The bucket and prefix.
        client: Its client, whose session went through `register`.
    """

    def __init__(self, backend: S3Backend, client: Any) -> None:
        self._backend = backend
        self._client = client

    async def _sign(
        self, operation: str, path: str, expiration: int, **arguments: Any
    ) -> tuple[str, dict[str, str]]:
        """The URL of a request, and the headers that its signature covers."""
        # Signing awaits nothing, and there may be 10,000 parts.
        await anyio.lowlevel.checkpoint()
        target = {"Bucket": self._backend.bucket, "Key": self._backend.key(path)}
        headers: dict[str, str] = {}
        token = _signed.set(headers)
        try:
            with translated(f"sign {operation} {self._backend.shown(path)}"):
                url: str = await self._client.generate_presigned_url(
                    operation, Params={**target, **arguments}, ExpiresIn=expiration
                )
        finally:
            _signed.reset(token)
        names = parse_qs(urlsplit(url).query).get("X-Amz-SignedHeaders")
        if names is None:
            raise UnsupportedError(
                f"sign {operation} {self._backend.shown(path)}: an anonymous client signs nothing"
            )
        needed = set(names[0].split(";")) - {"host"}
        return url, {name: value for name, value in headers.items() if name.lower() in needed}

    @override
    async def create(
        self, path: str, num_parts: int, content_type: ContentType
    ) -> CreateMultipartUploadResponse:
        """CreateMultipartUpload, which also checks the bucket's owner, and signed UploadParts."""
        upload_id = await self._backend.create_upload(path, content_type)
        credentials = []
        extra = self._backend.upload_args("UploadPart")
        try:
            for number in range(1, num_parts + 1):
                part = {"PartNumber": number, "UploadId": upload_id, **extra}
                url, headers = await self._sign("upload_part", path, PARTS_EXPIRE, **part)
                credentials.append(MultipartUploadCredential(url, number, headers))
        except Exception:
            await self.abort(path, upload_id)
            raise
        return CreateMultipartUploadResponse(upload_id, credentials)

    @override
    async def complete(
        self, path: str, upload_id: str | None, parts: Sequence[MultipartUploadPart]
    ) -> None:
        """CompleteMultipartUpload; one that was completed before is no error."""
        listed = [{"PartNumber": part.part_number, "ETag": part.etag} for part in parts]
        try:
            await self._backend.call(
                "complete_multipart_upload",
                path,
                Key=self._backend.key(path),
                UploadId=upload_id,
                MultipartUpload={"Parts": listed},
                **self._backend.upload_args("CompleteMultipartUpload"),
            )
        except NotFoundError:
            # The answer to an earlier attempt may have been lost: then the object is there.
            found = await self._backend.info(path)
            if found.etag is None or found.etag.strip('"') != _etag_of(parts):
                raise

    @override
    async def abort(self, path: str, upload_id: str | None) -> None:
        """AbortMultipartUpload."""
        try:
            await self._backend.call(
                "abort_multipart_upload", path, Key=self._backend.key(path), UploadId=upload_id
            )
        except NotFoundError:
            return

    @override
    async def upload_url(
        self, path: str, content_type: ContentType, expiration: int
    ) -> CreatePresignedUploadResponse:
        """PutObject, with the arguments of every upload; its headers say the bucket's owner."""
        arguments = self._backend.upload_args("PutObject", content_type)
        arguments.setdefault("ContentType", "application/octet-stream")
        arguments |= self._backend.owner_args
        url, headers = await self._sign("put_object", path, expiration, **arguments)
        return CreatePresignedUploadResponse(url, headers)

    @override
    async def download_url(self, path: str, expiration: int) -> PresignedDownloadUrlResponse:
        """HeadObject, which also checks the bucket's owner, and a signed GetObject."""
        head = await self._backend.call("head_object", path, Key=self._backend.key(path))
        # A browser that follows the URL can send no header.
        url, headers = await self._sign(
            "get_object", path, expiration, ResponseContentDisposition=attachment(path)
        )
        return PresignedDownloadUrlResponse(url, headers, head["ContentLength"])


def _etag_of(parts: Sequence[MultipartUploadPart]) -> str:
    """The ETag of an object that was uploaded in parts, where theirs are MD5.

    Not documented by Amazon, and the same on every server that was seen.
    """
    try:
        md5s = b"".join(bytes.fromhex((part.etag or "").strip('"')) for part in parts)
    except ValueError:
        return ""
    return f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{len(parts)}"


def register(session: Any) -> None:
    """Prepare a session for presigning, before its client is made.

    Args:
        session: Of botocore or aiobotocore.
    """
    session.register("choose-signer.s3", _version_4)
    session.register("before-sign.s3", _remember_headers)


def _version_4(signature_version: Any, **_: Any) -> str | None:
    # botocore's own choice for presigning is version 2, which newer regions do not take.
    if signature_version in ("s3v4-query", "v4-query"):
        return "s3v4-query"
    return None


def _remember_headers(request: Any, **_: Any) -> None:
    headers = _signed.get()
    if headers is not None:
        for name, value in request.headers.items():
            text = value.decode() if isinstance(value, bytes) else str(value)
            headers[name] = text
