"""Presigned URLs of Azure Blob Storage: shared access signatures of single blobs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobSasPermissions, generate_blob_sas
from typing_extensions import override

from asyncstore.backends.azure_client import content_settings, translated
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
from asyncstore.errors import UnsupportedError
from asyncstore.files.reading import ContentType, content_type_of

if TYPE_CHECKING:
    from asyncstore.backends.azure import AzureBackend

__all__ = ["AzurePresigning", "block_id"]

# Clocks differ.
EARLIER = timedelta(minutes=5)


class AzurePresigning(Presigning):
    """Signs with the account's key, or with a key that an identity may ask for.

    Args:
        backend: The container and prefix.
        service: Its `BlobServiceClient`.
    """

    def __init__(self, backend: AzureBackend, service: Any) -> None:
        self._backend = backend
        self._service = service

    async def _sign(self, path: str, expiration: int, permission: Any, **headers: Any) -> str:
        """The URL of a blob with a signature."""
        blob = self._backend.blob(path)
        start = datetime.now(UTC) - EARLIER
        expiry = datetime.now(UTC) + timedelta(seconds=expiration)
        credential = self._service.credential
        action = f"sign {self._backend.shown(path)}"
        if key := getattr(credential, "account_key", None):
            arguments: dict[str, Any] = {"account_key": key}
        elif hasattr(credential, "get_token"):
            with translated(action):
                try:
                    delegated = await self._service.get_user_delegation_key(start, expiry)
                except HttpResponseError as error:
                    if error.status_code == 403:
                        raise UnsupportedError(
                            f"{action}: the identity may not sign; it needs the role Storage Blob "
                            "Delegator"
                        ) from error
                    raise
            arguments = {"user_delegation_key": delegated}
        else:
            # A signature that covers more than this blob is not for others.
            raise UnsupportedError(f"{action}: that takes the account's key or an identity")
        signature = generate_blob_sas(
            blob.account_name,
            blob.container_name,
            blob.blob_name,
            permission=permission,
            start=start,
            expiry=expiry,
            **arguments,
            **headers,
        )
        return f"{blob.url}?{signature}"

    @override
    async def create(
        self, path: str, num_parts: int, content_type: ContentType
    ) -> CreateMultipartUploadResponse:
        """Nothing to ask for: blocks belong to a name."""
        url = await self._sign(path, PARTS_EXPIRE, BlobSasPermissions(write=True))
        return CreateMultipartUploadResponse(
            None,
            [
                MultipartUploadCredential(
                    f"{url}&comp=block&blockid={quote(_encoded(number), safe='')}", number, {}
                )
                for number in range(1, num_parts + 1)
            ],
        )

    @override
    async def complete(
        self, path: str, upload_id: str | None, parts: Sequence[MultipartUploadPart]
    ) -> None:
        """Put Block List, of the blocks with these numbers."""
        blocks = [BlobBlock(block_id(part.part_number)) for part in parts]
        with translated(f"write {self._backend.shown(path)}"):
            await self._backend.blob(path).commit_block_list(
                blocks, content_settings=content_settings(content_type_of(path))
            )

    @override
    async def abort(self, path: str, upload_id: str | None) -> None:
        """Nothing to do: Azure discards blocks that are never committed after a week."""

    @override
    async def upload_url(
        self, path: str, content_type: ContentType, expiration: int
    ) -> CreatePresignedUploadResponse:
        """Put Blob."""
        url = await self._sign(path, expiration, BlobSasPermissions(create=True, write=True))
        headers = {
            "x-ms-blob-type": "BlockBlob",
            "x-ms-blob-content-type": content_type.type or "application/octet-stream",
        }
        if content_type.encoding:
            headers["x-ms-blob-content-encoding"] = content_type.encoding
        return CreatePresignedUploadResponse(url, headers)

    @override
    async def download_url(self, path: str, expiration: int) -> PresignedDownloadUrlResponse:
        """Get Blob."""
        found = await self._backend.info(path)
        if found.is_dir:
            raise self._backend.missing(path)
        url = await self._sign(
            path, expiration, BlobSasPermissions(read=True), content_disposition=attachment(path)
        )
        return PresignedDownloadUrlResponse(url, {}, found.file_size)


def block_id(number: int) -> str:
    """The name of a block; all of a blob have one length."""
    return f"{number:05}"


def _encoded(number: int) -> str:
    # As Azure's library encodes the names that it is given.
    return base64.b64encode(block_id(number).encode()).decode()
