"""Logged models as the JSON of MLflow's REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncstore.entities import LoggedModel, LoggedModelStatus
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_fields import (
    choice,
    integer,
    message,
    messages,
    optional_text,
    tags_from_json,
    tags_to_json,
    text,
)
from asyncstore.rest.json_tracking import metric_from_json, metric_to_json

__all__ = [
    "logged_model_from_json",
    "logged_model_status_from_json",
    "logged_model_status_to_json",
    "logged_model_to_json",
]

_STATUSES: dict[LoggedModelStatus, str] = {
    "UNSPECIFIED": "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "PENDING": "LOGGED_MODEL_PENDING",
    "READY": "LOGGED_MODEL_READY",
    "FAILED": "LOGGED_MODEL_UPLOAD_FAILED",
}
_NUMBERS = {name: value for value, name in enumerate(_STATUSES.values())}
_FROM_JSON = {name: status for status, name in _STATUSES.items()}


def logged_model_status_to_json(status: LoggedModelStatus) -> str:
    """The name of a status in MLflow's `LoggedModelStatus`.

    Raises:
        InvalidParameterError: It is none of MLflow's.
    """
    if status not in _STATUSES:
        raise InvalidParameterError(f"{status!r} is no status; there are {', '.join(_STATUSES)}")
    return _STATUSES[status]


def logged_model_status_from_json(d: Mapping[str, Any]) -> LoggedModelStatus:
    """The status in an object with the field `status`; `UNSPECIFIED` when absent.

    Raises:
        InvalidParameterError: It is none of MLflow's.
    """
    return _FROM_JSON[choice(d, "status", _NUMBERS, _STATUSES["UNSPECIFIED"])]


def logged_model_to_json(model: LoggedModel) -> dict[str, Any]:
    """A logged model as MLflow's `LoggedModel`."""
    info: dict[str, Any] = {
        "model_id": model.model_id,
        "experiment_id": model.experiment_id,
        "name": model.name,
        "creation_timestamp_ms": model.creation_timestamp,
        "last_updated_timestamp_ms": model.last_updated_timestamp,
        "artifact_uri": model.artifact_location,
        "status": _STATUSES[model.status],
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
        "status_message": model.status_message,
        "tags": tags_to_json(model.tags) or None,
    }
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = tags_to_json(model.params)
    if model.metrics:
        data["metrics"] = [metric_to_json(metric) for metric in model.metrics]
    return {"info": {key: value for key, value in info.items() if value is not None}, "data": data}


def logged_model_from_json(d: Mapping[str, Any]) -> LoggedModel:
    """A logged model from MLflow's `LoggedModel`."""
    info, data = message(d, "info"), message(d, "data")
    return LoggedModel(
        experiment_id=text(info, "experiment_id"),
        model_id=text(info, "model_id"),
        name=text(info, "name"),
        artifact_location=text(info, "artifact_uri"),
        creation_timestamp=integer(info, "creation_timestamp_ms"),
        last_updated_timestamp=integer(info, "last_updated_timestamp_ms"),
        model_type=optional_text(info, "model_type"),
        source_run_id=optional_text(info, "source_run_id"),
        status=logged_model_status_from_json(info),
        status_message=optional_text(info, "status_message"),
        tags=tags_from_json(messages(info, "tags")),
        params=tags_from_json(messages(data, "params")),
        metrics=tuple(map(metric_from_json, messages(data, "metrics"))),
    )
