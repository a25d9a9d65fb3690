"""Google Cloud Storage on gcp-storage-emulator: the shipped suite, URIs and options."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.errors import AsyncStoreError, InvalidParameterError, UnavailableError
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import Answer, FaultProxy
from tests.artifacts.conftest import QUICK
from tests.artifacts.gcs_fixtures import bucket, emulator, of, refusal
from tests.artifacts.test_cancellation import eventually
from tests.servers.gcs import GcsEmulator

__all__ = ["bucket", "emulator"]

pytestmark = pytest.mark.anyio


class RawGcs:
    """A prefix of a bucket, by plain requests."""

    def __init__(self, server: GcsEmulator, bucket: str, prefix: str) -> None:
        self._server = server
        self._bucket = bucket
        self._prefix = prefix

    def put(self, path: str, data: bytes) -> None:
        self._server.put(self._bucket, self._prefix + path, data)

    def get(self, path: str) -> bytes:
        return self._server.get(self._bucket, self._prefix + path)

    def paths(self) -> list[str]:
        keys = self._server.keys(self._bucket, self._prefix)
        return sorted(key.removeprefix(self._prefix) for key in keys)


class TestGcsEmulator(ArtifactRepositoryTests):
    storage = "Google Cloud Storage"
    server = "gcp-storage-emulator"

    @pytest.fixture
    def prefix(self) -> str:
        return "pre fix%2B+/x"

    @pytest.fixture
    def artifact_uri(self, bucket: str, prefix: str) -> str:
        return f"gs://{bucket}/{prefix}"

    @pytest.fixture
    def raw(self, emulator: GcsEmulator, bucket: str, prefix: str) -> RawStorage:
        return RawGcs(emulator, bucket, f"{prefix}/")

    @pytest.fixture
    def proxy(self, emulator: GcsEmulator) -> Iterator[FaultProxy]:
        with FaultProxy(emulator.address) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, proxy: FaultProxy, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"endpoint_url": proxy.url, "token": "anon"})

    @pytest.fixture
    def error_in_200(self) -> Answer:
        return Answer(matches=of("compose"), status=200, body=refusal(503, "backend error"))

    @pytest.fixture
    def wrong_credentials(self, emulator: GcsEmulator, artifact_uri: str) -> Iterator[Place]:
        """The emulator knows none: a proxy refuses in its name."""
        fault = Answer(status=401, body=refusal(401, "Invalid Credentials"))
        with FaultProxy(emulator.address, faults=[fault]) as proxy:
            yield Place(artifact_uri, {"endpoint_url": proxy.url, "token": "ya29.wrong"})


async def test_the_plain_filesystem_of_gcsfs(bucket: str, emulator: GcsEmulator) -> None:
    """The one that `import gcsfs` offers asks every bucket for its type, by gRPC."""
    async with ArtifactRepository(f"gcs://{bucket}/p") as repository:
        assert type(repository.fs).__module__ == "gcsfs.core"
        await repository.write_bytes("x", b"1")
        assert await repository.fs._cat_file(f"{bucket}/p/x") == b"1"


async def test_a_host_without_a_scheme(
    bucket: str, emulator: GcsEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.address)
    async with ArtifactRepository(f"gs://{bucket}/") as repository:
        await repository.write_bytes("x", b"1")
    assert emulator.keys(bucket) == ["x"]


async def test_a_proxy_of_the_environment(
    bucket: str, emulator: GcsEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person behind one reaches the storage, and its password is not shown."""
    with FaultProxy(emulator.address) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:s3cret@{proxy.address}")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.example")
        async with ArtifactRepository(f"gs://{bucket}") as repository:
            with pytest.raises(AsyncStoreError) as raised:
                await repository.read_bytes("x")
        assert "s3cret" not in str(raised.value)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        async with ArtifactRepository(f"gs://{bucket}") as repository:
            await repository.write_bytes("x", b"1")
    (request,) = proxy.requests
    assert request.headers["host"] == "storage.example"
    assert request.headers["proxy-authorization"].startswith("Basic ")


async def test_a_server_that_restarts(bucket: str, emulator: GcsEmulator) -> None:
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        await repository.write_bytes("x", b"1")
        emulator.restart()
        emulator.create_bucket(bucket)
        await repository.write_bytes("y", b"2")
        assert [entry.path for entry in await repository.list_artifacts()] == ["y"]


async def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
        (tmp_path / "x").touch()
        options = TransferOptions(retry=RetryPolicy(attempts=2, backoff=0.01))
        async with ArtifactRepository("gs://bucket/p", transfer=options) as repository:
            for call in (
                repository.log_artifact(tmp_path / "x"),
                repository.download_artifacts("x", tmp_path),
                repository.list_artifacts(),
                repository.exists("x"),
                repository.delete_artifacts("x"),
            ):
                with pytest.raises(UnavailableError, match=address):
                    await call


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("gs://", "names no bucket"),
        ("gs:///path", "names no bucket"),
        ("gs:bucket/path", "names no bucket"),
        ("gs:/bucket/path", "names no bucket"),
        ("gcs://", "names no bucket"),
        ("gs://user@bucket/path", "without user and port"),
        ("gs://user:s3cret@bucket/path", "without user and port"),
        ("gs://bucket:9000/path", "without user and port"),
        ("gs://bucket:port/path", "without user and port"),
        ("gs://Bucket/path", "no name of a bucket"),
        ("gs://b/path", "no name of a bucket"),
        ("gs://bu%63ket/path", "no name of a bucket"),
        ("gs://.bucket/path", "no name of a bucket"),
        ("gs://bucket?x/path", "no name of a bucket"),
        ("gs://bucket/path?x=1", "no '\\?'"),
        ("gs://bucket/path#1", "no '\\?'"),
        ("gs://bucket/../other", "no '..'"),
        ("gs://bucket/a/%2e%2e/b", "no '..'"),
        ("gs://bucket/a%2fb", "decodes to a slash"),
        ("gs://bucket/a%252fb", "decodes to a slash"),
        ("gs://bucket/a\\b", "no backslash"),
    ],
)
async def test_uris_that_are_refused(uri: str, says: str) -> None:
    with pytest.raises(InvalidParameterError, match=says) as raised:
        await ArtifactRepository(uri).open()
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tokn": "x"}, "no option tokn"),
        ({"asynchronous": False}, "no option asynchronous"),
        ({"access": "everything"}, "access must be one of"),
        ({"endpoint_url": "not a url"}, "no endpoint"),
        ({"endpoint_url": "ftp://host"}, "no endpoint"),
        ({"endpoint_url": "http://me:s3cret@host"}, "no endpoint"),
        ({"endpoint_url": "http://host:port"}, "no endpoint"),
        ({"endpoint_url": 7}, "no endpoint"),
        ({"session_kwargs": {"nonsense": 1}}, "nonsense"),
    ],
)
async def test_options_that_are_refused(options: dict[str, Any], says: str, bucket: str) -> None:
    repository = ArtifactRepository(f"gs://{bucket}", storage_options=options)
    with pytest.raises(InvalidParameterError, match=says) as raised:
        await repository.open()
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("host", ["not a url", "http://", "http://host:port", "ftp://host"])
async def test_an_emulator_that_is_no_address(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    with pytest.raises(InvalidParameterError, match="STORAGE_EMULATOR_HOST"):
        await ArtifactRepository("gs://bucket").open()


async def test_another_root_of_the_same_storage(bucket: str, emulator: GcsEmulator) -> None:
    other = emulator.create_bucket()
    async with ArtifactRepository(f"gs://{bucket}/a") as repository:
        elsewhere = repository.at(f"gcs://{other}/b")
        assert elsewhere is not None
        await elsewhere.write_bytes("x", b"1")
        assert emulator.keys(other) == ["b/x"]
        assert repository.at("s3://bucket") is None
        with pytest.raises(InvalidParameterError):
            repository.at("gs://")


async def test_closing_leaves_nothing(bucket: str, emulator: GcsEmulator) -> None:
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    with FaultProxy(emulator.address) as proxy:
        threads += 1
        options = {"endpoint_url": proxy.url, "token": "anon"}
        async with ArtifactRepository(f"gs://{bucket}", storage_options=options) as repository:
            await asyncio.gather(*(repository.write_bytes(f"{n}", b"1") for n in range(20)))
            assert proxy.connections > 1
        assert asyncio.all_tasks() <= tasks
        assert not [t for t in threading.enumerate() if t.name.startswith("asyncio_")]
        await eventually(lambda: proxy.connections == 0)
