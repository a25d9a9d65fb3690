"""Shared access signatures on Azurite."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncstore import ArtifactRepository
from asyncstore.errors import InvalidParameterError, NotFoundError, UnsupportedError
from tests.artifacts.strangers import RefusedError, request, send_parts
from tests.servers.azurite import Azurite
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    yield from running(Azurite())


@pytest.fixture
def root(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    container = azurite.create_container()
    yield f"wasbs://{container}@labaccount.blob.core.windows.net/p q"
    azurite.discard(container)


async def test_an_upload_whose_parts_somebody_else_sends(root: str) -> None:
    data = os.urandom(5 * MIB)
    async with ArtifactRepository(root) as repository:
        made = await repository.create_multipart_upload("m odel.json", 3, "sub")
        assert made.upload_id is None
        parts = await send_parts(made, data, 2 * MIB)
        assert await repository.list_artifacts("sub") == []
        await repository.complete_multipart_upload("m odel.json", None, parts[::-1], "sub")
        assert await repository.read_bytes("sub/m odel.json") == data
        # As the scheduler does when it heard nothing of the first time.
        await repository.complete_multipart_upload("m odel.json", None, parts, "sub")
        assert await repository.read_bytes("sub/m odel.json") == data
        download = await repository.get_download_presigned_url("sub/m odel.json")
        _, headers = await request("GET", download.url, {"Range": "bytes=0-1"})
        assert headers["Content-Type"] == "application/json"


async def test_an_abort_leaves_nothing_to_be_seen(root: str) -> None:
    async with ArtifactRepository(root) as repository:
        made = await repository.create_multipart_upload("model.bin", 1)
        await send_parts(made, b"x", MIB)
        await repository.abort_multipart_upload("model.bin", None)
        assert not await repository.exists("model.bin")


async def test_one_file_by_a_url(root: str) -> None:
    async with ArtifactRepository(root) as repository:
        upload = await repository.create_presigned_upload_url("a/report \u00fc.html", 60)
        await request("PUT", upload.presigned_url, upload.headers, b"<html>")
        download = await repository.get_download_presigned_url("a/report \u00fc.html", 60)
        assert (download.file_size, download.headers) == (6, {})
        content, headers = await request("GET", download.url, {"Range": "bytes=1-4"})
        assert content == b"html"
        assert headers["Content-Type"] == "text/html"
        assert headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''report%20")
        for method, url in (
            ("GET", download.url.replace("report", "other")),
            ("PUT", download.url),
            ("GET", upload.presigned_url),
        ):
            with pytest.raises(RefusedError, match="403"):
                await request(method, url, upload.headers)
        for missing in ("nothing", "a"):
            with pytest.raises(NotFoundError):
                await repository.get_download_presigned_url(missing)


async def test_a_signature_for_more_is_not_passed_on(
    root: str, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"BlobEndpoint=http://{azurite.address}/{azurite.account};"
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING", f"{endpoint}SharedAccessSignature=sv=2020&sig=S3CR3T"
    )
    async with ArtifactRepository(root) as repository:
        with pytest.raises(UnsupportedError) as raised:
            await repository.create_multipart_upload("model.bin", 1)
    assert "S3CR3T" not in str(raised.value)


async def test_parts_that_were_not_sent(root: str) -> None:
    async with ArtifactRepository(root) as repository:
        made = await repository.create_multipart_upload("model.bin", 2)
        parts = await send_parts(made, b"xy", 1)
        other = [part for part in parts if part.part_number == 1]
        await repository.complete_multipart_upload("model.bin", None, other)
        assert await repository.read_bytes("model.bin") == b"x"
        with pytest.raises(InvalidParameterError):
            await repository.complete_multipart_upload("model.bin", None, parts)
