"""Every storage, by the shipped suite."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from asyncstore.testing.conformance import ODD_NAMES, ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import INTERNAL_ERROR, Answer, FaultProxy
from tests.artifacts.raw import RawDirectory, RawMemory, RawS3

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway
    from tests.servers.rclone import Rclone

_numbers = itertools.count()


class TestPlainPath(ArtifactRepositoryTests):
    storage = "Local directory, NFS"
    server = "a directory"
    directories = True
    odd_names = (*ODD_NAMES, "line\nbreak", "tab\there", "trailing ", " leading", "\x01")
    many = 10_000

    @pytest.fixture
    def artifact_uri(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        return str(tmp_path_factory.mktemp("root", numbered=True) / "not made yet%20+#")

    @pytest.fixture
    def raw(self, artifact_uri: str) -> RawStorage:
        Path(artifact_uri).mkdir()
        return RawDirectory(Path(artifact_uri))


class TestFileUri(ArtifactRepositoryTests):
    storage = "Local directory, NFS"
    server = "a directory, as file:"
    directories = True

    @pytest.fixture
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("root", numbered=True) / "a b%c"

    @pytest.fixture
    def artifact_uri(self, root: Path) -> str:
        return root.as_uri()

    @pytest.fixture
    def raw(self, root: Path) -> RawStorage:
        root.mkdir()
        return RawDirectory(root)


class TestMemory(ArtifactRepositoryTests):
    storage = "Memory"
    server = "this process"
    many = 2_000

    @pytest.fixture
    def root(self) -> Iterator[str]:
        root = f"/conformance-{next(_numbers)}"
        yield root
        fs = MemoryFileSystem()
        for path in [path for path in fs.store if path.startswith(root)]:
            del fs.store[path]

    @pytest.fixture
    def artifact_uri(self, root: str) -> str:
        return f"memory:/{root}"

    @pytest.fixture
    def raw(self, root: str) -> RawStorage:
        return RawMemory(MemoryFileSystem(), root)


class TestFsspecProtocol(ArtifactRepositoryTests):
    """`local:` is fsspec's own and unknown to asyncstore: it goes by its name alone."""

    storage = "Any fsspec protocol"
    server = "fsspec's local:"

    @pytest.fixture
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("root", numbered=True)

    @pytest.fixture
    def artifact_uri(self, root: Path) -> str:
        return f"local://{root}"

    @pytest.fixture
    def raw(self, root: Path) -> RawStorage:
        return RawDirectory(root)


class ShelfFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A filesystem that somebody registered, with a store of its own."""

    protocol = "shelf"
    store: dict[str, object] = {}  # noqa: RUF012  as in the base class
    pseudo_dirs: list[str] = [""]  # noqa: RUF012  as in the base class

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("shelf://"))
        return stripped


class TestRegisteredFilesystem(ArtifactRepositoryTests):
    storage = "Any fsspec protocol"
    server = "a registered class"

    @pytest.fixture
    def root(self) -> str:
        fsspec.register_implementation("shelf", ShelfFileSystem)
        return f"/conformance-{next(_numbers)}"

    @pytest.fixture
    def artifact_uri(self, root: str) -> str:
        return f"shelf:/{root}"

    @pytest.fixture
    def raw(self, root: str) -> RawStorage:
        return RawMemory(ShelfFileSystem(), root)


class TestRadosGateway(ArtifactRepositoryTests):
    storage = "Amazon S3 and compatible"
    server = "Ceph radosgw"

    @pytest.fixture
    def prefix(self) -> str:
        return "pre fix%2B+/x"

    @pytest.fixture
    def artifact_uri(self, s3_bucket: str, s3_env: dict[str, str], prefix: str) -> str:
        return f"s3://{s3_bucket}/{prefix}"

    @pytest.fixture
    def raw(self, radosgw: RadosGateway, s3_bucket: str, prefix: str) -> RawStorage:
        return RawS3(radosgw, s3_bucket, f"{prefix}/")

    @pytest.fixture
    def proxy(self, radosgw_proxy: FaultProxy) -> FaultProxy:
        return radosgw_proxy

    @pytest.fixture
    def proxied(self, proxy: FaultProxy, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"endpoint_url": proxy.url})

    @pytest.fixture
    def error_in_200(self) -> Answer:
        return Answer(
            status=200,
            body=INTERNAL_ERROR,
            matches=lambda request: request.method == "POST" and "uploadId" in request.query,
        )

    @pytest.fixture
    def wrong_credentials(self, radosgw: RadosGateway, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"key": radosgw.access_key, "secret": "wrong"})


class TestRclone(ArtifactRepositoryTests):
    """A server that knows little of S3 works as it comes."""

    storage = "Amazon S3 and compatible"
    server = "rclone serve s3"

    @pytest.fixture
    def bucket(self, rclone: Rclone, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        for name, value in rclone.environment.items():
            monkeypatch.setenv(name, value)
        bucket = rclone.create_bucket()
        yield bucket
        rclone.discard(bucket)

    @pytest.fixture
    def artifact_uri(self, bucket: str) -> str:
        return f"s3://{bucket}/prefix"

    @pytest.fixture
    def raw(self, rclone: Rclone, bucket: str) -> RawStorage:
        return RawS3(rclone, bucket, "prefix/")

    @pytest.fixture
    def proxy(self, rclone: Rclone) -> Iterator[FaultProxy]:
        with FaultProxy(rclone.address) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, proxy: FaultProxy, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"endpoint_url": proxy.url})

    @pytest.fixture
    def wrong_credentials(self, rclone: Rclone, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"key": rclone.access_key, "secret": "wrong"})
