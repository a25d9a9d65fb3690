"""What a directory on an NFS server does that a local one does not, by fault injection.

No kernel mount can be had in a container: the functions of `os` fail as they do over NFS. What
stale handles do to open, read and rename is in `test_local.py`.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import AsyncStoreError, UnavailableError
from tests.artifacts.conftest import LARGE, QUICK
from tests.artifacts.test_local import Stumble, files

pytestmark = pytest.mark.anyio

NAME = f".nfs{0x1234:016x}{7:08x}"
WAYS = ("one file", "large file", "directory", "bytes", "download")


@pytest.fixture(autouse=True)
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncstore.files.threads.time.sleep", lambda _: None)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """What is sent from, with an old version where it goes."""
    for name, content in {
        "in/small": b"new",
        "in/large": os.urandom(LARGE),
        "dir/small": b"new",
        "store/small": b"old",
        "store/large": b"old",
        "down/small": b"old",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


async def store(way: str, place: Path) -> None:
    """Write over what is there, in one of `WAYS`."""
    async with ArtifactRepository(place / "store", transfer=QUICK) as repository:
        if way == "one file":
            await repository.log_artifact(place / "in" / "small")
        elif way == "large file":
            await repository.log_artifact(place / "in" / "large")
        elif way == "directory":
            await repository.log_artifacts(place / "dir")
        elif way == "bytes":
            await repository.write_bytes("small", b"new")
    if way == "download":
        async with ArtifactRepository(place / "in", transfer=QUICK) as repository:
            await repository.download_artifacts("small", place / "down")


def assert_untouched(place: Path, before: set[str]) -> None:
    for name in ("store/small", "store/large", "down/small"):
        assert (place / name).read_bytes() == b"old"
    assert files(place) == before


# Stale handles


@pytest.mark.parametrize("name", ["stat", "unlink", "rmdir", "mkdir", "lstat"])
async def test_a_stale_handle_is_tried_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble = Stumble(errno.ESTALE, 3)
    monkeypatch.setattr(os, name, stumble.around(getattr(os, name)))
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        await repository.write_bytes("a/b/x", b"x")
        assert (await repository.info("a/b/x")).file_size == 1
        await repository.delete_artifacts("a")
        assert not await repository.exists("a")
        await repository.write_bytes("x", b"x")
        await repository.delete_artifacts("x")
        assert not await repository.exists("x")
    assert stumble.calls > 3
    assert stumble.left == 0


# Writes that fail late


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE])
@pytest.mark.parametrize("step", ["fsync", "close"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_write_that_fails_at_the_end_changes_nothing(
    way: str, step: str, code: int, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(prepared)
    sync, close, synced = os.fsync, os.close, set()

    def syncing(fd: int) -> None:
        synced.add(fd)
        if step == "fsync":
            raise OSError(code, os.strerror(code))
        sync(fd)

    def closing(fd: int) -> None:
        close(fd)
        if fd in synced:
            synced.discard(fd)
            if step == "close":
                raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "close", closing)
    with pytest.raises(AsyncStoreError, match="what was written is lost") as raised:
        await store(way, prepared)
    assert os.strerror(code) in str(raised.value)
    # Another attempt would find the server's cache empty and the disk as full.
    assert not isinstance(raised.value, UnavailableError)
    assert_untouched(prepared, before)


@pytest.mark.parametrize("way", WAYS)
async def test_the_loop_goes_on_while_a_close_takes_its_time(
    way: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, close, synced = os.fsync, os.close, set()
    closing, go_on = threading.Event(), threading.Event()

    def syncing(fd: int) -> None:
        synced.add(fd)
        sync(fd)

    def slow(fd: int) -> None:
        if fd in synced:
            synced.discard(fd)
            closing.set()
            # Without a loop that goes on, nobody would let it.
            assert go_on.wait(30)
        close(fd)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "close", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store, way, prepared)
        await anyio.to_thread.run_sync(closing.wait)
        assert b"new" not in (prepared / "store" / "small").read_bytes()
        go_on.set()


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_while_a_close_takes_its_time(
    way: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(prepared)
    sync, close, synced = os.fsync, os.close, set()
    closing, go_on = threading.Event(), threading.Event()

    def syncing(fd: int) -> None:
        synced.add(fd)
        sync(fd)

    def slow(fd: int) -> None:
        if fd in synced:
            synced.discard(fd)
            closing.set()
            assert go_on.wait(30)
        close(fd)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "close", slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store, way, prepared)
        await anyio.to_thread.run_sync(closing.wait)
        tasks.cancel_scope.cancel()
        go_on.set()
    # Old or new, and nothing beside it.
    assert files(prepared) == before
    large = (prepared / "in" / "large").read_bytes()
    for name in ("store/small", "store/large", "down/small"):
        assert (prepared / name).read_bytes() in (b"old", b"new", large)


async def test_what_was_read_is_closed_in_a_worker_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(os.urandom(LARGE))
    (tmp_path / "empty").touch()
    opened: list[Any] = []
    closed: list[int] = []

    class File:
        def __init__(self, file: Any) -> None:
            self._file = file
            opened.append(self)

        def fileno(self) -> int:
            number: int = self._file.fileno()
            return number

        def close(self) -> None:
            closed.append(threading.get_ident())
            self._file.close()

        @property
        def closed(self) -> bool:
            is_closed: bool = self._file.closed
            return is_closed

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args, **kw: File(real(path, *args, **kw)))
    async with ArtifactRepository(tmp_path, transfer=QUICK) as repository:
        await repository.read_bytes("x")
        await repository.read_bytes("empty")
        async with repository.open_read("x", start=5, end=10) as pieces:
            _ = [piece async for piece in pieces]
        async with repository.open_read("x") as pieces:
            async for _ in pieces:
                break
    assert len(opened) == 4
    assert all(file.closed for file in opened)
    assert threading.get_ident() not in closed


# Renames


@pytest.mark.parametrize("way", WAYS)
async def test_a_rename_that_is_none_changes_nothing(
    way: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EXDEV: no file system may copy instead, which a reader could watch."""
    before = files(prepared)
    stumble = Stumble(errno.EXDEV, 1000)
    monkeypatch.setattr(os, "replace", stumble.around(os.replace))
    with pytest.raises(AsyncStoreError, match=os.strerror(errno.EXDEV)):
        await store(way, prepared)
    assert stumble.calls == 1
    assert_untouched(prepared, before)


@pytest.fixture(params=["link", "mount"])
def other_device(request: pytest.FixtureRequest, prepared: Path) -> Iterator[Path]:
    """`store/sub` is on another device than `store`."""
    sub = prepared / "store" / "sub"
    if request.param == "link":
        shared = Path("/dev/shm")
        if not shared.is_dir() or shared.stat().st_dev == prepared.stat().st_dev:
            pytest.skip("no second device here")
        there = shared / f"asyncstore-test-{os.getpid()}"
        there.mkdir()
        sub.symlink_to(there)
        yield sub
        for file in there.rglob("*"):
            file.unlink()
        there.rmdir()
        return
    sub.mkdir()
    command = ["mount", "-t", "tmpfs", "none", str(sub)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield sub
    subprocess.run(["umount", str(sub)], check=True)


async def test_a_mount_point_in_between(other_device: Path, prepared: Path) -> None:
    """A file is staged beside its destination, and so on its device, wherever that is."""
    assert other_device.stat().st_dev != (prepared / "store").stat().st_dev
    content = {"small": b"new", "large": (prepared / "in" / "large").read_bytes()}
    async with ArtifactRepository(prepared / "store", transfer=QUICK) as repository:
        await repository.log_artifacts(prepared / "in", "sub")
        await repository.log_artifacts(prepared / "in", "sub")
        await repository.write_bytes("sub/bytes", b"new")
    assert {name: (other_device / name).read_bytes() for name in content} == content
    assert {path.name for path in other_device.iterdir()} == {"small", "large", "bytes"}
    async with ArtifactRepository(prepared / "in", transfer=QUICK) as repository:
        await repository.download_artifacts(None, other_device)
    assert {path.name for path in other_device.iterdir()} == {"small", "large", "bytes"}


async def test_a_file_that_is_itself_a_mount_point(prepared: Path) -> None:
    target = prepared / "store" / "small"
    command = ["mount", "--bind", str(prepared / "down" / "small"), str(target)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        before = files(prepared)
        with pytest.raises(AsyncStoreError, match=os.strerror(errno.EBUSY)):
            await store("bytes", prepared)
        assert_untouched(prepared, before)
    finally:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
@pytest.mark.parametrize("way", WAYS)
async def test_a_rename_whose_answer_was_lost_is_not_taken_for_a_failure(
    way: str, code: int, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, replace, lost = files(prepared), os.replace, False

    def lose(source: Path, target: Path) -> None:
        nonlocal lost
        replace(source, target)
        if not lost:
            lost = True
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", lose)
    await store(way, prepared)
    assert lost
    assert files(prepared) == before
    name = {"large file": "store/large", "download": "down/small"}.get(way, "store/small")
    assert (prepared / name).read_bytes() != b"old"


@pytest.mark.parametrize("way", WAYS)
async def test_a_staged_file_that_somebody_removed_is_an_error(
    way: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, replace = files(prepared), os.replace

    def sabotage(source: Path, target: Path) -> None:
        Path(source).unlink()
        replace(source, target)

    monkeypatch.setattr(os, "replace", sabotage)
    with pytest.raises(AsyncStoreError):
        await store(way, prepared)
    assert_untouched(prepared, before)


# Files that were deleted while somebody reads them


class SillyRenames:
    """Deleting a file that is open only renames it, as Linux's NFS client does."""

    def __init__(self, held: str) -> None:
        self.held = held
        self.open = True
        self.attempts = 0

    def around(self, unlink: Callable[..., None]) -> Callable[..., None]:
        def silly(path: Any, *, dir_fd: int | None = None) -> None:
            name = Path(path).name
            if self.open and name == self.held:
                os.rename(path, Path(path).with_name(NAME), src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            elif self.open and name == NAME:
                self.attempts += 1
                if self.on_attempt(self.attempts):
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
                unlink(path, dir_fd=dir_fd)
            else:
                unlink(path, dir_fd=dir_fd)

        return silly

    def on_attempt(self, _: int) -> bool:
        return True


@pytest.mark.parametrize("path", ["run", ""])
async def test_a_directory_whose_file_is_still_read(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silly = SillyRenames("held")
    monkeypatch.setattr(os, "unlink", silly.around(os.unlink))
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        for name in ("run/a/1", "run/b/held", "run/b/2", "run/c/3", "run/4"):
            await repository.write_bytes(name, b"x")
        with pytest.raises(UnavailableError, match=f"b(/{NAME})? is in use"):
            await repository.delete_artifacts(path)
        # All the rest is gone, and what is left is no artifact.
        assert files(tmp_path / "store") == {f"run/b/{NAME}"}
        assert [entry async for entry in repository.walk()] == []
        assert await repository.list_artifacts("run/b") == []
        silly.open = False
        await repository.delete_artifacts(path)
        assert not await repository.exists("run")


async def test_a_reader_that_is_done_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silly = SillyRenames("held")
    monkeypatch.setattr(silly, "on_attempt", lambda attempt: attempt < 2)
    monkeypatch.setattr(os, "unlink", silly.around(os.unlink))
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        await repository.write_bytes("run/held", b"x")
        await repository.delete_artifacts("run")
        assert not await repository.exists("run")
    assert silly.attempts == 2


async def test_two_who_delete_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        for number in range(10):
            await repository.write_bytes(f"run/{number}/x", b"x")
        unlink = os.unlink

        def both(path: Any, *, dir_fd: int | None = None) -> None:
            unlink(path, dir_fd=dir_fd)
            unlink(path, dir_fd=dir_fd)

        monkeypatch.setattr(os, "unlink", both)
        await repository.delete_artifacts("run")
        assert not await repository.exists("run")
