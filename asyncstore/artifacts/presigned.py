"""Presigned URLs of artifacts, with the methods of MLflow's repositories."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from asyncstore import uris
from asyncstore.artifacts.transfer import ABORT_WITHIN, REQUEST_WITHIN, Transfer
from asyncstore.backends import Backend
from asyncstore.backends.presigned import (
    CreateMultipartUploadResponse,
    CreatePresignedUploadResponse,
    MultipartUploadPart,
    PresignedDownloadUrlResponse,
    Presigning,
)
from asyncstore.concurrency import shielded
from asyncstore.errors import AsyncStoreError, InvalidParameterError, UnsupportedError
from asyncstore.files.reading import content_type_of

__all__ = ["MultipartUploadPart", "PresignedMethods"]

T = TypeVar("T")
MAX_PARTS = 10_000
# Of all three clouds: 7 days.
MAX_EXPIRATION = 604_800


class PresignedMethods(abc.ABC):
    """Methods of `ArtifactRepository` that give others access to one artifact for a while."""

    @abc.abstractmethod
    async def _operation(
        self, action: str, call: Callable[[Backend, Transfer], Awaitable[T]]
    ) -> T: ...

    async def _presigned(self, action: str, call: Callable[[Presigning], Awaitable[T]]) -> T:
        async def bounded(backend: Backend, transfer: Transfer) -> T:
            return await transfer.request(lambda: call(_presigning(backend)))

        return await self._operation(action, bounded)

    async def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> CreateMultipartUploadResponse:
        """Start an upload whose parts somebody else sends, to the URLs of the answer.

        The part with the number n goes by PUT to the URL with that number within an hour; the
        storage's answer has its ETag. Then `complete_multipart_upload` or `abort_multipart_upload`
        ends the upload.

        Args:
            local_file: The file; what counts is its name.
            num_parts: How many, 1 to 10,000. All but the last have at least 5 MiB (S3, GCS).
            artifact_path: The directory to put it in; None for the root.

        Raises:
            UnsupportedError: The storage has no such thing, or the credentials cannot sign.
            InvalidParameterError: The path would leave the root, or there is no such number.
            NotFoundError: There is no such bucket.

        A cancellation leaves no upload.
        """
        path = _path(local_file, artifact_path)
        if not 1 <= num_parts <= MAX_PARTS:
            raise InvalidParameterError(f"num_parts is {num_parts}; it takes 1 to {MAX_PARTS:,}")
        kind = content_type_of(path)
        made: list[tuple[Presigning, CreateMultipartUploadResponse]] = []

        async def create(presigning: Presigning) -> CreateMultipartUploadResponse:
            # Not to be interrupted: the storage would have an upload whose id nobody knows.
            answer = await shielded(
                lambda: presigning.create(path, num_parts, kind), within=REQUEST_WITHIN
            )
            made.append((presigning, answer))
            return answer

        try:
            return await self._presigned(f"start an upload of {path} to", create)
        except BaseException as error:
            for presigning, answer in made:
                upload_id = answer.upload_id
                try:
                    await shielded(
                        lambda end=presigning.abort, name=upload_id: end(path, name),  # type: ignore[misc]  # bound in a loop
                        within=ABORT_WITHIN,
                    )
                except AsyncStoreError as left:
                    error.add_note(f"what was started could not be removed: {left}")
            raise

    async def complete_multipart_upload(
        self,
        local_file: str,
        upload_id: str | None,
        parts: Sequence[MultipartUploadPart],
        artifact_path: str | None = None,
    ) -> None:
        """Make a file of the parts that were sent.

        Args:
            local_file: As for `create_multipart_upload`.
            upload_id: From its answer; None where that has none (Azure).
            parts: All of them, in any order.
            artifact_path: As for `create_multipart_upload`.

        Raises:
            NotFoundError: There is no such upload.
            InvalidParameterError: A part is missing or named twice.
            UnsupportedError: The storage has no such thing.

        A cancellation leaves the upload as it was, or complete.
        """
        path = _path(local_file, artifact_path)
        ordered = sorted(parts, key=lambda part: part.part_number)
        if not ordered or len({part.part_number for part in ordered}) < len(ordered):
            raise InvalidParameterError(f"complete {path}: name every part once")
        await self._presigned(
            f"complete {path} in",
            lambda presigning: shielded(
                lambda: presigning.complete(path, upload_id, ordered), within=REQUEST_WITHIN
            ),
        )

    async def abort_multipart_upload(
        self, local_file: str, upload_id: str | None, artifact_path: str | None = None
    ) -> None:
        """Discard the parts that were sent. One that is gone is no error.

        Azure keeps what was sent, unseen, for a week; there is no way to have it discarded.

        Args:
            local_file: As for `create_multipart_upload`.
            upload_id: From its answer; None where that has none (Azure).
            artifact_path: As for `create_multipart_upload`.

        Raises:
            UnsupportedError: The storage has no such thing.
        """
        path = _path(local_file, artifact_path)
        await self._presigned(
            f"abort {path} in", lambda presigning: presigning.abort(path, upload_id)
        )

    async def create_presigned_upload_url(
        self, artifact_path: str, expiration: int = 900
    ) -> CreatePresignedUploadResponse:
        """Where somebody else may store one file, by PUT.

        Args:
            artifact_path: Where the file goes.
            expiration: Seconds that the URL may be used, 1 to 604,800.

        Returns:
            The URL and the headers that the request must carry.

        Raises:
            UnsupportedError: The storage has no such thing, or the credentials cannot sign.
            InvalidParameterError: The path would leave the root, or is the root.
        """
        path = _file(artifact_path)
        seconds = _seconds(expiration)
        return await self._presigned(
            f"sign the upload of {path} to",
            lambda presigning: presigning.upload_url(path, content_type_of(path), seconds),
        )

    async def get_download_presigned_url(
        self, artifact_path: str, expiration: int = 300
    ) -> PresignedDownloadUrlResponse:
        """Where somebody else may read one file, by GET, also in ranges. Browsers store it.

        Args:
            artifact_path: The file.
            expiration: Seconds that the URL may be used, 1 to 604,800.

        Raises:
            NotFoundError: There is no such file.
            UnsupportedError: The storage has no such thing, or the credentials cannot sign.
            InvalidParameterError: The path would leave the root, or is the root.
        """
        path = _file(artifact_path)
        seconds = _seconds(expiration)
        return await self._presigned(
            f"sign the download of {path} from",
            lambda presigning: presigning.download_url(path, seconds),
        )


def _presigning(backend: Backend) -> Presigning:
    presigning = backend.presigning()
    if presigning is None:
        raise UnsupportedError(f"{uris.redact(backend.root)}: the storage has no presigned URLs")
    return presigning


def _path(local_file: str, artifact_path: str | None) -> str:
    directory = uris.artifact_path(artifact_path)
    name = _file(local_file.rpartition("/")[2])
    return f"{directory}/{name}" if directory else name


def _file(path: str) -> str:
    name = uris.artifact_path(path)
    if not name:
        raise InvalidParameterError("a file needs a name; the path is the repository's root")
    return name


def _seconds(expiration: int) -> int:
    if not 1 <= expiration <= MAX_EXPIRATION:
        raise InvalidParameterError(
            f"expiration is {expiration}; it takes 1 to {MAX_EXPIRATION:,} seconds"
        )
    return expiration
