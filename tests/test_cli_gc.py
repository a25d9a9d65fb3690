"""`asyncstore gc`, as a person runs it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncstore
from asyncstore.cli.gc import milliseconds
from asyncstore.client import gc as collector
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.metadata.sql.store import SqlMetadataStore
from tests.command_line import Cli
from tests.metadata import mlruns
from tests.terminal import Terminal

pytestmark = pytest.mark.usefixtures("in_tmp_path")


async def log(client: asyncstore.Client, experiment_id: str = "0") -> str:
    run = await client.create_run(experiment_id)
    await client.log_metric(run.info.run_id, "loss", 0.5)
    await client.log_text(run.info.run_id, "text", "notes/a.txt")
    return run.info.run_id


@pytest.fixture
def runs() -> dict[str, Any]:
    """Runs in the default database: kept, deleted, and in an experiment that is deleted."""

    async def make() -> dict[str, Any]:
        async with asyncstore.Client() as client:
            kept, gone = await log(client), await log(client)
            await client.delete_run(gone)
            experiment_id = await client.create_experiment("gone")
            inside = await log(client, experiment_id)
            await client.delete_experiment(experiment_id)
        return {"kept": kept, "gone": gone, "inside": inside, "experiment": experiment_id}

    return anyio.run(make)


def artifacts(tmp_path: Path) -> set[str]:
    """The runs that have artifacts."""
    return {path.parts[-4] for path in tmp_path.rglob("artifacts/notes/a.txt")}


def metadata() -> set[str]:
    """The runs that have metadata."""

    async def get() -> set[str]:
        async with asyncstore.Client() as client:
            ids = [each.experiment_id for each in await client.search_experiments("ALL")]
            return {run.info.run_id for run in await client.search_runs(ids, "", "ALL")}

    return anyio.run(get)


def test_everything_that_is_deleted(cli: Cli, runs: dict[str, Any], tmp_path: Path) -> None:
    status, out, _ = cli("gc")
    assert status == 0
    for run in (runs["gone"], runs["inside"]):
        assert f"Run with ID {run} has been permanently deleted." in out
    assert f"Experiment with ID {runs['experiment']} has been permanently deleted." in out
    assert out.splitlines()[-1].startswith("Removed 2 runs, 0 logged models, 0 traces and 1 exp")
    assert metadata() == artifacts(tmp_path) == {runs["kept"]}
    status, out, _ = cli("experiments", "list", "--view", "ALL")
    assert "gone" not in out
    assert cli("gc")[1].startswith("Removed 0 runs")


def test_a_dry_run_removes_nothing(cli: Cli, runs: dict[str, Any], tmp_path: Path) -> None:
    before = metadata()
    status, out, _ = cli("gc", "--dry-run")
    assert status == 0
    assert out.count("would be permanently deleted") == 3
    assert metadata() == artifacts(tmp_path) == before
    _, out, _ = cli("gc", "--dry-run", "--json")
    found = json.loads(out)
    assert sorted(found["runs"]) == sorted([runs["gone"], runs["inside"]])
    assert found["experiments"] == [runs["experiment"]]


def test_only_what_is_named(cli: Cli, runs: dict[str, Any], tmp_path: Path) -> None:
    cli("gc", "--run-ids", runs["gone"])
    assert metadata() == artifacts(tmp_path) == {runs["kept"], runs["inside"]}
    cli("gc", "--experiment-ids", runs["experiment"], "--backend-store-uri", "sqlite:///mlflow.db")
    assert metadata() == artifacts(tmp_path) == {runs["kept"]}


@pytest.mark.parametrize(
    ("option", "name"), [("--run-ids", "kept"), ("--experiment-ids", "0"), ("--run-ids", "nope")]
)
def test_what_is_not_deleted_is_refused(
    cli: Cli, runs: dict[str, Any], tmp_path: Path, option: str, name: str
) -> None:
    """And what is named beside it stays as well."""
    before = metadata()
    beside = runs["gone"] if option == "--run-ids" else runs["experiment"]
    status, _, err = cli("gc", option, f"{beside},{runs.get(name, name)}")
    assert status == 1
    assert ("does not exist" if name == "nope" else "is not deleted") in err
    assert metadata() == artifacts(tmp_path) == before


def test_older_than(cli: Cli, runs: dict[str, Any], tmp_path: Path) -> None:
    before = metadata()
    status, out, _ = cli("gc", "--older-than", "1d2h3m4s")
    assert status == 0
    assert out.startswith("Removed 0 runs")
    for named in (
        ("--run-ids", runs["gone"]),
        ("--experiment-ids", runs["experiment"]),
    ):
        status, _, err = cli("gc", "--older-than", "8h", *named)
        assert status == 1
        assert "not long enough" in err
    assert metadata() == artifacts(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1d2h3m4s", 93_784_000),
        ("1.5d", 129_600_000),
        ("8h", 28_800_000),
        ("0.25s", 250),
        ("1m", 60_000),
    ],
)
def test_ages(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "1", "d", "4s3m", "1w", "-1d", "1d ", "1..5d"])
def test_ages_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameterError, match="2d8h5m20s"):
        milliseconds(text)


def set_artifact_uri(run_id: str, uri: str | None) -> None:
    async def change() -> None:
        async with asyncstore.Client() as client:
            store = await client.get_metadata_store()
            assert isinstance(store, SqlMetadataStore)
            table = store._tables.runs
            change = table.update().where(table.c.run_uuid == run_id).values(artifact_uri=uri)
            await store._database.write("x", lambda connection: connection.execute(change))

    anyio.run(change)


@pytest.mark.parametrize("uri", ["nosuch://bucket/a", "memory://", "memory:///"])
def test_artifacts_that_cannot_be_removed(
    cli: Cli, runs: dict[str, Any], tmp_path: Path, uri: str
) -> None:
    set_artifact_uri(runs["inside"], uri)
    status, out, err = cli("gc")
    assert status == 1
    assert f"Run with ID {runs['gone']} has been permanently deleted." in out
    assert f"run {runs['inside']} stays: " in err
    assert f"experiment {runs['experiment']} stays: " in err
    assert metadata() == {runs["kept"], runs["inside"]}
    set_artifact_uri(runs["inside"], str(tmp_path / "nothing" / "there"))
    assert cli("gc")[0] == 0
    assert metadata() == {runs["kept"]}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/", True),
        ("//", True),
        ("/./..", True),
        (".", True),
        ("file:///", True),
        ("s3://bucket", True),
        ("s3://bucket/?versionId=1", True),
        ("/a", False),
        ("a", False),
        ("file:///a", False),
        ("s3://bucket/a", False),
        ("mlflow-artifacts:/1/2/artifacts", False),
    ],
)
def test_a_whole_storage_is_no_runs_own(uri: str, expected: bool) -> None:
    assert collector.is_whole_storage(uri) is expected


def test_a_run_without_artifacts(cli: Cli, runs: dict[str, Any]) -> None:
    set_artifact_uri(runs["gone"], None)
    assert cli("gc")[0] == 0
    assert metadata() == {runs["kept"]}


def test_an_experiment_with_a_restored_run(cli: Cli, runs: dict[str, Any], tmp_path: Path) -> None:
    async def restore() -> None:
        async with asyncstore.Client() as client:
            await client.restore_run(runs["inside"])

    anyio.run(restore)
    status, out, err = cli("gc")
    assert status == 1
    assert f"Run with ID {runs['gone']}" in out
    assert f"its run {runs['inside']} is not" in err
    assert metadata() == artifacts(tmp_path) == {runs["kept"], runs["inside"]}
    status, _, err = cli("gc", "--experiment-ids", runs["experiment"])
    assert status == 1
    assert "INVALID_PARAMETER_VALUE" in err


def test_killed_half_way(cli: Cli, tmp_path: Path) -> None:
    """Killed between batches, it goes on where it was; no artifact is left without its run."""

    async def make() -> None:
        async with asyncstore.Client() as client, anyio.create_task_group() as tasks:

            async def one() -> None:
                await client.delete_run(await log(client))

            for _ in range(350):
                tasks.start_soon(one)

    anyio.run(make)
    with Terminal("gc") as terminal:
        terminal.read_until("permanently deleted")
        terminal.process.kill()
        terminal.process.wait()
    assert artifacts(tmp_path) <= metadata()
    assert cli("gc")[0] == 0
    assert metadata() == artifacts(tmp_path) == set()


@pytest.mark.anyio
async def test_artifacts_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database fails after the artifacts are gone, the next time completes it."""
    async with asyncstore.Client() as client:
        run_id = await log(client)
        await client.delete_run(run_id)
        store = await client.get_metadata_store()

        async def fail(run_ids: list[str]) -> None:
            assert run_ids == [run_id]
            assert artifacts(tmp_path) == set()
            raise ConnectionError("killed")

        with monkeypatch.context() as patch, pytest.raises(ConnectionError):
            patch.setattr(store, "hard_delete_runs", fail)
            await collector.gc(client)
        assert (await client.get_run(run_id)).data.metrics == {"loss": 0.5}
        removed = await collector.gc(client)
        assert removed.runs == [run_id]
        with pytest.raises(NotFoundError):
            await client.get_run(run_id)


@pytest.mark.anyio
async def test_models_and_traces_of_an_experiment(tmp_path: Path) -> None:
    """They go with the experiment, whether they were deleted or not, with their artifacts."""
    places = {name: tmp_path / "elsewhere" / name for name in ("model", "deleted", "trace")}
    for place in places.values():
        mlruns.write(place / "file", "x")
    async with asyncstore.Client() as client:
        gone = int(await client.create_experiment("gone"))
        store = await client.get_metadata_store()
        assert isinstance(store, SqlMetadataStore)
        tables = store._tables

        async def fill(connection: Any) -> None:
            for name, stage, experiment in (("model", "active", gone), ("deleted", "deleted", 0)):
                row = {
                    "model_id": f"m-{name}",
                    "experiment_id": experiment,
                    "name": "m",
                    "artifact_location": str(places[name]),
                    "creation_timestamp_ms": 1,
                    "last_updated_timestamp_ms": 1,
                    "status": 2,
                    "lifecycle_stage": stage,
                }
                await connection.execute(tables.logged_models.insert(), row)
            trace = {
                "request_id": "tr-1",
                "experiment_id": gone,
                "timestamp_ms": 1,
                "status": "OK",
            }
            await connection.execute(tables.trace_info.insert(), trace)
            tag = {
                "request_id": "tr-1",
                "key": "mlflow.artifactLocation",
                "value": str(places["trace"]),
            }
            await connection.execute(tables.trace_tags.insert(), tag)

        await store._database.write("filling", fill)
        await client.delete_experiment(str(gone))
        dry = await collector.gc(client, dry_run=True)
        assert all((place / "file").exists() for place in places.values())
        with pytest.raises(InvalidStateError):
            await collector.gc(client, logged_model_ids=["m-model"])
        removed = await collector.gc(client)
        assert sorted(removed.logged_models) == sorted(dry.logged_models)
        assert sorted(removed.logged_models) == ["m-deleted", "m-model"]
        assert removed.traces == dry.traces == 1
        assert not any((place / "file").exists() for place in places.values())
        assert await store.get_artifact_owners("logged_model") == []
        assert await store.get_artifact_owners("trace") == []


@pytest.mark.anyio
async def test_the_file_store_is_only_read(tmp_path: Path) -> None:
    root = tmp_path / "mlruns"
    run = mlruns.run(mlruns.experiment(root, 7, "first"), "a" * 32, lifecycle_stage="deleted")
    artifact = mlruns.write(run / "artifacts" / "file", "x")
    async with asyncstore.Client(str(root)) as client:
        with pytest.raises(UnsupportedError, match="asyncstore migrate"):
            await collector.gc(client)
        assert (await collector.gc(client, dry_run=True)).runs == ["a" * 32]
    assert artifact.exists()


async def deleted_runs(client: asyncstore.Client, count: int) -> list[str]:
    """Deleted runs with an artifact each, in the order in which they are removed."""
    ids = [await log(client) for _ in range(count)]
    for run_id in ids:
        await client.delete_run(run_id)
    store = await client.get_metadata_store()
    return await store.get_deleted_runs()


def do_once_before(
    monkeypatch: pytest.MonkeyPatch, store: Any, name: str, call: Callable[[], Awaitable[Any]]
) -> None:
    """Have something happen right before a method of the store is first called."""
    method, calls = getattr(store, name), [call]

    async def do(*arguments: Any) -> None:
        while calls:
            await calls.pop()()
        await method(*arguments)

    monkeypatch.setattr(store, name, do)


@pytest.mark.anyio
async def test_a_run_that_is_restored_before_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "RUNS_AT_ONCE", 2)
    async with asyncstore.Client() as client:
        run_ids = await deleted_runs(client, 5)
        store = await client.get_metadata_store()
        kept = run_ids[2]
        do_once_before(monkeypatch, store, "hard_delete_runs", lambda: client.restore_run(kept))
        removed = await collector.gc(client)
        assert sorted(removed.runs) == sorted({*run_ids} - {kept})
        assert removed.kept == {f"run {kept}": f"run {kept} was restored meanwhile"}
        assert artifacts(tmp_path) == {kept}
        assert await client.get_run(kept)


@pytest.mark.anyio
async def test_a_run_that_is_restored_in_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its artifacts are gone by then; the others of its hundred go on without it."""
    async with asyncstore.Client() as client:
        run_ids = await deleted_runs(client, 3)
        store = await client.get_metadata_store()
        kept = run_ids[1]
        do_once_before(monkeypatch, store, "hard_delete_runs", lambda: client.restore_run(kept))
        removed = await collector.gc(client)
        assert sorted(removed.runs) == sorted({*run_ids} - {kept})
        assert "while its artifacts were removed" in removed.kept[f"run {kept}"]
        assert (await client.get_run(kept)).info.lifecycle_stage == "active"
        assert await store.get_deleted_runs() == []


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["hard_delete_runs", "hard_delete_experiment"])
async def test_an_experiment_that_is_restored_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """It keeps its models with their artifacts, and the rest goes on."""
    async with asyncstore.Client() as client:
        await deleted_runs(client, 1)
        store: Any = await client.get_metadata_store()
        experiments = [await client.create_experiment(f"e{n}", "memory://") for n in range(2)]
        place = tmp_path / "elsewhere"
        mlruns.write(place / "file", "x")
        model = await client.create_logged_model(experiments[0], "model")
        table = store._tables.logged_models
        change = table.update().values(artifact_location=str(place))
        await store._database.write("x", lambda connection: connection.execute(change))
        for experiment_id in experiments:
            await client.delete_experiment(experiment_id)

        do_once_before(
            monkeypatch, store, before, lambda: client.restore_experiment(experiments[0])
        )
        removed = await collector.gc(client)
        assert removed.experiments == experiments[1:]
        assert list(removed.kept) == [f"experiment {experiments[0]}"]
        assert (await client.get_logged_model(model.model_id)).model_id == model.model_id
        assert (place / "file").exists() == (before == "hard_delete_runs")


@pytest.mark.parametrize("named", [True, False])
def test_a_database_that_does_not_exist(cli: Cli, tmp_path: Path, named: bool) -> None:
    uri = "sqlite:///below/missing.db" if named else "sqlite:///mlflow.db"
    status, out, err = cli("gc", *(("--backend-store-uri", uri) if named else ()))
    assert (status, out) == (1, "")
    assert err == f"Error: RESOURCE_DOES_NOT_EXIST: there is no database {uri}\n"
    assert list(tmp_path.iterdir()) == []
