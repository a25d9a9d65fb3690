"""Access to one artifact for a while: URLs with which clients go to the storage themselves."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from asyncstore import settings, uris
from asyncstore.artifacts.presigned import MultipartUploadPart
from asyncstore.errors import AsyncStoreError, InvalidParameterError, UnsupportedError
from asyncstore.server.artifact_locations import (
    ArtifactLocation,
    destination,
    is_proxied,
    location_of,
)
from asyncstore.server.decoding import Request, RequiredText
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES", "presigns", "takes_parts"]

PartNumber = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=604_800)]


class CreateMultipartUpload(Request):
    """A file in which directory, in how many parts."""

    artifact_path: RequiredText
    path: RequiredText
    num_parts: PartNumber = 1


class Part(Request):
    """A part that was sent."""

    part_number: PartNumber
    etag: str | None = None
    url: str | None = None


class CompleteMultipartUpload(Request):
    """Which upload, and its parts."""

    artifact_path: RequiredText
    path: RequiredText
    parts: list[Part]
    upload_id: str | None = None


class AbortMultipartUpload(Request):
    """Which upload."""

    artifact_path: RequiredText
    path: RequiredText
    upload_id: str | None = None


class PresignedArtifact(Request):
    """Which file below the destination."""

    artifact_path: RequiredText


class CreatePresignedUploadUrl(Request):
    """A file of which run or logged model, and for how many seconds."""

    path: RequiredText
    run_id: str | None = None
    model_id: str | None = None
    expiration: Seconds = 900


class CreatePresignedDownloadUrl(Request):
    """Which file of which run, and for how many seconds."""

    run_id: RequiredText
    path: RequiredText
    expiration: Seconds | None = None


async def presigns(server: Server) -> bool:
    """Whether the storage of the server's destination has presigned URLs."""
    try:
        return (await destination(server)).presigns
    except AsyncStoreError:
        # What is wrong is told to those who use it.
        return False


def takes_parts() -> bool:
    """Whether the server is to hand out URLs of parts, if its storage can."""
    return settings.MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD.get() is not False


async def create_multipart_upload(server: Server, request: CreateMultipartUpload) -> dict[str, Any]:
    """Start an upload whose parts the client sends to the storage."""
    repository = await destination(server)
    with _said("Multipart upload"):
        if not takes_parts():
            raise UnsupportedError("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD is false on the server")
        made = await repository.create_multipart_upload(
            request.path, request.num_parts, request.artifact_path
        )
    credentials = [
        {"url": each.url, "part_number": each.part_number, "headers": dict(each.headers)}
        for each in made.credentials
    ]
    identified = {} if made.upload_id is None else {"upload_id": made.upload_id}
    return {**identified, "credentials": credentials}


async def complete_multipart_upload(
    server: Server, request: CompleteMultipartUpload
) -> dict[str, Any]:
    """Make a file of the parts that were sent."""
    parts = [MultipartUploadPart(part.part_number, part.etag, part.url) for part in request.parts]
    repository = await destination(server)
    with _said("Multipart upload"):
        await repository.complete_multipart_upload(
            request.path, request.upload_id or None, parts, request.artifact_path
        )
    return {}


async def abort_multipart_upload(server: Server, request: AbortMultipartUpload) -> dict[str, Any]:
    """Discard the parts that were sent."""
    repository = await destination(server)
    with _said("Multipart upload"):
        await repository.abort_multipart_upload(
            request.path, request.upload_id or None, request.artifact_path
        )
    return {}


async def get_presigned_download_url(server: Server, request: PresignedArtifact) -> dict[str, Any]:
    """Where a file below the server's destination is to be had from the storage."""
    repository = await destination(server)
    expiration = settings.MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS.get()
    with _said("Multipart download"):
        made = await repository.get_download_presigned_url(request.artifact_path, expiration)
    sized = {} if made.file_size is None else {"file_size": made.file_size}
    return {"url": made.url, "headers": dict(made.headers), **sized}


async def create_presigned_upload_url(
    server: Server, request: CreatePresignedUploadUrl
) -> dict[str, Any]:
    """Where the storage takes a file of a run or a logged model."""
    if bool(request.run_id) == bool(request.model_id):
        raise InvalidParameterError("give either run_id or model_id")
    if request.run_id:
        uri = (await server.store.get_run(request.run_id)).info.artifact_uri
    else:
        uri = (await server.store.get_logged_model(str(request.model_id))).artifact_location
    location = await _direct(server, uri)
    with _said("Presigned upload"):
        made = await location.repository.create_presigned_upload_url(
            location.path(request.path), request.expiration
        )
    return {"presigned_url": made.presigned_url, "headers": dict(made.headers)}


async def create_presigned_download_url(
    server: Server, request: CreatePresignedDownloadUrl
) -> dict[str, Any]:
    """Where a file of a run is to be had from the storage."""
    expiration = request.expiration
    if expiration is None:
        expiration = settings.MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS.get()
    location = await _direct(server, (await server.store.get_run(request.run_id)).info.artifact_uri)
    with _said("Presigned download"):
        made = await location.repository.get_download_presigned_url(
            location.path(request.path), expiration
        )
    sized = {} if made.file_size is None else {"file_size": made.file_size}
    return {"presigned_url": made.url, "headers": dict(made.headers), **sized}


async def _direct(server: Server, artifact_uri: str) -> ArtifactLocation:
    if is_proxied(artifact_uri):
        raise InvalidParameterError(
            f"{uris.redact(artifact_uri)} is reached through the server only; presigned URLs are "
            "for artifacts that are directly on a storage"
        )
    return await location_of(server, artifact_uri)


@contextmanager
def _said(what: str) -> Generator[None]:
    """Say that a storage has no such thing in the words by which clients know it.

    They look at how the message begins, and send the whole through the server then.
    """
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(
            f"{what} is not supported for the current artifact repository: {error}"
        ) from error


MPU = "/api/2.0/mlflow-artifacts/mpu"

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "POST",
        f"{MPU}/create/{{artifact_path:path}}",
        create_multipart_upload,
        CreateMultipartUpload,
    ),
    Route(
        "POST",
        f"{MPU}/complete/{{artifact_path:path}}",
        complete_multipart_upload,
        CompleteMultipartUpload,
    ),
    Route(
        "POST", f"{MPU}/abort/{{artifact_path:path}}", abort_multipart_upload, AbortMultipartUpload
    ),
    Route(
        "GET",
        "/api/2.0/mlflow-artifacts/presigned/{artifact_path:path}",
        get_presigned_download_url,
        PresignedArtifact,
    ),
    Route(
        "POST",
        "/api/2.0/mlflow/artifacts/presigned-upload-url",
        create_presigned_upload_url,
        CreatePresignedUploadUrl,
    ),
    Route(
        "POST",
        "/api/2.0/mlflow/artifacts/presigned-download-url",
        create_presigned_download_url,
        CreatePresignedDownloadUrl,
        reads=True,
    ),
)
