"""Storages of other packages, installed for real."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.backends import SCHEMES, mlflow_plugin, plugins
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    MissingDependencyError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from tests.artifacts.conftest import LARGE, MIB, QUICK

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "tests" / "plugins"


def install(names: list[str], target: Path) -> Path:
    """What `pip install` makes of packages, in a directory of its own."""
    # Building leaves traces in the source.
    sources = [shutil.copytree(PACKAGES / name, target / "source" / name) for name in names]
    # With a build backend that is installed already, nothing has to be fetched.
    offline = ["--no-index", "--no-build-isolation"] if importlib.util.find_spec("wheel") else []
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *offline),
            *("--disable-pip-version-check", "--target", str(target / "site")),
            *map(str, sources),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return target / "site"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["crate", "attic", "cellar"], tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["broken"], tmp_path_factory.mktemp("broken"))


@pytest.fixture
def installed(honest: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(honest)
    yield
    for name in [name for name in sys.modules if name.startswith("asyncstore_test_")]:
        del sys.modules[name]


@pytest.fixture
def with_broken(installed: None, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(broken)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    directory = tmp_path / "spool"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def cellar(installed: None) -> Any:
    """The class of the plugin."""
    return importlib.import_module("asyncstore_test_cellar").CellarRepository


@pytest.mark.parametrize("kind", ["FsspecEntryPoint", "MLflowPlugin", "BackendPlugin"])
def test_conformance(kind: str, honest: Path) -> None:
    """In a process of its own: fsspec reads its entry points when it is imported."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            f"{PACKAGES / 'installed.py'}::Test{kind}",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(honest), str(ROOT)])},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


# Who has a scheme


async def test_a_scheme_that_nobody_knows_lists_the_plugins(installed: None) -> None:
    with pytest.raises(InvalidParameterError) as raised:
        await ArtifactRepository("gopher://x").open()
    assert "of installed plugins attic, bunker, cellar, crate, old-cellar;" in str(raised.value)


async def test_own_schemes_cannot_be_taken(with_broken: None, tmp_path: Path) -> None:
    assert {"memory", "s3"} <= set(plugins.schemes()) & set(SCHEMES)
    with warnings.catch_warnings():
        # Not even looked at.
        warnings.simplefilter("error")
        async with ArtifactRepository("memory://plugins") as repository:
            await repository.write_bytes("x", b"x")
            await repository.delete_artifacts()
    assert "asyncstore_test_hollow" not in sys.modules


async def test_fsspec_goes_before_mlflow(honest: Path, tmp_path: Path) -> None:
    code = f"""
import asyncio
from asyncstore.artifacts import ArtifactRepository
async def main():
    async with ArtifactRepository("attic://{tmp_path}") as repository:
        print(type(repository.fs).__name__)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(honest), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "AtticFileSystem\n"


async def test_a_broken_plugin_is_named_and_stands_in_nobodys_way(
    with_broken: None, tmp_path: Path
) -> None:
    message = r"the plugin crate = asyncstore_test_broken:crate of asyncstore-test-broken 0\.1"
    with pytest.warns(UserWarning, match=f"{message} cannot be loaded: RuntimeError"):
        repository = await ArtifactRepository(f"crate://{tmp_path}").open()
    await repository.write_bytes("a/b", b"x")
    assert await repository.read_bytes("a/b") == b"x"
    await repository.aclose()
    # Those of other schemes are not touched.
    async with ArtifactRepository(f"cellar://{tmp_path}/cellar") as other:
        await other.write_bytes("x", b"x")
    # Not even MLflow's of the same one.
    with pytest.warns(UserWarning, match="hollow.*is no storage"):
        repository = await ArtifactRepository(f"hollow://{tmp_path}/cellar").open()
    assert await repository.read_bytes("x") == b"x"
    await repository.aclose()


@pytest.mark.parametrize(
    ("scheme", "kind", "message"),
    [
        ("broken", AsyncStoreError, "broken = asyncstore_test_broken .*another age"),
        ("rotten", AsyncStoreError, "rotten = asyncstore_test_broken:Rotten .*another age"),
        ("nowhere", MissingDependencyError, "No module named 'asyncstore_test_nowhere'"),
    ],
)
async def test_a_scheme_of_a_broken_plugin_alone(
    scheme: str, kind: type[AsyncStoreError], message: str, with_broken: None
) -> None:
    with pytest.warns(UserWarning, match="cannot be loaded"), pytest.raises(kind, match=message):
        await ArtifactRepository(f"{scheme}://x").open()


async def test_a_plugin_that_lacks_a_library_or_opens_something_else(with_broken: None) -> None:
    with pytest.raises(MissingDependencyError, match=r"Needy .*needs no_such_library"):
        await ArtifactRepository("needy://x").open()
    with pytest.raises(AsyncStoreError, match=r"Wrong .*returned a str, which is no"):
        await ArtifactRepository("wrong://x").open()


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed here"
)
async def test_a_plugin_on_mlflow_where_there_is_none(installed: None) -> None:
    with (
        pytest.warns(UserWarning, match="bunker = .*No module named 'mlflow'"),
        pytest.raises(MissingDependencyError, match="No module named 'mlflow'"),
    ):
        await ArtifactRepository("bunker:///x").open()


# MLflow's artifact plugins


async def test_an_old_plugin_takes_the_uri_alone(installed: None, tmp_path: Path) -> None:
    async with ArtifactRepository(f"old-cellar://{tmp_path}") as repository:
        await repository.write_bytes("a/x", b"x")
        assert repository.fs.artifact_uri == f"old-cellar://{tmp_path}"
        below = repository.at(f"old-cellar://{tmp_path}/a")
        assert below is not None
        assert await below.read_bytes("x") == b"x"
        assert repository.at(f"cellar://{tmp_path}/a") is None


async def test_what_a_plugin_refuses(installed: None) -> None:
    with pytest.raises(InvalidParameterError, match="takes no storage_options: key"):
        await ArtifactRepository("cellar:///x", storage_options={"key": 1}).open()
    with pytest.raises(InvalidParameterError, match="no path"):
        await ArtifactRepository("cellar://x").open()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("PERMISSION_DENIED", PermissionDeniedError),
        ("TEMPORARILY_UNAVAILABLE", UnavailableError),
        ("INTERNAL_ERROR", AsyncStoreError),
    ],
)
async def test_errors_of_mlflow_by_their_code(
    code: str,
    kind: type[AsyncStoreError],
    cellar: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = importlib.import_module("asyncstore_test_cellar").MlflowException
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        raise failure("cellar://user:S3CR3T@host/x is no good", code)

    monkeypatch.setattr(cellar, "log_artifact", fail)
    async with ArtifactRepository(f"cellar://{tmp_path}", transfer=QUICK) as repository:
        with pytest.raises(kind) as raised:
            await repository.write_bytes("x", b"")
    assert type(raised.value) is kind
    assert "S3CR3T" not in str(raised.value)
    assert calls == (QUICK.retry.attempts if kind is UnavailableError else 1)


async def test_a_failed_download_of_a_file_that_is_there_is_no_missing_file(
    cellar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ArtifactRepository(f"cellar://{tmp_path}", transfer=QUICK) as repository:
        await repository.write_bytes("x", b"x")
        with pytest.raises(NotFoundError):
            await repository.read_bytes("y")
        monkeypatch.setattr(shutil, "copyfile", lambda *_: (tmp_path / "no" / "way").read_bytes())
        with pytest.raises(AsyncStoreError, match="download failed") as raised:
            await repository.read_bytes("x")
        assert not isinstance(raised.value, NotFoundError)


async def test_a_plugin_that_cannot_delete(cellar: Any, tmp_path: Path) -> None:
    async with ArtifactRepository(f"cellar://{tmp_path}") as repository:
        await repository.write_bytes("x", b"x")
        # As if it were inherited from MLflow's base class, which does nothing.
        cellar.delete_artifacts = lambda *_: None
        cellar.delete_artifacts.__module__ = mlflow_plugin.BASE
        with pytest.raises(UnsupportedError, match="cannot delete"):
            await repository.delete_artifacts("x")
        del cellar.delete_artifacts


async def test_a_plugin_works_in_a_few_threads_and_never_on_the_loop(
    cellar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"{number}").touch()
    full = threading.Event()
    lock, now, most, wrong = threading.Lock(), 0, 0, 0
    loop_thread = threading.get_ident()
    log_artifact = cellar.log_artifact

    def watched(*args: Any) -> None:
        nonlocal now, most, wrong
        wrong += threading.get_ident() == loop_thread
        with lock:
            now += 1
            most = max(most, now)
            if now == mlflow_plugin.MAX_CONCURRENCY:
                full.set()
        assert full.wait(30)
        log_artifact(*args)
        with lock:
            now -= 1

    monkeypatch.setattr(cellar, "log_artifact", watched)
    async with ArtifactRepository(f"cellar://{tmp_path}/store") as repository:
        await repository.log_artifacts(tmp_path)
        assert len(await repository.list_artifacts()) == 40
    assert most == mlflow_plugin.MAX_CONCURRENCY
    assert wrong == 0


@pytest.mark.parametrize("step", ["log_artifact", "download_artifacts"])
async def test_cancelled_or_failed_it_leaves_no_temporary_file(
    step: str, cellar: Any, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(LARGE))
    uri = f"cellar://{tmp_path}/store"
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        await repository.log_artifact(tmp_path / "large")
        assert list(spool.iterdir()) == []
        reached, go_on = threading.Event(), threading.Event()
        original = getattr(cellar, step)

        def slow(*args: Any) -> Any:
            result = original(*args)
            assert list(spool.iterdir())
            reached.set()
            assert go_on.wait(30)
            return result

        monkeypatch.setattr(cellar, step, slow)
        tasks = asyncio.all_tasks()

        async def cancel(scope: anyio.CancelScope) -> None:
            await anyio.to_thread.run_sync(reached.wait)
            scope.cancel()
            go_on.set()

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel, scope)
                if step == "log_artifact":
                    await repository.log_artifact(tmp_path / "large", "again")
                else:
                    await repository.download_artifacts("large", tmp_path / "down")
        assert scope.cancelled_caught
        assert asyncio.all_tasks() == tasks
        assert list(spool.iterdir()) == []
        assert not [path for path in (tmp_path / "down").rglob("*") if path.is_file()]

        def fail(*_: Any) -> None:
            raise OSError("the cellar is flooded")

        monkeypatch.setattr(cellar, step, fail)
        with pytest.raises(AsyncStoreError, match="flooded"):
            await repository.log_artifact(tmp_path / "large", "third")
            await repository.download_artifacts("large", tmp_path / "down")
    assert list(spool.iterdir()) == []


async def test_closing_ends_the_threads_of_the_plugin(installed: None, tmp_path: Path) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if "cellar" in thread.name]

    async with ArtifactRepository(f"cellar://{tmp_path}") as repository:
        below = repository.at(f"cellar://{tmp_path}/below")
        assert below is not None
        await below.list_artifacts()
        assert len(threads()) == 2
    assert threads() == []


async def test_memory_does_not_grow_with_the_file(installed: None, tmp_path: Path) -> None:
    size = 192 * MIB
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(size)
    async with ArtifactRepository(f"cellar://{tmp_path}/store") as repository:
        await repository.write_bytes("warm", bytes(16 * MIB))
        await repository.read_bytes("warm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await repository.log_artifact(tmp_path / "huge")
        await repository.download_artifacts("huge", tmp_path / "down")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (tmp_path / "down" / "huge").stat().st_size == size
    # Kilobytes on Linux, bytes on macOS.
    assert grown / (1 if sys.platform == "linux" else 1024) < size / 2 / 1024
