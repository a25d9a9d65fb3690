"""Traces of the file store, with their assessments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncstore.metadata.file_store.entries import Entry
from asyncstore.metadata.file_store.files import (
    MalformedError,
    Warn,
    integer,
    meta,
    text,
    texts,
)
from asyncstore.metadata.file_store.runs import located

__all__ = ["read_trace"]

TRACE_INFO = "trace_info.yaml"
ARTIFACT_LOCATION_TAG = "mlflow.artifactLocation"


def read_trace(directory: Path, experiment: Entry, base: Path, warn: Warn) -> Entry:
    """A trace without its spans, which are an artifact.

    Args:
        directory: Where it lies.
        experiment: Whose it is.
        base: Where relative locations start.
        warn: Gets a line for each child that is left out.

    Raises:
        MalformedError: It cannot be read.
    """
    values = meta(directory, TRACE_INFO)
    # MLflow 2 called it request_id.
    trace_id = text(values, "trace_id") or text(values, "request_id")
    if trace_id != directory.name:
        raise MalformedError(f"says that it is trace {trace_id}")
    number = experiment.rows["experiments"][0]["experiment_id"]
    began = _milliseconds(values, "request_time", "timestamp_ms")
    tags = texts(directory / "tags", warn)
    if ARTIFACT_LOCATION_TAG in tags:
        tags[ARTIFACT_LOCATION_TAG] = located(tags[ARTIFACT_LOCATION_TAG], experiment, base)
    metadata = texts(directory / "request_metadata", warn)
    duration = integer(values, "execution_duration_ms", integer(values, "execution_time_ms"))
    row: dict[str, Any] = {
        "request_id": trace_id,
        "experiment_id": number,
        "timestamp_ms": began,
        "execution_time_ms": duration,
        "status": text(values, "state") or text(values, "status", "STATE_UNSPECIFIED"),
        "client_request_id": text(values, "client_request_id"),
        "request_preview": text(values, "request_preview"),
        "response_preview": text(values, "response_preview"),
    }
    own = {"request_id": trace_id}
    return Entry(
        "trace",
        trace_id,
        directory,
        {
            "trace_info": [row],
            "trace_tags": [own | {"key": key, "value": tags[key]} for key in tags],
            "trace_request_metadata": [
                own | {"key": key, "value": metadata[key]} for key in metadata
            ],
            "assessments": _read_assessments(directory / "assessments", row, warn),
        },
    )


def _read_assessments(
    directory: Path, trace: Mapping[str, Any], warn: Warn
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            found.append(_assessment(meta(path.parent, path.name), trace))
        except (MalformedError, OSError) as error:
            warn(f"assessment {path}: {error}; left out")
    return found


def _assessment(values: dict[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    kind = "feedback" if values.get("feedback") is not None else "expectation"
    given = values.get(kind)
    source = values.get("source") or {}
    if not isinstance(given, dict) or not isinstance(source, dict):
        raise MalformedError("is neither feedback nor an expectation")
    assessment_id = text(values, "assessment_id")
    name = text(values, "assessment_name") or text(values, "name")
    if not assessment_id or not name:
        raise MalformedError("has no id or no name")
    value = _value(given)
    created = _milliseconds(values, "create_time", "create_time_ms")
    metadata = values.get("metadata")
    aggregate, is_numeric = _aggregate(value)
    return {
        "assessment_id": assessment_id,
        "trace_id": trace["request_id"],
        "name": name,
        "assessment_type": kind,
        "value": _json(value),
        "error": _json(given["error"]) if given.get("error") else None,
        "created_timestamp": created,
        "last_updated_timestamp": _milliseconds(
            values, "last_update_time", "last_update_time_ms", created
        ),
        "source_type": text(source, "source_type", "CODE"),
        "source_id": text(source, "source_id"),
        "run_id": text(values, "run_id"),
        "span_id": text(values, "span_id"),
        "rationale": text(values, "rationale"),
        "overrides": text(values, "overrides"),
        "valid": values.get("valid") is not False,
        "assessment_metadata": _json(metadata) if metadata else None,
        "experiment_id": trace["experiment_id"],
        "trace_timestamp_ms": trace["timestamp_ms"],
        "aggregate_value": aggregate,
        "is_numeric_value": is_numeric,
    }


def _json(value: Any) -> str:
    # YAML knows dates, which JSON does not.
    return json.dumps(value, default=str)


def _value(given: dict[str, Any]) -> Any:
    """What was found or expected; MLflow writes lists and mappings as JSON in YAML."""
    serialized = given.get("serialized_value")
    if serialized is None:
        return given.get("value")
    try:
        return json.loads(serialized["value"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError("its value cannot be read") from error


def _aggregate(value: Any) -> tuple[float | None, bool]:
    """What MLflow's averages are made of: numbers, truth and yes or no."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None, False
        return (number, True) if math.isfinite(number) else (None, False)
    if isinstance(value, str) and value.strip().lower() in ("yes", "no"):
        return float(value.strip().lower() == "yes"), False
    return None, False


def _milliseconds(values: dict[str, Any], key: str, older: str, default: int | None = None) -> int:
    """A time, as MLflow 3 writes it (`2026-01-31T10:00:00.123Z`) or MLflow 2 (milliseconds)."""
    value = values.get(key)
    if value is None:
        found = integer(values, older, default)
        if found is None:
            raise MalformedError(f"has no {key}")
        return found
    if isinstance(value, int):
        return value
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise MalformedError(f"{key} is {value!r}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
