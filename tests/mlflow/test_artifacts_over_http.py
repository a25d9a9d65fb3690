"""Artifacts through a stock `mlflow server`, over a directory and over S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.testing.conformance import RawStorage
from tests.artifacts.raw import RawDirectory, RawS3
from tests.artifacts.through_server import ThroughServer
from tests.servers.mlflow_server import MlflowServer
from tests.servers.running import running

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway

STAGED = ".artifact.uploading."


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("destination")


@pytest.fixture(scope="module")
def over_directory(
    destination: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    database = tmp_path_factory.mktemp("database") / "mlflow.db"
    yield from running(
        MlflowServer(
            *("--backend-store-uri", f"sqlite:///{database}"),
            *("--artifacts-destination", str(destination)),
            environment={},
        )
    )


@pytest.fixture(scope="module")
def module_bucket(radosgw: RadosGateway) -> Iterator[str]:
    bucket = radosgw.create_bucket()
    yield bucket
    radosgw.discard(bucket)


@pytest.fixture(scope="module")
def over_s3(
    radosgw: RadosGateway, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    database = tmp_path_factory.mktemp("database") / "mlflow.db"
    yield from running(
        MlflowServer(
            *("--backend-store-uri", f"sqlite:///{database}"),
            *("--artifacts-destination", f"s3://{module_bucket}/des tination"),
            environment=radosgw.environment,
        )
    )


class TestOverADirectory(ThroughServer):
    server = "mlflow server over a directory"

    @pytest.fixture
    def tracking_server(self, over_directory: MlflowServer) -> MlflowServer:
        return over_directory

    @pytest.fixture
    def raw(self, destination: Path, prefix: str) -> RawStorage:
        root = destination / prefix
        root.mkdir(parents=True)
        return RawDirectory(root, STAGED)


class TestOverS3(ThroughServer):
    server = "mlflow server over S3"

    @pytest.fixture
    def tracking_server(self, over_s3: MlflowServer) -> MlflowServer:
        return over_s3

    @pytest.fixture
    def raw(self, radosgw: RadosGateway, module_bucket: str, prefix: str) -> RawStorage:
        return RawS3(radosgw, module_bucket, f"des tination/{prefix}/")


class TestEndings:
    """What a stock server is left with."""

    pytestmark = pytest.mark.anyio

    async def test_a_cancelled_upload_is_thrown_away(
        self, over_directory: MlflowServer, destination: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "large").write_bytes(b"x" * 40_000_000)
        uri = "mlflow-artifacts:/cancelled/artifacts"
        root = destination / "cancelled" / "artifacts"
        async with ArtifactRepository(
            uri, storage_options={"tracking_uri": over_directory.url}
        ) as repository:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(repository.log_artifact, tmp_path / "large")
                await eventually(lambda: any(root.glob(f"{STAGED}*")))
                tasks.cancel_scope.cancel()
            # The repository is still open: the connection ends by itself.
            await eventually(lambda: not any(root.iterdir()))


async def eventually(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not holds():
            await anyio.sleep(0.01)
