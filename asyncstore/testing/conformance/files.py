"""One file: stored, read, replaced; and paths that stay inside."""

# ruff: noqa: S101, D102, ASYNC240  these are tests, with names that say what they are for

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.entities import FileInfo
from asyncstore.errors import AsyncStoreError, InvalidParameterError, NotFoundError
from asyncstore.testing.conformance.storage import (
    MIB,
    TREE,
    Progress,
    RawStorage,
    StorageTests,
    contents,
    files,
)

__all__ = ["FileTests"]


class FileTests(StorageTests):
    """One file: stored, read, replaced; and paths that stay inside."""

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
        assert files(tmp_path / "down") == {"sub/large.bin"}

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
        assert contents(local) == TREE

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
        assert files(tmp_path) == {"f"}

    async def test_a_directory_is_no_file(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("a/b", b"x")
        with pytest.raises(AsyncStoreError):
            await repository.read_bytes("a")
