"""What every storage must do behind `ArtifactRepository`, as tests to subclass.

    class TestMyStorage(ArtifactRepositoryTests):
        @pytest.fixture
        def artifact_uri(self) -> str:
            return "mine://host/somewhere/new"

        @pytest.fixture
        def raw(self, artifact_uri: str) -> RawStorage:
            return ...  # puts, gets and lists without asyncstore

Needs pytest and the `anyio` plugin, with an `anyio_backend` fixture of "asyncio".
"""

# ruff: noqa: S101, D102, ASYNC240  these are tests, with names that say what they are for

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import anyio
import pytest
from fsspec.callbacks import Callback

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.entities import FileInfo
from asyncstore.errors import AsyncStoreError, InvalidParameterError, NotFoundError
from asyncstore.testing.fault_proxy import FaultProxy

__all__ = [
    "MIB",
    "ODD_NAMES",
    "TREE",
    "ArtifactRepositoryTests",
    "Place",
    "Progress",
    "RawStorage",
]

MIB = 1024 * 1024

#: Names that some layer between a person and a disk has been seen to change.
ODD_NAMES = (
    "two words.txt",
    "50%.txt",
    "100%25.txt",
    "%41.txt",
    "a+b=c&d.txt",
    "#1.txt",
    "x#y?z.txt",
    "what?.txt",
    "semi;colon,comma.txt",
    "quote'and\"double.txt",
    "glob[ab]*{c}.txt",
    "~tilde",
    "-dash",
    ".hidden",
    "..two dots",
    "dots..",
    "@at!$()",
    "größe-日本語-🎉.txt",
    "nfc-é.txt",
    "nfd-é.txt",
    "n" * 200 + ".txt",
)

#: A tree with an empty file, several levels, and names whose order depends on how one sorts.
TREE: Mapping[str, bytes] = {
    "a.txt": b"alpha",
    "a/b.txt": b"beta",
    "a/b/c.txt": b"gamma",
    "a/b/d/e.bin": bytes(range(256)),
    "a-b.txt": b"delta",
    "empty": b"",
    "model/weights.bin": os.urandom(70_000),
    "packed/data.json.gz": b"\x1f\x8b not really gzip, and to be kept as it is",
}


class RawStorage(Protocol):
    """The storage without asyncstore, to prepare and to check with. Paths as in the repository."""

    def put(self, path: str, data: bytes) -> None:
        """Store a file."""

    def get(self, path: str) -> bytes:
        """The content of a file."""

    def paths(self) -> list[str]:
        """The paths of all files below the root, sorted."""


class Place(NamedTuple):
    """A root, as a person opens it: the arguments of `ArtifactRepository`."""

    uri: str
    storage_options: Mapping[str, Any] | None = None


class Progress(Callback):  # type: ignore[misc]  # fsspec ships no types
    """Remembers what a transfer reported."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def relative_update(self, inc: int = 1) -> None:
        """Count a step."""
        super().relative_update(inc)
        self.steps.append(inc)


class ArtifactRepositoryTests:
    """The suite. A subclass says where the storage is; it cannot replace a test.

    Attributes:
        directories: Whether the storage keeps empty directories.
        large: Bytes of a file that goes in several parts under `options`.
        options: How the suite transfers.
        odd_names: Names that must round-trip.
        many: Files in the test of a long listing.
    """

    pytestmark = pytest.mark.anyio

    directories: ClassVar[bool] = False
    large: ClassVar[int] = 11 * MIB + 3
    options: ClassVar[TransferOptions] = TransferOptions(
        multipart_upload_chunk_size=5 * MIB, multipart_download_chunk_size=2 * MIB
    )
    odd_names: ClassVar[tuple[str, ...]] = ODD_NAMES
    many: ClassVar[int] = 150

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that would silently weaken the suite."""
        super().__init_subclass__(**kwargs)
        if replaced := [n for n in vars(cls) if n.startswith("test_") and n in _own_tests()]:
            raise TypeError(f"{cls.__name__} replaces {', '.join(replaced)}")

    @pytest.fixture
    def artifact_uri(self) -> str:
        """A root where nothing is yet."""
        raise NotImplementedError

    @pytest.fixture
    def storage_options(self) -> Mapping[str, Any] | None:
        """Arguments of the filesystem."""
        return None

    @pytest.fixture
    def raw(self) -> RawStorage:
        """The same root, past asyncstore."""
        raise NotImplementedError

    @pytest.fixture
    def proxy(self) -> FaultProxy | None:
        """A running proxy in front of the server; None where there is nothing to proxy.

        It reads HTTP (`http=True`) where the storage speaks that, and plain connections elsewhere.
        """
        return None

    @pytest.fixture
    def proxied(self, proxy: FaultProxy | None) -> Place | None:
        """The same root as `artifact_uri`, reached through `proxy`."""
        return None

    @pytest.fixture
    def wrong_credentials(self) -> Place | None:
        """The same root with a secret that is wrong; None where the server knows none."""
        return None

    @pytest.fixture
    async def repository(
        self, artifact_uri: str, storage_options: Mapping[str, Any] | None
    ) -> AsyncIterator[ArtifactRepository]:
        """An open repository."""
        async with ArtifactRepository(
            artifact_uri, storage_options=storage_options, transfer=self.options
        ) as repository:
            yield repository

    # One file

    async def test_log_artifact(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        file = tmp_path / "report.html"
        file.write_bytes(b"<html>")
        await repository.log_artifact(file)
        await repository.log_artifact(str(file), "a/b")
        assert raw.paths() == ["a/b/report.html", "report.html"]
        assert raw.get("a/b/report.html") == b"<html>"

    async def test_log_artifact_replaces(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        file = tmp_path / "f"
        for content in (b"first and longer", b"second"):
            file.write_bytes(content)
            await repository.log_artifact(file)
            assert raw.get("f") == content
        assert raw.paths() == ["f"]

    async def test_empty_file(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        (tmp_path / "up").mkdir()
        (tmp_path / "up" / "nothing").touch()
        await repository.log_artifact(tmp_path / "up" / "nothing")
        await repository.write_bytes("nothing more", b"")
        assert raw.get("nothing") == raw.get("nothing more") == b""
        assert await repository.read_bytes("nothing") == b""
        assert await repository.info("nothing") == FileInfo("nothing", False, 0)
        async with repository.open_read("nothing") as pieces:
            assert [piece async for piece in pieces] == []
        local = await repository.download_artifacts("nothing", tmp_path / "down")
        assert Path(local).read_bytes() == b""

    async def test_large_file(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        content = os.urandom(self.large)
        (tmp_path / "large.bin").write_bytes(content)
        sent, received = Progress(), Progress()
        await repository.log_artifact(tmp_path / "large.bin", "sub", callback=sent)
        assert raw.paths() == ["sub/large.bin"]
        assert raw.get("sub/large.bin") == content
        assert sent.size == sent.value == self.large
        assert len(sent.steps) >= 3
        local = await repository.download_artifacts(
            "sub/large.bin", tmp_path / "down", callback=received
        )
        assert local == str(tmp_path / "down" / "sub" / "large.bin")
        assert Path(local).read_bytes() == content
        assert received.size == received.value == self.large
        assert len(received.steps) >= 3
        assert _files(tmp_path / "down") == {"sub/large.bin"}

    async def test_large_file_replaces_and_is_replaced(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        file = tmp_path / "f"
        for content in (b"small", os.urandom(self.large), b"small again"):
            file.write_bytes(content)
            await repository.log_artifact(file)
            assert raw.get("f") == content
            local = await repository.download_artifacts("f", tmp_path / "down")
            assert Path(local).read_bytes() == content

    async def test_bytes(self, repository: ArtifactRepository, raw: RawStorage) -> None:
        await repository.write_bytes("dir/x", b"one")
        assert raw.get("dir/x") == await repository.read_bytes("dir/x") == b"one"
        await repository.write_bytes("dir/x", b"two")
        assert await repository.read_bytes("./dir//x") == b"two"
        content = os.urandom(self.large)
        await repository.write_bytes("large", content)
        assert raw.get("large") == await repository.read_bytes("large") == content
        with pytest.raises(NotFoundError):
            await repository.read_bytes("dir/missing")
        with pytest.raises(InvalidParameterError):
            await repository.write_bytes("", b"x")

    async def test_reads_what_others_wrote(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        for path, data in TREE.items():
            raw.put(path, data)
        assert {path: await repository.read_bytes(path) for path in TREE} == TREE
        local = Path(await repository.download_artifacts(None, tmp_path / "down"))
        assert _contents(local) == TREE

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (0, None),
            (0, 1),
            (1, None),
            (3, 7),
            (4999, 5000),
            (4990, 6000),
            (5000, None),
            (7000, None),
            (7000, 8000),
            (6, 6),
            (0, 0),
            (1, 5001),
        ],
    )
    async def test_open_read_ranges(
        self, start: int, end: int | None, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        content = os.urandom(5000)
        raw.put("f", content)
        async with repository.open_read("f", start=start, end=end) as pieces:
            assert b"".join([piece async for piece in pieces]) == content[start:end]

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (0, -1), (5, 4)])
    async def test_open_read_refuses_what_is_no_range(
        self, start: int, end: int | None, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("f", b"0123456789")
        with pytest.raises(InvalidParameterError):
            async with repository.open_read("f", start=start, end=end) as pieces:
                _ = [piece async for piece in pieces]

    async def test_open_read_of_a_large_file(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        content = os.urandom(self.large)
        raw.put("f", content)
        async with repository.open_read("f", chunk_size=100_000) as pieces:
            read = [piece async for piece in pieces]
        assert b"".join(read) == content
        assert all(len(piece) >= 100_000 for piece in read[:-1])

    async def test_open_read_left_early_holds_nothing(
        self, artifact_uri: str, storage_options: Mapping[str, Any] | None, raw: RawStorage
    ) -> None:
        content = os.urandom(self.large)
        raw.put("f", content)
        options = TransferOptions(max_concurrency=1, max_memory=2 * MIB)
        async with ArtifactRepository(
            artifact_uri, storage_options=storage_options, transfer=options
        ) as repository:
            for _ in range(5):
                async with repository.open_read("f") as pieces:
                    async for piece in pieces:
                        assert content.startswith(piece)
                        break
            with anyio.fail_after(60):
                assert await repository.read_bytes("f") == content

    async def test_open_read_of_nothing(self, repository: ArtifactRepository) -> None:
        with pytest.raises(NotFoundError):
            async with repository.open_read("missing") as pieces:
                _ = [piece async for piece in pieces]

    # Directories

    async def test_log_artifacts_and_back(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        tree = {path: data for path, data in TREE.items() if path != "a.txt"}
        _write(tmp_path / "up", tree)
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
        assert _contents(tmp_path / "down") == below
        assert received.size == received.value == sum(map(len, below.values()))

        everything = await repository.download_artifacts("", tmp_path / "all")
        assert everything == str(tmp_path / "all")
        assert _contents(tmp_path / "all" / "copy" / "of it") == tree

    async def test_download_to_a_temporary_directory(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("a/b", b"x")
        first = Path(await repository.download_artifacts("a"))
        second = Path(await repository.download_artifacts("a/b"))
        assert first != second.parent
        assert first.joinpath("b").read_bytes() == second.read_bytes() == b"x"
        for made in (first, second.parent):
            _remove(made)

    async def test_download_onto_what_is_there(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("a/new", b"new")
        _write(tmp_path, {"a/new": b"an old one that was longer", "a/mine": b"mine"})
        await repository.download_artifacts("a", tmp_path)
        assert _contents(tmp_path) == {"a/new": b"new", "a/mine": b"mine"}

    async def test_download_of_nothing(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("there", b"")
        with pytest.raises(NotFoundError, match="missing"):
            await repository.download_artifacts("missing", tmp_path / "down")
        assert _files(tmp_path / "down") == set()

    async def test_download_onto_a_file_or_a_directory_of_that_name(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("a", b"x")
        _write(tmp_path, {"file": b"", "down/a/below": b"kept"})
        with pytest.raises(InvalidParameterError):
            await repository.download_artifacts("a", tmp_path / "file")
        with pytest.raises(InvalidParameterError):
            await repository.download_artifacts("a", tmp_path / "down")
        assert _contents(tmp_path) == {"file": b"", "down/a/below": b"kept"}

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
        _write(tmp_path / "up", tree)
        await repository.log_artifacts(tmp_path / "up", "o d%d")
        assert raw.paths() == sorted(f"o d%d/{path}" for path in tree)
        local = await repository.download_artifacts("o d%d", tmp_path / "down")
        assert _contents(Path(local)) == tree
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
        _write(tmp_path / "up", {name: name.encode() for name in names})
        await repository.log_artifacts(tmp_path / "up", "many")
        raw.put("many/below/x", b"")
        listed = [entry.path for entry in await repository.list_artifacts("many")]
        assert listed == [*(f"many/{name}" for name in names), "many/below"]
        await repository.download_artifacts("many", tmp_path / "down")
        expected = {name: name.encode() for name in names} | {"below/x": b""}
        assert _contents(tmp_path / "down" / "many") == expected
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

    # Roots

    async def test_two_repositories_on_one_root(
        self,
        repository: ArtifactRepository,
        artifact_uri: str,
        storage_options: Mapping[str, Any] | None,
    ) -> None:
        await repository.write_bytes("a/x", b"first")
        async with ArtifactRepository(artifact_uri, storage_options=storage_options) as other:
            assert await other.read_bytes("a/x") == b"first"
            await other.write_bytes("a/x", b"second")
            await other.write_bytes("a/y", b"new")
        assert await repository.read_bytes("a/x") == b"second"
        assert [entry.path for entry in await repository.list_artifacts("a")] == ["a/x", "a/y"]

    async def test_at_is_another_root(
        self, repository: ArtifactRepository, artifact_uri: str, raw: RawStorage
    ) -> None:
        below = repository.at(f"{artifact_uri}/runs/1")
        assert below is not None
        await below.write_bytes("x", b"1")
        assert raw.paths() == ["runs/1/x"]
        assert await below.list_artifacts() == [FileInfo("x", False, 1)]
        await below.aclose()
        assert await repository.read_bytes("runs/1/x") == b"1"
        assert repository.at("nobody-knows-this://x") is None

    # Paths

    @pytest.mark.parametrize(
        "path",
        ["..", "../x", "a/../../x", "/etc/x", "C:/x", "a\\b", "a\0b", "%2e%2e/x", "%252e%252e/x"],
    )
    async def test_no_path_leaves_the_root(
        self, path: str, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        (tmp_path / "f").touch()
        for call in (
            repository.log_artifact(tmp_path / "f", path),
            repository.log_artifacts(tmp_path, path),
            repository.list_artifacts(path),
            repository.download_artifacts(path, tmp_path / "down"),
            repository.delete_artifacts(path),
            repository.info(path),
            repository.exists(path),
            repository.read_bytes(path),
            repository.write_bytes(path, b""),
        ):
            with pytest.raises(InvalidParameterError) as refusal:
                await call
            assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
        with pytest.raises(InvalidParameterError):
            _ = [entry async for entry in repository.walk(path)]
        with pytest.raises(InvalidParameterError):
            async with repository.open_read(path):
                pass
        assert raw.paths() == []
        assert _files(tmp_path) == {"f"}

    async def test_a_directory_is_no_file(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("a/b", b"x")
        with pytest.raises(AsyncStoreError):
            await repository.read_bytes("a")

    # Many at once

    async def test_many_operations_at_once(
        self, repository: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        _write(tmp_path / "up", {str(number): b"%d" % number for number in range(10)})

        async def one(number: int) -> None:
            await repository.write_bytes(f"w/{number}", b"%d" % number)
            assert await repository.read_bytes(f"w/{number}") == b"%d" % number
            await repository.log_artifacts(tmp_path / "up", f"d/{number}")
            await repository.download_artifacts(f"d/{number}", tmp_path / "down")

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(one, number)
        assert len(raw.paths()) == 110
        assert len(_files(tmp_path / "down")) == 100


def _own_tests() -> set[str]:
    return {name for name in vars(ArtifactRepositoryTests) if name.startswith("test_")}


def _write(directory: Path, tree: Mapping[str, bytes]) -> None:
    for path, data in tree.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)


def _files(directory: Path) -> set[str]:
    return set(_contents(directory))


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _remove(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()
