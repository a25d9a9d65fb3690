"""Repositories whose storage has presigned URLs, for MLflow's server to hand on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow import exceptions
from mlflow.entities import multipart_upload as entities
from mlflow.store.artifact.artifact_repo import MultipartUploadMixin

from asyncstore.artifacts import ArtifactRepository
from asyncstore.artifacts.presigned import MultipartUploadPart
from asyncstore.errors import UnsupportedError
from asyncstore.mlflow_plugin.artifact_repository import AsyncStoreRepository, mixin

__all__ = ["PresigningAsyncStoreRepository"]


class PresigningAsyncStoreRepository(
    AsyncStoreRepository,
    MultipartUploadMixin,  # type: ignore[misc]  # MLflow has no types here
    mixin("MultipartDownloadMixin"),  # type: ignore[misc]  # as above
    mixin("PresignedUploadMixin"),  # type: ignore[misc]  # as above
):
    """Adds what MLflow's server answers `mpu` and presigned requests with.

    Where the credentials cannot sign, it raises what MLflow's own repositories raise, and clients
    send through the server.
    """

    def create_multipart_upload(
        self, local_file: str, num_parts: int = 1, artifact_path: str | None = None
    ) -> Any:
        """Start an upload; see `asyncstore.ArtifactRepository.create_multipart_upload`.

        Args:
            local_file: The file; what counts is its name.
            num_parts: How many, 1 to 10,000.
            artifact_path: The directory to put it in; None for the root.

        Returns:
            MLflow's `CreateMultipartUploadResponse`.
        """
        made = self._signed(
            "_UnsupportedMultipartUploadException",
            lambda repository: repository.create_multipart_upload(
                local_file, num_parts, artifact_path
            ),
        )
        return entities.CreateMultipartUploadResponse(
            upload_id=made.upload_id,
            credentials=[
                entities.MultipartUploadCredential(
                    url=each.url, part_number=each.part_number, headers=dict(each.headers)
                )
                for each in made.credentials
            ],
        )

    def complete_multipart_upload(
        self,
        local_file: str,
        upload_id: str,
        parts: Sequence[Any] = (),
        artifact_path: str | None = None,
    ) -> None:
        """Make a file of the parts that were sent.

        Args:
            local_file: As for `create_multipart_upload`.
            upload_id: From its answer; an empty string where that has none.
            parts: MLflow's `MultipartUploadPart`, one for each.
            artifact_path: As for `create_multipart_upload`.
        """
        sent = [MultipartUploadPart(part.part_number, part.etag, part.url) for part in parts]
        self._signed(
            "_UnsupportedMultipartUploadException",
            lambda repository: repository.complete_multipart_upload(
                local_file, upload_id or None, sent, artifact_path
            ),
        )

    def abort_multipart_upload(
        self, local_file: str, upload_id: str, artifact_path: str | None = None
    ) -> None:
        """Discard the parts that were sent.

        Args:
            local_file: As for `create_multipart_upload`.
            upload_id: From its answer; an empty string where that has none.
            artifact_path: As for `create_multipart_upload`.
        """
        self._signed(
            "_UnsupportedMultipartUploadException",
            lambda repository: repository.abort_multipart_upload(
                local_file, upload_id or None, artifact_path
            ),
        )

    def create_presigned_upload_url(self, artifact_path: str, expiration: int = 900) -> Any:
        """Where a client may store one file, by PUT.

        Args:
            artifact_path: Where the file goes.
            expiration: Seconds that the URL may be used.

        Returns:
            MLflow's `CreatePresignedUploadResponse`.
        """
        from mlflow.entities.presigned_upload import CreatePresignedUploadResponse

        made = self._signed(
            "_UnsupportedPresignedUploadException",
            lambda repository: repository.create_presigned_upload_url(artifact_path, expiration),
        )
        return CreatePresignedUploadResponse(
            presigned_url=made.presigned_url, headers=dict(made.headers)
        )

    def get_download_presigned_url(self, artifact_path: str, expiration: int = 300) -> Any:
        """Where a client may read one file, by GET.

        Args:
            artifact_path: The file.
            expiration: Seconds that the URL may be used.

        Returns:
            MLflow's `PresignedDownloadUrlResponse`.
        """
        from mlflow.entities.presigned_download import PresignedDownloadUrlResponse

        made = self._signed(
            "_UnsupportedMultipartDownloadException",
            lambda repository: repository.get_download_presigned_url(artifact_path, expiration),
        )
        return PresignedDownloadUrlResponse(
            url=made.url, headers=dict(made.headers), file_size=made.file_size
        )

    def _signed(self, unsupported: str, action: Any) -> Any:
        async def run(repository: ArtifactRepository) -> Any:
            try:
                return await action(repository)
            except UnsupportedError as error:
                raise getattr(exceptions, unsupported)() from error

        return self._call(run)
