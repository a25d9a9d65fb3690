"""One database, written and read by MLflow and by asyncstore; for every MLflow that is known."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ExperimentTag, Param, RunStatus, RunTag
from mlflow.entities import Metric as MlflowMetric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore import entities
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio


def run_as_dict(run: Any) -> dict[str, Any]:
    """What both kinds of run have in common, NaN made comparable."""
    info = run.info
    return {
        "run_id": info.run_id,
        "run_name": info.run_name,
        "experiment_id": info.experiment_id,
        "user_id": info.user_id,
        "status": info.status,
        "start_time": info.start_time,
        "end_time": info.end_time,
        "lifecycle_stage": info.lifecycle_stage,
        "artifact_uri": info.artifact_uri,
        "metrics": {key: repr(value) for key, value in run.data.metrics.items()},
        "params": dict(run.data.params),
        "tags": dict(run.data.tags),
    }


def experiment_as_dict(experiment: Any) -> dict[str, Any]:
    names = ("experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time")
    return {name: getattr(experiment, name) for name in (*names, "last_update_time", "tags")}


async def test_mlflow_reads_what_asyncstore_wrote(shared_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(shared_uri, str(tmp_path)) as store:
        experiment = await store.create_experiment("ours", tags={"team": "a"})
        for number in range(3):
            run = await store.create_run(experiment, "me", number, {"t": "v"}, f"run {number}")
            metrics = [entities.Metric("loss", 1 / (step + 1), step, step) for step in range(5)]
            metrics.append(entities.Metric("nan", math.nan, 1))
            await store.log_batch(run.info.run_id, metrics, [entities.Param("p", str(number))])
        await store.update_run_info(run.info.run_id, "FINISHED", 99)
        expected = {run.info.run_id: run for run in await store.search_runs([experiment])}
    client = MlflowClient(tracking_uri=shared_uri)
    found = client.get_experiment_by_name("ours")
    assert (found.experiment_id, found.tags) == (experiment, {"team": "a"})
    assert client.get_experiment("0").name == "Default"
    runs = client.search_runs([experiment], "metrics.loss < 0.3")
    assert len(runs) == 3
    for theirs in runs:
        assert run_as_dict(theirs) == run_as_dict(expected[theirs.info.run_id])
    (finished,) = client.search_runs([experiment], "status = 'FINISHED'")
    history = client.get_metric_history(finished.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (step, 1 / (step + 1)) for step in range(5)
    ]
    # And MLflow goes on where asyncstore ended.
    client.log_metric(finished.info.run_id, "loss", 7.0, step=9)
    assert client.get_run(finished.info.run_id).data.metrics["loss"] == 7.0
    assert int(client.create_experiment("theirs")) == int(experiment) + 1


async def test_asyncstore_reads_what_mlflow_wrote(shared_uri: str, tmp_path: Path) -> None:
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path / "artifacts"))
    experiment = theirs.create_experiment("theirs", tags=[ExperimentTag("team", "b")])
    ids = []
    for number in range(3):
        run = theirs.create_run(experiment, "me", number, [RunTag("t", "v")], f"run {number}")
        ids.append(run.info.run_id)
        theirs.log_batch(
            run.info.run_id,
            [
                MlflowMetric("loss", number / 3, 1, 1),
                MlflowMetric("loss", 9.0, 1, 0),
                MlflowMetric("nan", math.nan, 1, 1),
                MlflowMetric("inf", -math.inf, 1, 1),
            ],
            [Param("p", str(number))],
            [RunTag("u", "w")],
        )
    theirs.update_run_info(ids[0], RunStatus.FAILED, 55, None)
    theirs.delete_run(ids[1])
    async with await MetadataStore.open(shared_uri) as store:
        assert experiment_as_dict(await store.get_experiment(experiment)) == experiment_as_dict(
            theirs.get_experiment(experiment)
        )
        for run_id in ids:
            assert run_as_dict(await store.get_run(run_id)) == run_as_dict(theirs.get_run(run_id))
        history = await store.get_metric_history(ids[2], "loss")
        assert [(metric.step, metric.value) for metric in history] == [(0, 9.0), (1, 2 / 3)]
        assert (await store.create_experiment("ours")) == str(int(experiment) + 1)


async def test_both_log_to_one_run_at_the_same_time(shared_uri: str, tmp_path: Path) -> None:
    steps, tasks = 40, 4
    async with await MetadataStore.open(shared_uri, str(tmp_path)) as store:
        theirs = SqlAlchemyStore(shared_uri, str(tmp_path))
        run_id = (await store.create_run("0")).info.run_id

        def log_theirs(number: int) -> None:
            for step in range(steps):
                theirs.log_metric(run_id, MlflowMetric("m", number, 1, step))
            theirs.log_param(run_id, Param(f"theirs{number}", "v"))

        async def log_ours(number: int) -> None:
            for step in range(steps):
                await store.log_metric(run_id, entities.Metric("m", number, 1, step))
            await store.log_param(run_id, entities.Param(f"ours{number}", "v"))

        # One thread for MLflow: its own threads deadlock with each other on MySQL.
        await asyncio.gather(
            asyncio.to_thread(log_theirs, 100), *(log_ours(number) for number in range(tasks))
        )
        history = await store.get_metric_history(run_id, "m")
        assert sorted((metric.value, metric.step) for metric in history) == [
            (float(number), step) for number in (*range(tasks), 100) for step in range(steps)
        ]
        ours, found = await store.get_run(run_id), theirs.get_run(run_id)
        assert run_as_dict(ours) == run_as_dict(found)
        assert ours.data.params.keys() == {"theirs100", *(f"ours{each}" for each in range(tasks))}
        assert ours.data.metrics == {"m": 100.0}
