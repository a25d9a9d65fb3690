"""HDFS, on Hadoop's NameNode and DataNode."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

import pytest

from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import FaultProxy
from tests.servers.base import HOST
from tests.servers.hdfs import HDFS
from tests.servers.running import running

pytestmark = pytest.mark.anyio
_numbers = itertools.count()


@pytest.fixture(scope="module")
def hdfs() -> Iterator[HDFS]:
    # Files of the tests have several blocks.
    yield from running(HDFS({"dfs.blocksize": str(4 * 1024 * 1024)}))


class RawHDFS:
    """A directory, by hdfs-native's synchronous client."""

    def __init__(self, uri: str, root: str) -> None:
        from hdfs_native import Client, WriteOptions

        self._client = Client(uri)
        self._options = WriteOptions(overwrite=True, create_parent=True)
        self._root = root

    def put(self, path: str, data: bytes) -> None:
        with self._client.create(f"{self._root}/{path}", self._options) as file:
            file.write(data)

    def get(self, path: str) -> bytes:
        return self._client.read(f"{self._root}/{path}").read()

    def paths(self) -> list[str]:
        """All files, those that are being written among them."""
        try:
            found = list(self._client.list_status(self._root, True))
        except FileNotFoundError:
            return []
        return sorted(item.path.removeprefix(f"{self._root}/") for item in found if not item.isdir)


@pytest.fixture(scope="module")
def delayed(hdfs: HDFS) -> Iterator[str]:
    """The NameNode at a little distance.

    Where the close of a file overtakes the DataNode's report of its block, the library waits for
    half a second; from afar it does not.
    """
    with FaultProxy(f"{HOST}:{hdfs.port}", http=False, latency=0.004) as proxy:
        yield f"hdfs://{proxy.address}"


@pytest.fixture
def root() -> str:
    return f"/root-{next(_numbers)}/ü %41"


class TestHDFS(ArtifactRepositoryTests):
    storage: ClassVar[str] = "HDFS"
    server: ClassVar[str] = "Hadoop"
    # hdfs-native has threads of its own, and locks that a fork may copy taken.
    forks = False
    directories = True

    @pytest.fixture
    def artifact_uri(self, delayed: str, root: str) -> str:
        return f"{delayed}{root}"

    @pytest.fixture
    def raw(self, delayed: str, root: str) -> RawStorage:
        return RawHDFS(delayed, root)

    @pytest.fixture
    def proxy(self, hdfs: HDFS) -> Iterator[FaultProxy]:
        with FaultProxy(f"{HOST}:{hdfs.port}", http=False) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, proxy: FaultProxy, root: str) -> Place:
        return Place(f"hdfs://{proxy.address}{root}")
