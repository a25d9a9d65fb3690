"""Google Cloud Storage on gcp-storage-emulator: the shipped suite."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import Answer, FaultProxy
from tests.servers.gcs import GcsEmulator
from tests.servers.running import running

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def emulator() -> Iterator[GcsEmulator]:
    yield from running(GcsEmulator())


@pytest.fixture
def bucket(emulator: GcsEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of the emulator, to which the variable leads."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    bucket = emulator.create_bucket()
    yield bucket
    emulator.wipe()


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
    many = 1_050

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
    def wrong_credentials(self, emulator: GcsEmulator, artifact_uri: str) -> Iterator[Place]:
        """The emulator knows none: a proxy refuses in its name."""
        refusal = {"error": {"code": 401, "message": "Invalid Credentials"}}
        fault = Answer(status=401, body=json.dumps(refusal).encode())
        with FaultProxy(emulator.address, faults=[fault]) as proxy:
            yield Place(artifact_uri, {"endpoint_url": proxy.url, "token": "ya29.wrong"})
