"""Runs, and what they log."""

from __future__ import annotations

import json
from typing import Any, get_args

from asyncstore.entities import (
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunStatus,
)
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_fields import is_too_deep
from asyncstore.rest.json_tracking import dataset_input_from_json, run_info_to_json, run_to_json
from asyncstore.server.decoding import Clauses, Int64, Request, RequiredText
from asyncstore.server.requests import Tag, list_in_tag, page, tags_of, view_type_of
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

API = "/api/2.0/mlflow/runs/"
SEARCH_MAX_RESULTS = 1000
LOGGED_MODELS_TAG = "mlflow.log-model.history"
_MODEL_FIELDS = ("artifact_path", "flavors", "utc_time_created", "run_id")
# RunStatus of MLflow's service.proto, from 1.
_STATUSES: dict[str, RunStatus] = {name: name for name in get_args(RunStatus)} | {
    str(number): name for number, name in enumerate(get_args(RunStatus), 1)
}


class CreateRun(Request):
    """A new run."""

    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: Int64 | None = None
    tags: list[Tag] | None = None


class OfRun(Request):
    """A run."""

    run_id: RequiredText


class UpdateRun(OfRun):
    """What changes of a run."""

    status: str | Int64 | None = None
    end_time: Int64 | None = None
    run_name: str | None = None


class MetricValue(Request):
    """A value of a metric."""

    key: RequiredText
    value: float
    timestamp: Int64
    step: Int64 | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None

    def entity(self) -> Metric:
        """As the store takes it."""
        return Metric(
            self.key,
            self.value,
            self.timestamp,
            self.step or 0,
            self.model_id or None,
            self.dataset_name or None,
            self.dataset_digest or None,
        )


class LogMetric(MetricValue, kw_only=True):
    """A value of a metric of a run."""

    run_id: RequiredText


class LogParam(OfRun):
    """A parameter of a run."""

    key: RequiredText
    value: str | None = None


class SetTag(OfRun):
    """A tag of a run."""

    key: RequiredText
    value: str | None = None


class DeleteTag(OfRun):
    """A tag of a run that goes."""

    key: RequiredText


class LogBatch(OfRun):
    """Metrics, parameters and tags of a run."""

    metrics: list[MetricValue] | None = None
    params: list[Tag] | None = None
    tags: list[Tag] | None = None


class LogModel(OfRun):
    """The MLmodel file of a model that a run logged, as JSON."""

    model_json: RequiredText


class ModelInput(Request):
    """A logged model that a run read."""

    model_id: RequiredText


class ModelOutput(Request):
    """A logged model that a run made."""

    model_id: RequiredText
    step: Int64 | None = None


class LogInputs(OfRun):
    """What a run read."""

    datasets: list[dict[str, Any]] | None = None
    models: list[ModelInput] | None = None


class LogOutputs(OfRun):
    """What a run made."""

    models: list[ModelOutput]


class SearchRuns(Request):
    """Which runs to find."""

    experiment_ids: list[str] | None = None
    filter: str | None = None
    run_view_type: str | Int64 | None = None
    max_results: Int64 | None = None
    order_by: Clauses[str] | None = None
    page_token: str | None = None


async def create_run(server: Server, request: CreateRun) -> dict[str, Any]:
    """Create a run."""
    run = await server.store.create_run(
        request.experiment_id or "0",
        request.user_id or "",
        request.start_time,
        tags_of(request.tags),
        request.run_name or None,
    )
    return {"run": run_to_json(run)}


async def get_run(server: Server, request: OfRun) -> dict[str, Any]:
    """A run with its latest metrics, parameters and tags."""
    return {"run": run_to_json(await server.store.get_run(request.run_id))}


async def update_run(server: Server, request: UpdateRun) -> dict[str, Any]:
    """Change the status, the end or the name of a run."""
    status = None
    if request.status is not None:
        status = _STATUSES.get(str(request.status))
        if status is None:
            raise InvalidParameterError(f"{request.status!r:.100} is no status of a run")
    info = await server.store.update_run_info(
        request.run_id, status, request.end_time, request.run_name
    )
    return {"run_info": run_info_to_json(info)}


async def delete_run(server: Server, request: OfRun) -> dict[str, Any]:
    """Mark a run as deleted."""
    await server.store.delete_run(request.run_id)
    return {}


async def restore_run(server: Server, request: OfRun) -> dict[str, Any]:
    """Undo the deletion of a run."""
    await server.store.restore_run(request.run_id)
    return {}


async def log_metric(server: Server, request: LogMetric) -> dict[str, Any]:
    """Log a value of a metric."""
    await server.store.log_metric(request.run_id, request.entity())
    return {}


async def log_param(server: Server, request: LogParam) -> dict[str, Any]:
    """Log a parameter."""
    await server.store.log_param(request.run_id, Param(request.key, request.value or ""))
    return {}


async def set_tag(server: Server, request: SetTag) -> dict[str, Any]:
    """Set a tag of a run."""
    await server.store.set_tag(request.run_id, request.key, request.value or "")
    return {}


async def delete_tag(server: Server, request: DeleteTag) -> dict[str, Any]:
    """Delete a tag of a run."""
    await server.store.delete_tag(request.run_id, request.key)
    return {}


async def log_batch(server: Server, request: LogBatch) -> dict[str, Any]:
    """Log metrics, parameters and tags: all of them or none."""
    await server.store.log_batch(
        request.run_id,
        [metric.entity() for metric in request.metrics or ()],
        [Param(param.key, param.value or "") for param in request.params or ()],
        tags_of(request.tags),
    )
    return {}


async def log_model(server: Server, request: LogModel) -> dict[str, Any]:
    """Note in a tag that a run logged a model, as clients of MLflow 2 have it."""
    try:
        model = json.loads(request.model_json)
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(f"model_json is not JSON: {error}") from error
    if is_too_deep(model):
        raise InvalidParameterError("model_json is nested too deeply")
    missing = [name for name in _MODEL_FIELDS if not isinstance(model, dict) or name not in model]
    if missing or not isinstance(model["flavors"], dict):
        raise InvalidParameterError(f"model_json has no {', '.join(missing) or 'flavors'}")
    # Without the environments of the flavors, for which a tag has no room.
    flavors = {
        name: {key: value for key, value in flavor.items() if key != "config"}
        if isinstance(flavor, dict)
        else flavor
        for name, flavor in model["flavors"].items()
    }
    kept = ("run_id", "artifact_path", "utc_time_created", "model_uuid")
    entry = {key: model[key] for key in kept if key in model} | {"flavors": flavors}
    run = await server.store.get_run(request.run_id)
    history = list_in_tag(run.data.tags.get(LOGGED_MODELS_TAG))
    await server.store.set_tag(request.run_id, LOGGED_MODELS_TAG, json.dumps([*history, entry]))
    return {}


async def log_inputs(server: Server, request: LogInputs) -> dict[str, Any]:
    """Record what a run read."""
    await server.store.log_inputs(
        request.run_id,
        [dataset_input_from_json(each) for each in request.datasets or ()],
        [LoggedModelInput(each.model_id) for each in request.models or ()],
    )
    return {}


async def log_outputs(server: Server, request: LogOutputs) -> dict[str, Any]:
    """Record what a run made."""
    await server.store.log_outputs(
        request.run_id,
        [LoggedModelOutput(each.model_id, each.step or 0) for each in request.models],
    )
    return {}


async def search_runs(server: Server, request: SearchRuns) -> dict[str, Any]:
    """Search runs."""
    found = await server.store.search_runs(
        request.experiment_ids or [],
        request.filter or "",
        view_type_of(request.run_view_type),
        SEARCH_MAX_RESULTS if request.max_results is None else request.max_results,
        request.order_by,
        request.page_token or None,
    )
    return await page("runs", found, run_to_json)


ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", API + "create", create_run, CreateRun),
    Route("GET", API + "get", get_run, OfRun),
    Route("POST", API + "update", update_run, UpdateRun),
    Route("POST", API + "delete", delete_run, OfRun),
    Route("POST", API + "restore", restore_run, OfRun),
    Route("POST", API + "log-metric", log_metric, LogMetric),
    Route("POST", API + "log-parameter", log_param, LogParam),
    Route("POST", API + "set-tag", set_tag, SetTag),
    Route("POST", API + "delete-tag", delete_tag, DeleteTag),
    Route("POST", API + "log-batch", log_batch, LogBatch),
    Route("POST", API + "log-model", log_model, LogModel),
    Route("POST", API + "log-inputs", log_inputs, LogInputs),
    Route("POST", API + "outputs", log_outputs, LogOutputs),
    Route("POST", API + "search", search_runs, SearchRuns, reads=True, searches=True),
)
