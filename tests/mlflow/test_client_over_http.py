"""asyncstore's client on a stock `mlflow server`, and MLflow's client beside it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio.to_thread
import pytest
from mlflow.tracking import MlflowClient

from asyncstore import Client
from asyncstore.errors import NotFoundError
from asyncstore.testing.conformance import MIB
from tests.command_line import Cli, cli, in_tmp_path
from tests.servers.mlflow_server import MlflowServer
from tests.servers.running import running

__all__ = ["cli", "in_tmp_path"]

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    directory = tmp_path_factory.mktemp("server")
    yield from running(
        MlflowServer(
            *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
            *("--artifacts-destination", str(directory / "artifacts")),
            environment={},
        )
    )


@pytest.fixture
async def client(server: MlflowServer) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


@pytest.fixture
def theirs(server: MlflowServer) -> MlflowClient:
    return MlflowClient(server.url)


async def test_a_runs_artifacts_end_to_end(
    client: Client, theirs: MlflowClient, tmp_path: Path
) -> None:
    large = os.urandom(20 * MIB)
    up = tmp_path / "up" / "deep er"
    up.mkdir(parents=True)
    (up / "large.bin").write_bytes(large)
    (up / "empty").touch()
    async with client.start_run(experiment_name="through the server") as run:
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        await run.log_metric("loss", 0.5)
        await client.log_artifacts(run.run_id, tmp_path / "up")
        await client.log_artifact(run.run_id, up / "empty", "more")
        await client.log_text(run.run_id, "größer", "notes.txt")
    run_id = run.run_id
    listed = await client.list_artifacts(run_id)
    assert [(each.path, each.is_dir) for each in listed] == [
        ("deep er", True),
        ("more", True),
        ("notes.txt", False),
    ]
    local = Path(await client.download_artifacts(run_id, "", tmp_path / "down"))
    assert (local / "deep er" / "large.bin").read_bytes() == large
    assert (local / "notes.txt").read_text(encoding="utf-8") == "größer"

    def as_mlflow_sees_it() -> tuple[list[str], bytes]:
        found = theirs.list_artifacts(run_id, "deep er")
        path = theirs.download_artifacts(run_id, "deep er/large.bin", str(tmp_path))
        return [each.path for each in found], Path(path).read_bytes()

    names, content = await anyio.to_thread.run_sync(as_mlflow_sees_it)
    assert names == ["deep er/empty", "deep er/large.bin"]
    assert content == large


async def test_what_mlflow_logged_comes_down(
    client: Client, theirs: MlflowClient, tmp_path: Path
) -> None:
    def log() -> str:
        run_id: str = theirs.create_run("0").info.run_id
        theirs.log_text(run_id, "a", "d/a.txt")
        theirs.log_text(run_id, "b", "b.txt")
        return run_id

    run_id = await anyio.to_thread.run_sync(log)
    found = await client.download_artifacts(artifact_uri=f"runs:/{run_id}/d", dst_path=tmp_path)
    assert (Path(found) / "a.txt").read_text() == "a"
    found = await client.download_artifacts(artifact_uri=f"runs:/{run_id}/b.txt", dst_path=tmp_path)
    assert Path(found).read_text() == "b"
    repository = await client.get_artifact_repository(f"runs:/{run_id}")
    await repository.delete_artifacts("d")
    assert [each.path for each in await client.list_artifacts(run_id)] == ["b.txt"]


async def test_models_by_every_kind_of_uri(client: Client, tmp_path: Path) -> None:
    run = await client.create_run("0")
    await client.log_text(run.info.run_id, "one", "one/MLmodel")
    await client.log_text(run.info.run_id, "two", "two/MLmodel")
    await client.create_registered_model("net")
    for directory in ("one", "two"):
        source = f"{run.info.artifact_uri}/{directory}"
        await client.create_model_version("net", source, run.info.run_id)
    await client.set_registered_model_alias("net", "best", 1)
    await client.transition_model_version_stage("net", 1, "Production")
    model = await client.create_logged_model("0", "logged", run.info.run_id)
    logged = await client.get_artifact_repository(f"models:/{model.model_id}")
    await logged.write_bytes("MLmodel", b"logged")
    expected = {
        "models:/net/1": b"one",
        "models:/net/2": b"two",
        "models:/net/latest": b"two",
        "models:/net/Production": b"one",
        "models:/net@best": b"one",
        f"models:/{model.model_id}": b"logged",
        f"runs:/{run.info.run_id}/logged": b"logged",
        f"runs:/{run.info.run_id}/two": b"two",
    }
    for uri, content in expected.items():
        repository = await client.get_artifact_repository(uri)
        assert await repository.read_bytes("MLmodel") == content, uri
    found = await client.download_artifacts(artifact_uri="models:/net@best", dst_path=tmp_path)
    assert (Path(found) / "MLmodel").read_text() == "one"
    with pytest.raises(NotFoundError):
        await client.get_artifact_repository("models:/net/3")


async def test_the_command_line(
    client: Client, server: MlflowServer, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = await client.create_run("0")
    await client.log_text(run.info.run_id, "x", "d/x.txt")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    for uri in (f"runs:/{run.info.run_id}", run.info.artifact_uri):
        words = ("artifacts", "list", "--recursive", "-u", uri)
        status, out, error = await anyio.to_thread.run_sync(cli, *words)
        assert status == 0, error
        assert "d/x.txt" in out
    down = ("artifacts", "download", "-u", f"runs:/{run.info.run_id}/d/x.txt")
    _, out, _ = await anyio.to_thread.run_sync(cli, *down, "-d", str(tmp_path / "down"))
    assert Path(out.strip()).read_text() == "x"
    (tmp_path / "y").write_text("y")
    up = ("artifacts", "upload", str(tmp_path / "y"), "-u", f"runs:/{run.info.run_id}/d")
    await anyio.to_thread.run_sync(cli, *up)
    assert len(await client.list_artifacts(run.info.run_id, "d")) == 2
