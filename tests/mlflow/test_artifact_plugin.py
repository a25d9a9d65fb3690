"""Artifact plugins on MLflow's own base class, by `await`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from mlflow.store.artifact.artifact_repository_registry import ArtifactRepositoryRegistry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from asyncstore.artifacts import ArtifactRepository
from asyncstore.backends import mlflow_plugin
from asyncstore.backends.plugins import Plugin
from asyncstore.errors import NotFoundError, UnsupportedError
from asyncstore.files.reading import ContentType
from tests.artifacts.conftest import LARGE, QUICK
from tests.artifacts.test_plugins import install

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["cellar"], tmp_path_factory.mktemp("mlflow-plugin"))


async def test_a_plugin_that_both_use(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    uri = f"bunker://{tmp_path}/store"
    content = {"a.txt": b"alpha", "sub/empty": b"", "sub/large": os.urandom(LARGE)}
    for name, data in content.items():
        (tmp_path / "up" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / name).write_bytes(data)
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        await repository.log_artifacts(tmp_path / "up", "d")
        listed = [(entry.path, entry.file_size) for entry in await repository.list_artifacts("d")]
        assert listed == [("d/a.txt", 5), ("d/sub", None)]
        await repository.download_artifacts("d", tmp_path / "down")
        assert {name: (tmp_path / "down" / "d" / name).read_bytes() for name in content} == content
        assert await repository.read_bytes("d/a.txt") == b"alpha"
        with pytest.raises(NotFoundError):
            await repository.read_bytes("d/missing")
        assert not await repository.exists("d/missing")
        # The base class has a method for it, that does nothing.
        with pytest.raises(UnsupportedError, match="BunkerRepository cannot delete"):
            await repository.delete_artifacts("d/a.txt")
        pool = repository.fs.thread_pool
    assert pool._shutdown
    assert not [thread for thread in threading.enumerate() if "Bunker" in thread.name]

    registry = ArtifactRepositoryRegistry()
    registry.register_entrypoints()
    theirs = registry.get_artifact_repository(uri)
    assert {entry.path for entry in theirs.list_artifacts("d")} == {"d/a.txt", "d/sub"}


async def test_a_repository_of_mlflow_itself(tmp_path: Path) -> None:
    plugin = Plugin("MLflow's own", LocalArtifactRepository)
    backend = await mlflow_plugin.open_backend(plugin, str(tmp_path), {})
    await backend.write("a/b/x", b"x", ContentType())
    assert (await backend.info("a/b")).is_dir
    assert [piece async for piece in backend.read("a/b/x")] == [b"x"]
    await backend.delete(["a/b/x", "a/b/x"])
    assert not await backend.exists("a/b/x")
    await backend.delete_directory("")
    assert list(tmp_path.iterdir()) == []
    await backend.aclose()
