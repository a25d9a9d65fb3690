"""Between MLflow's entities and asyncstore's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from mlflow import entities as theirs
from mlflow.entities import model_registry
from mlflow.entities.metric import MetricWithRunId
from mlflow.store.entities import PagedList as MlflowPagedList

from asyncstore import entities as ours

__all__ = ["arguments", "result"]


# Arguments: from MLflow's to asyncstore's, by the argument's name in MLflow's stores


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as asyncstore's stores take them.

    Args:
        given: MLflow's arguments by name.
    """
    converted: dict[str, Any] = {}
    for name, value in given.items():
        if name == "tag":
            converted["key"], converted["value"] = value.key, value.value
        elif value is not None and name in _ARGUMENTS:
            converted[name] = _ARGUMENTS[name](value)
        else:
            converted[name] = value
    return converted


def _texts(values: Any) -> dict[str, str]:
    given = values if isinstance(values, Mapping) else {each.key: each.value for each in values}
    # MLflow hands on the numbers of `start_run(tags=...)`, and its databases make text of them.
    return {
        key: str(value) if isinstance(value, int | float) else value for key, value in given.items()
    }


def metric(value: Any) -> ours.Metric:
    """A metric; MLflow 2 has no models and datasets in it."""
    return ours.Metric(
        value.key,
        value.value,
        value.timestamp,
        value.step,
        getattr(value, "model_id", None),
        getattr(value, "dataset_name", None),
        getattr(value, "dataset_digest", None),
        getattr(value, "run_id", None),
    )


def _param(value: Any) -> ours.Param:
    return ours.Param(value.key, value.value)


def _params(values: Any) -> Any:
    # Those of a logged model are a mapping in asyncstore.
    logged_model = getattr(theirs, "LoggedModelParameter", ())
    values = list(values)
    if values and isinstance(values[0], logged_model):
        return _texts(values)
    return [_param(value) for value in values]


def _datasets(values: Iterable[Any]) -> list[Any]:
    def one(value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        dataset = value.dataset
        return ours.DatasetInput(
            ours.Dataset(
                dataset.name,
                dataset.digest,
                dataset.source_type,
                dataset.source,
                dataset.schema,
                dataset.profile,
            ),
            _texts(value.tags or ()),
        )

    return [one(value) for value in values]


def _models(values: Iterable[Any]) -> list[Any]:
    def one(value: Any) -> Any:
        if hasattr(value, "step"):
            return ours.LoggedModelOutput(value.model_id, value.step)
        return ours.LoggedModelInput(value.model_id)

    return [one(value) for value in values]


def _view_type(value: int) -> str:
    return str(theirs.ViewType.to_string(value)).upper()


def _run_status(value: int | str) -> str:
    return value if isinstance(value, str) else str(theirs.RunStatus.to_string(value))


def _ids(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in values]


_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "experiment_id": str,
    "experiment_ids": _ids,
    "tags": _texts,
    "metric": metric,
    "metrics": lambda values: [metric(value) for value in values],
    "param": _param,
    "params": _params,
    "datasets": _datasets,
    "models": _models,
    "view_type": _view_type,
    "run_view_type": _view_type,
    "run_status": _run_status,
    "status": lambda status: status.value.replace("LOGGED_MODEL_", ""),
}


# Results: from asyncstore's to MLflow's, by type


def result(value: Any) -> Any:
    """What a call returns, as MLflow's entities. Unknown types stay as they are."""
    if isinstance(value, ours.PagedList):
        return MlflowPagedList([result(each) for each in value], value.token)
    if isinstance(value, list):
        return [result(each) for each in value]
    convert = _RESULTS.get(type(value))
    return value if convert is None else convert(value)


def _tags(tag: Callable[[str, str], Any], tags: Mapping[str, str]) -> list[Any]:
    return [tag(key, value) for key, value in tags.items()]


def _metric(value: ours.Metric) -> Any:
    if not _takes(theirs.Metric, "model_id"):
        return theirs.Metric(value.key, value.value, value.timestamp, value.step)
    return theirs.Metric(
        value.key,
        value.value,
        value.timestamp,
        value.step,
        value.model_id,
        value.dataset_name,
        value.dataset_digest,
        value.run_id,
    )


def _experiment(value: ours.Experiment) -> Any:
    return theirs.Experiment(
        value.experiment_id,
        value.name,
        value.artifact_location,
        value.lifecycle_stage,
        _tags(theirs.ExperimentTag, value.tags),
        value.creation_time,
        value.last_update_time,
        **_workspace(theirs.Experiment),
    )


def _run_info(value: ours.RunInfo) -> Any:
    # MLflow 2 knows the id by two names.
    older = {"run_uuid": value.run_id} if _takes(theirs.RunInfo, "run_uuid") else {}
    return theirs.RunInfo(
        run_id=value.run_id,
        experiment_id=value.experiment_id,
        user_id=value.user_id,
        status=value.status,
        start_time=value.start_time,
        end_time=value.end_time,
        lifecycle_stage=value.lifecycle_stage,
        artifact_uri=value.artifact_uri,
        run_name=value.run_name,
        **older,
    )


def _run(value: ours.Run) -> Any:
    data = theirs.RunData(
        [_metric(each) for each in value.data.latest_metrics],
        _tags(theirs.Param, value.data.params),
        _tags(theirs.RunTag, value.data.tags),
    )
    inputs = [
        theirs.DatasetInput(
            theirs.Dataset(
                each.dataset.name,
                each.dataset.digest,
                each.dataset.source_type,
                each.dataset.source,
                each.dataset.schema,
                each.dataset.profile,
            ),
            _tags(theirs.InputTag, each.tags),
        )
        for each in value.inputs.dataset_inputs
    ]
    if not hasattr(theirs, "RunOutputs"):
        return theirs.Run(_run_info(value.info), data, theirs.RunInputs(inputs))
    models = [theirs.LoggedModelInput(each.model_id) for each in value.inputs.model_inputs]
    outputs = [
        theirs.LoggedModelOutput(each.model_id, each.step) for each in value.outputs.model_outputs
    ]
    return theirs.Run(
        _run_info(value.info),
        data,
        theirs.RunInputs(inputs, models),
        theirs.RunOutputs(outputs),
    )


def _logged_model(value: ours.LoggedModel) -> Any:
    return theirs.LoggedModel(
        experiment_id=value.experiment_id,
        model_id=value.model_id,
        name=value.name,
        artifact_location=value.artifact_location,
        creation_timestamp=value.creation_timestamp,
        last_updated_timestamp=value.last_updated_timestamp,
        model_type=value.model_type,
        source_run_id=value.source_run_id,
        status=theirs.LoggedModelStatus(value.status),
        status_message=value.status_message,
        tags=dict(value.tags),
        params=dict(value.params),
        metrics=[_metric(each) for each in value.metrics] or None,
    )


def _dataset_summary(value: ours.DatasetSummary) -> Any:
    made = theirs._DatasetSummary  # noqa: SLF001  which their stores return
    return made(value.experiment_id, value.name, value.digest, value.context)


def _trace_info(value: ours.TraceInfo) -> Any:
    return theirs.TraceInfo(
        trace_id=value.trace_id,
        trace_location=theirs.TraceLocation.from_experiment_id(value.experiment_id),
        request_time=value.request_time,
        state=theirs.trace_state.TraceState(value.state),
        request_preview=value.request_preview,
        response_preview=value.response_preview,
        client_request_id=value.client_request_id,
        execution_duration=value.execution_duration,
        trace_metadata=dict(value.trace_metadata),
        tags=dict(value.tags),
        assessments=[_assessment(each) for each in value.assessments],
    )


def _assessment(value: ours.Assessment) -> Any:
    shared: dict[str, Any] = {
        "name": value.name,
        "value": value.value,
        "source": theirs.AssessmentSource(value.source.source_type, value.source.source_id),
        "trace_id": value.trace_id,
        "metadata": dict(value.metadata) or None,
        "span_id": value.span_id,
        "create_time_ms": value.create_time_ms,
        "last_update_time_ms": value.last_update_time_ms,
    }
    if isinstance(value, ours.Feedback):
        error = value.error
        made = theirs.Feedback(
            **shared,
            error=None
            if error is None
            else theirs.AssessmentError(error.error_code, error.error_message, error.stack_trace),
            rationale=value.rationale,
            overrides=value.overrides,
            valid=value.valid,
        )
    else:
        made = theirs.Expectation(**shared)
        made.rationale, made.overrides, made.valid = value.rationale, value.overrides, value.valid
    made.assessment_id, made.run_id = value.assessment_id, value.run_id
    return made


def _model_version(value: ours.ModelVersion) -> Any:
    return model_registry.ModelVersion(
        name=value.name,
        version=value.version,
        creation_timestamp=value.creation_timestamp,
        last_updated_timestamp=value.last_updated_timestamp,
        description=value.description,
        user_id=value.user_id,
        current_stage=value.current_stage,
        source=value.source,
        run_id=value.run_id,
        status=value.status,
        status_message=value.status_message,
        tags=_tags(model_registry.ModelVersionTag, value.tags),
        run_link=value.run_link,
        aliases=list(value.aliases),
        **_workspace(model_registry.ModelVersion),
    )


def _registered_model(value: ours.RegisteredModel) -> Any:
    return model_registry.RegisteredModel(
        value.name,
        value.creation_timestamp,
        value.last_updated_timestamp,
        value.description,
        [_model_version(each) for each in value.latest_versions],
        _tags(model_registry.RegisteredModelTag, value.tags),
        [
            model_registry.RegisteredModelAlias(alias, version)
            for alias, version in value.aliases.items()
        ],
        **_workspace(model_registry.RegisteredModel),
    )


@lru_cache(maxsize=32)
def _takes(kind: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(kind).parameters


def _workspace(kind: Callable[..., Any]) -> dict[str, str]:
    # The one that every database has, and the only one that asyncstore serves.
    return {"workspace": "default"} if _takes(kind, "workspace") else {}


_RESULTS: dict[type, Callable[[Any], Any]] = {
    ours.Metric: _metric,
    ours.MetricWithRunId: lambda value: MetricWithRunId(_metric(value), value.run_id),
    ours.Experiment: _experiment,
    ours.RunInfo: _run_info,
    ours.Run: _run,
    ours.LoggedModel: _logged_model,
    ours.DatasetSummary: _dataset_summary,
    ours.TraceInfo: _trace_info,
    ours.Feedback: _assessment,
    ours.Expectation: _assessment,
    ours.ModelVersion: _model_version,
    ours.RegisteredModel: _registered_model,
}
