"""Databases as storages: several processes, killed writers, and cancellation at many points."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.errors import AsyncStoreError
from asyncstore.filesystems import sql_uploads
from asyncstore.multipart import Part
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.sql_fixtures import (
    RawDatabase,
    database_uri,
    mariadb,
    mysql_uri,
    proxied,
    sqlite_uri,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from tests.servers.mariadb import MariaDB
    from tests.servers.postgresql import PostgreSQL

__all__ = ["database_uri", "mariadb", "mysql_uri", "sqlite_uri"]

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024


def writer(what: str, uri: str, letter: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.artifacts.sql_writer", what, uri, letter],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_write_to_one_path(database_uri: str) -> None:
    """They make the tables at the same time, too; who reads sees one of them, whole."""
    writers = [writer("race", database_uri, letter) for letter in "ab"]
    seen: set[bytes] = set()
    try:
        async with ArtifactRepository(database_uri) as repository:
            while any(each.poll() is None for each in writers):
                for path, size in (("d/small", 300_000), ("d/large", 9 * MIB)):
                    if await repository.exists(path):
                        data = await repository.read_bytes(path)
                        assert len(data) == size
                        assert len(set(data)) == 1
                        seen.add(data[:1])
            for each in writers:
                _, errors = await asyncio.to_thread(each.communicate)
                assert each.returncode == 0, errors
            assert seen
            assert [entry.path for entry in await repository.list_artifacts("d")] == [
                "d/large",
                "d/small",
            ]
    finally:
        for each in writers:
            each.kill()
            each.communicate()
    assert RawDatabase(database_uri).left_over() == (0, 0)


async def test_many_make_the_tables_at_once(database_uri: str) -> None:
    raw = RawDatabase(database_uri)
    for _ in range(3):
        repositories = [ArtifactRepository(database_uri) for _ in range(6)]
        async with contextlib.AsyncExitStack() as stack:
            for repository in repositories:
                await stack.enter_async_context(repository)
                # A connection that is open, and nothing that waits for another.
                assert not await repository.exists("x")
            await asyncio.gather(
                *(each.write_bytes(f"d/{n}", b"x") for n, each in enumerate(repositories))
            )
            assert len(await repositories[0].list_artifacts("d")) == 6
        for table in raw.tables():
            raw.execute(f"DROP TABLE {table}")


async def test_a_killed_writer_changes_nothing(database_uri: str) -> None:
    raw = RawDatabase(database_uri)
    async with ArtifactRepository(database_uri) as repository:
        await repository.write_bytes("f", b"old")
        killed = writer("hang", database_uri, "n")
        try:
            assert killed.stdout is not None
            assert await asyncio.to_thread(killed.stdout.readline) == "half\n"
        finally:
            killed.kill()
            await asyncio.to_thread(killed.communicate)
        assert await repository.read_bytes("f") == b"old"
        assert [entry.path async for entry in repository.walk()] == ["f"]
        pending, orphans = raw.left_over()
        assert pending == 1
        assert orphans == 12
    # For a day somebody may still be at it.
    async with ArtifactRepository(database_uri) as repository:
        await repository.write_bytes("g", b"")
        assert raw.left_over() == (pending, orphans)
    async with ArtifactRepository(
        database_uri, storage_options={"abandoned_after": 0.0}
    ) as repository:
        await repository.read_bytes("f")
        assert raw.left_over() == (pending, orphans)
        await repository.write_bytes("g", b"")
        assert raw.left_over() == (0, 0)
        assert await repository.read_bytes("f") == b"old"


async def test_an_upload_that_was_taken_for_abandoned(
    database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ArtifactRepository(database_uri) as repository:
        fs = repository.fs
        upload = await fs.start_upload("f")
        await upload.upload_part(Part(1, 0, MIB), b"x" * MIB)
        assert await fs.clean(older_than=3600) == 0
        # Who writes now and then says so.
        monkeypatch.setattr(sql_uploads, "TOUCH_EVERY", -1)
        raw = RawDatabase(database_uri)
        raw.execute("UPDATE asyncstore_artifacts SET written = 1")
        await upload.upload_part(Part(2, MIB, MIB), b"x" * MIB)
        assert await fs.clean(older_than=3600) == 0
        assert await fs.clean(older_than=-1) == 1
        assert raw.left_over() == (0, 0)
        with pytest.raises(AsyncStoreError, match="abandoned"):
            await upload.upload_part(Part(3, 2 * MIB, MIB), b"x" * MIB)
        with pytest.raises(AsyncStoreError, match="abandoned"):
            await upload.complete()
        await upload.abort()
        assert not await repository.exists("f")
    assert raw.left_over() == (0, 0)


async def test_steps_of_an_upload_may_be_repeated(database_uri: str) -> None:
    """Nobody knows whether a COMMIT was done whose answer did not come."""
    async with ArtifactRepository(database_uri) as repository:
        upload = await repository.fs.start_upload("f")
        for number in (2, 1, 2, 1):
            part = Part(number, (number - 1) * 600_000, 600_000)
            await upload.upload_part(part, b"%d" % number * 600_000)
        for _ in range(2):
            await upload.complete()
        assert await repository.read_bytes("f") == b"1" * 600_000 + b"2" * 600_000
    assert RawDatabase(database_uri).left_over() == (0, 0)


OPTIONS = TransferOptions(multipart_upload_chunk_size=MIB, multipart_download_chunk_size=MIB)


async def _cancel(call: Callable[[], Awaitable[object]], turns: int, *, natively: bool) -> bool:
    """Cancel `call` after so many turns of the event loop; whether it was still running."""

    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await call()

    task = asyncio.ensure_future(run())
    for _ in range(turns):
        await asyncio.sleep(0)
    finished = task.done()
    if natively:
        task.cancel()
    else:
        scope.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return not finished


@pytest.mark.parametrize("natively", [True, False], ids=["task", "scope"])
@pytest.mark.parametrize("what", ["write", "parts", "tree", "read", "stream", "list", "delete"])
async def test_cancelled_at_many_points(
    database_uri: str, what: str, natively: bool, tmp_path: Path
) -> None:
    raw = RawDatabase(database_uri)
    (tmp_path / "parts").write_bytes(b"n" * (3 * MIB))
    (tmp_path / "tree").mkdir()
    for number in range(30):
        (tmp_path / "tree" / f"{number}").write_bytes(b"n" * 1000)
    old = {"write": b"o" * 1000, "parts": b"o" * (2 * MIB)}
    new = {"write": b"n" * 1000, "parts": b"n" * (3 * MIB)}
    async with ArtifactRepository(database_uri, transfer=OPTIONS) as repository:
        for path, content in old.items():
            await repository.write_bytes(path, content)
        for number in range(10):
            await repository.write_bytes(f"d/{number}", b"x" * 1000)

        async def stream() -> None:
            async with repository.open_read("parts") as pieces:
                assert sum([len(piece) async for piece in pieces]) in (2 * MIB, 3 * MIB)

        async def walk() -> None:
            async with aclosing(repository.walk()) as entries:
                _ = [entry async for entry in entries]

        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "write": lambda: repository.write_bytes("write", new["write"]),
            "parts": lambda: repository.log_artifact(tmp_path / "parts"),
            "tree": lambda: repository.log_artifacts(tmp_path / "tree", "new"),
            "read": lambda: repository.download_artifacts("parts", tmp_path / "down"),
            "stream": stream,
            "list": walk,
            "delete": lambda: repository.delete_artifacts("d"),
        }
        pool = repository.fs.connections.engine.pool
        before = asyncio.all_tasks()
        turns = points = 0
        while await _cancel(calls[what], turns, natively=natively):
            assert asyncio.all_tasks() <= before
            assert pool.checkedout() == 0
            points += 1
            turns += 1 + turns // 5
        assert points > 5
        for path in old:
            assert await repository.read_bytes(path) in (old[path], new[path])
        for path in raw.paths():
            assert len(raw.get(path)) in (1000, 2 * MIB, 3 * MIB)
        # The connections that are left are good.
        await asyncio.gather(*(repository.read_bytes("parts") for _ in range(20)))
    assert raw.left_over() == (0, 0)


@pytest.mark.parametrize("server_name", ["postgresql", "mariadb"])
async def test_nothing_is_left_on_the_server(
    server_name: str, request: pytest.FixtureRequest
) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(server_name)
    uri = server.create_database()
    async with ArtifactRepository(uri) as repository:
        await repository.write_bytes("f", b"x" * MIB)
        places = repository.fs.connections.count
        for _ in range(5):
            tasks = [asyncio.ensure_future(repository.read_bytes("f")) for _ in range(40)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert server.connection_count(uri) <= places
        assert repository.fs.connections.engine.pool.checkedout() == 0
    while server.connection_count(uri):
        await asyncio.sleep(0.02)
    server.drop_database(uri)


@pytest.mark.parametrize("server_name", ["postgresql", "mariadb"])
async def test_a_server_that_does_not_answer_holds_nobody(
    server_name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(server_name)
    monkeypatch.setattr("asyncstore.databases.connections.GRACE", 0.5)
    uri = server.create_database()
    with FaultProxy(server.host, http=False) as proxy:
        async with ArtifactRepository(proxied(uri, proxy)) as repository:
            await repository.write_bytes("f", b"old")
            proxy.latency = 60.0
            for call in (repository.write_bytes("f", b"new"), repository.read_bytes("f")):
                began = anyio.current_time()
                with anyio.move_on_after(0.3) as scope:
                    await call
                assert scope.cancelled_caught
                # Long before the answer would have come.
                assert anyio.current_time() - began < 30
            pool: Any = repository.fs.connections.engine.pool
            assert pool.checkedout() == 0
            proxy.latency = 0.0
            with anyio.fail_after(20):
                assert await repository.read_bytes("f") in (b"old", b"new")
    server.drop_database(uri)
