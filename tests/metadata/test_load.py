"""Many processes on one database, servers that die, and much data."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import event

from asyncstore.entities import Metric, Param
from asyncstore.errors import UnavailableError
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.schema.management import create_database
from tests.metadata.filling import Counts, fill, id_of
from tests.metadata.load_worker import CALLS, TASKS
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


COUNTS = {
    "sqlite": Counts(runs=100_000, points=1_000_000, traces=20_000, models=20_000),
    "postgresql": Counts(runs=100_000, points=1_000_000, traces=20_000, models=20_000),
    # Enough for its plans; filling it takes three times as long.
    "mariadb": Counts(runs=3_000, points=100_000, traces=3_000, models=3_000),
}
# What was found by `fill`'s numbers, so that a filter that finds nothing is no test.
RUN_FILTERS = {
    "metrics.m1 > 0.5 AND params.p1 = 'v1' AND tags.kind LIKE 'v%'": ["metrics.m3"],
    "params.p1 IS NOT NULL AND params.none IS NULL": [],
    "params.p1 != 'v1' AND tags.kind ILIKE 'V1'": ["params.p2 DESC"],
    "attributes.run_name = 'v1'": ["start_time DESC"],
    "dataset.name = 'data 1'": [],
    "dataset.digest IN ('digest 1', 'digest 2') AND dataset.context = 'train'": ["metrics.m3"],
    "dataset.context LIKE 'te%'": [],
}
TRACE_FILTERS = {
    "tags.k1 = 'v1' AND metadata.k2 LIKE 'v%'": ["timestamp DESC"],
    "tags.k1 IS NOT NULL AND tags.none IS NULL": [],
    "feedback.score > 5": [],
    "feedback.score = '3'": [],
    "feedback.none IS NULL": [],
    "metadata.`mlflow.trace.session` = 's5'": [],
}
MODEL_FILTERS = {
    "metrics.m > 5 AND params.p = 'v1' AND tags.t = 'v1'": [{"field_name": "metrics.m"}],
    "name = 'model' AND params.p != 'v1'": [],
}
_KEYED = r"(?:latest_metrics|metrics|params|tags)(?:_\d+)?"
_LARGE = (
    r"(?:latest_metrics|metrics|params|tags|runs|inputs|input_tags|trace_info|trace_tags|"
    r"trace_request_metadata|assessments|logged_models|logged_model_\w+)(?:_\d+)?"
)


# Its id, that of the step around it, and what it is.
SQLITE_STEP = re.compile(r"(\d+) (\d+) \d+ (.*)")


def walk_through(tables: str) -> re.Pattern[str]:
    """A step that reads a whole table, or a whole index of it; ALL and index are MariaDB's."""
    return re.compile(
        rf"\bSCAN {tables}\b|Seq Scan on {tables}\b|Index(?: Only)? Scan[\w ]* on {tables}$"
        rf"|^\d+ [A-Z ]+ {tables} (?:None )?(?:ALL|index)\b"
    )


KEYED_WALKS = walk_through(_KEYED)
LARGE_WALKS = walk_through(_LARGE)


@pytest.fixture(scope="module", params=COUNTS)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Counts]]:
    """A full database, and how much is in it."""
    counts = COUNTS[request.param]
    path = tmp_path_factory.mktemp("filled") / "load.db"
    server: PostgreSQL | MariaDB | None = None
    uri = f"sqlite:///{path}"
    if request.param != "sqlite":
        server = request.getfixturevalue(request.param)
        uri = server.create_database()

    async def make() -> None:
        await create_database(uri, "3.18")
        async with await MetadataStore.open(uri, "/nowhere"):
            pass  # Makes experiment 0.
        await fill(uri, counts)

    anyio.run(make)
    yield uri, counts
    # A gigabyte.
    path.unlink(missing_ok=True)
    if server is not None:
        server.drop_database(uri)


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


def repeated(lines: list[str]) -> list[str]:
    """The steps of a plan that are done again for each row of those around them."""
    if any(SQLITE_STEP.fullmatch(line) for line in lines):
        return _repeated_on_sqlite(lines)
    if lines[0][:1].isdigit():
        return [line for line in lines if " DEPENDENT " in line]
    return _repeated_on_postgresql(lines)


def _repeated_on_sqlite(lines: list[str]) -> list[str]:
    found, again, reads = [], {"0": False}, set()
    for line in lines:
        number, parent, step = SQLITE_STEP.fullmatch(line).groups()  # type: ignore[union-attr]  # all are
        again[number] = again[parent] or step.startswith("CORRELATED")
        is_read = step.startswith(("SCAN", "SEARCH"))
        # A table behind the first one of a join.
        if again[number] or (is_read and parent in reads):
            found.append(line)
        if is_read:
            reads.add(parent)
    return found


def _repeated_on_postgresql(lines: list[str]) -> list[str]:
    hashed = set(re.findall(r"hashed (SubPlan \d+)", "\n".join(lines)))
    # What is around a line: its indentation, whether it is repeated, and the steps of a join.
    around: list[tuple[int, bool, list[str] | None]] = [(-1, False, None)]
    found = []
    for line in lines:
        step = line.strip()
        indent = len(line) - len(line.lstrip())
        while around[-1][0] >= indent:
            around.pop()
        _, again, joined = around[-1]
        if joined is not None and step.startswith("->"):
            again = again or (bool(joined) and "Materialize" not in step)
            joined.append(step)
        again = again or (step.startswith("SubPlan") and step not in hashed)
        around.append((indent, again, [] if "Nested Loop" in step else None))
        if again:
            found.append(line)
    return found


async def explained(
    store: MetadataStore, statements: list[tuple[str, Any]]
) -> list[tuple[str, list[str]]]:
    """The SELECTs among statements, with their plans."""
    selects = [each for each in statements if each[0].lstrip().upper().startswith("SELECT")]
    assert selects
    return [(text, await plan_of(store, text, values)) for text, values in selects]


async def test_indexes_are_used(filled: tuple[str, Counts], tmp_path: Path) -> None:
    async with await MetadataStore.open(filled[0], str(tmp_path)) as store:
        statements = executed_by(store)
        await store.get_run(id_of(7))
        assert len(await store.get_metric_history(id_of(0), "loss", 100)) == 100
        await store.log_batch(id_of(7), [Metric("x", 1.0, 1)], [Param("y", "z")], {"t": "u"})
        for statement, lines in await explained(store, list(statements)):
            for line in lines:
                assert not KEYED_WALKS.search(line), (line, statement)
        # And this is what a walk looks like.
        walk = "SELECT run_uuid FROM params WHERE value = 'x'"
        assert any(KEYED_WALKS.search(line) for line in await plan_of(store, walk, ()))


async def test_no_filter_walks_through_a_table_for_each_row(
    filled: tuple[str, Counts], tmp_path: Path
) -> None:
    async with await MetadataStore.open(filled[0], str(tmp_path)) as store:
        statements = executed_by(store)
        for text, runs_order in RUN_FILTERS.items():
            assert await store.search_runs(["0"], text, max_results=20, order_by=runs_order)
        for text, traces_order in TRACE_FILTERS.items():
            assert await store.search_traces(["0"], text, 20, traces_order)
        for text, order in MODEL_FILTERS.items():
            assert await store.search_logged_models(["0"], text, max_results=20, order_by=order)
        for statement, lines in await explained(store, list(statements)):
            for line in repeated(lines):
                assert not LARGE_WALKS.search(line), (line, statement)
        for table, column in (("inputs", "input_uuid"), ("assessments", "rationale")):
            counted = f"SELECT count(*) FROM {table} WHERE coalesce({column}, '') > runs.name"
            again = f"SELECT ({counted}) FROM runs"
            lines = repeated(await plan_of(store, again, ()))
            assert any(LARGE_WALKS.search(line) for line in lines), lines


async def test_memory_stays_flat(filled: tuple[str, Counts]) -> None:
    """In a process of its own, whose highest memory is not that of other tests."""
    uri, counts = filled
    done = await anyio.run_process(
        [sys.executable, "-m", "tests.metadata.page_worker", uri, id_of(0)], cwd=ROOT, stderr=None
    )
    found = json.loads(done.stdout)
    assert found["points"] == counts.points
    assert found["runs"] == min(counts.runs, 5_000)
    # All at once, a million points are 300 MiB.
    assert found["grown"] < 16 * 2**20
