"""A file store that MLflow wrote, moved into a database, is what MLflow makes of it itself."""

from __future__ import annotations

import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

# What MLflow's own tool gets wrong or makes up anew: ids of inputs and data sets, and:
# - lists and mappings in expectations become null, and the times of assessments 0;
# - artifacts of deleted experiments are looked for where they were before they were deleted.
MADE_UP = {"dataset_uuid", "input_uuid", "workspace"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file store with some of everything, written by MLflow."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    # Where MLflow puts what it falls back to.
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "mlruns"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(root.as_uri())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fill(MlflowClient())
            # MLflow goes on writing in threads, to whatever the tracking URI is by then.
            for thread in threading.enumerate():
                if thread.name.startswith("link_prompt"):
                    thread.join()
        yield root
    finally:
        mlflow.set_tracking_uri(before)


def fill(client: MlflowClient) -> None:
    first = client.create_experiment("first one", tags={"deep/er": "a\nb"})
    run = client.create_run(first, run_name="named", tags={"a/b": "c"}).info.run_id
    client.log_batch(
        run,
        metrics=[
            *(Metric("train/loss", 1 / (step + 1), 100 + step, step) for step in range(50)),
            Metric("nan", float("nan"), 1, 0),
            Metric("inf", float("-inf"), 1, 0),
            Metric("same", 1.0, 1, 1),
            Metric("same", 2.0, 1, 1),
        ],
        params=[Param("solver", "adam"), Param("empty", ""), Param("lines", "a\nb\n")],
        tags=[RunTag("mlflow.note.content", "# Ünï 'code'")],
    )
    client.log_inputs(
        run, [DatasetInput(Dataset("iris", "d1", "local", "src", "{}"), [InputTag("ctx", "train")])]
    )
    model = client.create_logged_model(
        first, "logged", source_run_id=run, tags={"x": "y"}, params={"p": "1"}, model_type="agent"
    )
    client.finalize_logged_model(model.model_id, "READY")
    client.log_metric(run, "acc", 0.5, step=3, model_id=model.model_id)
    client.log_outputs(run, [LoggedModelOutput(model.model_id, 3)])
    client.set_terminated(run)
    client.delete_run(client.create_run(first).info.run_id)
    gone = client.create_experiment("gone")
    client.create_run(gone)
    client.delete_experiment(gone)
    client.create_registered_model("registered", tags={"k": "v"}, description="what\nit is")
    for number in range(3):
        client.create_model_version("registered", f"s3://x/{number}", run, tags={"n": str(number)})
    client.transition_model_version_stage("registered", "1", "Staging")
    client.set_registered_model_alias("registered", "champion", "2")
    client.create_model_version("registered", f"models:/{model.model_id}", run)
    client.register_prompt("prompt", "hello {{name}}")
    mlflow.set_experiment("first one")
    with mlflow.start_span("root") as span:
        span.set_inputs({"a": 1})
        mlflow.update_current_trace(
            metadata={
                "mlflow.trace.session": "s1",
                "mlflow.trace.cost": '{"input_cost": 0.5, "total_cost": 1}',
            }
        )
    mlflow.flush_trace_async_logging()
    mlflow.log_feedback(trace_id=span.trace_id, name="good", value=True, rationale="because")
    mlflow.log_feedback(trace_id=span.trace_id, name="score", value=0.5)
    mlflow.log_expectation(trace_id=span.trace_id, name="expected", value="yes")


def rows(uri: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, without what is made up anew each time."""
    engine = sqlalchemy.create_engine(uri)
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        with engine.connect() as connection:
            for table in metadata.sorted_tables:
                each = [
                    {key: row[key] for key in row if key not in MADE_UP}
                    for row in connection.execute(sqlalchemy.select(table)).mappings()
                ]
                if table.name == "inputs":
                    for row in each:
                        if row["source_type"] == "DATASET":
                            row["source_id"] = "made up"
                found[table.name] = sorted(each, key=repr)
    finally:
        engine.dispose()
    return found


async def test_as_mlflow_migrates_it(root: Path, tmp_path: Path) -> None:
    """Table by table what `mlflow migrate-filestore` writes."""
    fs2db = pytest.importorskip("mlflow.store.fs2db")
    theirs, ours = (f"sqlite:///{tmp_path}/{name}.db" for name in ("theirs", "ours"))
    fs2db.migrate(tmp_path, theirs, progress=False)
    async with await MetadataStore.open(ours, str(tmp_path / "artifacts")) as store:
        done = await migrate(root, store)
    assert done.left_out == 0
    expected, found = rows(theirs), rows(ours)
    assert found.keys() == expected.keys()
    # Theirs is the file store's, ours was there before.
    for each in (expected, found):
        each["experiments"] = [row for row in each["experiments"] if row["experiment_id"] != 0]
    for row in expected["runs"]:
        row["artifact_uri"] = in_trash(row, expected)
        # Theirs takes what is a number in the file for a text that is missing.
        assert row["source_type"] == "LOCAL"
    assert expected["runs"]
    assert expected["trace_info"]
    for each in (expected, found):
        # Theirs looks for the times under the names that they had before MLflow 3.
        assert each["assessments"]
        for row in each["assessments"]:
            del row["created_timestamp"], row["last_updated_timestamp"]
        each["assessments"].sort(key=repr)
    for name in expected:
        assert found[name] == expected[name], name


def in_trash(row: dict[str, Any], expected: dict[str, list[dict[str, Any]]]) -> str:
    """Where the artifacts of a run are; those of a deleted experiment were moved."""
    (experiment,) = [
        each for each in expected["experiments"] if each["experiment_id"] == row["experiment_id"]
    ]
    uri: str = row["artifact_uri"]
    if experiment["lifecycle_stage"] == "deleted":
        return uri.replace("/mlruns/", "/mlruns/.trash/")
    return uri


async def test_mlflow_reads_what_was_moved(root: Path, shared_uri: str, tmp_path: Path) -> None:
    """On every database, through MLflow's store, what MLflow's file store says."""
    async with await MetadataStore.open(shared_uri, str(tmp_path / "artifacts")) as store:
        done = await migrate(root, store)
        assert done.left_out == 0
        again = await migrate(root, store)
        assert not any(again.new.values())
    before = MlflowClient(root.as_uri())
    after = MlflowClient(shared_uri)
    assert described(after) == described(before)


def described(client: MlflowClient) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("first one")
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    versions = client.search_model_versions("name = 'registered'")
    registered = client.get_registered_model("registered")
    (trace,) = client.search_traces(locations=[experiment.experiment_id], include_spans=False)
    (model,) = client.search_logged_models([experiment.experiment_id])
    return {
        "experiment": (experiment.tags, experiment.creation_time, experiment.lifecycle_stage),
        "runs": {
            run.info.run_id: (
                run.info.run_name,
                run.info.status,
                run.info.start_time,
                run.info.end_time,
                run.info.lifecycle_stage,
                run.info.artifact_uri,
                run.data.params,
                run.data.tags,
                # SQL has no infinity.
                repr(sorted(run.data.metrics.items())).replace("-inf", str(-sys.float_info.max)),
                [(each.dataset.name, each.tags[0].value) for each in run.inputs.dataset_inputs],
                [(each.model_id, each.step) for each in run.outputs.model_outputs],
            )
            for run in runs
        },
        "history": {
            run.info.run_id: sorted(
                (metric.step, metric.timestamp, metric.value)
                for metric in client.get_metric_history(run.info.run_id, "train/loss")
            )
            for run in runs
        },
        "versions": sorted(
            (
                each.version,
                each.source,
                each.run_id,
                each.current_stage,
                sorted(each.tags.items()),
                each.creation_timestamp,
            )
            for each in versions
        ),
        "registered": (
            registered.description,
            registered.tags,
            # The file store has the versions as texts, and forgets them in `each.aliases` above.
            {alias: str(version) for alias, version in registered.aliases.items()},
            registered.creation_timestamp,
            registered.last_updated_timestamp,
        ),
        "prompt": client.get_prompt_version("prompt", "1").template,
        "trace": (
            trace.info.trace_id,
            trace.info.tags,
            trace.info.request_time,
            trace.info.state,
            trace.info.execution_duration,
            trace.info.trace_metadata["mlflow.trace.session"],
            sorted((each.name, each.value) for each in trace.info.assessments),
        ),
        "model": (
            model.model_id,
            model.name,
            model.model_type,
            model.artifact_location,
            model.tags,
            model.params,
            model.status,
            [(metric.key, metric.value, metric.step) for metric in model.metrics],
        ),
    }


async def test_open_to_read(root: Path) -> None:
    """The file store read in place says what MLflow says."""
    client = MlflowClient(root.as_uri())
    experiment = client.get_experiment_by_name("first one")
    async with await MetadataStore.open(str(root)) as store:
        ours = await store.get_experiment(experiment.experiment_id)
        assert (ours.name, ours.tags) == (experiment.name, experiment.tags)
        assert ours.artifact_location == experiment.artifact_location
        assert {each.name for each in await store.search_experiments("ALL")} == {
            "Default",
            "first one",
            "gone",
        }
        for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL):
            found = await store.get_run(run.info.run_id)
            assert found.info.artifact_uri == run.info.artifact_uri
            assert found.data.params == run.data.params
            assert found.data.tags == run.data.tags
            assert found.data.metrics.keys() == run.data.metrics.keys()
        default = await store.get_experiment("0")
        assert default.artifact_location == client.get_experiment("0").artifact_location


async def test_mlflow_goes_on_after_us(root: Path, shared_uri: str, tmp_path: Path) -> None:
    """MLflow logs to what was moved, and makes new experiments behind the ids that came along."""
    async with await MetadataStore.open(shared_uri, str(tmp_path / "artifacts")) as store:
        await migrate(root, store)
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path / "artifacts"))
    experiment = theirs.get_experiment_by_name("first one")
    (run, *_) = theirs.search_runs([experiment.experiment_id], "", ViewType.ACTIVE_ONLY)
    theirs.set_tag(run.info.run_id, RunTag("later", "1"))
    ids = [theirs.create_experiment(f"later {number}") for number in range(3)]
    assert len({experiment.experiment_id, *ids}) == 4
