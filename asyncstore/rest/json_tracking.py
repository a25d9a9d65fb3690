"""Experiments, runs and what runs log, as the JSON of MLflow's REST API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from asyncstore.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    FileInfo,
    LifecycleStage,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    MetricWithRunId,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunStatus,
)
from asyncstore.rest.json_fields import (
    choice,
    flag,
    integer,
    message,
    messages,
    number,
    optional_integer,
    optional_text,
    tags_from_json,
    tags_to_json,
    text,
)

__all__ = [
    "dataset_input_from_json",
    "dataset_input_to_json",
    "experiment_from_json",
    "experiment_to_json",
    "file_info_from_json",
    "file_info_to_json",
    "metric_from_json",
    "metric_to_json",
    "metric_with_run_id_from_json",
    "metric_with_run_id_to_json",
    "number_to_json",
    "param_from_json",
    "param_to_json",
    "run_from_json",
    "run_info_from_json",
    "run_info_to_json",
    "run_inputs_from_json",
    "run_inputs_to_json",
    "run_outputs_from_json",
    "run_outputs_to_json",
    "run_to_json",
    "tags_from_json",
    "tags_to_json",
]

STATUSES = {"RUNNING": 1, "SCHEDULED": 2, "FINISHED": 3, "FAILED": 4, "KILLED": 5}
_STAGES = {"active": 1, "deleted": 2}


def number_to_json(value: float) -> float | str:
    """A number, or its name where JSON has none: `NaN`, `Infinity`, `-Infinity`."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _stage(d: Mapping[str, Any]) -> LifecycleStage:
    return cast("LifecycleStage", choice(d, "lifecycle_stage", _STAGES, "active"))


def experiment_to_json(experiment: Experiment) -> dict[str, Any]:
    """An experiment as MLflow's `Experiment`."""
    made: dict[str, Any] = {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "artifact_location": experiment.artifact_location,
        "lifecycle_stage": experiment.lifecycle_stage,
    }
    # Experiments from before MLflow 1.29 have no times, which their JSON does not say as 0.
    if experiment.last_update_time:
        made["last_update_time"] = experiment.last_update_time
    if experiment.creation_time:
        made["creation_time"] = experiment.creation_time
    if experiment.tags:
        made["tags"] = tags_to_json(experiment.tags)
    return made


def experiment_from_json(d: Mapping[str, Any]) -> Experiment:
    """An experiment from MLflow's `Experiment`."""
    return Experiment(
        experiment_id=text(d, "experiment_id"),
        name=text(d, "name"),
        artifact_location=text(d, "artifact_location"),
        lifecycle_stage=_stage(d),
        tags=tags_from_json(messages(d, "tags")),
        creation_time=integer(d, "creation_time") or None,
        last_update_time=integer(d, "last_update_time") or None,
    )


def metric_to_json(metric: Metric) -> dict[str, Any]:
    """A value of a metric as MLflow's `Metric`."""
    made: dict[str, Any] = {
        "key": metric.key,
        "value": number_to_json(metric.value),
        "timestamp": metric.timestamp,
        "step": metric.step,
    }
    if metric.dataset_name:
        made["dataset_name"] = metric.dataset_name
    if metric.dataset_digest:
        made["dataset_digest"] = metric.dataset_digest
    if metric.model_id:
        made["model_id"] = metric.model_id
    if metric.run_id:
        made["run_id"] = metric.run_id
    return made


def metric_from_json(d: Mapping[str, Any]) -> Metric:
    """A value of a metric from MLflow's `Metric`."""
    return Metric(
        text(d, "key"),
        number(d, "value"),
        integer(d, "timestamp"),
        integer(d, "step"),
        model_id=optional_text(d, "model_id") or None,
        dataset_name=optional_text(d, "dataset_name") or None,
        dataset_digest=optional_text(d, "dataset_digest") or None,
        run_id=optional_text(d, "run_id") or None,
    )


def metric_with_run_id_to_json(found: MetricWithRunId) -> dict[str, Any]:
    """A value of a metric and its run as MLflow's `MetricWithRunId`."""
    return {
        "key": found.key,
        "value": number_to_json(found.value),
        "timestamp": found.timestamp,
        "step": found.step,
        "run_id": found.run_id,
    }


def metric_with_run_id_from_json(d: Mapping[str, Any]) -> MetricWithRunId:
    """A value of a metric and its run from MLflow's `MetricWithRunId`."""
    return MetricWithRunId(
        text(d, "key"),
        number(d, "value"),
        integer(d, "timestamp"),
        integer(d, "step"),
        run_id=text(d, "run_id"),
    )


def param_to_json(param: Param) -> dict[str, Any]:
    """A param as MLflow's `Param`."""
    return {"key": param.key, "value": param.value}


def param_from_json(d: Mapping[str, Any]) -> Param:
    """A param from MLflow's `Param`."""
    return Param(text(d, "key"), text(d, "value"))


def run_info_to_json(info: RunInfo) -> dict[str, Any]:
    """What identifies a run as MLflow's `RunInfo`."""
    made: dict[str, Any] = {
        "run_uuid": info.run_id,
        "experiment_id": info.experiment_id,
        "run_name": info.run_name,
        "user_id": info.user_id,
        "status": info.status,
    }
    if info.start_time is not None:
        made["start_time"] = info.start_time
    if info.end_time:
        made["end_time"] = info.end_time
    if info.artifact_uri:
        made["artifact_uri"] = info.artifact_uri
    made["lifecycle_stage"] = info.lifecycle_stage
    made["run_id"] = info.run_id
    return made


def run_info_from_json(d: Mapping[str, Any]) -> RunInfo:
    """What identifies a run from MLflow's `RunInfo`."""
    return RunInfo(
        run_id=text(d, "run_id") or text(d, "run_uuid"),
        run_name=text(d, "run_name"),
        experiment_id=text(d, "experiment_id"),
        user_id=text(d, "user_id"),
        status=cast("RunStatus", choice(d, "status", STATUSES, "RUNNING")),
        start_time=optional_integer(d, "start_time"),
        end_time=integer(d, "end_time") or None,
        lifecycle_stage=_stage(d),
        artifact_uri=text(d, "artifact_uri"),
    )


def dataset_input_to_json(dataset_input: DatasetInput) -> dict[str, Any]:
    """A dataset that a run read as MLflow's `DatasetInput`."""
    dataset = dataset_input.dataset
    made: dict[str, Any] = {
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
    }
    if dataset.schema:
        made["schema"] = dataset.schema
    if dataset.profile:
        made["profile"] = dataset.profile
    if not dataset_input.tags:
        return {"dataset": made}
    return {"tags": tags_to_json(dataset_input.tags), "dataset": made}


def dataset_input_from_json(d: Mapping[str, Any]) -> DatasetInput:
    """A dataset that a run read from MLflow's `DatasetInput`."""
    dataset = message(d, "dataset")
    return DatasetInput(
        Dataset(
            name=text(dataset, "name"),
            digest=text(dataset, "digest"),
            source_type=text(dataset, "source_type"),
            source=text(dataset, "source"),
            schema=optional_text(dataset, "schema") or None,
            profile=optional_text(dataset, "profile") or None,
        ),
        tags_from_json(messages(d, "tags")),
    )


def run_inputs_to_json(inputs: RunInputs) -> dict[str, Any]:
    """What a run read as MLflow's `RunInputs`."""
    made: dict[str, Any] = {}
    if inputs.dataset_inputs:
        made["dataset_inputs"] = [dataset_input_to_json(each) for each in inputs.dataset_inputs]
    if inputs.model_inputs:
        made["model_inputs"] = [{"model_id": each.model_id} for each in inputs.model_inputs]
    return made


def run_inputs_from_json(d: Mapping[str, Any]) -> RunInputs:
    """What a run read from MLflow's `RunInputs`."""
    return RunInputs(
        tuple(map(dataset_input_from_json, messages(d, "dataset_inputs"))),
        tuple(LoggedModelInput(text(each, "model_id")) for each in messages(d, "model_inputs")),
    )


def run_outputs_to_json(outputs: RunOutputs) -> dict[str, Any]:
    """What a run made as MLflow's `RunOutputs`."""
    if not outputs.model_outputs:
        return {}
    return {
        "model_outputs": [
            {"model_id": each.model_id, "step": each.step} for each in outputs.model_outputs
        ]
    }


def run_outputs_from_json(d: Mapping[str, Any]) -> RunOutputs:
    """What a run made from MLflow's `RunOutputs`."""
    return RunOutputs(
        tuple(
            LoggedModelOutput(text(each, "model_id"), integer(each, "step"))
            for each in messages(d, "model_outputs")
        )
    )


def run_to_json(run: Run) -> dict[str, Any]:
    """A run as MLflow's `Run`."""
    data: dict[str, Any] = {}
    if run.data.latest_metrics:
        data["metrics"] = [metric_to_json(metric) for metric in run.data.latest_metrics]
    if run.data.params:
        data["params"] = tags_to_json(run.data.params)
    if run.data.tags:
        data["tags"] = tags_to_json(run.data.tags)
    return {
        "info": run_info_to_json(run.info),
        "data": data,
        "inputs": run_inputs_to_json(run.inputs),
        "outputs": run_outputs_to_json(run.outputs),
    }


def run_from_json(d: Mapping[str, Any]) -> Run:
    """A run from MLflow's `Run`."""
    data = message(d, "data")
    latest = tuple(map(metric_from_json, messages(data, "metrics")))
    return Run(
        run_info_from_json(message(d, "info")),
        RunData(
            metrics={metric.key: metric.value for metric in latest},
            params=tags_from_json(messages(data, "params")),
            tags=tags_from_json(messages(data, "tags")),
            latest_metrics=latest,
        ),
        run_inputs_from_json(message(d, "inputs")),
        run_outputs_from_json(message(d, "outputs")),
    )


def file_info_to_json(info: FileInfo) -> dict[str, Any]:
    """An entry of a listing as MLflow's `FileInfo`."""
    made: dict[str, Any] = {"path": info.path, "is_dir": info.is_dir}
    if info.file_size:
        made["file_size"] = info.file_size
    return made


def file_info_from_json(d: Mapping[str, Any]) -> FileInfo:
    """An entry of a listing from MLflow's `FileInfo`."""
    is_dir = flag(d, "is_dir")
    return FileInfo(text(d, "path"), is_dir, None if is_dir else integer(d, "file_size"))
