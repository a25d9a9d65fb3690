"""Deletion for good: nothing that refers to what is gone stays, and nothing else goes."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, String, func, insert, or_, select, update

from asyncstore.entities import Metric
from asyncstore.errors import InvalidStateError, NotFoundError
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql import deletion
from asyncstore.metadata.sql.base import now_ms
from asyncstore.metadata.sql.schema.management import create_database
from asyncstore.metadata.sql.store import SqlMetadataStore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


def sql(store: MetadataStore) -> SqlMetadataStore:
    assert isinstance(store, SqlMetadataStore)
    return store


async def fill(store: MetadataStore, rows: dict[str, dict[str, Any]]) -> None:
    tables = sql(store)._tables

    async def write(connection: Any) -> None:
        for name, row in rows.items():
            table = getattr(tables, name)
            await connection.execute(insert(table), tables.known(table, row))

    await sql(store)._database.write("filling", write)


async def mentions(store: MetadataStore, value: str | int) -> dict[str, int]:
    """How many rows of each table have the value in one of their columns."""
    tables = sql(store)._tables
    kind = String if isinstance(value, str) else Integer

    async def count(connection: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        for table in tables.metadata.sorted_tables:
            columns = [
                column
                for column in table.columns
                if isinstance(column.type, kind) and column.name not in ("version", "step")
            ]
            if isinstance(value, int):
                columns = [column for column in columns if column.name == "experiment_id"]
            if columns:
                query = select(func.count()).where(or_(*(column == value for column in columns)))
                if rows := (await connection.execute(query.select_from(table))).scalar_one():
                    found[table.name] = rows
        return found

    return await sql(store)._database.read("counting", count)


def rows_of(run_id: str, model_id: str, trace_id: str, experiment: int) -> dict[str, Any]:
    """A row of every table that belongs to runs, logged models, traces and experiments."""
    own = {"model_id": model_id, "experiment_id": experiment}
    trace = {"request_id": trace_id}
    return {
        "datasets": {
            "dataset_uuid": f"d-{run_id}"[:36],
            "experiment_id": experiment,
            "name": "iris",
            "digest": run_id,
            "dataset_source_type": "local",
            "dataset_source": "x",
        },
        "inputs": {
            "input_uuid": f"i-{run_id}",
            "source_type": "DATASET",
            "source_id": f"d-{run_id}"[:36],
            "destination_type": "RUN",
            "destination_id": run_id,
            "step": 0,
        },
        "input_tags": {"input_uuid": f"i-{run_id}", "name": "context", "value": "train"},
        "logged_models": own
        | {
            "name": "m",
            "artifact_location": f"/models/{model_id}",
            "creation_timestamp_ms": 1,
            "last_updated_timestamp_ms": 1,
            "status": 2,
            "lifecycle_stage": "deleted",
            "model_type": "",
            "source_run_id": None,
        },
        "logged_model_params": own | {"param_key": "a", "param_value": "b"},
        "logged_model_tags": own | {"tag_key": "a", "tag_value": "b"},
        "logged_model_metrics": own
        | {
            "metric_name": "acc",
            "metric_timestamp_ms": 1,
            "metric_step": 1,
            "metric_value": 0.5,
            "run_id": run_id,
        },
        "trace_info": trace | {"experiment_id": experiment, "timestamp_ms": 1, "status": "OK"},
        "trace_tags": trace | {"key": "mlflow.artifactLocation", "value": f"/traces/{trace_id}"},
        "trace_request_metadata": trace | {"key": "a", "value": "b"},
        "trace_metrics": trace | {"key": "a", "value": 1.0},
        "spans": {
            "trace_id": trace_id,
            "experiment_id": experiment,
            "span_id": "s1",
            "status": "OK",
            "start_time_unix_nano": 1,
            "content": "{}",
        },
        "span_metrics": {"trace_id": trace_id, "span_id": "s1", "key": "a", "value": 1.0},
        "assessments": assessment(trace_id, "kept-by-runs", "other"),
        "entity_associations": {
            "association_id": f"a-{run_id}",
            "source_type": "trace",
            "source_id": trace_id,
            "destination_type": "run",
            "destination_id": run_id,
        },
        "issues": {
            "issue_id": f"i-{run_id}",
            "experiment_id": experiment,
            "name": "n",
            "description": "d",
            "status": "open",
            "source_run_id": run_id,
            "created_timestamp": 1,
            "last_updated_timestamp": 1,
        },
        "sql_trace_rollup_rebuild_queue": {
            "experiment_id": experiment,
            "rollup_day": date(2026, 1, 1),
            "rollup_family": "TRACE",
        },
    }


def assessment(trace_id: str, name: str, source_run: str) -> dict[str, Any]:
    return {
        "assessment_id": f"a-{name}-{trace_id}"[:50],
        "trace_id": trace_id,
        "name": name,
        "assessment_type": "feedback",
        "value": "1",
        "created_timestamp": 1,
        "last_updated_timestamp": 1,
        "source_type": "CODE",
        "valid": True,
        "is_numeric_value": False,
        "assessment_metadata": json.dumps({"a": 1, "mlflow.assessment.sourceRunId": source_run}),
    }


async def make(store: MetadataStore, name: str) -> tuple[str, str, str, str]:
    """An experiment with a run, a logged model and a trace, and rows in every table of theirs."""
    experiment_id = await store.create_experiment(name, tags={"team": "a"})
    run_id = (await store.create_run(experiment_id, tags={"a": "b"})).info.run_id
    await store.log_batch(run_id, [Metric("loss", 0.5, 1, 1)])
    rows = rows_of(run_id, f"m-{run_id}", f"tr-{run_id}", int(experiment_id))
    await fill(store, {name: rows[name] for name in rows if name in sql(store)._tables})
    return experiment_id, run_id, f"m-{run_id}", f"tr-{run_id}"


async def test_a_run_goes_with_everything_of_it(store: MetadataStore) -> None:
    _, run_id, *_ = await make(store, "first")
    _, other, *_ = await make(store, "second")
    before = await mentions(store, other)
    assert {"metrics", "latest_metrics", "tags", "inputs", "logged_model_metrics"} <= before.keys()
    await store.delete_run(run_id)
    await store.hard_delete_run(run_id)
    # Data sets are of the experiment; this one has the run's id for its digest.
    assert await mentions(store, run_id) == {"datasets": 1}
    assert await mentions(store, f"i-{run_id}") in ({}, {"issues": 1})
    assert await mentions(store, other) == before
    with pytest.raises(NotFoundError):
        await store.get_run(run_id)
    with pytest.raises(NotFoundError):
        await store.hard_delete_run(run_id)


async def test_only_deleted_runs(store: MetadataStore, run_id: str) -> None:
    with pytest.raises(InvalidStateError, match="not deleted") as caught:
        await store.hard_delete_run(run_id)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    gone = (await store.create_run("0")).info.run_id
    await store.delete_run(gone)
    with pytest.raises(InvalidStateError):
        await store.hard_delete_runs([gone, run_id])
    assert await store.get_deleted_runs() == [gone]
    await store.hard_delete_runs([gone, "never-was"])
    assert await store.get_deleted_runs() == []


async def test_many_values_go_in_pieces(
    store: MetadataStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "POINTS_AT_ONCE", 10)
    points = [Metric(key, 0.5, 1, step) for key in ("a", "b") for step in range(35)]
    await store.log_batch(run_id, [*points, *(Metric("same", float(i), 1, 1) for i in range(30))])
    await store.delete_run(run_id)
    written: list[str] = []
    write = sql(store)._database.write

    async def counting(doing: str, *args: Any, **kwargs: Any) -> Any:
        written.append(doing)
        return await write(doing, *args, **kwargs)

    monkeypatch.setattr(sql(store)._database, "write", counting)
    await store.hard_delete_run(run_id)
    assert await mentions(store, run_id) == {}
    assert len(written) > 8


async def test_an_experiment_goes_with_everything_in_it(store: MetadataStore) -> None:
    gone, run_id, model_id, trace_id = await make(store, "first")
    kept, *_ = await make(store, "second")
    before = await mentions(store, int(kept))
    with pytest.raises(NotFoundError, match="no deleted experiment"):
        await store.hard_delete_experiment(gone)
    await store.delete_experiment(gone)
    assert await store.get_deleted_experiments() == [gone]
    await store.hard_delete_experiment(gone)
    for value in (int(gone), run_id, model_id, trace_id, f"i-{run_id}", f"d-{run_id}"[:36]):
        assert await mentions(store, value) == {}
    assert await mentions(store, int(kept)) == before
    assert await store.get_experiment_by_name("first") is None
    with pytest.raises(NotFoundError):
        await store.hard_delete_experiment(gone)
    assert await store.create_experiment("first") != kept


async def test_an_experiment_with_a_restored_run_stays(store: MetadataStore) -> None:
    experiment_id, run_id, *_ = await make(store, "first")
    await store.delete_experiment(experiment_id)
    await store.restore_run(run_id)
    with pytest.raises(InvalidStateError, match=run_id):
        await store.hard_delete_experiment(experiment_id)
    assert (await store.get_run(run_id)).data.metrics == {"loss": 0.5}


async def test_a_logged_model_goes_with_everything_of_it(store: MetadataStore) -> None:
    _, _, model_id, _ = await make(store, "first")
    _, _, other, _ = await make(store, "second")
    before = await mentions(store, other)
    assert sorted(await store.get_deleted_logged_models()) == sorted([model_id, other])
    assert await store.get_deleted_logged_models(HOUR * 24 * 365 * 1000) == []
    await store.hard_delete_logged_model(model_id)
    assert await mentions(store, model_id) == {}
    assert await mentions(store, other) == before
    with pytest.raises(NotFoundError):
        await store.hard_delete_logged_model(model_id)
    tables = sql(store)._tables
    stage = update(tables.logged_models).values(lifecycle_stage="active")
    await sql(store)._database.write("x", lambda connection: connection.execute(stage))
    with pytest.raises(InvalidStateError, match=other):
        await store.hard_delete_logged_model(other)


async def test_older_than(store: MetadataStore) -> None:
    old, new, unknown = [(await store.create_run("0")).info.run_id for _ in range(3)]
    experiments = [await store.create_experiment(name) for name in ("old", "new")]
    for run in (old, new, unknown):
        await store.delete_run(run)
    for experiment in experiments:
        await store.delete_experiment(experiment)
    tables = sql(store)._tables
    ago = now_ms() - 2 * HOUR

    async def age(connection: Any) -> None:
        runs, experiments_ = tables.runs, tables.experiments
        for run, time in ((old, ago), (unknown, None)):
            await connection.execute(
                update(runs).where(runs.c.run_uuid == run).values(deleted_time=time)
            )
        await connection.execute(
            update(experiments_).where(experiments_.c.name == "old").values(last_update_time=ago)
        )

    await sql(store)._database.write("ageing", age)
    assert set(await store.get_deleted_runs()) == {old, new, unknown}
    assert set(await store.get_deleted_runs(HOUR)) == {old, unknown}
    assert set(await store.get_deleted_experiments()) == set(experiments)
    assert await store.get_deleted_experiments(HOUR) == experiments[:1]


async def test_where_artifacts_are(store: MetadataStore) -> None:
    experiment_id, run_id, model_id, trace_id = await make(store, "first")
    await make(store, "second")
    (run,) = await store.get_artifact_owners("run", [run_id, "never-was"])
    assert run.artifact_uri == (await store.get_run(run_id)).info.artifact_uri
    assert (run.lifecycle_stage, run.deleted_time) == ("active", None)
    (model,) = await store.get_artifact_owners("logged_model", experiment_id=experiment_id)
    assert (model.id, model.artifact_uri) == (model_id, f"/models/{model_id}")
    (trace,) = await store.get_artifact_owners("trace", experiment_id=experiment_id)
    assert (trace.id, trace.artifact_uri) == (trace_id, f"/traces/{trace_id}")
    everyone = await store.get_artifact_owners("run")
    assert len(everyone) == 2
    assert await store.get_artifact_owners("run", max_results=1) == everyone[:1]
    assert await store.get_artifact_owners("run", after=everyone[0].id) == everyone[1:]
    assert await store.get_artifact_owners("run", []) == []


@pytest.mark.parametrize("of_experiment", [False, True])
async def test_assessments_go_with_the_run_that_made_them(
    store: MetadataStore, of_experiment: bool
) -> None:
    experiment_id, run_id, _, trace_id = await make(store, "first")
    other = (await store.create_run("0")).info.run_id
    for name, source in (("own", run_id), ("of-other", other)):
        await fill(store, {"assessments": assessment(trace_id, name, source)})
    if of_experiment:
        await store.delete_experiment(experiment_id)
    else:
        await store.delete_run(run_id)
    table = sql(store)._tables.assessments

    async def names(connection: Any) -> set[str]:
        return set((await connection.execute(select(table.c.name))).scalars())

    found = await sql(store)._database.read("names", names)
    assert found == {"kept-by-runs", "of-other"}


@pytest.mark.parametrize("version", ["2.22.5", "3.6.0", "3.17.2"])
async def test_older_schemas(metadata_uri: str, tmp_path: Path, version: str) -> None:
    await create_database(metadata_uri, version)
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        gone, run_id, model_id, trace_id = await make(store, "first")
        _, other, *_ = await make(store, "second")
        before = await mentions(store, other)
        await store.delete_run(run_id)
        await store.hard_delete_run(run_id)
        await store.delete_experiment(gone)
        await store.hard_delete_experiment(gone)
        for value in (int(gone), run_id, model_id, trace_id):
            assert await mentions(store, value) == {}
        assert await mentions(store, other) == before
