"""Several processes on one database, and processes and servers that die."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asyncstore.entities import Metric, Param
from asyncstore.errors import (
    InvalidParameterError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio

PROCESSES = 4
ROOT = Path(__file__).parent.parent.parent


def start(what: str, uri: str, number: int, argument: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.metadata.worker", what, uri, str(number), argument]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def run_together(what: str, uri: str, directory: Path) -> list[str]:
    """Start processes that begin at the same moment; what each says."""
    directory.mkdir(exist_ok=True)
    marks = [directory / f"ready-{number}" for number in range(PROCESSES)]
    processes = [start(what, uri, number, str(mark)) for number, mark in enumerate(marks)]
    while not all(mark.exists() for mark in marks):
        await asyncio.sleep(0.01)
        assert all(process.poll() is None for process in processes)
    (directory / "go").touch()
    said = await asyncio.gather(
        *(asyncio.to_thread(process.communicate, timeout=120) for process in processes)
    )
    assert [process.returncode for process in processes] == [0] * PROCESSES
    return [text for text, _ in said]


async def test_processes_create_the_database_and_an_experiment(
    metadata_uri: str, tmp_path: Path
) -> None:
    said = [text.split() for text in await run_together("create", metadata_uri, tmp_path / "marks")]
    assert len({experiment for experiment, _ in said}) == 1
    assert sorted(result for _, result in said) == [
        *["RESOURCE_ALREADY_EXISTS"] * (PROCESSES - 1),
        "created",
    ]
    async with await MetadataStore.open(metadata_uri) as store:
        names = {experiment.name for experiment in await store.search_experiments()}
        assert names == {"Default", "shared", "contested"}
        experiment = await store.get_experiment_by_name("shared")
        assert experiment is not None
        assert experiment.tags == {"a": "b"}


async def test_processes_write_without_loss(
    store: MetadataStore, run_id: str, metadata_uri: str, tmp_path: Path
) -> None:
    said = [text.split() for text in await run_together("write", metadata_uri, tmp_path / "marks")]
    won = [number for result, number in said if result == "won"]
    assert len(won) == 1
    assert {result for result, _ in said} == {"won", "INVALID_PARAMETER_VALUE"}
    data = (await store.get_run(run_id)).data
    assert data.params == {"winner": won[0]}
    assert data.tags.keys() >= {f"t{number}" for number in range(5)}
    for key in range(5):
        history = await store.get_metric_history(run_id, f"m{key}")
        found = {(metric.timestamp, metric.step) for metric in history}
        assert found == {
            (number, step) for number in range(PROCESSES) for step in range(key, 150, 5)
        }
    # The greatest step, and of its values the latest timestamp.
    assert {(metric.step, metric.timestamp) for metric in data.latest_metrics} == {
        (step, PROCESSES - 1) for step in range(145, 150)
    }


async def test_what_was_logged_survives_the_process(
    store: MetadataStore, run_id: str, metadata_uri: str
) -> None:
    process = start("log", metadata_uri, 0, run_id)
    assert process.stdout is not None
    last = -1
    for _ in range(30):
        last = int(await asyncio.to_thread(process.stdout.readline))
    process.send_signal(signal.SIGKILL)
    rest, _ = await asyncio.to_thread(process.communicate)
    last = int(rest.split()[-1]) if rest.split() else last
    steps = [metric.step for metric in await store.get_metric_history(run_id, "m")]
    # The one that was being logged may be there or not.
    assert steps[: last + 1] == list(range(last + 1))
    assert len(steps) <= last + 2


async def test_connections_end_with_the_store(postgresql_uri: str, tmp_path: Path) -> None:
    import psycopg

    def count() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncstore'"
        with psycopg.connect(postgresql_uri) as connection:
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

    async with await MetadataStore.open(postgresql_uri, str(tmp_path)) as store:
        run_id = (await store.create_run("0")).info.run_id
        tasks = [asyncio.ensure_future(store.get_run(run_id)) for _ in range(40)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0)
            if number % 2:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert 0 < count() <= 15
    for _ in range(500):
        if count() == 0:
            break
        await asyncio.sleep(0.01)
    assert count() == 0


async def test_clear_errors_for_a_server_that_is_not_there(postgresql_uri: str) -> None:
    user, _, host = postgresql_uri.rpartition("@")
    with pytest.raises(UnauthenticatedError) as refused:
        await MetadataStore.open(f"{user}-wrong@{host}")
    with pytest.raises(UnavailableError) as down:
        await MetadataStore.open(f"{user}@127.0.0.1:1/nothing")
    with pytest.raises(NotFoundError, match="createdb") as missing:
        await MetadataStore.open(f"{postgresql_uri}-missing")
    with pytest.raises(InvalidParameterError) as unknown:
        await MetadataStore.open(f"{postgresql_uri}?nothing=1")
    for caught in (refused, down, missing, unknown):
        assert "open-sesame" not in str(caught.value)
        assert caught.value.__cause__ is not None


async def test_a_param_that_another_transaction_holds(postgresql_uri: str, tmp_path: Path) -> None:
    """Whoever commits first wins, and the other is told, also when neither saw the other before."""
    import psycopg

    async with await MetadataStore.open(postgresql_uri, str(tmp_path)) as store:
        run_id = (await store.create_run("0")).info.run_id
        insert = "INSERT INTO params (run_uuid, key, value) VALUES (%s, %s, 'theirs')"
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with psycopg.connect(postgresql_uri) as theirs, psycopg.connect(postgresql_uri) as watch:
            watch.autocommit = True
            theirs.execute(insert, (run_id, "p"))
            ours = asyncio.gather(
                store.log_param(run_id, Param("p", "ours")),
                store.log_metric(run_id, Metric("m", 1.0, 1)),
                return_exceptions=True,
            )
            while watch.execute(waiting).fetchone() == (0,):
                await asyncio.sleep(0.005)
            theirs.commit()
            results = await ours
        assert isinstance(results[0], InvalidParameterError)
        assert results[1] is None
        data = (await store.get_run(run_id)).data
        assert (data.params, data.metrics) == ({"p": "theirs"}, {"m": 1.0})
