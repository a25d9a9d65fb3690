"""Presigned URLs: what somebody without credentials can do with them, on real servers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncstore import ArtifactRepository
from asyncstore.backends.presigned import MultipartUploadPart
from asyncstore.errors import (
    InvalidParameterError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)
from asyncstore.testing.fault_proxy import Answer, FaultProxy
from tests.artifacts.strangers import RefusedError, request, send_parts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.moto import Moto
    from tests.servers.radosgw import RadosGateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("s3_env")]

MIB = 1024 * 1024


async def test_an_upload_whose_parts_somebody_else_sends(
    s3_bucket: str, radosgw: RadosGateway
) -> None:
    data = os.urandom(11 * MIB)
    async with ArtifactRepository(f"s3://{s3_bucket}/p q") as repository:
        made = await repository.create_multipart_upload("/anywhere/m odel.bin", 3, "sub/dir")
        assert [credential.part_number for credential in made.credentials] == [1, 2, 3]
        assert all("X-Amz-Signature=" in credential.url for credential in made.credentials)
        parts = await send_parts(made, data, 5 * MIB)
        assert await repository.list_artifacts("sub/dir") == []
        await repository.complete_multipart_upload(
            "m odel.bin", made.upload_id, parts[::-1], "sub/dir"
        )
        assert await repository.read_bytes("sub/dir/m odel.bin") == data
    assert radosgw.open_multipart_uploads(s3_bucket) == []


async def test_an_abort_leaves_no_upload(s3_bucket: str, radosgw: RadosGateway) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        made = await repository.create_multipart_upload("model.bin", 2)
        await send_parts(made, b"x" * 6 * MIB, 5 * MIB)
        assert radosgw.open_multipart_uploads(s3_bucket) == ["p/model.bin"]
        await repository.abort_multipart_upload("model.bin", made.upload_id)
        assert radosgw.open_multipart_uploads(s3_bucket) == []
        await repository.abort_multipart_upload("model.bin", made.upload_id)


async def test_a_completion_whose_answer_is_lost(
    s3_bucket: str, radosgw_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", radosgw_proxy.url)
    data = os.urandom(6 * MIB)
    # What Amazon answers when it is told again to complete an upload.
    gone = b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>"
    completions = lambda request: request.method == "POST" and "uploadId" in request.query  # noqa: E731
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        made = await repository.create_multipart_upload("model.bin", 2)
        parts = await send_parts(made, data, 5 * MIB)
        radosgw_proxy.faults.append(
            Answer(status=404, body=gone, forward=True, matches=completions)
        )
        await repository.complete_multipart_upload("model.bin", made.upload_id, parts)
        assert await repository.read_bytes("model.bin") == data
        await repository.write_bytes("model.bin", b"another")
        with pytest.raises(NotFoundError):
            await repository.complete_multipart_upload("model.bin", made.upload_id, parts)


async def test_a_cancellation_while_signing_leaves_no_upload(
    s3_bucket: str, radosgw: RadosGateway
) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        with anyio.move_on_after(0.2) as scope:
            await repository.create_multipart_upload("model.bin", 3_000)
        assert scope.cancelled_caught
    assert radosgw.open_multipart_uploads(s3_bucket) == []


async def test_one_file_by_a_url(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"CacheControl": "no-store"}')
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        upload = await repository.create_presigned_upload_url("a b/report ü.html", 60)
        assert {name.lower() for name in upload.headers} == {"content-type", "cache-control"}
        await request("PUT", upload.presigned_url, upload.headers, b"<html>")
        assert await repository.read_bytes("a b/report ü.html") == b"<html>"
        download = await repository.get_download_presigned_url("a b/report ü.html", 60)
        assert (download.file_size, download.headers) == (6, {})
        content, headers = await request("GET", download.url, {"Range": "bytes=1-4"})
        assert content == b"html"
        assert headers["Content-Type"] == "text/html"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''report%20")
        with pytest.raises(RefusedError, match="403"):
            await request("GET", download.url.replace("report", "other"), {})
        with pytest.raises(NotFoundError):
            await repository.get_download_presigned_url("nothing")


async def test_the_owner_of_the_bucket_is_checked(
    moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
    bucket = moto.create_bucket()
    with FaultProxy(moto.address) as proxy:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.url)
        async with ArtifactRepository(f"s3://{bucket}/p") as repository:
            made = await repository.create_multipart_upload("model.bin", 1)
            parts = await send_parts(made, b"data", 5 * MIB)
            await repository.complete_multipart_upload("model.bin", made.upload_id, parts)
            await repository.get_download_presigned_url("model.bin")
            upload = await repository.create_presigned_upload_url("other.bin")
        assert upload.headers["x-amz-expected-bucket-owner"] == "123456789012"
        own = [each for each in proxy.requests if "X-Amz-Signature" not in (each.query or "")]
        assert {each.headers.get("x-amz-expected-bucket-owner") for each in own} == {"123456789012"}


async def test_what_cannot_be_signed_is_told(s3_bucket: str, tmp_path: Path) -> None:
    async with ArtifactRepository(tmp_path) as local:
        with pytest.raises(UnsupportedError):
            await local.create_multipart_upload("model.bin", 1)
    options = {"anon": True}
    async with ArtifactRepository(f"s3://{s3_bucket}/p", storage_options=options) as anonymous:
        with pytest.raises(UnsupportedError):
            await anonymous.create_presigned_upload_url("model.bin")


async def test_bad_input(s3_bucket: str) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        for number in (0, -1, 10_001):
            with pytest.raises(InvalidParameterError):
                await repository.create_multipart_upload("model.bin", number)
        for name in ("", "..", "a/", "%2e%2e"):
            with pytest.raises(InvalidParameterError):
                await repository.create_multipart_upload(name, 1)
        with pytest.raises(InvalidParameterError):
            await repository.create_multipart_upload("model.bin", 1, "../other")
        for parts in ([], [MultipartUploadPart(1, "x"), MultipartUploadPart(1, "y")]):
            with pytest.raises(InvalidParameterError):
                await repository.complete_multipart_upload("model.bin", "id", parts)
        for seconds in (0, 604_801):
            with pytest.raises(InvalidParameterError):
                await repository.get_download_presigned_url("model.bin", seconds)
        for path in ("", "../x"):
            with pytest.raises(InvalidParameterError):
                await repository.create_presigned_upload_url(path)


async def test_wrong_keys_are_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        with pytest.raises(UnauthenticatedError):
            await repository.create_multipart_upload("model.bin", 1)


async def test_a_start_that_is_refused_is_tried_again(
    s3_bucket: str, radosgw_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", radosgw_proxy.url)
    radosgw_proxy.faults.append(Answer(status=503, every=1000))
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        made = await repository.create_multipart_upload("model.bin", 1)
        await repository.abort_multipart_upload("model.bin", made.upload_id)
