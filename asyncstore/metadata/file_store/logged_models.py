"""Logged models of the file store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncstore.metadata.file_store.entries import Entry
from asyncstore.metadata.file_store.files import (
    MalformedError,
    Warn,
    int64,
    integer,
    lines,
    meta,
    one_of,
    text,
    texts,
)
from asyncstore.metadata.file_store.runs import STAGES, located, stored_value

__all__ = ["read_metrics", "read_model"]

STATUSES = {
    0: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    1: "LOGGED_MODEL_PENDING",
    2: "LOGGED_MODEL_READY",
    3: "LOGGED_MODEL_UPLOAD_FAILED",
}
_NUMBERS = {word: number for number, word in STATUSES.items()} | {
    "UNSPECIFIED": 0,
    "PENDING": 1,
    "READY": 2,
    "FAILED": 3,
}


def read_model(directory: Path, experiment: Entry, base: Path, warn: Warn) -> Entry:
    """A logged model without its metrics.

    Raises:
        MalformedError: It cannot be read.
    """
    values = meta(directory)
    model_id = text(values, "model_id")
    if model_id != directory.name:
        raise MalformedError(f"says that it is model {model_id}")
    number = experiment.rows["experiments"][0]["experiment_id"]
    created = integer(values, "creation_timestamp", 0)
    location = text(values, "artifact_location") or (directory / "artifacts").as_uri()
    row: dict[str, Any] = {
        "model_id": model_id,
        "experiment_id": number,
        "name": text(values, "name", ""),
        "artifact_location": located(location, experiment, base),
        "creation_timestamp_ms": created,
        "last_updated_timestamp_ms": integer(values, "last_updated_timestamp", created),
        "status": _status(values),
        "lifecycle_stage": one_of(values, "lifecycle_stage", STAGES, "active"),
        # The database has an empty text where the model has no type.
        "model_type": text(values, "model_type", ""),
        "source_run_id": text(values, "source_run_id"),
        "status_message": text(values, "status_message"),
    }
    params = texts(directory / "params", warn)
    tags = texts(directory / "tags", warn)
    own = {"model_id": model_id, "experiment_id": number}
    return Entry(
        "logged model",
        model_id,
        directory,
        {
            "logged_models": [row],
            "logged_model_params": [
                own | {"param_key": key, "param_value": params[key]} for key in params
            ],
            "logged_model_tags": [own | {"tag_key": key, "tag_value": tags[key]} for key in tags],
        },
    )


def _status(values: dict[str, Any]) -> int:
    value = values.get("status")
    found = _NUMBERS.get(value) if isinstance(value, str) else 1 if value is None else value
    if not isinstance(found, int) or found not in STATUSES:
        raise MalformedError(f"status is {value!r}")
    return found


def read_metrics(model: Entry, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of the table of a logged model's metrics, line by line.

    A line is `timestamp value step run_id [dataset name and digest]`, the name with any spaces.
    """
    number = model.rows["logged_models"][0]["experiment_id"]
    for key, path, fields in lines(model.directory / "metrics", warn):
        try:
            row: dict[str, Any] = {
                "model_id": model.name,
                "metric_name": key,
                "metric_timestamp_ms": int64(fields[0]),
                "metric_step": int64(fields[2]),
                "metric_value": stored_value(fields[1])[0],
                "experiment_id": number,
                "run_id": fields[3],
                "dataset_uuid": None,
                "dataset_name": " ".join(fields[4:-1]) if len(fields) > 5 else None,
                "dataset_digest": fields[-1] if len(fields) > 5 else None,
            }
        except (ValueError, IndexError):
            warn(f"{path}: {' '.join(fields)[:100]!r} is no value of a metric; left out")
            continue
        yield row
