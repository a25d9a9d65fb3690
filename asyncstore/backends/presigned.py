"""Access to one artifact for a while, by URLs that a client uses without credentials.

Names and fields are those of MLflow's entities.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from asyncstore.files.reading import ContentType

__all__ = [
    "PARTS_EXPIRE",
    "CreateMultipartUploadResponse",
    "CreatePresignedUploadResponse",
    "MultipartUploadCredential",
    "MultipartUploadPart",
    "PresignedDownloadUrlResponse",
    "Presigning",
    "attachment",
]

#: Seconds that the URLs of parts may be used, as in MLflow.
PARTS_EXPIRE = 3600


@dataclass(frozen=True)
class MultipartUploadCredential:
    """Where one part is to be PUT.

    Args:
        url: The URL.
        part_number: From 1.
        headers: What the request must carry.
    """

    url: str = field(repr=False)
    part_number: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class CreateMultipartUploadResponse:
    """An upload that was started.

    Args:
        upload_id: The storage's name of the upload; None where it has none.
        credentials: One for each part, in order.
    """

    upload_id: str | None
    credentials: Sequence[MultipartUploadCredential]


@dataclass(frozen=True)
class MultipartUploadPart:
    """A part that was sent.

    Args:
        part_number: From 1.
        etag: What the storage answered in the header ETag; None where it has none.
        url: Where it was sent to; not needed.
    """

    part_number: int
    etag: str | None = None
    url: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CreatePresignedUploadResponse:
    """Where a whole file is to be PUT.

    Args:
        presigned_url: The URL.
        headers: What the request must carry.
    """

    presigned_url: str = field(repr=False)
    headers: Mapping[str, str]


@dataclass(frozen=True)
class PresignedDownloadUrlResponse:
    """Where a file is to be had by GET.

    Args:
        url: The URL.
        headers: What the request must carry.
        file_size: Bytes of the file.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str]
    file_size: int | None = None


class Presigning(abc.ABC):
    """What a storage with presigned URLs does, below the root of a backend.

    Methods raise `UnsupportedError` where the credentials cannot sign.
    """

    @abc.abstractmethod
    async def create(
        self, path: str, num_parts: int, content_type: ContentType
    ) -> CreateMultipartUploadResponse:
        """Start an upload and sign its parts."""

    @abc.abstractmethod
    async def complete(
        self, path: str, upload_id: str | None, parts: Sequence[MultipartUploadPart]
    ) -> None:
        """Make the file visible; `parts` are in order."""

    @abc.abstractmethod
    async def abort(self, path: str, upload_id: str | None) -> None:
        """Discard the parts, where the storage can; an upload that is gone is no error."""

    @abc.abstractmethod
    async def upload_url(
        self, path: str, content_type: ContentType, expiration: int
    ) -> CreatePresignedUploadResponse:
        """Sign the upload of a whole file; `expiration` in seconds."""

    @abc.abstractmethod
    async def download_url(self, path: str, expiration: int) -> PresignedDownloadUrlResponse:
        """Sign the download of a file, which must exist; `expiration` in seconds."""


def attachment(path: str) -> str:
    """The Content-Disposition with which a browser stores an artifact instead of showing it.

    RFC 6266. What somebody uploaded must not run as a page of the storage's site.

    Args:
        path: The artifact's path; its last name is the file's.
    """
    return f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}"
