"""Uploads to Google Cloud Storage, seen by a recording proxy in front of the emulator."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    PermissionDeniedError,
    UnavailableError,
)
from asyncstore.files.writing import STAGED_SUFFIX
from asyncstore.testing.conformance import Progress
from asyncstore.testing.fault_proxy import Answer, Fault, FaultProxy, Hang, Request, Reset, Truncate
from tests.artifacts.conftest import LARGE, MIB, QUICK
from tests.artifacts.gcs_fixtures import (
    bucket,
    emulator,
    gcs_proxy,
    object_name,
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


def sent(proxy: FaultProxy, name: str) -> list[str]:
    """Which objects the requests of one kind were about."""
    return [object_name(request) for request in only(proxy, name)]


# Small files


async def test_a_small_file_is_one_request(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_bytes(b"<html>")
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "unknown").write_bytes(b"?")
    async with ArtifactRepository(f"gs://{bucket}/p", transfer=QUICK) as repository:
        await repository.log_artifacts(tmp_path)
    assert operations(gcs_proxy) == ["insert"] * 3
    kinds = {
        name: (found["contentType"], found.get("contentEncoding"))
        for name in ("report.html", "packed.json.gz", "unknown")
        for found in [emulator.resource(bucket, f"p/{name}")]
    }
    # As MLflow stores them: an encoding would make the server decompress what is downloaded.
    assert kinds == {
        "report.html": ("text/html", None),
        "packed.json.gz": ("application/json", None),
        "unknown": ("application/octet-stream", None),
    }


async def test_requests_at_once_and_over_few_connections(
    gcs_proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    for number in range(200):
        (tmp_path / str(number)).write_bytes(os.urandom(1000))
    gcs_proxy.latency = 0.01
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        await repository.log_artifacts(tmp_path)
        assert gcs_proxy.peak_requests_in_flight > 20
        await repository.download_artifacts(None, tmp_path / "down")
        await repository.delete_artifacts()
        assert gcs_proxy.connections_opened <= 2 * 64
    assert len(gcs_proxy.requests) > 600


@pytest.mark.parametrize("size", [100, LARGE])
async def test_content_that_arrives_changed_is_refused(
    size: int,
    bucket: str,
    emulator: GcsEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checksum is of what should have been sent."""

    async def other(data: bytes | memoryview) -> str:
        return "AAAAAA=="

    monkeypatch.setattr("asyncstore.backends.gcs.crc32c", other)
    monkeypatch.setattr("asyncstore.backends.gcs_composite.crc32c", other)
    (tmp_path / "f").write_bytes(os.urandom(size))
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError) as raised:
            await repository.log_artifact(tmp_path / "f")
    assert raised.value.error_code == "DATA_LOSS"
    assert emulator.keys(bucket) == []


# Parts


async def test_parts_are_components_that_are_composed_and_deleted(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    gcs_proxy.latency = 0.01
    async with ArtifactRepository(f"gs://{bucket}/p", transfer=QUICK) as repository:
        await repository.log_artifact(large, "sub")
        listed = [entry.path async for entry in repository.walk()]
    assert listed == ["sub/large.bin"]
    assert operations(gcs_proxy)[:-1] == ["part"] * 3 + ["compose"] + ["delete"] * 3
    assert gcs_proxy.peak_requests_in_flight >= 3
    components = sent(gcs_proxy, "part")
    assert all(
        re.fullmatch(rf"p/sub/\.[0-9a-f]{{32}}-0-0000[123]{STAGED_SUFFIX}", name)
        for name in components
    )
    assert sent(gcs_proxy, "compose") == ["p/sub/large.bin"]
    assert sorted(sent(gcs_proxy, "delete")) == sorted(components)
    sizes = sorted(int(r.headers["content-length"]) for r in only(gcs_proxy, "part"))
    assert sizes == [MIB + 7, 5 * MIB, 5 * MIB]
    assert all(r.headers["x-goog-hash"].startswith("crc32c=") for r in only(gcs_proxy, "part"))
    assert emulator.keys(bucket) == ["p/sub/large.bin"]
    assert emulator.get(bucket, "p/sub/large.bin") == large.read_bytes()
    assert emulator.resource(bucket, "p/sub/large.bin")["contentType"] == "application/octet-stream"
    assert emulator.resource(bucket, "p/sub/large.bin")["md5Hash"] is None


async def test_more_components_than_go_at_once_are_composed_in_levels(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, tmp_path: Path
) -> None:
    content = os.urandom(70 * 1000 - 1)
    (tmp_path / "f").write_bytes(content)
    options = dataclasses.replace(QUICK, multipart_upload_chunk_size=1000)
    async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
        await repository.log_artifact(tmp_path / "f")
    assert len(only(gcs_proxy, "part")) == 70
    *middle, last = sent(gcs_proxy, "compose")
    assert (len(middle), last) == (3, "f")
    assert sorted(sent(gcs_proxy, "delete")) == sorted([*sent(gcs_proxy, "part"), *middle])
    assert emulator.keys(bucket) == ["f"]
    assert emulator.get(bucket, "f") == content


async def test_three_levels(bucket: str, emulator: GcsEmulator, tmp_path: Path) -> None:
    content = os.urandom(32 * 32 + 33)
    (tmp_path / "f").write_bytes(content)
    options = dataclasses.replace(QUICK, multipart_upload_chunk_size=1)
    async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
        await repository.log_artifact(tmp_path / "f")
    assert emulator.keys(bucket) == ["f"]
    assert emulator.get(bucket, "f") == content


async def test_components_name_their_generation(
    bucket: str, emulator: GcsEmulator, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is composed is what was sent, and not what another wrote to its name."""
    bodies = []
    from asyncstore.backends.gcs_body import encoded as honest

    def noted(resource: dict[str, Any]) -> bytes:
        bodies.append(resource)
        return honest(resource)

    monkeypatch.setattr("asyncstore.backends.gcs_composite.encoded", noted)
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        await repository.log_artifact(large)
    (body,) = bodies
    sources = body["sourceObjects"]
    assert len(sources) == 3
    for source in sources:
        assert source["generation"].isdigit()
        assert source["objectPreconditions"] == {"ifGenerationMatch": source["generation"]}


@pytest.mark.parametrize(
    "fault",
    [
        Reset(matches=of("part"), of="request", after=3 * MIB, first=2),
        Reset(matches=of("part"), first=2),
        Answer(matches=of("part"), first=3),
        Answer(matches=of("part"), forward=True, first=3),
        Answer(matches=of("part"), status=429, first=2),
        Answer(
            matches=of("part"), status=403, body=refusal(403, "x", "rateLimitExceeded"), first=2
        ),
        Answer(matches=of("part"), status=200, body=BUSY, first=2),
        Answer(matches=of("part"), status=200, body=b"<html>a proxy</html>", first=2),
        Truncate(matches=of("part"), after=5, first=1),
        Answer(matches=of("compose"), first=2),
        Answer(matches=of("compose"), forward=True, first=2),
        Reset(matches=of("compose"), first=1),
        Answer(matches=of("delete"), first=2),
        Answer(matches=of("delete"), forward=True, first=2),
        Answer(matches=of("insert"), first=2),
        Reset(matches=of("insert"), first=1),
    ],
)
async def test_an_upload_survives(
    fault: Fault, gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    (large.parent / "small").write_bytes(b"small")
    gcs_proxy.faults.append(dataclasses.replace(fault))
    progress = Progress()
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        await repository.log_artifacts(large.parent, callback=progress)
    assert gcs_proxy.faults[0].count >= 1
    assert emulator.keys(bucket) == ["large.bin", "small"]
    assert emulator.get(bucket, "large.bin") == large.read_bytes()
    assert progress.size == progress.value == LARGE + 5


async def test_a_component_that_another_replaced_is_not_composed(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    def replace(request: Request) -> bool:
        if operation(request) == "compose":
            emulator.put(bucket, sent(gcs_proxy, "part")[0], b"x")
        return False

    gcs_proxy.faults.append(Answer(matches=replace))
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError, match=r"large\.bin"):
            await repository.log_artifact(large)


@pytest.mark.parametrize("name", ["part", "compose"])
async def test_a_failed_upload_leaves_nothing(
    name: str, gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    emulator.put(bucket, "large.bin", b"the old one")
    gcs_proxy.faults.append(
        Answer(matches=of(name), status=403, body=refusal(403, "no such permission"), every=2)
        if name == "part"
        else Answer(matches=of(name), status=403, body=refusal(403, "no such permission"))
    )
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(PermissionDeniedError, match=r"large\.bin.*no such permission"):
            await repository.log_artifact(large)
    assert emulator.keys(bucket) == ["large.bin"]
    assert emulator.get(bucket, "large.bin") == b"the old one"


async def test_components_that_may_not_be_deleted(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    """A bucket with a retention policy: the error says what there is, and the way out."""
    gcs_proxy.faults.append(Answer(matches=of("delete"), status=403, body=refusal(403, "retained")))
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        with pytest.raises(
            PermissionDeniedError, match=r"is stored.*MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"
        ):
            await repository.log_artifact(large)
        assert [entry.path async for entry in repository.walk()] == ["large.bin"]
        assert await repository.list_artifacts() != []
        gcs_proxy.faults.clear()
        await repository.delete_artifacts("large.bin")
        assert len(emulator.keys(bucket)) == 3
        assert [entry async for entry in repository.walk()] == []
        # What uploads left goes with the directory.
        await repository.delete_artifacts()
    assert emulator.keys(bucket) == []


async def test_what_a_killed_upload_left_is_no_directory(
    bucket: str, emulator: GcsEmulator
) -> None:
    emulator.put(bucket, f"a/.0123-0-00001{STAGED_SUFFIX}", b"x")
    emulator.put(bucket, "marked/", b"")
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        assert not await repository.exists("a")
        assert await repository.exists("marked")
        assert await repository.list_artifacts("a") == []
        assert await repository.list_artifacts("marked") == []
        await repository.delete_artifacts("marked")
        assert not await repository.exists("marked")
        await repository.delete_artifacts()
    assert emulator.keys(bucket) == []


# One resumable upload


async def test_without_parts_a_file_goes_in_one_resumable_upload(
    gcs_proxy: FaultProxy,
    bucket: str,
    emulator: GcsEmulator,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", str(768 * KIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(500 * MIB))
    async with ArtifactRepository(f"gs://{bucket}") as repository:
        assert repository.capabilities.upload_chunk_size == 768 * KIB
        await repository.log_artifact(large)
    chunks = only(gcs_proxy, "chunk")
    assert operations(gcs_proxy) == ["start", *["chunk"] * len(chunks)]
    starts = range(0, LARGE, 768 * KIB)
    assert [request.headers["content-range"] for request in chunks] == [
        f"bytes {start}-{min(start + 768 * KIB, LARGE) - 1}/{LARGE}" for start in starts
    ]
    assert [request.status for request in chunks] == [308] * (len(chunks) - 1) + [200]
    (start,) = only(gcs_proxy, "start")
    assert start.headers["x-upload-content-length"] == str(LARGE)
    assert emulator.get(bucket, "large.bin") == large.read_bytes()


async def test_the_chunk_variable_is_also_the_size_of_parts(
    gcs_proxy: FaultProxy, bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", str(4 * MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(6 * MIB))
    async with ArtifactRepository(f"gs://{bucket}") as repository:
        await repository.log_artifact(large)
    sizes = sorted(int(r.headers["content-length"]) for r in only(gcs_proxy, "part"))
    assert sizes == [3 * MIB + 7, 4 * MIB, 4 * MIB]


@pytest.mark.parametrize("name", ["MLFLOW_GCS_UPLOAD_CHUNK_SIZE", "MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE"])
@pytest.mark.parametrize("value", ["1", "0", "-262144", "262145", "many"])
async def test_a_chunk_size_that_is_none(
    name: str, value: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidParameterError, match=rf"{name}.*multiple of 262144"):
        async with ArtifactRepository(f"gs://{bucket}"):
            pass


@pytest.mark.parametrize(
    "fault",
    [
        Reset(matches=of("chunk"), of="request", after=400 * KIB, first=2),
        Reset(matches=of("chunk"), first=2),
        Answer(matches=of("chunk"), first=2),
        # The answer is lost, and the server has the chunk.
        Answer(matches=of("chunk"), forward=True, first=1),
        Answer(matches=of("chunk"), forward=True, every=5),
        Truncate(matches=of("chunk"), first=1),
        # The upload is gone.
        Answer(matches=of("chunk"), status=410, every=4, first=8),
        Answer(matches=of("start"), first=2),
        Answer(matches=of("start"), status=200, body=b"", first=1),
    ],
)
async def test_a_resumable_upload_survives(
    fault: Fault,
    gcs_proxy: FaultProxy,
    bucket: str,
    emulator: GcsEmulator,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", str(MIB))
    gcs_proxy.faults.append(dataclasses.replace(fault))
    progress = Progress()
    options = dataclasses.replace(WITHOUT_PARTS, multipart_upload_chunk_size=None)
    async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
        await repository.log_artifact(large, callback=progress)
    assert gcs_proxy.faults[0].count >= 1
    assert emulator.keys(bucket) == ["large.bin"]
    assert emulator.get(bucket, "large.bin") == large.read_bytes()
    assert progress.value == LARGE


@pytest.mark.parametrize("lost", [1, 3, 12])
async def test_a_resumable_upload_goes_on_where_the_server_says(
    lost: int, gcs_proxy: FaultProxy, bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has the chunk whose answer is lost: it is asked, and nothing is sent twice."""
    monkeypatch.setenv("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", str(MIB))
    fault = Answer(matches=of("chunk"), forward=True, every=lost, first=lost)
    gcs_proxy.faults.append(fault)
    options = dataclasses.replace(WITHOUT_PARTS, multipart_upload_chunk_size=None)
    async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
        await repository.log_artifact(large)
    assert fault.count == 1
    ranges = [request.headers["content-range"] for request in only(gcs_proxy, "chunk")]
    assert ranges[lost] == f"bytes */{LARGE}"
    del ranges[lost]
    assert ranges == [
        f"bytes {start}-{min(start + MIB, LARGE) - 1}/{LARGE}" for start in range(0, LARGE, MIB)
    ]
    assert len(only(gcs_proxy, "start")) == 1
    # The last answer was lost: that upload is not known any more, and the object is looked at.
    assert operations(gcs_proxy).count("look") == (1 if lost == 12 else 0)


async def test_a_server_that_keeps_nothing_ends_the_upload(
    gcs_proxy: FaultProxy, bucket: str, large: Path
) -> None:
    gcs_proxy.faults.append(Answer(matches=of("chunk"), status=308, body=b""))
    async with ArtifactRepository(f"gs://{bucket}", transfer=WITHOUT_PARTS) as repository:
        with pytest.raises(UnavailableError, match="kept nothing"):
            await repository.log_artifact(large)
    assert len(only(gcs_proxy, "chunk")) == QUICK.retry.attempts
    assert [request.status for request in only(gcs_proxy, "cancel")] == [499]


@pytest.mark.parametrize("chunks", [1, 3])
async def test_a_cancelled_resumable_upload_is_deleted(
    chunks: int,
    gcs_proxy: FaultProxy,
    bucket: str,
    emulator: GcsEmulator,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", str(MIB))
    gcs_proxy.faults.append(Hang(matches=lambda r: len(only(gcs_proxy, "chunk")) == chunks))
    options = dataclasses.replace(WITHOUT_PARTS, multipart_upload_chunk_size=None)
    async with ArtifactRepository(f"gs://{bucket}", transfer=options) as repository:
        task = asyncio.ensure_future(repository.log_artifact(large))
        while len(only(gcs_proxy, "chunk")) < chunks:
            await asyncio.sleep(0.001)
        gcs_proxy.faults.clear()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert [request.status for request in only(gcs_proxy, "cancel")] == [499]
    assert emulator.keys(bucket) == []


async def test_a_file_that_changes_during_a_resumable_upload_is_not_stored(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    def change(request: object) -> bool:
        if only(gcs_proxy, "chunk"):
            with large.open("ab") as file:
                file.write(b"x")
        return False

    gcs_proxy.faults.append(Answer(matches=change))
    gcs_proxy.bytes_per_second = 30_000_000
    async with ArtifactRepository(f"gs://{bucket}", transfer=WITHOUT_PARTS) as repository:
        with pytest.raises(IntegrityError, match=r"large\.bin"):
            await repository.log_artifact(large)
    assert [request.status for request in only(gcs_proxy, "cancel")] == [499]
    assert emulator.keys(bucket) == []


async def test_an_upload_whose_address_names_another_host_stays_here(
    gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    """Nor does its address, which lets anybody write, appear in an error."""
    location = (
        "http://elsewhere.invalid/upload/storage/v1/b/x/o?uploadType=resumable&upload_id=s3cret"
    )
    gcs_proxy.faults += [
        Answer(matches=of("start"), status=200, headers={"Location": location}, body=b""),
        Answer(matches=of("chunk"), status=400, body=refusal(400, "no")),
    ]
    async with ArtifactRepository(f"gs://{bucket}", transfer=WITHOUT_PARTS) as repository:
        with pytest.raises(InvalidParameterError) as raised:
            await repository.log_artifact(large)
    assert [query(request)["upload_id"] for request in only(gcs_proxy, "chunk")] == ["s3cret"]
    assert "s3cret" not in f"{raised.value!r}{raised.value}{raised.value.__cause__!r}"
