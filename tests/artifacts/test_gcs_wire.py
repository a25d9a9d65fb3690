"""Downloads, listings, time and refusals of Google Cloud Storage, seen by a recording proxy."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from asyncstore.testing.fault_proxy import Answer, Fault, FaultProxy, Hang, Request, Reset, Truncate
from tests.artifacts.conftest import LARGE, MIB, QUICK
from tests.artifacts.gcs_fixtures import (
    bucket,
    emulator,
    gcs_proxy,
    of,
    only,
    operation,
    operations,
    query,
    refusal,
)

if TYPE_CHECKING:
    from tests.servers.gcs import GcsEmulator

__all__ = ["bucket", "emulator", "gcs_proxy"]

pytestmark = pytest.mark.anyio

BUSY = refusal(503, "backend error")
QUOTA = refusal(403, "too many", "rateLimitExceeded")
KIB = 1024
#: Files below 100 MiB go in one resumable upload.
WITHOUT_PARTS = dataclasses.replace(QUICK, multipart_upload_minimum_file_size=100 * MIB)


# Downloads


async def test_ranges_of_one_generation(
    gcs_proxy: FaultProxy,
    bucket: str,
    emulator: GcsEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE", str(3 * MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(MIB))
    content = os.urandom(LARGE)
    emulator.put(bucket, "f", content)
    generation = emulator.resource(bucket, "f")["generation"]
    gcs_proxy.latency = 0.01
    async with ArtifactRepository(f"gs://{bucket}") as repository:
        local = await repository.download_artifacts("f", tmp_path)
    assert Path(local).read_bytes() == content
    requests = only(gcs_proxy, "media")
    starts = range(0, LARGE, 3 * MIB)
    assert sorted(request.headers["range"] for request in requests) == sorted(
        f"bytes={start}-{min(start + 3 * MIB, LARGE) - 1}" for start in starts
    )
    assert {query(request)["ifGenerationMatch"] for request in requests} == {generation}
    assert {request.headers["accept-encoding"] for request in requests} == {"gzip"}
    assert gcs_proxy.peak_requests_in_flight == len(starts)


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_file_that_is_replaced_while_it_is_received(
    size: int, gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, tmp_path: Path
) -> None:
    emulator.put(bucket, "f", bytes(size))
    replaced = False

    def replace(request: object) -> bool:
        nonlocal replaced
        if only(gcs_proxy, "media") and not replaced:
            replaced = True
            emulator.put(bucket, "f", b"x" * size)
        return False

    gcs_proxy.faults.append(Answer(matches=replace))
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError):
            await repository.download_artifacts("f", tmp_path / "down")
    assert replaced
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_server_without_preconditions_that_tells_the_generation(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, tmp_path: Path
) -> None:
    emulator.put(bucket, "f", b"content")
    gcs_proxy.faults.append(
        Answer(matches=of("media"), status=200, headers={"x-goog-generation": "1"}, body=b"content")
    )
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError, match="replaced"):
            await repository.download_artifacts("f", tmp_path)


async def test_what_is_stored_compressed_comes_as_it_is_stored(
    gcs_proxy: FaultProxy, bucket: str
) -> None:
    """The server answers so when it is told that gzip is welcome."""
    packed = gzip.compress(b"x" * 1000)
    gcs_proxy.faults.append(
        Answer(matches=of("media"), status=200, headers={"Content-Encoding": "gzip"}, body=packed)
    )
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        assert await repository.read_bytes("f") == packed
    assert only(gcs_proxy, "media")[0].headers["accept-encoding"] == "gzip"


async def test_content_that_arrives_damaged(gcs_proxy: FaultProxy, bucket: str) -> None:
    hashes = "crc32c=AAAAAA==,md5=AAAA"
    gcs_proxy.faults.append(
        Answer(matches=of("media"), status=200, headers={"x-goog-hash": hashes}, body=b"damaged")
    )
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError, match="as it is stored"):
            await repository.read_bytes("f")


async def test_a_server_that_ignores_ranges(gcs_proxy: FaultProxy, bucket: str) -> None:
    content = os.urandom(300_000)
    gcs_proxy.faults.append(Answer(matches=of("media"), status=200, body=content))
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        async with repository.open_read("f", start=100_000, end=200_000) as pieces:
            assert b"".join([piece async for piece in pieces]) == content[100_000:200_000]
        async with repository.open_read("f", start=299_999) as pieces:
            assert b"".join([piece async for piece in pieces]) == content[299_999:]


@pytest.mark.parametrize(
    "fault",
    [
        Reset(matches=of("media"), after=100_000, first=3),
        Reset(matches=of("media"), first=2),
        Truncate(matches=of("media"), after=1_500_000, first=2),
        Answer(matches=of("media"), first=3),
        Answer(matches=of("list"), every=2, first=2),
        Answer(
            matches=of("list"), status=200, body=refusal(503, "backend error"), every=2, first=2
        ),
        Reset(matches=of("list"), after=10, every=2, first=2),
        Answer(matches=of("look"), first=1),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "ranges"])
async def test_a_download_survives(
    fault: Fault,
    whole: bool,
    gcs_proxy: FaultProxy,
    bucket: str,
    emulator: GcsEmulator,
    tmp_path: Path,
) -> None:
    content = {"large": os.urandom(LARGE), "small": os.urandom(300_000), "empty": b""}
    for name, data in content.items():
        emulator.put(bucket, f"d/{name}", data)
    gcs_proxy.faults.append(dataclasses.replace(fault))
    options = dataclasses.replace(
        QUICK, multipart_download_minimum_file_size=100 * MIB if whole else None
    )
    async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
        local = Path(await repository.download_artifacts("d", tmp_path))
    assert gcs_proxy.faults[0].count >= 1
    assert {path.name: path.read_bytes() for path in local.iterdir()} == content


# Listings


async def test_a_listing_goes_page_by_page(gcs_proxy: FaultProxy, bucket: str) -> None:
    """The emulator has no pages: the proxy gives them."""
    pages = [
        {"prefixes": ["p/a/"], "items": [], "nextPageToken": "t/1+="},
        {"nextPageToken": "t2"},
        {"items": [{"name": f"p/{n}", "size": "3", "generation": "7"} for n in ("b", "c/", "d")]},
    ]

    def page(token: str | None) -> Callable[[Request], bool]:
        return lambda r: operation(r) == "list" and query(r).get("pageToken") == token

    for token, content in zip((None, "t/1+=", "t2"), pages, strict=True):
        gcs_proxy.faults.append(
            Answer(matches=page(token), status=200, body=json.dumps(content).encode())
        )
    async with ArtifactRepository(f"gs://{bucket}/p", transfer=QUICK) as repository:
        listed = await repository.list_artifacts()
        assert [(entry.path, entry.file_size) for entry in listed] == [
            ("a", None),
            ("b", 3),
            ("d", 3),
        ]
        assert [entry.path async for entry in repository.walk()] == ["b", "d"]
    requests = only(gcs_proxy, "list")
    assert [query(request).get("delimiter") for request in requests] == ["/"] * 3 + [None] * 3
    assert {query(request)["prefix"] for request in requests} == {"p/"}
    assert {query(request)["maxResults"] for request in requests} == {"1000"}


# Time


async def test_a_request_that_is_not_answered(
    gcs_proxy: FaultProxy, bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ArtifactRepository(f"gs://{bucket}") as repository:
        assert repository.capabilities.request_timeout == 60
        backend, transfer, _ = repository._state()
        assert transfer.request_timeout == backend.request_timeout == 60
    for timeout in ("-1", "100"):
        monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", timeout)
        async with ArtifactRepository(f"gs://{bucket}") as repository:
            backend, transfer, _ = repository._state()
            assert transfer.request_timeout is backend.request_timeout is None
    monkeypatch.delenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT")
    (large.parent / "small").write_bytes(b"x")
    for name in ("list", "chunk", "insert"):
        gcs_proxy.faults[:] = [Hang(matches=of(name), first=2)]
        async with ArtifactRepository(f"gs://{bucket}", transfer=WITHOUT_PARTS) as repository:
            backend, transfer, _ = repository._state()
            backend.request_timeout = transfer.request_timeout = 0.3
            await repository.log_artifact(large)
            await repository.log_artifact(large.parent / "small")
            assert len(await repository.list_artifacts()) == 2
        assert gcs_proxy.faults[0].count == 2


async def test_every_request_goes_where_the_variable_says(
    gcs_proxy: FaultProxy, bucket: str, large: Path, tmp_path: Path
) -> None:
    """The emulator answers with addresses of its own, which go unused."""
    for options in (QUICK, WITHOUT_PARTS):
        before = len(gcs_proxy.requests)
        async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
            await repository.log_artifact(large)
            await repository.download_artifacts("large.bin", tmp_path / "down")
        assert {r.headers["host"] for r in gcs_proxy.requests[before:]} == {gcs_proxy.address}
        assert {"media", "look"} <= set(operations(gcs_proxy)[before:])


@pytest.mark.parametrize("options", [QUICK, WITHOUT_PARTS], ids=["parts", "whole"])
async def test_a_bucket_that_does_not_exist(
    options: TransferOptions, gcs_proxy: FaultProxy, large: Path, tmp_path: Path
) -> None:
    async with ArtifactRepository("gs://no-such-bucket/p", transfer=options) as repository:
        for call in (
            repository.write_bytes("x", b""),
            repository.log_artifact(large),
            repository.list_artifacts(),
            repository.read_bytes("x"),
            repository.download_artifacts("x", tmp_path / "down"),
            repository.download_artifacts(None, tmp_path / "down"),
        ):
            with pytest.raises(NotFoundError, match="no-such-bucket"):
                await call


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, refusal(400, "bad"), InvalidParameterError),
        (403, refusal(403, "denied"), PermissionDeniedError),
        (404, b"", NotFoundError),
        (412, b"", IntegrityError),
        (409, refusal(409, "conflict"), AsyncStoreError),
        (400, b"[]", InvalidParameterError),
        (400, b'{"error": "text"}', InvalidParameterError),
        (503, refusal(503, "busy"), UnavailableError),
        (200, refusal(403, "denied"), PermissionDeniedError),
        (200, b'{"error": "odd"}', UnavailableError),
        (200, b"[]", UnavailableError),
    ],
)
async def test_refusals(
    status: int, body: bytes, kind: type[AsyncStoreError], gcs_proxy: FaultProxy, bucket: str
) -> None:
    gcs_proxy.faults.append(Answer(matches=of("insert"), status=status, body=body))
    async with ArtifactRepository(f"gs://{bucket}/p", transfer=QUICK) as repository:
        with pytest.raises(kind, match=f"gs://{bucket}/p/x") as raised:
            await repository.write_bytes("x", b"1")
    assert type(raised.value) is kind
