"""Cancelled at any step: nothing is left on the server, on disk, in the loop or on the network.

A step is one callback of the event loop: every await that is resumed is one. A first run counts
them; then the same operation is cancelled at steps that are spread evenly over that count.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.conftest import MIB, QUICK

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio

POINTS = 42
Work = Callable[[], Awaitable[Any]]


class Steps:
    """Counts the steps of the running loop, and does something at one of them."""

    def __init__(self) -> None:
        self.count = 0
        self.action: Callable[[], object] | None = None
        self.at = -1

    def step(self) -> None:
        self.count += 1
        if self.count == self.at and self.action is not None:
            self.action()


@contextmanager
def counted(steps: Steps) -> Iterator[None]:
    run = asyncio.Handle._run
    loop = asyncio.get_running_loop()

    def counting(handle: asyncio.Handle) -> None:
        if handle._loop is loop:  # type: ignore[attr-defined]  # the proxy's loop does not count
            steps.step()
        run(handle)

    setattr(asyncio.Handle, "_run", counting)  # noqa: B010  no public hook is there
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def native(work: Work, steps: Steps) -> bool:
    """`Task.cancel`, as web servers do it. True when the work was cancelled."""

    async def main() -> None:
        await work()

    task = asyncio.ensure_future(main())
    steps.action = task.cancel
    with counted(steps):
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def scope(work: Work, steps: Steps) -> bool:
    """An anyio scope."""
    with anyio.CancelScope() as cancel_scope, counted(steps):
        steps.action = cancel_scope.cancel
        await work()
    return cancel_scope.cancelled_caught


async def timeout(work: Work, steps: Steps) -> bool:
    """`asyncio.timeout`."""
    try:
        async with asyncio.timeout(None) as deadline:
            with counted(steps):
                steps.action = lambda: deadline.reschedule(0)
                await work()
    except TimeoutError:
        assert deadline.expired()
        return True
    return False


Way = Callable[[Work, Steps], Awaitable[bool]]
WAYS = pytest.mark.parametrize("way", [native, scope, timeout])


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, bytes]:
    """A file in two parts, and small ones, in `tmp_path / "up"`."""
    tree = {f"{number}.bin": os.urandom(5 * MIB + 100) for number in range(1)}
    tree |= {f"sub/{number}.txt": os.urandom(1000) for number in range(6)}
    for path, data in tree.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(data)
    return tree


def points(total: int) -> list[int]:
    return [1 + number * total // POINTS for number in range(POINTS)]


def reached(cancelled: bool, steps: int, at: int) -> list[bool]:
    """Whether it was cancelled; nothing of a run that took fewer steps than the one counted."""
    return [cancelled] if steps >= at else []


@asynccontextmanager
async def connected(uri: str, proxy: FaultProxy) -> AsyncIterator[ArtifactRepository]:
    """A repository that leaves no connection when it is closed."""
    tasks = asyncio.all_tasks()
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        yield repository
    assert asyncio.all_tasks() <= tasks
    await eventually(lambda: proxy.connections == 0)


async def eventually(holds: Callable[[], bool]) -> None:
    """The proxy is in another thread and needs its time to see what happened."""
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        await asyncio.sleep(0.001)


async def run(
    repository: ArtifactRepository, proxy: FaultProxy, way: Way, at: int, work: Work
) -> tuple[bool, int]:
    """Run an operation that is cancelled at a step; whether it was, and the steps it took."""
    tasks = asyncio.all_tasks()
    steps = Steps()
    steps.at = at
    cancelled = await way(work, steps)
    assert asyncio.all_tasks() <= tasks
    await eventually(lambda: proxy.requests_in_flight == 0)
    # It works as before, with every budget at its full size.
    transfer = repository._state()[1]
    assert transfer._requests.borrowed_tokens == 0
    assert transfer.memory._free == transfer.options.max_memory
    return cancelled, steps.count


@WAYS
async def test_an_upload_cancelled_at_any_step(
    way: Way,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    tree: dict[str, bytes],
    tmp_path: Path,
) -> None:
    outcomes = []
    async with connected(f"s3://{s3_bucket}", proxy) as repository:

        async def send(at: int) -> tuple[bool, int]:
            upload = partial(repository.log_artifacts, tmp_path / "up", str(at))
            return await run(repository, proxy, way, at, upload)

        await send(-1)
        _, total = await send(-2)
        assert len(radosgw.keys(s3_bucket, "-2/")) == len(tree)
        for at in points(total):
            cancelled, steps = await send(at)
            outcomes += reached(cancelled, steps, at)
            assert radosgw.open_multipart_uploads(s3_bucket) == []
            stored = radosgw.keys(s3_bucket, f"{at}/")
            for key in stored:
                body = radosgw.client.get_object(Bucket=s3_bucket, Key=key)["Body"].read()
                assert body == tree[key.removeprefix(f"{at}/")]
            assert cancelled or len(stored) == len(tree)
            radosgw.discard(s3_bucket, f"{at}/")
    assert sum(outcomes) >= max(1, len(outcomes) * 3 // 4)
    assert _contents(tmp_path / "up") == tree


@WAYS
@pytest.mark.parametrize("temporary", [True, False], ids=["temporary", "destination"])
async def test_a_download_cancelled_at_any_step(
    way: Way,
    temporary: bool,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    tree: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path, data in tree.items():
        radosgw.client.put_object(Bucket=s3_bucket, Key=f"p/{path}", Body=data)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    target = None if temporary else place

    outcomes = []
    async with connected(f"s3://{s3_bucket}/p", proxy) as repository:

        async def receive(at: int) -> tuple[bool, int]:
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            download = partial(repository.download_artifacts, None, target)
            return await run(repository, proxy, way, at, download)

        await receive(-1)
        _, total = await receive(-1)
        for at in points(total)[:: 3 if temporary else 1]:
            cancelled, steps = await receive(at)
            outcomes += reached(cancelled, steps, at)
            if cancelled and temporary:
                assert list(place.iterdir()) == []
            elif cancelled:
                assert _contents(place).items() <= tree.items()
            else:
                assert sorted(_contents(place).values()) == sorted(tree.values())
    assert sum(outcomes) >= max(1, len(outcomes) * 3 // 4)


@WAYS
async def test_a_stream_cancelled_at_any_step(
    way: Way, proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway
) -> None:
    content = os.urandom(2 * MIB)
    radosgw.client.put_object(Bucket=s3_bucket, Key="f", Body=content)
    outcomes = []
    async with connected(f"s3://{s3_bucket}", proxy) as repository:

        async def read() -> None:
            async with repository.open_read("f", chunk_size=100_000) as pieces:
                assert b"".join([piece async for piece in pieces]) == content

        await run(repository, proxy, way, -1, read)
        _, total = await run(repository, proxy, way, -1, read)
        for at in points(total)[::2]:
            cancelled, steps = await run(repository, proxy, way, at, read)
            outcomes += reached(cancelled, steps, at)
    assert sum(outcomes) >= max(1, len(outcomes) // 2)


@WAYS
async def test_a_local_upload_cancelled_at_any_step(
    way: Way, tree: dict[str, bytes], tmp_path: Path
) -> None:
    async def upload(repository: ArtifactRepository) -> None:
        await repository.log_artifacts(tmp_path / "up")

    async def send(at: int) -> tuple[bool, int]:
        steps = Steps()
        steps.at = at
        tasks = asyncio.all_tasks()
        async with ArtifactRepository(tmp_path / "store" / str(at), transfer=QUICK) as repository:
            cancelled = await way(lambda: upload(repository), steps)
            assert asyncio.all_tasks() <= tasks
        return cancelled, steps.count

    await send(-1)
    _, total = await send(0)
    outcomes = []
    for at in points(total):
        cancelled, steps = await send(at)
        outcomes += reached(cancelled, steps, at)
        assert _contents(tmp_path / "store" / str(at)).items() <= tree.items()
    assert sum(outcomes) >= max(1, len(outcomes) // 2)


@WAYS
async def test_a_download_cancelled_at_its_last_steps(
    way: Way, tree: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    found: list[str] = []

    async def receive() -> None:
        found.append(await repository.download_artifacts("sub/1.txt"))

    async with ArtifactRepository(tmp_path / "up", transfer=QUICK) as repository:
        steps = Steps()
        await way(receive, steps)
        total = steps.count
        for at in range(total - 12, total + 1):
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            found.clear()
            steps = Steps()
            steps.at = at
            await way(receive, steps)
            # Who was not given the path could not remove it.
            assert found or list(place.iterdir()) == []


async def test_opening_cancelled_at_any_step(proxy: FaultProxy, s3_bucket: str) -> None:
    tasks = asyncio.all_tasks()

    async def open_and_close() -> None:
        async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
            await repository.list_artifacts()

    steps = Steps()
    await native(open_and_close, steps)
    for at in points(steps.count)[::3]:
        steps = Steps()
        steps.at = at
        await native(open_and_close, steps)
        assert asyncio.all_tasks() <= tasks
    await eventually(lambda: proxy.connections == 0)


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }
