"""S3 when the network or the server fails, through the fault proxy in front of radosgw."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    OperationTimeoutError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance import Progress
from asyncstore.testing.fault_proxy import (
    INTERNAL_ERROR,
    Answer,
    Fault,
    FaultProxy,
    Hang,
    Request,
    Reset,
    Truncate,
)
from tests.artifacts.conftest import LARGE, MIB, QUICK
from tests.artifacts.test_s3_wire import only, operation, operations

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio


def of(name: str) -> Callable[[Request], bool]:
    """Matches the requests of one kind."""
    return lambda request: operation(request) == name


def page(request: Request) -> bool:
    """Matches a page of a listing, not the look whether there is anything."""
    looks = parse_qs(request.query).get("max-keys") == ["1"]
    return operation(request) == "ListObjectsV2" and not looks


UPLOAD_FAULTS = [
    Reset(matches=of("UploadPart"), of="request", after=3 * MIB, first=2),
    Reset(matches=of("UploadPart"), of="request", first=1),
    Reset(matches=of("UploadPart"), first=2),
    Truncate(matches=of("UploadPart"), first=1),
    Answer(matches=of("UploadPart"), first=3),
    Answer(matches=of("UploadPart"), first=1, forward=True),
    Answer(matches=of("CreateMultipartUpload"), first=2),
    Answer(matches=of("CreateMultipartUpload"), status=500, body=INTERNAL_ERROR, first=1),
    Answer(matches=of("CompleteMultipartUpload"), first=2),
    Answer(matches=of("CompleteMultipartUpload"), status=200, body=INTERNAL_ERROR, first=2),
    # The upload is complete, but its answer is lost.
    Reset(matches=of("CompleteMultipartUpload"), first=1),
    Answer(matches=of("CompleteMultipartUpload"), first=1, forward=True),
    Answer(matches=of("PutObject"), first=2),
    Reset(matches=of("PutObject"), of="request", after=2, first=1),
]


def described(fault: Fault) -> str:
    told = {k: v for k, v in vars(fault).items() if k in ("of", "after", "status", "forward")}
    return f"{type(fault).__name__}{list(told.values())}"


@pytest.mark.parametrize("fault", UPLOAD_FAULTS, ids=described)
async def test_an_upload_survives(
    fault: Fault,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    large: Path,
) -> None:
    (large.parent / "small").write_bytes(b"small")
    proxy.faults.append(dataclasses.replace(fault))
    progress = Progress()
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        await repository.log_artifacts(large.parent, callback=progress)
    assert proxy.faults[0].count >= 1
    assert radosgw.keys(s3_bucket) == ["large.bin", "small"]
    stored = radosgw.client.get_object(Bucket=s3_bucket, Key="large.bin")["Body"].read()
    assert stored == large.read_bytes()
    assert radosgw.open_multipart_uploads(s3_bucket) == []
    assert progress.size == progress.value == LARGE + 5


@pytest.mark.parametrize(
    "fault",
    [
        Answer(matches=of("PutObject"), first=2),
        Reset(matches=of("PutObject"), of="request", after=7 * MIB, first=1),
        Reset(matches=of("PutObject"), first=1),
    ],
    ids=described,
)
async def test_an_upload_in_one_request_survives(
    fault: Fault, proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, large: Path
) -> None:
    """Each attempt sends the file from its beginning."""
    proxy.faults.append(dataclasses.replace(fault))
    options = dataclasses.replace(QUICK, multipart_upload_minimum_file_size=100 * MIB)
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        await repository.log_artifact(large)
    assert set(operations(proxy)) == {"PutObject"}
    assert proxy.faults[0].count >= 1
    stored = radosgw.client.get_object(Bucket=s3_bucket, Key="large.bin")["Body"].read()
    assert stored == large.read_bytes()


@pytest.mark.parametrize(
    "fault",
    [
        Reset(matches=of("GetObject"), after=100_000, first=3),
        Reset(matches=of("GetObject"), first=2),
        Truncate(matches=of("GetObject"), after=1_500_000, first=2),
        Truncate(matches=of("GetObject"), first=1),
        Answer(matches=of("GetObject"), first=3),
        Answer(matches=page, first=2),
        Reset(matches=page, after=10, first=1),
        Answer(matches=of("HeadObject"), first=1),
    ],
    ids=described,
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "ranges"])
async def test_a_download_survives(
    fault: Fault,
    whole: bool,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    tmp_path: Path,
) -> None:
    content = {"large": os.urandom(LARGE), "small": os.urandom(300_000), "empty": b""}
    for name, data in content.items():
        radosgw.client.put_object(Bucket=s3_bucket, Key=f"d/{name}", Body=data)
    proxy.faults.append(dataclasses.replace(fault))
    options = dataclasses.replace(
        QUICK, multipart_download_minimum_file_size=100 * MIB if whole else None
    )
    progress = Progress()
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        local = Path(await repository.download_artifacts("d", tmp_path, callback=progress))
    assert proxy.faults[0].count >= 1
    assert {path.name: path.read_bytes() for path in local.iterdir()} == content
    assert progress.size == progress.value == LARGE + 300_000


async def test_a_broken_stream_goes_on_where_it_broke(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, tmp_path: Path
) -> None:
    content = os.urandom(10 * MIB)
    radosgw.client.put_object(Bucket=s3_bucket, Key="f", Body=content)
    proxy.faults.append(Truncate(matches=of("GetObject"), after=7 * MIB, first=1))
    options = dataclasses.replace(QUICK, multipart_download_minimum_file_size=100 * MIB)
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        local = await repository.download_artifacts("f", tmp_path)
    assert Path(local).read_bytes() == content
    ranges = [request.headers.get("range") for request in only(proxy, "GetObject")]
    assert ranges[0] is None
    resumed = int(str(ranges[1]).removeprefix("bytes=").removesuffix("-").partition("-")[0])
    assert 5 * MIB < resumed <= 7 * MIB


async def test_retry_after_is_respected(
    proxy: FaultProxy, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sleep = anyio.sleep

    async def note(delay: float) -> None:
        waits.append(delay)
        await sleep(0)

    monkeypatch.setattr("asyncstore.retry.anyio.sleep", note)
    proxy.faults.append(Answer(headers={"Retry-After": "3"}, first=2))
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        await repository.write_bytes("x", b"")
    assert waits == [3.0, 3.0]


async def test_a_server_that_stays_overloaded(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, large: Path
) -> None:
    proxy.faults.append(Answer(matches=of("UploadPart")))
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(UnavailableError, match=r"upload_part.*large\.bin.*SlowDown"):
            await repository.log_artifact(large)
    assert max(_counts(only(proxy, "UploadPart"))) == QUICK.retry.attempts
    assert radosgw.keys(s3_bucket) == radosgw.open_multipart_uploads(s3_bucket) == []


def _counts(requests: list[Request]) -> list[int]:
    queries = [request.query for request in requests]
    return [queries.count(query) for query in set(queries)]


async def test_an_upload_that_cannot_be_removed_says_so_and_why_it_failed(
    proxy: FaultProxy, s3_bucket: str, large: Path
) -> None:
    proxy.faults += [
        Answer(
            matches=of("UploadPart"), status=403, body=b"<Error><Code>AccessDenied</Code></Error>"
        ),
        Answer(matches=of("AbortMultipartUpload")),
    ]
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(PermissionError, match="AccessDenied") as raised:
            await repository.log_artifact(large)
    (note,) = raised.value.__notes__
    assert "could not be removed" in note
    assert "abort_multipart_upload" in note


async def test_a_cancellation_is_not_lost_when_the_abort_fails(
    proxy: FaultProxy, s3_bucket: str, large: Path
) -> None:
    proxy.faults += [
        Hang(matches=of("UploadPart")),
        Answer(matches=of("AbortMultipartUpload")),
    ]
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        task = asyncio.ensure_future(repository.log_artifact(large))
        while not only(proxy, "UploadPart"):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@pytest.mark.parametrize("how", ["hang", "slow"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_deadline(
    how: str,
    direction: str,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Nothing is left on either side, and the error says what to do."""
    radosgw.client.put_object(Bucket=s3_bucket, Key="there", Body=bytes(LARGE))
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "1")
    if how == "hang":
        proxy.faults.append(Hang(matches=lambda r: operation(r) in ("UploadPart", "GetObject")))
    else:
        proxy.bytes_per_second = 500_000
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        call = (
            repository.log_artifact(large)
            if direction == "up"
            else repository.download_artifacts("there", tmp_path / "down")
        )
        with pytest.raises(
            OperationTimeoutError, match=r"1 s.*MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"
        ) as raised:
            await call
        assert raised.value.error_code == "DEADLINE_EXCEEDED"
    assert radosgw.open_multipart_uploads(s3_bucket) == []
    assert radosgw.keys(s3_bucket) == ["there"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [large]


async def test_an_endpoint_that_is_down(
    s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{address}")
        options = TransferOptions(retry=RetryPolicy(attempts=2, backoff=0.01))
        (tmp_path / "x").touch()
        async with ArtifactRepository("s3://bucket/p", transfer=options) as repository:
            for call in (
                repository.log_artifact(tmp_path / "x"),
                repository.log_artifacts(tmp_path),
                repository.download_artifacts("x", tmp_path),
                repository.list_artifacts(),
                repository.exists("x"),
                repository.delete_artifacts("x"),
            ):
                with pytest.raises(UnavailableError, match=address) as raised:
                    await call
                assert raised.value.error_code == "TEMPORARILY_UNAVAILABLE"


async def test_a_name_that_does_not_resolve(
    s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://nowhere.invalid:1")
    options = TransferOptions(retry=RetryPolicy(attempts=1))
    async with ArtifactRepository("s3://bucket", transfer=options) as repository:
        with pytest.raises(UnavailableError, match=r"nowhere\.invalid"):
            await repository.list_artifacts()


async def test_an_endpoint_that_is_no_url(
    s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "not a url")
    with pytest.raises(InvalidParameterError, match="not a url"):
        async with ArtifactRepository("s3://bucket") as repository:
            await repository.list_artifacts()


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
async def test_wrong_keys(
    name: str,
    proxy: FaultProxy,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    large: Path,
) -> None:
    monkeypatch.setenv(name, "S3CR3T-but-wrong")
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        for call in (
            repository.write_bytes("x", b""),
            repository.log_artifact(large),
            repository.list_artifacts(),
            repository.read_bytes("x"),
            repository.download_artifacts("x", tmp_path),
            repository.exists("x"),
            repository.delete_artifacts("x"),
        ):
            with pytest.raises(UnauthenticatedError) as raised:
                await call
            assert raised.value.error_code == "UNAUTHENTICATED"
            assert "S3CR3T" not in str(raised.value)
    # None of them is worth a second try.
    assert len(proxy.requests) <= 7 + 3


async def test_no_keys_at_all(
    s3_env: dict[str, str], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(UnauthenticatedError, match="AWS_ACCESS_KEY_ID"):
            await repository.list_artifacts()


async def test_a_bucket_that_does_not_exist(proxy: FaultProxy, large: Path, tmp_path: Path) -> None:
    async with ArtifactRepository("s3://no-such-bucket/p", transfer=QUICK) as repository:
        for call in (
            repository.write_bytes("x", b""),
            repository.log_artifact(large),
            repository.log_artifacts(tmp_path),
            repository.list_artifacts(),
            repository.read_bytes("x"),
            repository.download_artifacts("x", tmp_path / "down"),
            repository.download_artifacts(None, tmp_path / "down"),
        ):
            with pytest.raises(NotFoundError, match="no-such-bucket") as raised:
                await call
            assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    # None of them is worth a second try.
    assert len(proxy.requests) <= 12


async def test_a_corrupted_body_is_refused(
    s3_env: dict[str, str],
    s3_bucket: str,
    radosgw: RadosGateway,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What arrives is not what the MD5 was taken of."""
    backend = "asyncstore.backends.s3"
    from asyncstore.backends.http_body import body as honest

    monkeypatch.setattr(f"{backend}.body", lambda data: honest(bytes(len(data))))
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        for call in (repository.log_artifact(large), repository.write_bytes("x", b"content")):
            with pytest.raises(IntegrityError) as raised:
                await call
            assert raised.value.error_code == "DATA_LOSS"
    assert radosgw.keys(s3_bucket) == radosgw.open_multipart_uploads(s3_bucket) == []


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_file_that_changes_on_the_storage_while_it_is_received(
    size: int, proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, tmp_path: Path
) -> None:
    radosgw.client.put_object(Bucket=s3_bucket, Key="f", Body=bytes(size))
    replaced = False

    def replace(request: Request) -> bool:
        nonlocal replaced
        if operation(request) == "GetObject" and not replaced:
            replaced = True
            radosgw.client.put_object(Bucket=s3_bucket, Key="f", Body=b"x" * size)
        return False

    proxy.faults.append(Answer(matches=replace))
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError):
            await repository.download_artifacts("f", tmp_path / "down")
    assert replaced
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_one_file_that_fails_ends_the_others(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(6 * MIB if number == 3 else 10))
    proxy.faults.append(
        Answer(
            matches=lambda r: r.path.endswith("/7.bin"),
            status=403,
            body=b"<Error><Code>AccessDenied</Code></Error>",
        )
    )
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(AsyncStoreError, match=r"7\.bin.*AccessDenied"):
            await repository.log_artifacts(tmp_path)
        assert proxy.requests_in_flight == 0
    assert radosgw.open_multipart_uploads(s3_bucket) == []
