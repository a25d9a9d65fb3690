"""Deletion for good, next to `mlflow gc`, on one database."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

import asyncstore
from asyncstore.client import gc as collector
from asyncstore.errors import AsyncStoreError
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio


def fill(store: SqlAlchemyStore) -> dict[str, str]:
    """Runs, experiments and logged models, some deleted."""
    ids: dict[str, str] = {}
    for name in ("kept", "gone"):
        experiment = ids[f"experiment {name}"] = store.create_experiment(name)
        for number in range(3):
            run = store.create_run(experiment, "me", 1, [RunTag("a", "b")], f"{name} {number}")
            run_id = ids[f"run {name} {number}"] = run.info.run_id
            store.log_batch(
                run_id,
                [Metric("loss", 1 / (step + 1), step, step) for step in range(5)],
                [Param("solver", "adam")],
                [],
            )
            dataset = Dataset("iris", "d1", "local", "src")
            store.log_inputs(run_id, [DatasetInput(dataset, [InputTag("context", "train")])])
            Path(run.info.artifact_uri).mkdir(parents=True)
            (Path(run.info.artifact_uri) / "file").write_text("x")
            model = store.create_logged_model(experiment, f"m{number}", run_id)
            ids[f"model {name} {number}"] = model.model_id
    store.delete_run(ids["run kept 1"])
    store.delete_logged_model(ids["model kept 1"])
    store.delete_experiment(ids["experiment gone"])
    return ids


def rows(uri: str) -> dict[str, list[Any]]:
    engine = sqlalchemy.create_engine(uri)
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    try:
        with engine.connect() as connection:
            found = {
                table.name: sorted(map(repr, connection.execute(sqlalchemy.select(table))))
                for table in metadata.sorted_tables
            }
    finally:
        engine.dispose()
    return {name: each for name, each in found.items() if each}


async def test_what_is_deleted(shared_uri: str, tmp_path: Path) -> None:
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path / "artifacts"))
    fill(theirs)
    async with await MetadataStore.open(shared_uri, str(tmp_path / "artifacts")) as ours:
        for age in (0, 3_600_000):
            assert sorted(await ours.get_deleted_runs(age)) == sorted(theirs._get_deleted_runs(age))
            assert sorted(await ours.get_deleted_logged_models(age)) == sorted(
                theirs._get_deleted_logged_models(age)
            )
        deleted = theirs.search_experiments(ViewType.DELETED_ONLY)
        assert await ours.get_deleted_experiments() == [each.experiment_id for each in deleted]


async def test_what_is_left(tmp_path: Path) -> None:
    """`mlflow gc` and ours on copies of one database leave the same, but for links to nothing."""
    uri = f"sqlite:///{tmp_path}/theirs.db"
    store = SqlAlchemyStore(uri, str(tmp_path / "artifacts"))
    ids = fill(store)
    store.engine.dispose()
    shutil.copy(tmp_path / "theirs.db", tmp_path / "ours.db")
    shutil.copytree(tmp_path / "artifacts", tmp_path / "copy")
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
    done = await anyio.run_process([*command, "--tracking-uri", uri], check=False)
    assert done.returncode == 0, done.stderr
    left = {path.relative_to(tmp_path / "artifacts") for path in files(tmp_path / "artifacts")}
    shutil.rmtree(tmp_path / "artifacts")
    shutil.copytree(tmp_path / "copy", tmp_path / "artifacts")
    ours = f"sqlite:///{tmp_path}/ours.db"
    async with asyncstore.Client(ours) as client:
        removed = await collector.gc(client)
    assert set(removed.experiments) == {ids["experiment gone"]}
    assert len(removed.runs) == 4
    found, expected = rows(ours), rows(uri)
    dead = [ids[name] for name in ids if name.startswith(("run gone", "model gone"))]
    dead.append(ids["run kept 1"])
    for name in ("inputs", "input_tags"):
        inputs = found.pop(name)
        theirs_inputs = expected.pop(name)
        # MLflow leaves what refers to runs that are no more.
        assert set(inputs) < set(theirs_inputs)
        assert not any(each in row for row in inputs for each in dead)
        assert len(inputs) == 2
    assert found == expected
    assert {
        path.relative_to(tmp_path / "artifacts") for path in files(tmp_path / "artifacts")
    } == left


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_mlflow_sees_nothing_of_it(shared_uri: str, tmp_path: Path) -> None:
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path / "artifacts"))
    ids = fill(theirs)
    async with asyncstore.Client(shared_uri, artifact_location=str(tmp_path)) as client:
        await collector.gc(client)
    assert theirs._get_deleted_runs() == []
    assert theirs._get_deleted_logged_models() == []
    assert theirs.search_experiments(ViewType.DELETED_ONLY) == []
    with pytest.raises(MlflowException, match=r"not found|does not exist"):
        theirs.get_run(ids["run kept 1"])
    kept = theirs.get_run(ids["run kept 0"])
    assert kept.data.params == {"solver": "adam"}
    assert len(kept.inputs.dataset_inputs) == 1
    assert len(theirs.get_metric_history(kept.info.run_id, "loss")) == 5
    # The name is free again.
    assert theirs.create_experiment("gone") != ids["experiment kept"]


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("hard_delete_run", "nope"),
        ("hard_delete_experiment", "12345"),
        ("hard_delete_experiment", "0"),
        ("hard_delete_logged_model", "m-nope"),
    ],
)
async def test_error_codes(shared_uri: str, tmp_path: Path, method: str, value: str) -> None:
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path / "artifacts"))
    with pytest.raises(MlflowException) as expected:
        getattr(theirs, f"_{method}")(value)
    async with await MetadataStore.open(shared_uri, str(tmp_path / "artifacts")) as ours:
        with pytest.raises(AsyncStoreError) as caught:
            await getattr(ours, method)(value)
    assert caught.value.error_code == expected.value.error_code


@pytest.mark.parametrize("of_experiment", [False, True])
async def test_assessments_of_deleted_runs(
    shared_uri: str, tmp_path: Path, of_experiment: bool
) -> None:
    """MLflow removes what a run found out about traces when the run is marked as deleted."""
    from mlflow.entities import AssessmentSource, Feedback, TraceInfo, TraceLocation, TraceState

    theirs = SqlAlchemyStore(shared_uri, str(tmp_path / "artifacts"))
    experiment = theirs.create_experiment("first")
    runs = [theirs.create_run(experiment, "me", 1, [], None).info.run_id for _ in range(3)]
    other = theirs.create_run("0", "me", 1, [], None).info.run_id
    trace = TraceInfo(
        trace_id="tr-1",
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=1,
        state=TraceState.OK,
    )
    theirs.start_trace(trace)
    for run in (*runs, other):
        theirs.create_assessment(
            Feedback(
                name=run,
                value=1,
                trace_id="tr-1",
                source=AssessmentSource("CODE", "x"),
                metadata={"mlflow.assessment.sourceRunId": run},
            )
        )

    def names() -> set[str]:
        return {each.name for each in theirs.get_trace_info("tr-1").assessments}

    assert names() == {*runs, other}
    async with await MetadataStore.open(shared_uri, str(tmp_path / "artifacts")) as ours:
        await ours.delete_run(runs[0])
        assert names() == {*runs[1:], other}
        if of_experiment:
            await ours.delete_experiment(experiment)
            assert names() == {other}
        else:
            theirs.delete_run(runs[1])
            assert names() == {runs[2], other}
