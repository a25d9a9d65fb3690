"""Directories: sent, received, listed, deleted."""

# ruff: noqa: S101, D102, ASYNC240  these are tests, with names that say what they are for

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.testing.conformance.storage import (
    TREE,
    Progress,
    RawStorage,
    StorageTests,
    contents,
    files,
    remove,
    write,
)

__all__ = ["DirectoryTests"]


class DirectoryTests(StorageTests):
    """Directories: sent, received, listed, deleted."""

    # Directories

    async def test_log_artifacts_and_back(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        tree = {path: data for path, data in TREE.items() if path != "a.txt"}
        write(tmp_path / "up", tree)
        sent, received = Progress(), Progress()
        await repository.log_artifacts(tmp_path / "up", callback=sent)
        await repository.log_artifacts(str(tmp_path / "up"), "copy/of it")
        assert raw.paths() == sorted([*tree, *(f"copy/of it/{path}" for path in tree)])
        assert {path: raw.get(path) for path in tree} == tree
        total = sum(map(len, tree.values()))
        assert sent.size == sent.value == total

        local = await repository.download_artifacts("a", tmp_path / "down", callback=received)
        assert local == str(tmp_path / "down" / "a")
        below = {path: data for path, data in tree.items() if path.startswith("a/")}
        assert contents(tmp_path / "down") == below
        assert received.size == received.value == sum(map(len, below.values()))

        everything = await repository.download_artifacts("", tmp_path / "all")
        assert everything == str(tmp_path / "all")
        assert contents(tmp_path / "all" / "copy" / "of it") == tree

    async def test_download_to_a_temporary_directory(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("a/b", b"x")
        first = Path(await repository.download_artifacts("a"))
        second = Path(await repository.download_artifacts("a/b"))
        assert first != second.parent
        assert first.joinpath("b").read_bytes() == second.read_bytes() == b"x"
        for made in (first, second.parent):
            remove(made)

    async def test_download_onto_what_is_there(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("a/new", b"new")
        write(tmp_path, {"a/new": b"an old one that was longer", "a/mine": b"mine"})
        await repository.download_artifacts("a", tmp_path)
        assert contents(tmp_path) == {"a/new": b"new", "a/mine": b"mine"}

    async def test_download_of_nothing(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("there", b"")
        with pytest.raises(NotFoundError, match="missing"):
            await repository.download_artifacts("missing", tmp_path / "down")
        assert files(tmp_path / "down") == set()

    async def test_download_onto_a_file_or_a_directory_of_that_name(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("a", b"x")
        write(tmp_path, {"file": b"", "down/a/below": b"kept"})
        with pytest.raises(InvalidParameterError):
            await repository.download_artifacts("a", tmp_path / "file")
        with pytest.raises(InvalidParameterError):
            await repository.download_artifacts("a", tmp_path / "down")
        assert contents(tmp_path) == {"file": b"", "down/a/below": b"kept"}

    async def test_empty_directory(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        (tmp_path / "up" / "hollow" / "deep").mkdir(parents=True)
        progress = Progress()
        await repository.log_artifacts(tmp_path / "up", "x", callback=progress)
        assert raw.paths() == []
        assert progress.value == 0
        expected = [FileInfo("x/hollow", True, None)] if self.directories else []
        assert await repository.list_artifacts("x") == expected
        assert await repository.exists("x/hollow/deep") is self.directories
        await repository.delete_artifacts("x")
        assert not await repository.exists("x")

    async def test_odd_names(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        tree = {f"{name}/{name}": name.encode() for name in self.odd_names}
        tree |= {f"f/{name}": name.encode() for name in self.odd_names}
        write(tmp_path / "up", tree)
        await repository.log_artifacts(tmp_path / "up", "o d%d")
        assert raw.paths() == sorted(f"o d%d/{path}" for path in tree)
        local = await repository.download_artifacts("o d%d", tmp_path / "down")
        assert contents(Path(local)) == tree
        listed = [entry.path for entry in await repository.list_artifacts("o d%d/f")]
        assert listed == sorted(f"o d%d/f/{name}" for name in self.odd_names)
        for name in self.odd_names:
            path = f"o d%d/{name}/{name}"
            assert await repository.read_bytes(path) == raw.get(path) == name.encode()
            assert await repository.info(path) == FileInfo(path, False, len(name.encode()))
            await repository.write_bytes(path, b"by bytes")
            assert raw.get(path) == b"by bytes"
            await repository.log_artifact(tmp_path / "up" / "f" / name, f"single/{name}")
            assert raw.get(f"single/{name}/{name}") == name.encode()
            await repository.delete_artifacts(f"o d%d/{name}")
            assert not await repository.exists(f"o d%d/{name}")
        assert all(path.startswith(("o d%d/f/", "single/")) for path in raw.paths())

    # Listings

    async def test_list_artifacts(self, repository: ArtifactRepository, raw: RawStorage) -> None:
        tree = {path: data for path, data in TREE.items() if path != "a/b.txt"}
        assert await repository.list_artifacts() == []
        for path, data in tree.items():
            raw.put(path, data)
        top = await repository.list_artifacts()
        assert top == [
            FileInfo("a", True, None),
            FileInfo("a-b.txt", False, 5),
            FileInfo("a.txt", False, 5),
            FileInfo("empty", False, 0),
            FileInfo("model", True, None),
            FileInfo("packed", True, None),
        ]
        assert await repository.list_artifacts("") == top
        assert await repository.list_artifacts("a/b") == [
            FileInfo("a/b/c.txt", False, 5),
            FileInfo("a/b/d", True, None),
        ]
        assert await repository.list_artifacts("a/b/") == await repository.list_artifacts("a/b")

    async def test_list_of_a_file_or_of_nothing_is_empty(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("a/file.txt", b"x")
        raw.put("a/file.txt2", b"x")
        assert await repository.list_artifacts("a/file.txt") == []
        assert await repository.list_artifacts("a/missing") == []
        assert await repository.list_artifacts("missing/altogether") == []
        assert await repository.list_artifacts("a/file.txt/below") == []

    async def test_long_listing(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        names = [f"{number:05}" for number in range(self.many)]
        write(tmp_path / "up", {name: name.encode() for name in names})
        await repository.log_artifacts(tmp_path / "up", "many")
        raw.put("many/below/x", b"")
        listed = [entry.path for entry in await repository.list_artifacts("many")]
        assert listed == [*(f"many/{name}" for name in names), "many/below"]
        await repository.download_artifacts("many", tmp_path / "down")
        expected = {name: name.encode() for name in names} | {"below/x": b""}
        assert contents(tmp_path / "down" / "many") == expected
        await repository.delete_artifacts("many")
        assert raw.paths() == []

    async def test_walk(self, repository: ArtifactRepository, raw: RawStorage) -> None:
        deep = "/".join(f"level{number}" for number in range(20)) + "/leaf"
        tree = {path: data for path, data in TREE.items() if path != "a/b.txt"} | {deep: b"leaf"}
        for path, data in tree.items():
            raw.put(path, data)
        expected = sorted((path, False, len(data)) for path, data in tree.items())
        found = [(e.path, e.is_dir, e.file_size) async for e in repository.walk()]
        assert sorted(found) == expected
        assert {entry.path async for entry in repository.walk("a")} == {
            "a/b/c.txt",
            "a/b/d/e.bin",
        }
        assert [entry.path async for entry in repository.walk("level0")] == [deep]
        assert [entry async for entry in repository.walk("missing")] == []
        assert [entry async for entry in repository.walk("a.txt")] == []
        async with aclosing(repository.walk()) as entries:
            async for _ in entries:
                break

    async def test_info_and_exists(self, repository: ArtifactRepository, raw: RawStorage) -> None:
        raw.put("a/b/c.txt", b"12345")
        assert await repository.info("a/b/c.txt") == FileInfo("a/b/c.txt", False, 5)
        assert await repository.info("a/b") == FileInfo("a/b", True, None)
        assert await repository.info("") == FileInfo("", True, None)
        for path in ("a", "a/b", "a/b/", "a/b/c.txt", ""):
            assert await repository.exists(path)
        for path in ("a/b/c", "a/b/c.txtt", "a/bb", "b", "a/b/c.txt/d"):
            assert not await repository.exists(path)
            with pytest.raises(NotFoundError):
                await repository.info(path)

    # Deleting

    async def test_delete(self, repository: ArtifactRepository, raw: RawStorage) -> None:
        for path, data in TREE.items():
            raw.put(path, data)
        before = raw.paths()
        await repository.delete_artifacts("a/missing")
        await repository.delete_artifacts("missing")
        await repository.delete_artifacts("a.tx")
        assert raw.paths() == before
        await repository.delete_artifacts("a.txt")
        assert raw.paths() == [path for path in before if path != "a.txt"]
        await repository.delete_artifacts("a/b")
        assert raw.paths() == [
            path for path in before if path != "a.txt" and not path.startswith("a/b/")
        ]
        assert not await repository.exists("a/b")
        await repository.delete_artifacts("a")
        assert not await repository.exists("a")
        await repository.delete_artifacts()
        assert raw.paths() == []
        await repository.delete_artifacts()
        await repository.write_bytes("new", b"life")
        assert raw.paths() == ["new"]

    # Many at once

    async def test_many_operations_at_once(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        write(tmp_path / "up", {str(number): b"%d" % number for number in range(10)})

        async def one(number: int) -> None:
            await repository.write_bytes(f"w/{number}", b"%d" % number)
            assert await repository.read_bytes(f"w/{number}") == b"%d" % number
            await repository.log_artifacts(tmp_path / "up", f"d/{number}")
            await repository.download_artifacts(f"d/{number}", tmp_path / "down")

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)
        assert len(raw.paths()) == 110
        assert len(files(tmp_path / "down")) == 100
