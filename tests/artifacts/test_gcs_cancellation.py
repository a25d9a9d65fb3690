"""Transfers to Google Cloud Storage cancelled at any step: nothing is left anywhere."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.testing.fault_proxy import Answer, FaultProxy, Hang
from tests.artifacts.conftest import MIB, QUICK
from tests.artifacts.gcs_fixtures import bucket, emulator, gcs_proxy, of, only
from tests.artifacts.test_cancellation import (
    POINTS,
    WAYS,
    Steps,
    Way,
    connected,
    eventually,
    native,
    points,
    run,
    tree,
)

if TYPE_CHECKING:
    from tests.servers.gcs import GcsEmulator

__all__ = ["bucket", "emulator", "gcs_proxy", "tree"]

pytestmark = pytest.mark.anyio

CHUNK = 256 * 1024


@WAYS
@pytest.mark.parametrize("parts", [True, False], ids=["parts", "resumable"])
async def test_an_upload_cancelled_at_any_step(
    parts: bool,
    way: Way,
    gcs_proxy: FaultProxy,
    bucket: str,
    emulator: GcsEmulator,
    tree: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file goes in 9 components, or in 3 chunks."""
    if parts:
        monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(600_000))
    else:
        monkeypatch.setenv("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", str(8 * CHUNK))
        monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(100 * MIB))
    monkeypatch.setattr(
        "tests.artifacts.test_cancellation.QUICK",
        dataclasses.replace(QUICK, multipart_upload_chunk_size=None),
    )
    outcomes = []
    async with connected(f"gs://{bucket}", gcs_proxy) as repository:

        async def send(at: int) -> tuple[bool, int]:
            upload = partial(repository.log_artifacts, tmp_path / "up", str(at))
            return await run(repository, gcs_proxy, way, at, upload)

        await send(-1)
        _, total = await send(-2)
        assert len(emulator.keys(bucket, "-2/")) == len(tree)
        for at in points(total):
            cancelled, _ = await send(at)
            outcomes.append(cancelled)
            stored = emulator.keys(bucket, f"{at}/")
            for key in stored:
                assert emulator.get(bucket, key) == tree[key.removeprefix(f"{at}/")]
            assert cancelled or len(stored) == len(tree)
    assert sum(outcomes) >= POINTS * 3 // 4
    started, ended = len(only(gcs_proxy, "start")), len(only(gcs_proxy, "cancel"))
    finished = sum(request.status == 200 for request in only(gcs_proxy, "chunk"))
    assert (started > 0) is not parts
    assert started <= ended + finished


@pytest.mark.parametrize("name", ["part", "compose", "delete"])
async def test_cancelled_when_the_server_has_the_request_and_its_answer_is_on_the_way(
    name: str, gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, large: Path
) -> None:
    gcs_proxy.latency = 0.05
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        task = asyncio.ensure_future(repository.log_artifact(large))
        while not only(gcs_proxy, name):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    # Composing and deleting are not interrupted: the file is there, whole.
    assert emulator.keys(bucket) == ([] if name == "part" else ["large.bin"])


async def test_a_cancellation_is_not_lost_when_the_components_cannot_be_deleted(
    gcs_proxy: FaultProxy, bucket: str, large: Path
) -> None:
    gcs_proxy.faults += [Hang(matches=of("part")), Answer(matches=of("delete"))]
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        task = asyncio.ensure_future(repository.log_artifact(large))
        while not only(gcs_proxy, "part"):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@WAYS
async def test_a_download_cancelled_at_any_step(
    way: Way, gcs_proxy: FaultProxy, bucket: str, emulator: GcsEmulator, tmp_path: Path
) -> None:
    tree = {"large": os.urandom(5 * MIB), "a/small": os.urandom(1000), "b/c": b""}
    for path, data in tree.items():
        emulator.put(bucket, f"p/{path}", data)
    outcomes = []
    place = tmp_path / "place"
    async with connected(f"gs://{bucket}/p", gcs_proxy) as repository:

        async def receive(at: int) -> tuple[bool, int]:
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            download = partial(repository.download_artifacts, None, place)
            return await run(repository, gcs_proxy, way, at, download)

        await receive(-1)
        _, total = await receive(-1)
        for at in points(total)[::2]:
            cancelled, _ = await receive(at)
            outcomes.append(cancelled)
            for found in place.rglob("*"):
                name = found.relative_to(place).as_posix()
                assert found.is_dir() or found.read_bytes() == tree[name]
    assert sum(outcomes) >= len(outcomes) * 3 // 4


async def test_opening_cancelled_at_any_step(gcs_proxy: FaultProxy, bucket: str) -> None:
    tasks = asyncio.all_tasks()

    async def open_and_close() -> None:
        async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
            await repository.list_artifacts()

    steps = Steps()
    await native(open_and_close, steps)
    for at in points(steps.count)[::2]:
        steps = Steps()
        steps.at = at
        await native(open_and_close, steps)
        assert asyncio.all_tasks() <= tasks
    await eventually(lambda: gcs_proxy.connections == 0)


async def test_closing_hangs_up_on_a_server_that_does_not_read(
    gcs_proxy: FaultProxy, bucket: str, large: Path
) -> None:
    gcs_proxy.bytes_per_second = 100_000
    async with ArtifactRepository(f"gs://{bucket}", transfer=QUICK) as repository:
        backend: Any = repository._state()[0]
        sockets = backend.client._sockets
        task = asyncio.ensure_future(repository.log_artifact(large))
        while not only(gcs_proxy, "part"):
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert sockets._open()
    assert not sockets._open()
    gcs_proxy.bytes_per_second = None
    await eventually(lambda: gcs_proxy.connections == 0)
