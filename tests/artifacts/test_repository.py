"""The life of a repository, its budgets, and storages that are not there."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

import asyncstore
from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    InvalidStateError,
    MissingDependencyError,
    OperationTimeoutError,
    UnavailableError,
)
from asyncstore.retry import RetryPolicy
from tests.artifacts.conftest import MIB, QUICK

if TYPE_CHECKING:
    from asyncstore.testing.fault_proxy import FaultProxy

pytestmark = pytest.mark.anyio


# Opening and closing


async def test_it_is_opened_once(tmp_path: Path) -> None:
    repository = ArtifactRepository(tmp_path)
    with pytest.raises(InvalidStateError, match="not open; use 'async with'"):
        await repository.list_artifacts()
    assert await repository.open() is repository
    with pytest.raises(InvalidStateError, match="opened before"):
        await repository.open()
    await repository.list_artifacts()
    await repository.aclose()
    await repository.aclose()
    with pytest.raises(InvalidStateError, match="opened before"):
        await repository.open()


async def test_use_after_close(proxy: FaultProxy, s3_bucket: str, tmp_path: Path) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.write_bytes("x", b"")
        below = repository.at(f"s3://{s3_bucket}/below")
        assert below is not None
    for closed in (repository, below):
        for call in (
            closed.log_artifact(__file__),
            closed.log_artifacts(tmp_path),
            closed.list_artifacts(),
            closed.download_artifacts(),
            closed.delete_artifacts(),
            closed.info("x"),
            closed.exists("x"),
            closed.read_bytes("x"),
            closed.write_bytes("x", b""),
        ):
            with pytest.raises(InvalidStateError, match="is closed") as raised:
                await call
            assert raised.value.error_code == "INVALID_STATE"
        with pytest.raises(InvalidStateError, match="is closed"):
            _ = [entry async for entry in closed.walk()]
        with pytest.raises(InvalidStateError, match="is closed"):
            async with closed.open_read("x"):
                pass
        with pytest.raises(InvalidStateError, match="is closed"):
            _ = closed.fs
        with pytest.raises(InvalidStateError, match="is closed"):
            closed.at("s3://x")
    assert len(proxy.requests) == 1


async def test_use_from_another_loop(tmp_path: Path) -> None:
    async with ArtifactRepository(tmp_path) as repository:
        errors: list[BaseException] = []

        def elsewhere() -> None:
            async def use() -> None:
                await repository.list_artifacts()

            try:
                asyncio.run(use())
            except InvalidStateError as error:
                errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        (error,) = errors
        assert "another event loop" in str(error)


async def test_two_openings_at_once_leave_no_connection(proxy: FaultProxy, s3_bucket: str) -> None:
    repository = ArtifactRepository(f"s3://{s3_bucket}")
    outcomes = await asyncio.gather(repository.open(), repository.open(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ArtifactRepository, InvalidStateError]
    await repository.list_artifacts()
    await repository.aclose()
    gc.collect()


async def test_an_opening_that_failed_may_be_repeated(
    s3_bucket: str, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = ArtifactRepository(f"s3://{s3_bucket}")
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", "nonsense")
    with pytest.raises(InvalidParameterError):
        await repository.open()
    monkeypatch.delenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS")
    async with repository:
        assert await repository.list_artifacts() == []


def test_repr_shows_no_secret() -> None:
    shown = repr(ArtifactRepository("ftp://user:S3CR3T@host/path"))
    assert shown == "ArtifactRepository('ftp://user:***@host/path')"


async def test_fs_is_the_filesystem(tmp_path: Path) -> None:
    async with ArtifactRepository(tmp_path) as repository:
        assert "file" in repository.fs.protocol
    async with ArtifactRepository("memory://x") as repository:
        assert repository.fs.protocol == "memory"


async def test_variables_are_read_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = ArtifactRepository(tmp_path)
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "5 MiB")
    with pytest.raises(InvalidParameterError, match="MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE: '5 MiB'"):
        await repository.open()


@pytest.mark.parametrize(
    "name",
    [
        "multipart_upload_chunk_size",
        "multipart_upload_minimum_file_size",
        "multipart_download_chunk_size",
        "multipart_download_minimum_file_size",
        "max_concurrency",
        "max_memory",
    ],
)
def test_options_that_make_no_sense(name: str) -> None:
    arguments: dict[str, Any] = {name: 0}
    with pytest.raises(InvalidParameterError, match=f"{name} is 0"):
        TransferOptions(**arguments)


# Storages that are not there


@pytest.mark.parametrize("uri", ["s33://b", "gopher://x", "oracle://u:S3CR3T@h/d", "x-y+z:foo"])
async def test_a_scheme_that_nobody_knows(uri: str) -> None:
    with pytest.raises(InvalidParameterError) as raised:
        await ArtifactRepository(uri).open()
    message = str(raised.value)
    assert "S3CR3T" not in message
    assert "s3 (pip install 'asyncstore[s3]')" in message
    for word in ("plain path", "file", "memory", "fsspec.available_protocols()"):
        assert word in message


@pytest.mark.parametrize("uri", ["memory:x", "memory:/x", "memory:"])
async def test_a_memory_uri_has_two_slashes(uri: str) -> None:
    with pytest.raises(InvalidParameterError, match="memory://"):
        await ArtifactRepository(uri).open()


@pytest.mark.parametrize("uri", ["dir:x", "local:/x", "ftp:host"])
async def test_a_protocol_without_slashes_is_no_local_directory(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidParameterError, match="://"):
        async with ArtifactRepository(uri) as repository:
            await repository.write_bytes("x", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_installed_is_named_with_its_extra() -> None:
    code = """
import sys, asyncio
sys.modules["s3fs"] = None
from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import MissingDependencyError
async def main():
    try:
        await ArtifactRepository("s3://bucket").open()
    except MissingDependencyError as error:
        print(error, error.error_code)
    async with ArtifactRepository("memory://x") as repository:
        await repository.write_bytes("x", b"")
asyncio.run(main())
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(asyncstore.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert "s3fs" in done.stdout
    assert "pip install 'asyncstore[s3]'" in done.stdout


async def test_a_library_that_fsspec_misses() -> None:
    fsspec.register_implementation("nolib", "no_such_module.NoSuch", errtxt="Install nolib")
    with pytest.raises(MissingDependencyError, match="Install nolib"):
        await ArtifactRepository("nolib://x").open()


@pytest.mark.parametrize(
    "options",
    [
        {"client_kwargs": 3},
        {"client_kwargs": {"nonsense": 1}},
        {"config_kwargs": {"nonsense": 1}},
        {"config_kwargs": {"s3": {"addressing_style": "nonsense"}}},
    ],
)
async def test_options_that_s3_does_not_have(
    options: dict[str, Any], s3_env: dict[str, str]
) -> None:
    with pytest.raises(InvalidParameterError, match="open s3://b"):
        await ArtifactRepository("s3://b", storage_options=options).open()


async def test_a_zip_file_is_read_by_its_name_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model/x", b"x" * 100)
        archive.writestr("model/deep/y", b"y")
        archive.writestr("../evil", b"e")
    uri = f"zip://model::{tmp_path / 'a.zip'}"
    async with ArtifactRepository(uri) as repository:
        assert sorted([entry.path async for entry in repository.walk()]) == ["deep/y", "x"]
        assert await repository.read_bytes("x") == b"x" * 100
        async with repository.open_read("x", start=10, end=20) as pieces:
            assert b"".join([piece async for piece in pieces]) == b"x" * 10
        await repository.download_artifacts(None, tmp_path / "down")
        with pytest.raises(AsyncStoreError):
            await repository.write_bytes("new", b"")
    assert (tmp_path / "down" / "deep" / "y").read_bytes() == b"y"
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "down"}


# A filesystem that fails


class Brittle(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Its connection breaks as told."""

    protocol = "brittle"
    store: dict[str, Any] = {}  # noqa: RUF012  as in the base class
    pseudo_dirs: list[str] = [""]  # noqa: RUF012  as in the base class
    broken: dict[str, int] = {}  # noqa: RUF012  by method, how often it still fails

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("brittle://"))
        return stripped

    @classmethod
    def breaks(cls, name: str) -> None:
        if cls.broken.get(name):
            cls.broken[name] -= 1
            raise ConnectionResetError("the line is down")

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.breaks("ls")
        return super().ls(path, detail, **kwargs)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        self.breaks("cat_file")
        data: bytes = super().cat_file(path, start, end, **kwargs)
        return data

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.breaks("open")
        if "w" not in mode:
            return super()._open(path, mode, **kwargs)
        return BrittleFile(self, path)


class BrittleFile(MemoryFile):  # type: ignore[misc]  # fsspec ships no types
    """Takes half of what is written before the line breaks."""

    def write(self, data: bytes) -> int:
        if Brittle.broken.get("write"):
            super().write(data[: len(data) // 2])
        Brittle.breaks("write")
        written: int = super().write(data)
        return written

    def commit(self) -> None:
        Brittle.breaks("commit")
        super().commit()


@pytest.fixture
def brittle() -> type[Brittle]:
    fsspec.register_implementation("brittle", Brittle)
    Brittle.broken.clear()
    Brittle.store.clear()
    Brittle.pseudo_dirs[:] = [""]
    return Brittle


async def test_a_brittle_filesystem_is_read_again(brittle: type[Brittle], tmp_path: Path) -> None:
    async with ArtifactRepository("brittle://x", transfer=QUICK) as repository:
        for number in range(10):
            await repository.write_bytes(f"d/{number}", bytes(100))
        for name in ("ls", "cat_file"):
            brittle.broken[name] = 3
            await repository.download_artifacts(None, tmp_path / name)
            assert brittle.broken[name] == 0
            assert len(list((tmp_path / name / "d").iterdir())) == 10
        brittle.broken["ls"] = 3
        assert len(await repository.list_artifacts("d")) == 10
        brittle.broken["ls"] = 1000
        with pytest.raises(UnavailableError, match="the line is down"):
            await repository.list_artifacts("d")
        assert brittle.broken["ls"] == 1000 - QUICK.retry.attempts


async def test_a_brittle_filesystem_never_gets_a_part_twice(
    brittle: type[Brittle], tmp_path: Path
) -> None:
    content = os.urandom(12 * MIB)
    (tmp_path / "x").write_bytes(content)
    async with ArtifactRepository("brittle://x", transfer=QUICK) as repository:
        await repository.log_artifact(tmp_path / "x")
        assert await repository.read_bytes("x") == content
        for name in ("write", "commit"):
            brittle.broken[name] = 1
            with pytest.raises(AsyncStoreError, match="broke off"):
                await repository.log_artifact(tmp_path / "x", name)
            assert not await repository.exists(f"{name}/x")
        brittle.broken["open"] = 2
        await repository.log_artifact(tmp_path / "x", "open")
        assert await repository.read_bytes("open/x") == content


async def test_a_small_file_goes_to_a_brittle_filesystem_again(brittle: type[Brittle]) -> None:
    async with ArtifactRepository("brittle://x", transfer=QUICK) as repository:
        for name in ("open",):
            brittle.broken[name] = 2
            await repository.write_bytes(name, b"content")
            assert await repository.read_bytes(name) == b"content"


# memory: shows whole files only


async def test_memory_shows_no_file_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = b"old" * MIB, os.urandom(11 * MIB)
    (tmp_path / "x").write_bytes(new)
    async with ArtifactRepository("memory://whole", transfer=QUICK) as repository:
        await repository.write_bytes("x", old)
        seen: list[bytes] = []

        async def watch() -> None:
            while True:
                seen.append(await repository.read_bytes("x"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await repository.log_artifact(tmp_path / "x")
            tasks.cancel_scope.cancel()
        assert all(data in (old, new) for data in seen)

        def refuse(_: object) -> None:
            raise IntegrityError("changed")

        monkeypatch.setattr("asyncstore.files.reading.OpenFile.check_unchanged", refuse)
        with pytest.raises(IntegrityError):
            await repository.log_artifact(tmp_path / "x", "sub")
        assert not await repository.exists("sub/x")
        assert await repository.read_bytes("x") == new
        await repository.delete_artifacts()


# Budgets


async def test_memory_budget_of_one_part_still_transfers(
    proxy: FaultProxy, s3_bucket: str, large: Path, tmp_path: Path
) -> None:
    for number in range(10):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(300_000))
    options = TransferOptions(max_memory=1, max_concurrency=64, retry=QUICK.retry)
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        with anyio.fail_after(60):
            await repository.log_artifacts(tmp_path)
            await repository.download_artifacts(None, tmp_path / "down")
    assert (tmp_path / "down" / large.name).read_bytes() == large.read_bytes()


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_one_request_at_a_time_still_transfers(
    concurrency: int, proxy: FaultProxy, s3_bucket: str, large: Path, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.bin").write_bytes(os.urandom(6 * MIB))
    options = TransferOptions(max_concurrency=concurrency, retry=QUICK.retry)
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        with anyio.fail_after(60):
            await asyncio.gather(
                repository.log_artifacts(tmp_path, "a"),
                repository.log_artifact(large, "b"),
                repository.list_artifacts(),
            )
            await asyncio.gather(
                repository.download_artifacts("a", tmp_path / "down"),
                repository.download_artifacts("b", tmp_path / "down"),
            )
            await repository.delete_artifacts()
    assert (tmp_path / "down" / "b" / large.name).read_bytes() == large.read_bytes()
    transfers = [request for request in proxy.requests if request.method != "GET"]
    assert transfers
    assert proxy.peak_requests_in_flight <= concurrency + 1


async def test_budgets_are_shared_by_roots(
    proxy: FaultProxy, s3_bucket: str, tmp_path: Path
) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()
    proxy.latency = 0.002
    options = TransferOptions(max_concurrency=4)
    async with ArtifactRepository(f"s3://{s3_bucket}/a", transfer=options) as repository:
        other = repository.at(f"s3://{s3_bucket}/b")
        assert other is not None
        await asyncio.gather(repository.log_artifacts(tmp_path), other.log_artifacts(tmp_path))
    assert proxy.peak_requests_in_flight == 4


async def test_a_deadline_of_zero_passes_at_once(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    async with ArtifactRepository(
        tmp_path / "store", transfer=TransferOptions(timeout=0)
    ) as repository:
        for call in (repository.log_artifact(tmp_path / "x"), repository.list_artifacts()):
            with pytest.raises(OperationTimeoutError):
                await call


async def test_an_error_of_a_callback_ends_the_transfer(
    proxy: FaultProxy, s3_bucket: str, large: Path
) -> None:
    class Bad(fsspec.callbacks.Callback):  # type: ignore[misc]  # fsspec ships no types
        def relative_update(self, inc: int = 1) -> None:
            raise RuntimeError("bad bar")

    tasks = asyncio.all_tasks()
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(RuntimeError, match="bad bar"):
            await repository.log_artifact(large, callback=Bad())
        assert asyncio.all_tasks() == tasks
        assert not await repository.exists(large.name)


async def test_the_loop_never_waits_for_files_or_hashes(
    proxy: FaultProxy, s3_bucket: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the transfer is opened, read or hashed in the loop's own thread."""
    import hashlib

    loop_thread, wrong = threading.get_ident(), []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*args: Any, **kwargs: Any) -> Any:
            large_data = args and isinstance(args[0], (bytes, memoryview)) and len(args[0]) > 70_000
            if threading.get_ident() == loop_thread and (name != "md5" or large_data):
                wrong.append(name)
            return function(*args, **kwargs)

        return watching

    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        for module, name in (
            (os, "open"), (os, "preadv"), (os, "pread"), (os, "pwrite"), (os, "fsync"),
            (os, "replace"), (os, "scandir"), (os, "listdir"), (hashlib, "md5"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
        await repository.log_artifacts(tmp_path)
        await repository.download_artifacts(None, tmp_path / "down")
    async with ArtifactRepository(tmp_path / "local", transfer=QUICK) as repository:
        await repository.log_artifact(large)
        await repository.list_artifacts()
        await repository.download_artifacts(None, tmp_path / "down2")
    assert wrong == []


def test_retries_have_a_policy_of_their_own() -> None:
    assert TransferOptions().retry == RetryPolicy()
