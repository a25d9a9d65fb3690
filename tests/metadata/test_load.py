"""Many processes on one database, servers that die, and much data."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from asyncstore.entities import Metric, Param
from asyncstore.errors import UnavailableError
from asyncstore.metadata import MetadataStore
from tests.metadata.load_worker import CALLS, TASKS
from tests.metadata.test_opening import execute
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.running import require

pytestmark = pytest.mark.anyio

PROCESSES = 16
ROOT = Path(__file__).parent.parent.parent
# 16 processes with SQLAlchemy's own pool would ask PostgreSQL for more than its 100 connections.
POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "3", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "0"}


def start(uri: str, run_id: str, number: int, mark: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.metadata.load_worker", uri, run_id, str(number)]
    return subprocess.Popen(
        [*command, str(mark)],
        cwd=ROOT,
        env={**os.environ, **POOL},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
async def test_processes_times_tasks(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: PostgreSQL | MariaDB | None = None
    uri = f"sqlite:///{tmp_path}/load.db"
    if kind != "sqlite":
        server = request.getfixturevalue(kind)
        uri = request.getfixturevalue(f"{kind}_uri")
    marks = [tmp_path / "marks" / f"ready-{number}" for number in range(PROCESSES)]
    marks[0].parent.mkdir()
    async with await MetadataStore.open(uri, str(tmp_path)) as store:
        run_id = (await store.create_run("0", run_name="shared")).info.run_id
    processes = [start(uri, run_id, number, mark) for number, mark in enumerate(marks)]
    try:
        while not all(mark.exists() for mark in marks):
            await asyncio.sleep(0.01)
            assert all(process.poll() is None for process in processes)
        (marks[0].parent / "go").touch()
        said = [
            json.loads(await asyncio.to_thread(process.stdout.readline))  # type: ignore[union-attr]  # a pipe
            for process in processes
        ]
        if server is not None:
            for _ in range(500):
                if server.connection_count(uri) == 0:
                    break
                await asyncio.sleep(0.01)
            assert server.connection_count(uri) == 0
    finally:
        for process in processes:
            process.communicate("\n", timeout=60)
    assert [process.returncode for process in processes] == [0] * PROCESSES
    async with await MetadataStore.open(uri, str(tmp_path)) as store:
        history = await store.get_metric_history(run_id, "m")
        points = {(int(metric.value), metric.step) for metric in history}
        assert len(points) == len(history)
        returned = {(writer, step) for each in said for writer, step in each["returned"]}
        assert returned <= points
        everything = {(w, s) for w in range(PROCESSES * TASKS) for s in range(CALLS)}
        assert points <= everything
        assert len(returned) > len(everything) // 2
        runs = await store.search_runs(["0"], max_results=None)
        assert sorted(run.info.run_id for run in runs) == sorted(
            [run_id, *(run for each in said for run in each["runs"])]
        )
        names = {run.info.run_name for run in runs}
        assert names == {"shared", *(f"run {n}" for n in range(PROCESSES * TASKS))}
        tags = (await store.get_run(run_id)).data.tags
        assert tags.keys() >= {f"t{writer}" for writer in range(PROCESSES * TASKS)}
        assert (await store.get_run(run_id)).data.metrics == {"m": PROCESSES * TASKS - 1.0}


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
async def test_what_was_logged_survives_the_server(
    kind: type[PostgreSQL | MariaDB], tmp_path: Path
) -> None:
    require(kind())
    with kind() as server:
        async with await MetadataStore.open(server.create_database(), str(tmp_path)) as store:
            run_id = (await store.create_run("0")).info.run_id
            returned: set[tuple[int, int]] = set()
            failed: list[UnavailableError] = []
            back = asyncio.Event()

            async def log(task: int) -> None:
                step = 0
                while not (back.is_set() and step % 10 == 0):
                    try:
                        await store.log_metric(run_id, Metric("m", task, 1, step))
                    except UnavailableError as error:
                        failed.append(error)
                    else:
                        returned.add((task, step))
                    step += 1

            tasks = [asyncio.ensure_future(log(task)) for task in range(16)]
            while len(returned) < 200:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.kill)
            while len(failed) < 16:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.restart)
            before = len(returned)
            # The pool's old connections are all broken; nobody has to do anything.
            while len(returned) < before + 200:
                await asyncio.sleep(0.001)
            back.set()
            await asyncio.gather(*tasks)
            history = await store.get_metric_history(run_id, "m")
            found = {(int(metric.value), metric.step) for metric in history}
            assert returned <= found
            assert len(found) == len(history)


RUNS = 3000
# A walk through a whole table, ALL in MariaDB's plan. Runs may be walked through: all of an
# experiment's are candidates.
_BIG = r"(?:latest_metrics|metrics|params|tags)(?:_\d+)?"
WALKS = re.compile(rf"\bSCAN {_BIG}\b|Seq Scan on {_BIG}\b|^\d+ [A-Z ]+ {_BIG} (?:None )?ALL\b")
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})"


async def fill(uri: str) -> None:
    """Thousands of runs with metrics, params and tags, and one long history."""
    mysql = uri.startswith("mysql")
    key, text = ("`key`", "CHAR") if mysql else ("key", "TEXT")
    run = f"concat('r', cast(i AS {text}))" if not uri.startswith("sqlite") else "'r' || i"
    false = "false" if uri.startswith("postgresql") else "0"
    numbers, many = NUMBERS.format(count=RUNS), NUMBERS.format(count=100_000)
    keyed = f"run_uuid, {key}, value"
    metric = f"{keyed}, timestamp, step, is_nan"
    columns = "run_uuid, name, source_type, status, lifecycle_stage, start_time, artifact_uri"
    values = f"{run}, 'n', 'LOCAL', 'FINISHED', 'active', i, '/a', 0"
    statements = ["SET max_recursive_iterations = 1000000"] if mysql else []
    statements.append(
        f"INSERT INTO runs ({columns}, experiment_id) {numbers} SELECT {values} FROM n"
    )
    for k in range(5):
        point = f"{run}, 'm{k}', i, 1, 1, {false}"
        statements.append(f"INSERT INTO latest_metrics ({metric}) {numbers} SELECT {point} FROM n")
        for table in ("params", "tags"):
            pair = f"{run}, 'k{k}', 'v'"
            statements.append(f"INSERT INTO {table} ({keyed}) {numbers} SELECT {pair} FROM n")
    for run_id in ("r1", "r2"):
        point = f"'{run_id}', 'loss', i, i, i, {false}"
        statements.append(f"INSERT INTO metrics ({metric}) {many} SELECT {point} FROM n")
    if uri.startswith("postgresql"):
        statements.append("ANALYZE")
    if mysql:
        statements.append("ANALYZE TABLE runs, metrics, latest_metrics, params, tags")
    await execute(uri, *statements)


def executed_by(store: MetadataStore) -> list[tuple[str, Any]]:
    """The statements that the store executes from now on, as the driver gets them."""
    found: list[tuple[str, Any]] = []
    engine = store._database.engine  # type: ignore[attr-defined]  # looks behind the store

    def remember(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        found.append((statement, values))

    event.listen(engine.sync_engine, "before_cursor_execute", remember)
    return found


async def plan_of(store: MetadataStore, statement: str, values: Any) -> list[str]:
    """The steps of a statement's plan, as lines of text."""
    database = store._database  # type: ignore[attr-defined]  # looks behind the store
    word = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"

    async def explain(connection: Any) -> list[str]:
        rows = await connection.exec_driver_sql(f"{word} {statement}", values)
        return [" ".join(str(part) for part in row) for row in rows]

    lines: list[str] = await database.read("explaining", explain)
    return lines


async def test_indexes_are_used(metadata_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        await fill(metadata_uri)
        statements = executed_by(store)
        wanted = "metrics.m1 > 10 AND params.k1 = 'v' AND tags.k2 LIKE 'v%'"
        found = await store.search_runs(["0"], wanted, max_results=100, order_by=["metrics.m3"])
        assert len(found) == 100
        await store.get_run("r7")
        assert len(await store.get_metric_history("r1", "loss", 100)) == 100
        await store.log_batch("r7", [Metric("x", 1.0, 1)], [Param("y", "z")], {"t": "u"})
        seen = list(statements)
        assert len(seen) > 6
        for statement, values in seen:
            if not statement.lstrip().upper().startswith("SELECT"):
                continue
            for line in await plan_of(store, statement, values):
                assert not WALKS.search(line), (line, statement)
        # And this is what a walk looks like.
        walk = "SELECT run_uuid FROM params WHERE value = 'x'"
        assert any(WALKS.search(line) for line in await plan_of(store, walk, ()))


async def test_memory_stays_flat(metadata_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        await fill(metadata_uri)

        async def pages_of_history() -> int:
            count, token = 0, None
            while True:
                page = await store.get_metric_history("r1", "loss", 2000, token)
                count += len(page)
                if (token := page.token) is None:
                    return count

        async def pages_of_runs() -> int:
            count, token = 0, None
            while True:
                page = await store.search_runs(["0"], max_results=100, page_token=token)
                count += len(page)
                if (token := page.token) is None:
                    return count

        await store.get_metric_history("r1", "loss", 2000)
        await store.search_runs(["0"], max_results=100)
        tracemalloc.start()
        try:
            assert await pages_of_history() == 100_000
            assert await pages_of_runs() == RUNS
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # All at once they are about 50 MiB.
        assert peak < 12 * 2**20
