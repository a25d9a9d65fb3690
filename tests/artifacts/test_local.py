"""A directory of this machine, on disks that are full and on NFS servers that stumble."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnavailableError,
)
from tests.artifacts.conftest import LARGE, MIB, QUICK

pytestmark = pytest.mark.anyio


class Stumble:
    """Fails a function of `os` some times, then lets it be."""

    def __init__(self, code: int, times: int) -> None:
        self.code = code
        self.left = times
        self.calls = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stumbling(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.left:
                self.left -= 1
                raise OSError(self.code, os.strerror(self.code))
            return function(*args, **kwargs)

        return stumbling


@pytest.fixture(autouse=True)
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncstore.files.threads.time.sleep", lambda _: None)


def files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


# ESTALE: an NFS server replaced what the handle meant


@pytest.mark.parametrize("name", ["open", "replace", "pread", "pwrite", "scandir", "fstat"])
async def test_a_stale_handle_is_tried_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(LARGE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").write_bytes(content)
    (tmp_path / "in" / "small").write_bytes(b"small")
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        await repository.log_artifacts(tmp_path / "in")
        stumble = Stumble(errno.ESTALE, 3)
        monkeypatch.setattr(os, name, stumble.around(getattr(os, name)))
        if name in ("open", "replace", "pwrite"):
            await repository.log_artifacts(tmp_path / "in", "again")
            assert stumble.left == 0
        stumble.left = 3
        calls = stumble.calls
        await repository.download_artifacts(None, tmp_path / "down")
        assert await repository.read_bytes("large") == content
        assert len(await repository.list_artifacts()) >= 2
        assert stumble.calls > calls
        assert stumble.left == 0
    monkeypatch.undo()
    assert (tmp_path / "down" / "large").read_bytes() == content
    assert not any(name.endswith("part") for name in files(tmp_path))


async def test_a_handle_that_stays_stale_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ArtifactRepository(tmp_path, transfer=QUICK) as repository:
        await repository.write_bytes("x", b"x")
        stumble = Stumble(errno.ESTALE, 1000)
        monkeypatch.setattr(os, "pread", stumble.around(os.pread))
        with pytest.raises(UnavailableError, match=os.strerror(errno.ESTALE)):
            await repository.read_bytes("x")


async def test_a_listing_that_meets_a_stale_handle_in_its_middle_is_not_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    scandir = os.scandir
    stumble = Stumble(errno.ESTALE, 2)

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name = entry.name
            self.stat = stumble.around(entry.stat)

    class Entries:
        def __init__(self, path: str) -> None:
            self._entries = scandir(path)
            self._given = 0

        def __iter__(self) -> Entries:
            return self

        def __next__(self) -> Entry:
            self._given += 1
            if self._given == 20 and self.fails:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return Entry(next(self._entries))

        def close(self) -> None:
            self._entries.close()

        fails = False

    monkeypatch.setattr(os, "scandir", Entries)
    async with ArtifactRepository(tmp_path, transfer=QUICK) as repository:
        assert len(await repository.list_artifacts()) == 50
        assert stumble.left == 0
        Entries.fails = True
        with pytest.raises(UnavailableError):
            await repository.list_artifacts()


# Disks


@pytest.mark.parametrize("size", [10, LARGE])
async def test_what_cannot_be_synced_is_not_renamed(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(os.urandom(size))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").write_bytes(b"the old one")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "x").write_bytes(b"the old one")
    stumble = Stumble(errno.EIO, 1000)
    monkeypatch.setattr(os, "fsync", stumble.around(os.fsync))
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        with pytest.raises(AsyncStoreError, match="what was written is lost"):
            await repository.log_artifact(tmp_path / "x")
        # A second sync would say that all is well.
        assert stumble.calls == 1
        with pytest.raises(AsyncStoreError, match="what was written is lost"):
            await repository.write_bytes("x", b"new")
    async with ArtifactRepository(tmp_path, transfer=QUICK) as repository:
        with pytest.raises(AsyncStoreError, match="what was written is lost"):
            await repository.download_artifacts("x", tmp_path / "down")
    assert (tmp_path / "store" / "x").read_bytes() == b"the old one"
    assert (tmp_path / "down" / "x").read_bytes() == b"the old one"
    assert files(tmp_path) == {"x", "store/x", "down/x"}


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_close_that_fails_counts_as_a_failed_write(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS reports some failed writes there."""
    (tmp_path / "x").write_bytes(os.urandom(size))
    sync, close, synced = os.fsync, os.close, set()

    def note(fd: int) -> None:
        synced.add(fd)
        sync(fd)

    def fail(fd: int) -> None:
        close(fd)
        if fd in synced:
            synced.discard(fd)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "close", fail)
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        with pytest.raises(AsyncStoreError, match=os.strerror(errno.EDQUOT)):
            await repository.log_artifact(tmp_path / "x")
    assert files(tmp_path) == {"x"}


@pytest.mark.parametrize("name", ["pwrite", "posix_fallocate"])
async def test_a_full_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").write_bytes(os.urandom(LARGE))
    if not hasattr(os, name):
        pytest.skip("not on this system")
    monkeypatch.setattr(os, name, Stumble(errno.ENOSPC, 1000).around(getattr(os, name)))
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        with pytest.raises(AsyncStoreError, match=os.strerror(errno.ENOSPC)):
            await repository.download_artifacts("x", tmp_path / "down")
        if name == "pwrite":
            with pytest.raises(AsyncStoreError, match=os.strerror(errno.ENOSPC)):
                await repository.write_bytes("y", b"y")
    assert files(tmp_path) == {"store/x"}


async def test_a_file_size_limit(tmp_path: Path) -> None:
    """A real limit of the operating system, met in the middle of a file."""
    (tmp_path / "x").write_bytes(os.urandom(LARGE))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, hard))
    try:
        async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
            with pytest.raises(AsyncStoreError, match=os.strerror(errno.EFBIG)):
                await repository.log_artifact(tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {"x"}


# Readers see whole files


@pytest.mark.parametrize("way", ["log_artifact", "write_bytes", "download"])
async def test_a_reader_never_sees_a_torn_file(way: str, tmp_path: Path) -> None:
    contents = [bytes([number]) * (6 * MIB + number) for number in range(4)]
    for number, content in enumerate(contents):
        (tmp_path / f"in{number}").mkdir()
        (tmp_path / f"in{number}" / "x").write_bytes(content)
    place = tmp_path / "place"
    place.mkdir()
    target = place / "x"
    target.write_bytes(contents[0])
    stop, seen, torn = threading.Event(), set(), []

    def poll() -> None:
        while not stop.is_set():
            data = target.read_bytes()
            if data in contents:
                seen.add(data[0])
            else:
                torn.append(len(data))

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        async with ArtifactRepository(place, transfer=QUICK) as repository:
            for _ in range(4):
                for number, content in enumerate(contents):
                    if way == "log_artifact":
                        await repository.log_artifact(tmp_path / f"in{number}" / "x")
                    elif way == "write_bytes":
                        await repository.write_bytes("x", content)
                    else:
                        async with ArtifactRepository(tmp_path / f"in{number}") as source:
                            await source.download_artifacts("x", place)
    finally:
        stop.set()
        await anyio.to_thread.run_sync(reader.join)
    assert torn == []
    assert len(seen) > 1


async def test_a_file_that_is_replaced_between_its_ranges_is_an_error_and_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "x").write_bytes(b"a" * LARGE)
    pread, calls = os.pread, 0

    def replacing(fd: int, size: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 3:
            (tmp_path / "new").write_bytes(b"b" * LARGE)
            (tmp_path / "new").replace(store / "x")
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", replacing)
    options = dataclasses.replace(QUICK, max_concurrency=1)
    async with ArtifactRepository(store, transfer=options) as repository:
        with pytest.raises(IntegrityError, match="changed while it was being read"):
            await repository.download_artifacts("x", tmp_path / "down")
    assert files(tmp_path) == {"store/x"}


# What a directory may hold


async def test_what_is_half_written_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef0123456789abcdef.asyncstore-part").touch()
    (tmp_path / "x").touch()
    async with ArtifactRepository(tmp_path) as repository:
        assert [entry.path for entry in await repository.list_artifacts()] == ["x"]
        assert [entry.path async for entry in repository.walk()] == ["x"]


async def test_links_in_a_repository(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"x")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "dir").symlink_to("../real")
    (tmp_path / "store" / "file").symlink_to("../real/x")
    (tmp_path / "store" / "dangling").symlink_to("nowhere")
    (tmp_path / "store" / "loop").symlink_to("loop")
    async with ArtifactRepository(tmp_path / "store") as repository:
        listed = [(entry.path, entry.is_dir) for entry in await repository.list_artifacts()]
        assert listed == [("dir", True), ("file", False)]
        assert {entry.path async for entry in repository.walk()} == {"dir/x", "file"}
        for path in ("dangling", "loop"):
            assert not await repository.exists(path)
            with pytest.raises(NotFoundError):
                await repository.info(path)


async def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for uri in (tmp_path / "x", (tmp_path / "x").as_uri()):
        with pytest.raises(InvalidParameterError, match="is a file"):
            await ArtifactRepository(uri).open()


async def test_a_root_that_is_not_there_yet(tmp_path: Path) -> None:
    async with ArtifactRepository(tmp_path / "not" / "yet") as repository:
        assert await repository.list_artifacts() == []
        assert [entry async for entry in repository.walk()] == []
        await repository.delete_artifacts()
        assert not (tmp_path / "not").exists()


async def test_a_file_where_a_directory_is_needed(tmp_path: Path) -> None:
    async with ArtifactRepository(tmp_path) as repository:
        await repository.write_bytes("a", b"x")
        with pytest.raises(InvalidParameterError, match="Not a directory"):
            await repository.write_bytes("a/b", b"y")
        await repository.write_bytes("d/e", b"y")
        with pytest.raises(InvalidParameterError, match="directory"):
            await repository.write_bytes("d", b"z")
    assert files(tmp_path) == {"a", "d/e"}
