"""What a storage tells the suite, and what the tests share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pytest
from fsspec.callbacks import Callback

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.testing.fault_proxy import Answer, FaultProxy

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


#: The tests that store nothing through asyncstore.
READS = frozenset(
    {
        "test_reads_what_others_wrote",
        "test_open_read_ranges",
        "test_open_read_refuses_what_is_no_range",
        "test_open_read_of_a_large_file",
        "test_open_read_left_early_holds_nothing",
        "test_open_read_of_nothing",
        "test_no_path_leaves_the_root",
        "test_a_directory_is_no_file",
        "test_download_to_a_temporary_directory",
        "test_download_onto_what_is_there",
        "test_download_of_nothing",
        "test_download_onto_a_file_or_a_directory_of_that_name",
        "test_list_artifacts",
        "test_list_of_a_file_or_of_nothing_is_empty",
        "test_walk",
        "test_info_and_exists",
        "test_capabilities",
        "test_read_only",
        "test_downloads_survive_resets",
        "test_downloads_survive_truncated_answers",
        "test_downloads_wait_as_they_are_told",
        "test_a_slow_server",
        "test_idle_connections_that_the_server_closed",
        "test_a_server_that_is_down_and_comes_back",
        "test_wrong_credentials",
        "test_cancelled_download",
        "test_two_event_loops",
        "test_a_fork",
    }
)


class StorageTests:
    """Where the storage is. A subclass says so; what is None here it may leave out.

    Attributes:
        storage: What to call it in a table.
        server: What it is proven against.
        writable: Whether anything can be stored; where not, the tests that only read run.
        directories: Whether the storage keeps empty directories.
        forks: Whether its library works in the child of a process that has threads.
        large: Bytes of a file that goes in several parts under `options`.
        options: How the suite transfers.
        odd_names: Names that must round-trip.
        many: Files in the test of many small files and of a long listing.
    """

    pytestmark = pytest.mark.anyio

    storage: ClassVar[str] = ""
    server: ClassVar[str] = ""
    writable: ClassVar[bool] = True
    directories: ClassVar[bool] = False
    forks: ClassVar[bool] = True
    large: ClassVar[int] = 11 * MIB + 3
    options: ClassVar[TransferOptions] = TransferOptions(
        multipart_upload_chunk_size=5 * MIB, multipart_download_chunk_size=2 * MIB
    )
    odd_names: ClassVar[tuple[str, ...]] = ODD_NAMES
    many: ClassVar[int] = 1_050

    @pytest.fixture(autouse=True)
    def needs_a_writable_storage(self, request: pytest.FixtureRequest) -> None:
        """Skips what a storage that is read only cannot do."""
        test = getattr(request.node, "originalname", "")
        if not self.writable and test not in READS:
            pytest.skip("needs a storage that can be written")

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
    def error_in_200(self) -> Answer | None:
        """The storage's own error in an answer that begins with 200, and the requests it is for.

        None where it has no such answer.
        """
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


def write(directory: Path, tree: Mapping[str, bytes]) -> None:
    """Make files below a directory of this machine."""
    for path, data in tree.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)


def files(directory: Path) -> set[str]:
    """The paths of the files below a directory of this machine."""
    return set(contents(directory))


def contents(directory: Path) -> dict[str, bytes]:
    """The files below a directory of this machine."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def remove(directory: Path) -> None:
    """Remove a directory of this machine."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()
