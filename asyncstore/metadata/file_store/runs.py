"""Runs of the file store: what identifies them, what they logged, what they read and made."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncstore.metadata.file_store.entries import Entry, Rows
from asyncstore.metadata.file_store.files import (
    MalformedError,
    Warn,
    absolute_uri,
    directories,
    int64,
    integer,
    lines,
    meta,
    one_of,
    text,
    texts,
)
from asyncstore.uris import join

__all__ = ["located", "read_metrics", "read_run", "stored_value"]

STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
SOURCES = {1: "NOTEBOOK", 2: "JOB", 3: "PROJECT", 4: "LOCAL", 1000: "UNKNOWN"}
STAGES = {1: "active", 2: "deleted"}
RUN_NAME_TAG = "mlflow.runName"
_IDS = uuid.UUID("9e1e0f5b-6f83-4b0c-8f51-8e0f3c2d6c2a")


def read_run(directory: Path, experiment: Entry, base: Path, warn: Warn) -> Entry:
    """A run without its metrics.

    Args:
        directory: Where it lies.
        experiment: Whose it is.
        base: Where relative locations start.
        warn: Gets a line for each child that is left out.

    Raises:
        MalformedError: It cannot be read.
    """
    values = meta(directory)
    run_id = text(values, "run_id") or text(values, "run_uuid")
    if run_id != directory.name:
        raise MalformedError(f"says that it is run {run_id}")
    number = experiment.rows["experiments"][0]["experiment_id"]
    if integer(values, "experiment_id", number) != number:
        raise MalformedError(f"says that it is of experiment {values['experiment_id']}")
    tags = texts(directory / "tags", warn)
    params = texts(directory / "params", warn)
    row: dict[str, Any] = {
        "run_uuid": run_id,
        "name": text(values, "run_name") or text(values, "name") or tags.get(RUN_NAME_TAG, ""),
        "source_type": one_of(values, "source_type", SOURCES, "UNKNOWN"),
        "source_name": text(values, "source_name", ""),
        "entry_point_name": text(values, "entry_point_name", ""),
        "source_version": text(values, "source_version", ""),
        "user_id": text(values, "user_id"),
        "status": one_of(values, "status", STATUSES, "RUNNING"),
        "start_time": integer(values, "start_time"),
        "end_time": integer(values, "end_time"),
        "deleted_time": integer(values, "deleted_time"),
        "lifecycle_stage": one_of(values, "lifecycle_stage", STAGES, "active"),
        "artifact_uri": located(
            text(values, "artifact_uri")
            or join(experiment.rows["experiments"][0]["artifact_location"], f"{run_id}/artifacts"),
            experiment,
            base,
        ),
        "experiment_id": number,
    }
    rows: Rows = {
        "runs": [row],
        "params": [{"run_uuid": run_id, "key": key, "value": params[key]} for key in params],
        "tags": [{"run_uuid": run_id, "key": key, "value": tags[key]} for key in tags],
        "datasets": [],
        "inputs": [],
        "input_tags": [],
    }
    _read_inputs(directory, experiment, rows, warn)
    _read_outputs(directory, rows, warn)
    return Entry("run", run_id, directory, rows)


def located(uri: str, experiment: Entry, base: Path) -> str:
    """Where artifacts lie: absolute, and in `.trash` when MLflow moved them there."""
    uri = absolute_uri(uri, base)
    for before, after in experiment.moved_to.items():
        if uri == before or uri.startswith(f"{before}/"):
            return after + uri[len(before) :]
    return uri


def _read_inputs(directory: Path, experiment: Entry, rows: Rows, warn: Warn) -> None:
    for found in directories(directory / "inputs"):
        try:
            values = meta(found)
            source_id = text(values, "source_id") or ""
            match values.get("source_type"):
                case "DATASET":
                    dataset = _read_dataset(experiment, source_id)
                    rows["datasets"].append(dataset)
                    ends = ("DATASET", dataset["dataset_uuid"], "RUN", directory.name)
                case "MODEL":
                    # As MLflow's database has it, where the arrow points the other way.
                    ends = ("RUN_INPUT", directory.name, "MODEL_INPUT", source_id)
                case other:
                    raise MalformedError(f"source_type is {other!r}")  # noqa: TRY301
            tags = values.get("tags") or {}
            if not isinstance(tags, dict):
                raise MalformedError("tags are no mapping")  # noqa: TRY301
        except (MalformedError, OSError) as error:
            warn(f"input {found}: {error}; left out")
            continue
        row = _input(*ends)
        rows["inputs"].append(row)
        rows["input_tags"] += [
            {"input_uuid": row["input_uuid"], "name": str(key), "value": str(tags[key])}
            for key in tags
        ]


def _read_dataset(experiment: Entry, dataset_id: str) -> dict[str, Any]:
    try:
        values = meta(experiment.directory / "datasets" / Path(dataset_id).name)
    except MalformedError as error:
        raise MalformedError(f"dataset {dataset_id} {error}") from error
    number = experiment.rows["experiments"][0]["experiment_id"]
    name, digest = text(values, "name"), text(values, "digest")
    if not name or not digest:
        raise MalformedError(f"dataset {dataset_id} has no name or no digest")
    return {
        # The same in every run of the migration.
        "dataset_uuid": uuid.uuid5(_IDS, f"{number} {name} {digest}").hex,
        "experiment_id": number,
        "name": name,
        "digest": digest,
        "dataset_source_type": text(values, "source_type", ""),
        "dataset_source": text(values, "source", ""),
        "dataset_schema": text(values, "schema"),
        "dataset_profile": text(values, "profile"),
    }


def _read_outputs(directory: Path, rows: Rows, warn: Warn) -> None:
    for found in directories(directory / "outputs"):
        try:
            step = integer(meta(found), "step", 0)
        except (MalformedError, OSError) as error:
            warn(f"output {found}: {error}; left out")
            continue
        row = _input("RUN_OUTPUT", directory.name, "MODEL_OUTPUT", found.name)
        rows["inputs"].append(row | {"step": step})


def _input(
    source_type: str, source_id: str, destination_type: str, destination_id: str
) -> dict[str, Any]:
    ends = (source_type, source_id, destination_type, destination_id)
    return {
        "input_uuid": uuid.uuid5(_IDS, " ".join(ends)).hex,
        "source_type": source_type,
        "source_id": source_id,
        "destination_type": destination_type,
        "destination_id": destination_id,
        "step": 0,
    }


def read_metrics(run: Entry, warn: Warn) -> Iterator[dict[str, Any]]:
    """Rows of the table of metrics, line by line.

    A line is `timestamp value [step [dataset name and digest]]`; MLflow 1.0 wrote no steps.
    """
    for key, path, fields in lines(run.directory / "metrics", warn):
        try:
            value, is_nan = stored_value(fields[1])
            row = {
                "run_uuid": run.name,
                "key": key,
                "value": value,
                "timestamp": int64(fields[0]),
                "step": int64(fields[2]) if len(fields) > 2 else 0,
                "is_nan": is_nan,
            }
        except (ValueError, IndexError):
            warn(f"{path}: {' '.join(fields)[:100]!r} is no value of a metric; left out")
            continue
        yield row


def stored_value(written: str) -> tuple[float, bool]:
    """A metric's value as MLflow's database has it, which knows no infinity and no NaN."""
    value = float(written)
    if math.isnan(value):
        return 0.0, True
    return min(max(value, -sys.float_info.max), sys.float_info.max), False
