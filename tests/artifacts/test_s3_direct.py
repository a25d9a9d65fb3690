"""The short way to S3's objects says the same as the client, and gives way to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import UnavailableError
from asyncstore.testing.fault_proxy import INTERNAL_ERROR, Answer, FaultProxy, Request
from tests.artifacts.conftest import QUICK
from tests.artifacts.test_s3_wire import only, operations

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio

#: Different in every request.
PASSING = {"x-amz-date", "amz-sdk-invocation-id", "authorization"}
# What the client alone sends: numbers of its own retries, of which there are none.
CLIENT_ONLY = {"amz-sdk-request", "amz-sdk-invocation-id"}


def said(request: Request) -> dict[str, str]:
    """The headers that are the same when the same is said, and who signed what for where."""
    signed = re.sub(r"/\d{8}/|Signature=.*|SignedHeaders=.*", "/", request.headers["authorization"])
    headers = {
        name: value for name, value in request.headers.items() if name not in PASSING | CLIENT_ONLY
    }
    return {**headers, "authorization": signed}


async def test_it_says_what_the_client_says(
    proxy: FaultProxy, s3_bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
    async with ArtifactRepository(f"s3://{s3_bucket}/p q%2B", transfer=QUICK) as repository:
        direct = repository._state()[0]._direct  # type: ignore[attr-defined]  # S3's own
        for _ in range(2):
            await repository.write_bytes("a b/ü+%41.json", b"{}")
            assert await repository.read_bytes("a b/ü+%41.json") == b"{}"
        assert list(direct._ways) == [s3_bucket]
        await repository.log_artifact(large)
        assert await repository.read_bytes(large.name) == large.read_bytes()
    puts, gets = only(proxy, "PutObject"), only(proxy, "GetObject")
    for first, second in (puts, gets[:2]):
        assert first.path == second.path
        assert "amz-sdk-request" in first.headers or first is gets[0]
        assert "amz-sdk-request" not in second.headers
    assert said(puts[0]) == said(puts[1])
    parts = only(proxy, "UploadPart")
    assert len(parts) == 3
    assert not any("amz-sdk-request" in part.headers for part in parts)
    assert {part.headers["x-amz-expected-bucket-owner"] for part in parts} == {"123456789012"}
    assert all("content-md5" in part.headers for part in parts)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403])
async def test_a_refusal_goes_to_the_client(
    status: int, proxy: FaultProxy, s3_bucket: str, large: Path
) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        await repository.write_bytes("first", b"1")
        await repository.write_bytes("second", b"2")
        refusal = Answer(status=status, body=b"", first=1)
        proxy.faults.append(refusal)
        proxy.requests.clear()
        await repository.write_bytes("third", b"3")
        assert refusal.count == 1
        assert operations(proxy) == ["PutObject", "PutObject"]
        assert "amz-sdk-request" in proxy.requests[1].headers
        assert await repository.read_bytes("third") == b"3"
        # A body that was sent in part is sent again from its beginning.
        proxy.faults[:] = [Answer(status=403, body=b"", every=2, first=3)]
        await repository.log_artifact(large)
        assert await repository.read_bytes(large.name) == large.read_bytes()


@pytest.mark.parametrize(
    "fault",
    [Answer(status=503), Answer(status=500, body=b""), Answer(status=200, body=INTERNAL_ERROR)],
)
async def test_what_passes_is_tried_again(fault: Answer, proxy: FaultProxy, s3_bucket: str) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        await repository.write_bytes("first", b"1")
        fault.first = 2
        proxy.faults.append(fault)
        await repository.write_bytes("x", b"content")
        assert fault.count == 2
        assert await repository.read_bytes("x") == b"content"
        proxy.faults[:] = [Answer(status=200, body=INTERNAL_ERROR)]
        with pytest.raises(UnavailableError, match="InternalError"):
            await repository.write_bytes("x", b"other")
        proxy.faults.clear()
        assert await repository.read_bytes("x") == b"content"


async def test_each_bucket_has_its_own_way(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway
) -> None:
    other_bucket = radosgw.create_bucket()
    try:
        async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
            other = repository.at(f"s3://{other_bucket}/q")
            assert other is not None
            for _ in range(2):
                await repository.write_bytes("x", b"1")
                await other.write_bytes("x", b"2")
            assert await repository.read_bytes("x") == b"1"
            assert await other.read_bytes("x") == b"2"
    finally:
        radosgw.discard(other_bucket)


async def test_what_it_does_not_know_goes_through_the_client(
    proxy: FaultProxy, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"Metadata": {"a": "b"}}')
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        for _ in range(3):
            await repository.write_bytes("x", b"1")
    assert [put.headers["x-amz-meta-a"] for put in only(proxy, "PutObject")] == ["b"] * 3
