"""Endings: cancelled, raced, in another event loop, behind a fork."""

# ruff: noqa: S101, D102, ASYNC110  these are tests, with names that say what they are for

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.testing.conformance.storage import RawStorage, StorageTests, contents, write

__all__ = ["EndingTests"]

#: Seconds after which an operation is cancelled, one after the other.
MOMENTS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


class EndingTests(StorageTests):
    """Endings: cancelled, raced, in another event loop, behind a fork."""

    async def cancelled(
        self,
        artifact_uri: str,
        storage_options: Mapping[str, Any] | None,
        operation: Callable[[ArtifactRepository], Awaitable[object]],
        check: Callable[[], None],
    ) -> None:
        """Cancel an operation at many moments; then it must work, and leave no task."""
        before = asyncio.all_tasks()
        async with ArtifactRepository(
            artifact_uri, storage_options=storage_options, transfer=self.options
        ) as repository:
            for number, moment in enumerate(MOMENTS):
                if number % 2:
                    with anyio.move_on_after(moment):
                        await operation(repository)
                else:
                    task = asyncio.ensure_future(operation(repository))
                    await asyncio.sleep(moment)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                check()
            await operation(repository)
        with anyio.fail_after(10):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)

    async def test_cancelled_upload_of_a_directory(
        self,
        artifact_uri: str,
        storage_options: Mapping[str, Any] | None,
        raw: RawStorage,
        tmp_path: Path,
    ) -> None:
        tree = {f"d{n % 3}/{n}": b"%d" % n * 100 for n in range(20)}
        tree |= {"large": os.urandom(self.large)}
        write(tmp_path / "up", tree)

        def check() -> None:
            assert set(raw.paths()) <= set(tree)
            assert all(raw.get(path) == tree[path] for path in raw.paths())

        await self.cancelled(
            artifact_uri, storage_options, lambda r: r.log_artifacts(tmp_path / "up"), check
        )
        assert raw.paths() == sorted(tree)

    async def test_cancelled_upload_keeps_the_old_file(
        self,
        artifact_uri: str,
        storage_options: Mapping[str, Any] | None,
        raw: RawStorage,
        tmp_path: Path,
    ) -> None:
        old, new = os.urandom(self.large), os.urandom(self.large)
        raw.put("x", old)
        (tmp_path / "x").write_bytes(new)

        def check() -> None:
            assert raw.paths() == ["x"]
            assert raw.get("x") in (old, new)

        await self.cancelled(
            artifact_uri, storage_options, lambda r: r.log_artifact(tmp_path / "x"), check
        )
        assert raw.get("x") == new

    async def test_cancelled_download(
        self,
        artifact_uri: str,
        storage_options: Mapping[str, Any] | None,
        raw: RawStorage,
        tmp_path: Path,
    ) -> None:
        tree = {f"d{n % 3}/{n}": b"%d" % n * 100 for n in range(20)}
        tree |= {"large": os.urandom(self.large)}
        for path, data in tree.items():
            raw.put(path, data)

        def check() -> None:
            found = contents(tmp_path / "down")
            assert found.items() <= tree.items()

        await self.cancelled(
            artifact_uri,
            storage_options,
            lambda r: r.download_artifacts(None, tmp_path / "down"),
            check,
        )
        assert contents(tmp_path / "down") == tree

    async def test_cancelled_delete(
        self, artifact_uri: str, storage_options: Mapping[str, Any] | None, raw: RawStorage
    ) -> None:
        tree = {f"d/{n}": b"%d" % n for n in range(20)}
        for path, data in tree.items():
            raw.put(path, data)
        raw.put("kept", b"kept")

        def check() -> None:
            # The server may go on with what it was asked for.
            left = set(raw.paths())
            assert left <= {*tree, "kept"}
            assert "kept" in left

        await self.cancelled(
            artifact_uri, storage_options, lambda r: r.delete_artifacts("d"), check
        )
        assert raw.paths() == ["kept"]

    async def test_two_writers_to_one_path(
        self, repository: ArtifactRepository, raw: RawStorage
    ) -> None:
        choices = [bytes([letter]) * 70_000 for letter in b"abc"]
        raw.put("x", choices[0])
        seen: set[bytes] = set()

        async def read() -> None:
            for _ in range(10):
                seen.add(await repository.read_bytes("x"))

        async def one(content: bytes) -> None:
            for _ in range(5):
                await repository.write_bytes("x", content)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for content in choices[1:]:
                tasks.start_soon(one, content)
        assert seen <= set(choices)
        assert raw.get("x") in choices[1:]
        assert raw.paths() == ["x"]

    def use(self, artifact_uri: str, storage_options: Mapping[str, Any] | None) -> bool:
        """Read `x` in an event loop of its own."""

        async def read() -> bool:
            async with ArtifactRepository(
                artifact_uri, storage_options=storage_options, transfer=self.options
            ) as repository:
                if self.writable:
                    await repository.write_bytes("y", b"new")
                return await repository.read_bytes("x") == b"content"

        return asyncio.run(read())

    def test_two_event_loops(
        self, artifact_uri: str, storage_options: Mapping[str, Any] | None, raw: RawStorage
    ) -> None:
        raw.put("x", b"content")
        assert self.use(artifact_uri, storage_options)
        assert self.use(artifact_uri, storage_options)

    def test_a_fork(
        self, artifact_uri: str, storage_options: Mapping[str, Any] | None, raw: RawStorage
    ) -> None:
        if not self.forks:
            pytest.skip("needs a library that works behind a fork")
        raw.put("x", b"content")
        assert self.use(artifact_uri, storage_options)
        child = os.fork()
        if not child:
            # Neither the tests nor their clean-up go on here; and what waits for ever shows where.
            faulthandler.dump_traceback_later(60, exit=True, file=2)
            status = 2
            try:
                status = 0 if self.use(artifact_uri, storage_options) else 3
            except BaseException:  # noqa: BLE001  the child ends here, whatever it is
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"the child ended with {status}; its own words are on stderr"
        assert self.use(artifact_uri, storage_options)
