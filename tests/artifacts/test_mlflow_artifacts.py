"""Artifacts through a tracking server: asyncstore's own, and one that answers as a test says."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from fsspec.callbacks import Callback

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.backends.mlflow_artifacts import _resolved
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.files.writing import STAGED_SUFFIX
from asyncstore.filesystems.mlflow_artifacts import MlflowArtifactsFileSystem
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance import (
    MIB,
    RawStorage,
)
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.raw import RawDirectory, RawS3
from tests.artifacts.through_server import ThroughServer
from tests.rest.scripted import Answer, Asked, Scripted
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio

QUICK = TransferOptions(retry=RetryPolicy(attempts=2, backoff=0.01))
ARTIFACTS = "/api/2.0/mlflow-artifacts"


@pytest.fixture(scope="module")
def over_directory() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


@pytest.fixture(scope="module")
def module_bucket(radosgw: RadosGateway) -> Iterator[str]:
    bucket = radosgw.create_bucket()
    yield bucket
    radosgw.discard(bucket)


@pytest.fixture(scope="module")
def over_s3(radosgw: RadosGateway, module_bucket: str) -> Iterator[AsyncstoreServer]:
    destination = ("--artifacts-destination", f"s3://{module_bucket}/destination")
    yield from running(AsyncstoreServer(*destination, environment=radosgw.environment))


class TestOverADirectory(ThroughServer):
    server = "asyncstore server over a directory"

    @pytest.fixture
    def tracking_server(self, over_directory: AsyncstoreServer) -> AsyncstoreServer:
        return over_directory

    @pytest.fixture
    def raw(self, over_directory: AsyncstoreServer, prefix: str) -> RawStorage:
        root = over_directory.directory / "mlartifacts" / prefix
        root.mkdir(parents=True)
        return RawDirectory(root, STAGED_SUFFIX)


class TestOverS3(ThroughServer):
    server = "asyncstore server over S3"

    @pytest.fixture
    def tracking_server(self, over_s3: AsyncstoreServer) -> AsyncstoreServer:
        return over_s3

    @pytest.fixture
    def raw(self, radosgw: RadosGateway, module_bucket: str, prefix: str) -> RawStorage:
        return RawS3(radosgw, module_bucket, f"destination/{prefix}/")


class TestPastTheServer:
    """Large files go between the client and S3."""

    @pytest.fixture
    def proxy(self, over_s3: AsyncstoreServer) -> Iterator[FaultProxy]:
        with FaultProxy(over_s3.url.removeprefix("http://")) as proxy:
            yield proxy

    def through(self, proxy: FaultProxy, method: str) -> list[str]:
        """The files that went through the server."""
        return [
            asked.path.rpartition("/")[2]
            for asked in proxy.requests
            if asked.method == method and asked.path.startswith(f"{ARTIFACTS}/artifacts/")
        ]

    async def up_and_down(self, url: str, tmp_path: Path) -> None:
        content = os.urandom(17 * MIB)
        (tmp_path / "large").write_bytes(content)
        (tmp_path / "small").write_bytes(b"small")
        async with ArtifactRepository(
            f"mlflow-artifacts:/{tmp_path.name}/artifacts", storage_options={"tracking_uri": url}
        ) as repository:
            await repository.log_artifact(tmp_path / "large")
            await repository.log_artifact(tmp_path / "small")
            down = Path(await repository.download_artifacts(None, tmp_path / "down"))
            async with repository.open_read("large", start=5, end=9 * MIB) as pieces:
                assert b"".join([piece async for piece in pieces]) == content[5 : 9 * MIB]
        assert (down / "large").read_bytes() == content
        assert (down / "small").read_bytes() == b"small"

    async def test_where_the_server_says_so(self, proxy: FaultProxy, tmp_path: Path) -> None:
        await self.up_and_down(proxy.url, tmp_path)
        assert self.through(proxy, "PUT") == ["small"]
        assert self.through(proxy, "GET") == ["small"]

    async def test_not_where_the_variables_forbid_it(
        self, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "0")
        await self.up_and_down(proxy.url, tmp_path)
        assert self.through(proxy, "PUT") == ["large", "small"]
        assert sorted(self.through(proxy, "GET")) == ["large", "large", "small"]

    async def test_a_storage_without_it_gets_all_through_the_server(
        self,
        over_directory: AsyncstoreServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
        await self.up_and_down(over_directory.url, tmp_path)

    async def test_a_cancelled_upload_leaves_no_parts(
        self, proxy: FaultProxy, radosgw: RadosGateway, module_bucket: str, tmp_path: Path
    ) -> None:
        (tmp_path / "large").write_bytes(os.urandom(40 * MIB))
        async with (
            ArtifactRepository(
                "mlflow-artifacts:/cancelled/artifacts", storage_options={"tracking_uri": proxy.url}
            ) as repository,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(repository.log_artifact, tmp_path / "large")
            await eventually(lambda: any("/mpu/create/" in r.path for r in proxy.requests))
            tasks.cancel_scope.cancel()
        found = radosgw.client.list_multipart_uploads(Bucket=module_bucket)
        assert "Uploads" not in found
        assert radosgw.keys(module_bucket, "destination/cancelled/") == []

    async def test_a_file_that_changes_meanwhile_is_not_stored(
        self, over_s3: AsyncstoreServer, over_directory: AsyncstoreServer, tmp_path: Path
    ) -> None:
        for server in (over_s3, over_directory):
            path = tmp_path / "large"
            path.write_bytes(os.urandom(30 * MIB))
            options = {"tracking_uri": server.url}
            async with ArtifactRepository(
                "mlflow-artifacts:/changed/artifacts", storage_options=options, transfer=QUICK
            ) as repository:
                with pytest.raises(IntegrityError):
                    await repository.log_artifact(path, callback=Grows(path))
                assert not await repository.exists("large")


class Grows(Callback):  # type: ignore[misc]  # fsspec ships no types
    """Adds to a file whenever something of it was sent."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def relative_update(self, inc: int = 1) -> None:
        with self._path.open("ab") as file:
            file.write(b"x")


class Storage:
    """A tracking server that signs URLs of another place."""

    def __init__(self, elsewhere: str) -> None:
        self.elsewhere = elsewhere
        self.content = os.urandom(3 * MIB)
        self.stored: dict[str, bytes] = {}
        self.told: list[str] = []

    def __call__(self, asked: Asked, _: int) -> Answer:
        path = asked.path.partition("?")[0]
        if path == "/api/3.0/mlflow/server-info":
            said = {"multipart_uploads_enabled": True, "multipart_downloads_enabled": True}
            return Answer(content=said)
        if "/mpu/" in path:
            self.told.append(path.split("/mpu/")[1].partition("/")[0])
            count = json.loads(asked.body).get("num_parts", 0)
            credentials = [
                {"url": f"{self.elsewhere}/p{number}?sig=S3CR3T", "part_number": number}
                for number in range(1, count + 1)
            ]
            return Answer(content={"upload_id": "u", "credentials": credentials})
        if "/presigned/" in path:
            return Answer(content={"url": f"{self.elsewhere}/f?sig=S3CR3T", "headers": {}})
        if asked.method == "PUT":
            self.stored[path.rpartition("/")[2]] = asked.body
            return Answer()
        if path.endswith("/artifacts"):
            size = str(len(self.content))
            return Answer(content={"files": [{"path": "f", "is_dir": False, "file_size": size}]})
        return Answer(content=self.content)


class TestAStorageThatCannotBeReached:
    @pytest.fixture
    def nowhere(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            return f"http://127.0.0.1:{gone.getsockname()[1]}"

    async def test_everything_goes_through_the_server(self, nowhere: str, tmp_path: Path) -> None:
        storage = Storage(nowhere)
        (tmp_path / "up").write_bytes(storage.content)
        options = TransferOptions(
            multipart_download_chunk_size=MIB,
            multipart_upload_chunk_size=MIB,
            retry=RetryPolicy(attempts=1),
        )
        with Scripted(storage).serving() as server:
            async with ArtifactRepository(
                "mlflow-artifacts:/r/artifacts",
                storage_options={"tracking_uri": server.url},
                transfer=options,
            ) as repository:
                local = await repository.download_artifacts("f", tmp_path / "down")
                await repository.log_artifact(tmp_path / "up")
                await repository.log_artifact(tmp_path / "up", "again")
        assert Path(local).read_bytes() == storage.content
        assert storage.stored == {"up": storage.content}
        assert storage.told == ["create", "abort"]

    async def test_unless_a_variable_wants_it_otherwise(
        self, nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
        storage = Storage(nowhere)
        (tmp_path / "up").write_bytes(os.urandom(9 * MIB))
        with Scripted(storage).serving() as server:
            async with ArtifactRepository(
                "mlflow-artifacts:/r/artifacts",
                storage_options={"tracking_uri": server.url},
                transfer=QUICK,
            ) as repository:
                with pytest.raises(UnavailableError) as raised:
                    await repository.log_artifact(tmp_path / "up")
        assert "S3CR3T" not in str(raised.value)
        assert storage.stored == {}


async def test_credentials_go_to_the_server_and_not_to_the_storage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    content = os.urandom(3 * MIB)

    def part(asked: Asked, _: int) -> Answer:
        first, last = asked.headers["range"].removeprefix("bytes=").split("-")
        end = int(last) + 1 if last else len(content)
        headers = {"Content-Range": f"bytes {first}-{end - 1}/{len(content)}"}
        return Answer(206, content[int(first) : end], headers)

    with Scripted(part).serving() as elsewhere:
        storage = Storage(elsewhere.url)
        storage.content = content
        with Scripted(storage).serving() as server:
            async with ArtifactRepository(
                "mlflow-artifacts:/r/artifacts",
                storage_options={"tracking_uri": server.url},
                transfer=TransferOptions(multipart_download_chunk_size=MIB),
            ) as repository:
                local = await repository.download_artifacts("f", tmp_path / "down")
    assert Path(local).read_bytes() == content
    assert all(asked.headers["authorization"] == "Bearer token" for asked in server.asked)
    assert len(elsewhere.asked) == 3
    assert not any("authorization" in asked.headers for asked in elsewhere.asked)


async def test_a_server_that_wants_other_credentials() -> None:
    with Scripted(lambda *_: Answer(401, b"who are you")).serving() as server:
        async with ArtifactRepository(
            "mlflow-artifacts:/r/artifacts", storage_options={"tracking_uri": server.url}
        ) as repository:
            with pytest.raises(UnauthenticatedError):
                await repository.list_artifacts()


async def test_a_server_without_artifacts_is_no_empty_directory() -> None:
    with Scripted(lambda *_: Answer(404, b"<html>no such page</html>")).serving() as server:
        async with ArtifactRepository(
            "mlflow-artifacts:/r/artifacts", storage_options={"tracking_uri": server.url}
        ) as repository:
            with pytest.raises(NotFoundError):
                await repository.list_artifacts()
            with pytest.raises(NotFoundError):
                await repository.delete_artifacts()


@pytest.mark.parametrize("name", ["100%25.txt", "%41.txt", "a/%2541"])
async def test_a_name_that_a_server_would_decode_is_refused(
    name: str, over_directory: AsyncstoreServer
) -> None:
    async with ArtifactRepository(
        "mlflow-artifacts:/r/artifacts", storage_options={"tracking_uri": over_directory.url}
    ) as repository:
        with pytest.raises(InvalidParameterError, match="rename it"):
            await repository.write_bytes(name, b"x")


class TestUris:
    @pytest.mark.parametrize(
        ("uri", "tracking_uri", "server", "path"),
        [
            ("mlflow-artifacts:/0/r/artifacts", "http://h:5000", "http://h:5000", "0/r/artifacts"),
            ("mlflow-artifacts:0/r", "http://h:5000/", "http://h:5000", "0/r"),
            ("mlflow-artifacts:///0/r", "https://u:p@h/p", "https://u:p@h/p", "0/r"),
            ("mlflow-artifacts:/", "http://h", "http://h", ""),
            ("mlflow-artifacts://a:5500/0/r%20x", "http://h:5000", "http://a:5500", "0/r x"),
            ("mlflow-artifacts://a/0", "https://u:p@h:1/pre/fix", "https://a/pre/fix", "0"),
            (f"mlflow-artifacts:{ARTIFACTS}/artifacts/0", "http://h", "http://h", "0"),
        ],
    )
    def test_server_and_path(self, uri: str, tracking_uri: str, server: str, path: str) -> None:
        assert _resolved(uri, tracking_uri) == (server, path)

    @pytest.mark.parametrize(
        ("uri", "tracking_uri", "says"),
        [
            ("mlflow-artifacts:/0", None, "MLFLOW_TRACKING_URI=http"),
            ("mlflow-artifacts:/0", "sqlite:///x.db", "MLFLOW_TRACKING_URI=http"),
            ("mlflow-artifacts:/0", "databricks", "MLFLOW_TRACKING_URI=http"),
            ("mlflow-artifacts://5000/0", "http://h", "a port and no host"),
            ("mlflow-artifacts:/../0", "http://h", r"no '\.\.'"),
            ("mlflow-artifacts:/%2e%2e/0", "http://h", r"no '\.\.'"),
            ("mlflow-artifacts:/0?x=y", "http://h", r"no '\?'"),
        ],
    )
    def test_what_is_none(self, uri: str, tracking_uri: str | None, says: str) -> None:
        with pytest.raises(InvalidParameterError, match=says):
            _resolved(uri, tracking_uri)

    async def test_the_variable_names_the_server(
        self, over_directory: AsyncstoreServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", over_directory.url)
        async with ArtifactRepository("mlflow-artifacts:/variable/artifacts") as repository:
            await repository.write_bytes("x", b"1")
            other = repository.at("mlflow-artifacts:/variable")
            assert other is not None
            assert await other.read_bytes("artifacts/x") == b"1"
            assert repository.at("mlflow-artifacts://elsewhere:1/variable") is None
            assert repository.at("s3://bucket") is None

    async def test_an_option_that_there_is_not(self) -> None:
        with pytest.raises(InvalidParameterError, match="no option anon"):
            await ArtifactRepository(
                "mlflow-artifacts:/x", storage_options={"anon": True, "tracking_uri": "http://h"}
            ).open()


async def test_the_filesystem_by_itself(over_directory: AsyncstoreServer, tmp_path: Path) -> None:
    fs = MlflowArtifactsFileSystem(over_directory.url)
    (tmp_path / "up" / "d").mkdir(parents=True)
    (tmp_path / "up" / "d" / "f").write_bytes(b"0123456789")
    await fs._put(str(tmp_path / "up"), "own", recursive=True)
    assert await fs._find("own") == ["own/d/f"]
    assert (await fs._info("own/d/f"))["size"] == 10
    assert await fs._cat_file("own/d/f", 2, 5) == b"234"
    assert await fs._cat_file("own/d/f", -3) == b"789"
    await fs._pipe_file("mlflow-artifacts:/own/g", b"g")
    with pytest.raises(AsyncStoreError):
        await fs._pipe_file("own/g", b"h", mode="create")
    assert sorted(await fs._ls("own", detail=False)) == ["own/d", "own/g"]
    await fs._get("own", str(tmp_path / "down"), recursive=True)
    assert (tmp_path / "down" / "d" / "f").read_bytes() == b"0123456789"
    with pytest.raises(InvalidParameterError):
        await fs._rm_file("own/d")
    await fs._rm("own", recursive=True)
    assert not await fs._exists("own")
    await fs.aclose()


async def eventually(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not holds():
            await anyio.sleep(0.001)
