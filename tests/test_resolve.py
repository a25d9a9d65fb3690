"""`runs:/` and `models:/` in the client and on the command line, over SQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from asyncstore import Client
from asyncstore.errors import AsyncStoreError, InvalidParameterError, NotFoundError
from tests.command_line import Cli

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("in_tmp_path")]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client("sqlite:///meta.db") as client:
        yield client


@pytest.fixture
async def run_id(client: Client) -> str:
    """A run with `top.txt` and `a/b/deep file.txt`."""
    run = await client.create_run("0")
    await client.log_text(run.info.run_id, "top", "top.txt")
    await client.log_text(run.info.run_id, "deep", "a/b/deep file.txt")
    return run.info.run_id


@pytest.fixture
async def model_id(client: Client, run_id: str) -> str:
    """A logged model named `net` of that run, with `MLmodel` and `data/w`."""
    model = await client.create_logged_model("0", "net", run_id)
    repository = await client.get_artifact_repository(model.artifact_location)
    await repository.write_bytes("MLmodel", b"flavors")
    await repository.write_bytes("data/w", b"weights")
    return model.model_id


@pytest.fixture
async def versions(client: Client, run_id: str) -> str:
    """A registered model: version 1 of the run's `a`, in Production and `@best`; 2 of all of it."""
    name = "Net work"
    await client.create_registered_model(name)
    await client.create_model_version(name, f"runs:/{run_id}/a", run_id)
    await client.create_model_version(name, (await client.get_run(run_id)).info.artifact_uri)
    await client.transition_model_version_stage(name, 1, "Production")
    await client.set_registered_model_alias(name, "best", 1)
    return name


def names(directory: str) -> list[str]:
    root = Path(directory)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


class TestRuns:
    async def test_a_file_comes_under_its_own_name(
        self, client: Client, run_id: str, tmp_path: Path
    ) -> None:
        found = await client.download_artifacts(
            artifact_uri=f"runs:/{run_id}/a/b/deep file.txt", dst_path=tmp_path / "down"
        )
        assert found == str(tmp_path / "down" / "deep file.txt")
        assert Path(found).read_text() == "deep"

    async def test_a_directory_and_the_whole_run(
        self, client: Client, run_id: str, tmp_path: Path
    ) -> None:
        found = await client.download_artifacts(
            artifact_uri=f"runs:/{run_id}/a", dst_path=tmp_path / "one"
        )
        assert found == str(tmp_path / "one" / "a")
        assert names(found) == ["b/deep file.txt"]
        found = await client.download_artifacts(
            artifact_uri=f"runs:/{run_id}", dst_path=tmp_path / "two"
        )
        assert found == str(tmp_path / "two")
        assert names(found) == ["a/b/deep file.txt", "top.txt"]

    async def test_a_repository_reads_and_writes_there(self, client: Client, run_id: str) -> None:
        repository = await client.get_artifact_repository(f"runs:/{run_id}/a/b")
        assert await repository.read_bytes("deep file.txt") == b"deep"
        new = await client.get_artifact_repository(f"runs:/{run_id}/new")
        await new.write_bytes("x", b"1")
        assert [each.path for each in await client.list_artifacts(run_id, "new")] == ["new/x"]

    async def test_a_model_that_the_run_logged(
        self, client: Client, run_id: str, model_id: str, tmp_path: Path
    ) -> None:
        repository = await client.get_artifact_repository(f"runs:/{run_id}/net")
        assert await repository.read_bytes("data/w") == b"weights"
        found = await client.download_artifacts(
            artifact_uri=f"runs:/{run_id}/net/data", dst_path=tmp_path / "down"
        )
        assert names(found) == ["w"]

    @pytest.mark.parametrize(
        ("uri", "error"),
        [
            ("runs:/", InvalidParameterError),
            ("runs://host/x", InvalidParameterError),
            ("runs:/{run}/../x", InvalidParameterError),
            ("runs:/{run}/%2e%2e/x", InvalidParameterError),
            ("runs:/00000000000000000000000000000000/x", NotFoundError),
            ("runs:/{run}/none", NotFoundError),
            ("runs:/{run}/no'ne", NotFoundError),
        ],
    )
    async def test_what_is_not_there(
        self, uri: str, error: type[AsyncStoreError], client: Client, run_id: str
    ) -> None:
        with pytest.raises(error):
            await client.download_artifacts(artifact_uri=uri.format(run=run_id))


class TestModels:
    @pytest.mark.parametrize("suffix", ["/1", "@best", "/Production", "/production"])
    async def test_a_version_an_alias_and_a_stage(
        self, suffix: str, client: Client, versions: str, tmp_path: Path
    ) -> None:
        uri = f"models:/{versions}{suffix}"
        repository = await client.get_artifact_repository(uri)
        assert await repository.read_bytes("b/deep file.txt") == b"deep"
        found = await client.download_artifacts(
            artifact_uri=f"{uri}/b/deep file.txt", dst_path=tmp_path / "one"
        )
        assert found == str(tmp_path / "one" / "deep file.txt")

    async def test_the_latest(self, client: Client, versions: str, tmp_path: Path) -> None:
        for suffix in ("latest", "LATEST", "2"):
            found = await client.download_artifacts(
                artifact_uri=f"models:/{versions}/{suffix}", dst_path=tmp_path / suffix
            )
            assert names(found) == ["a/b/deep file.txt", "top.txt"]

    async def test_a_logged_model(self, client: Client, model_id: str, tmp_path: Path) -> None:
        found = await client.download_artifacts(
            artifact_uri=f"models:/{model_id}", dst_path=tmp_path / "down"
        )
        assert found == str(tmp_path / "down")
        assert names(found) == ["MLmodel", "data/w"]

    async def test_a_version_of_a_logged_model(self, client: Client, model_id: str) -> None:
        await client.create_registered_model("m")
        await client.create_model_version("m", f"models:/{model_id}", model_id=model_id)
        repository = await client.get_artifact_repository("models:/m/1")
        assert await repository.read_bytes("MLmodel") == b"flavors"

    @pytest.mark.parametrize(
        ("uri", "error"),
        [
            ("models:/", InvalidParameterError),
            ("models:/a/", NotFoundError),
            ("models:/Net work/3", NotFoundError),
            ("models:/Net work@worst", AsyncStoreError),
            ("models:/Net work/Staging", NotFoundError),
            ("models:/nobody/latest", NotFoundError),
            ("models:/m-0123", NotFoundError),
            ("models:/Net work/1/../x", InvalidParameterError),
        ],
    )
    async def test_what_is_not_there(
        self, uri: str, error: type[AsyncStoreError], client: Client, versions: str
    ) -> None:
        with pytest.raises(error):
            await client.get_artifact_repository(uri)


class TestStorages:
    async def test_a_file_and_a_directory(self, client: Client, tmp_path: Path) -> None:
        (tmp_path / "up" / "50%").mkdir(parents=True)
        (tmp_path / "up" / "50%" / "a b.txt").write_text("x")
        for number, root in enumerate((str(tmp_path / "up"), (tmp_path / "up").as_uri())):
            escaped = root.startswith("file:")
            directory = f"{root}/{'50%25' if escaped else '50%'}"
            found = await client.download_artifacts(
                artifact_uri=directory, dst_path=tmp_path / f"down{number}"
            )
            assert found == str(tmp_path / f"down{number}" / "50%")
            found = await client.download_artifacts(
                artifact_uri=f"{directory}/a{'%20' if escaped else ' '}b.txt",
                dst_path=tmp_path / f"down{number}",
            )
            assert found == str(tmp_path / f"down{number}" / "a b.txt")

    async def test_not_both_and_not_neither(self, client: Client, run_id: str) -> None:
        for arguments in (
            {},
            {"run_id": run_id, "artifact_uri": "x"},
            {"artifact_uri": "x", "path": "y"},
        ):
            with pytest.raises(InvalidParameterError, match="either"):
                await client.download_artifacts(**arguments)

    async def test_artifacts_of_a_server_need_one(self, client: Client) -> None:
        with pytest.raises(InvalidParameterError, match="MLFLOW_TRACKING_URI=http"):
            await client.get_artifact_repository("mlflow-artifacts:/0/r/artifacts")


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def tracking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///meta.db")

    async def test_list(self, cli: Cli, run_id: str, versions: str) -> None:
        for uri in (f"runs:/{run_id}/a", f"models:/{versions}@best"):
            words = ("artifacts", "list", "-u", uri, "--recursive", "--json")
            status, out, _ = await anyio.to_thread.run_sync(cli, *words)
            assert status == 0
            assert [each["path"] for each in json.loads(out)] == ["b/deep file.txt"]

    async def test_download(self, cli: Cli, run_id: str, versions: str) -> None:
        words = ("artifacts", "download", "-d", "down", "-u")
        _, out, _ = await anyio.to_thread.run_sync(cli, *words, f"runs:/{run_id}/top.txt")
        assert Path(out.strip()).read_text() == "top"
        _, out, _ = await anyio.to_thread.run_sync(cli, *words, f"models:/{versions}/1", "b")
        assert names(out.strip()) == ["deep file.txt"]
