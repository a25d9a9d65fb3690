"""What a group of `log_batch` calls writes, in a handful of statements."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import anyio.lowlevel
from sqlalchemy import Executable, Select, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.databases.errors import RetrySafely
from asyncstore.entities import Metric, Param
from asyncstore.errors import InvalidParameterError, InvalidStateError, NotFoundError
from asyncstore.metadata.sql.group_commit import Entry
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, chunks, insert_missing, upsert

__all__ = ["RUN_NAME_TAG", "LogBatch", "inactive_run", "missing_run", "upsert_tags", "write_group"]

RUN_NAME_TAG = "mlflow.runName"
# Rows handed to the driver at once, and entries looked at before others may run.
ROWS_AT_ONCE = 250
ENTRIES_AT_ONCE = 250

RunKey = tuple[str, str]


@dataclass(frozen=True)
class LogBatch:
    """What one call logs to one run; checked already."""

    run_id: str
    metrics: Sequence[Metric] = ()
    params: Sequence[Param] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """How many rows, about."""
        return 1 + len(self.metrics) + len(self.params) + len(self.tags)


def missing_run(run_id: str) -> NotFoundError:
    """The error for a run that does not exist."""
    return NotFoundError(f"run {run_id} does not exist")


def inactive_run(run_id: str, stage: str | None) -> InvalidStateError:
    """The error for a run that is deleted, with MLflow's code."""
    return InvalidStateError(
        f"run {run_id} is {stage}; restore it first", error_code="INVALID_PARAMETER_VALUE"
    )


async def write_group(
    connection: AsyncConnection, tables: Tables, group: Sequence[Entry[LogBatch]]
) -> None:
    """Write the entries that can be written, and set the error of the others.

    Args:
        connection: A transaction that writes.
        tables: The tables of its schema.
        group: Who logs what.

    Raises:
        RetrySafely: Another process logged one of the params meanwhile.
    """
    dialect = connection.dialect.name
    statements = _statements(dialect, tables)
    for entry in group:
        entry.error = None
    experiments = await _check_runs(connection, statements, group)
    rows = _Rows(experiments)
    if any(metric.model_id for entry in group for metric in entry.write.metrics):
        await _check_models(connection, tables, group)
    new_params = await _check_params(connection, tables, group)
    for entries in chunks(group, ENTRIES_AT_ONCE):
        for entry in entries:
            if entry.error is None:
                rows.add(entry.write)
        await anyio.lowlevel.checkpoint()
    await _insert(connection, statements.params, new_params)
    if new_params and dialect != "sqlite":
        # SQLite holds the write lock; elsewhere the row of another process may have come first.
        known = await _known_params(
            connection, tables, {(row["run_uuid"], row["key"]) for row in new_params}
        )
        if any(known.get((row["run_uuid"], row["key"])) != row["value"] for row in new_params):
            raise RetrySafely("another process logged the same param")
    await _insert(connection, statements.metrics, list(rows.metrics.values()))
    await _insert(connection, statements.latest_metrics, _sorted(rows.latest))
    if rows.model_metrics:
        insert = insert_missing(dialect, tables.logged_model_metrics)
        await _insert(connection, insert, list(rows.model_metrics.values()))
    await upsert_tags(connection, tables, rows.tags)
    for run_id in sorted(rows.names):
        await connection.execute(
            statements.rename, {"named_run": run_id, "name": rows.names[run_id]}
        )


class _Rows:
    """The rows of a group, each table's without duplicates.

    Args:
        experiments: The experiment of each run.
    """

    def __init__(self, experiments: Mapping[str, int]) -> None:
        self._experiments = experiments
        self.model_metrics: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.metrics: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.latest: dict[RunKey, dict[str, Any]] = {}
        self.tags: dict[RunKey, str] = {}
        self.names: dict[str, str] = {}

    def add(self, batch: LogBatch) -> None:
        run_id = batch.run_id
        for metric in batch.metrics:
            value, is_nan = _stored(metric.value)
            row = {
                "run_uuid": run_id,
                "key": metric.key,
                "value": value,
                "timestamp": metric.timestamp,
                "step": metric.step,
                "is_nan": is_nan,
            }
            self.metrics[run_id, metric.key, metric.timestamp, metric.step, value, is_nan] = row
            latest = self.latest.get((run_id, metric.key))
            if latest is None or _order(row) > _order(latest):
                self.latest[run_id, metric.key] = row
            if metric.model_id is not None:
                self._add_to_model(run_id, metric, value)
        for key, text in batch.tags.items():
            # MLflow does nothing when a run's name is set to nothing.
            if key != RUN_NAME_TAG or text:
                self.tags[run_id, key] = text
                if key == RUN_NAME_TAG:
                    self.names[run_id] = text

    def _add_to_model(self, run_id: str, metric: Metric, value: float) -> None:
        key = (metric.model_id, metric.key, metric.timestamp, metric.step, run_id)
        self.model_metrics[key] = {
            "model_id": metric.model_id,
            "metric_name": metric.key,
            "metric_timestamp_ms": metric.timestamp,
            "metric_step": metric.step,
            "metric_value": value,
            "experiment_id": self._experiments[run_id],
            "run_id": run_id,
            "dataset_uuid": None,
            "dataset_name": metric.dataset_name,
            "dataset_digest": metric.dataset_digest,
        }


def _order(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def _stored(value: float) -> tuple[float, bool]:
    """The value as MLflow stores it, since SQL has no infinity and no NaN."""
    if math.isnan(value):
        return 0.0, True
    return min(max(value, -sys.float_info.max), sys.float_info.max), False


def _sorted(rows: dict[RunKey, dict[str, Any]]) -> list[dict[str, Any]]:
    # Everybody locks rows in the same order, and so nobody waits in a circle.
    return [rows[key] for key in sorted(rows)]


async def _check_runs(
    connection: AsyncConnection, statements: _Statements, group: Sequence[Entry[LogBatch]]
) -> dict[str, int]:
    """The experiment of each run; entries whose run cannot be written to get an error."""
    wanted = sorted({entry.write.run_id for entry in group})
    if len(wanted) == 1:
        result = await connection.execute(statements.one_run, {"wanted": wanted[0]})
    else:
        column = statements.stages.selected_columns.run_uuid
        query = statements.stages.where(among(connection.dialect.name, column, wanted))
        result = await connection.execute(query)
    found = {row.run_uuid: row for row in result}
    for entry in group:
        run_id = entry.write.run_id
        if run_id not in found:
            entry.error = missing_run(run_id)
        elif (stage := found[run_id].lifecycle_stage) != "active":
            entry.error = inactive_run(run_id, stage)
    return {run_id: row.experiment_id for run_id, row in found.items()}


async def _check_models(
    connection: AsyncConnection, tables: Tables, group: Sequence[Entry[LogBatch]]
) -> None:
    """Entries that log to a model that does not exist get an error."""
    models = tables.logged_models.c
    wanted = {
        metric.model_id for entry in group for metric in entry.write.metrics if metric.model_id
    }
    query = select(models.model_id).where(
        among(connection.dialect.name, models.model_id, sorted(wanted))
    )
    missing = wanted - set((await connection.execute(query)).scalars())
    for entry in group:
        asked = {metric.model_id for metric in entry.write.metrics} & missing
        if asked and entry.error is None:
            entry.error = NotFoundError(f"logged model {asked.pop()} does not exist")


async def _check_params(
    connection: AsyncConnection, tables: Tables, group: Sequence[Entry[LogBatch]]
) -> list[dict[str, Any]]:
    """The params to insert; entries that would change a param get an error."""
    asking = [entry for entry in group if entry.error is None and entry.write.params]
    if not asking:
        return []
    known = await _known_params(
        connection,
        tables,
        {(entry.write.run_id, param.key) for entry in asking for param in entry.write.params},
    )
    new: dict[RunKey, dict[str, Any]] = {}
    for entry in asking:
        run_id = entry.write.run_id
        changed = [
            f"{param.key!r} is {known[run_id, param.key]!r}, not {param.value!r}"
            for param in entry.write.params
            if known.get((run_id, param.key), param.value) != param.value
        ]
        if changed:
            entry.error = InvalidParameterError(
                f"run {run_id}: a param cannot be changed once it is logged: {'; '.join(changed)}"
            )
            continue
        for param in entry.write.params:
            if (run_id, param.key) not in known:
                known[run_id, param.key] = param.value
                row = {"run_uuid": run_id, "key": param.key, "value": param.value}
                new[run_id, param.key] = row
    return _sorted(new)


async def _known_params(
    connection: AsyncConnection, tables: Tables, keys: set[RunKey]
) -> dict[RunKey, str]:
    dialect = connection.dialect.name
    params = tables.params
    query = select(params.c.run_uuid, params.c.key, params.c.value).where(
        among(dialect, params.c.run_uuid, sorted({run_id for run_id, _ in keys})),
        among(dialect, params.c.key, sorted({key for _, key in keys})),
    )
    return {(row.run_uuid, row.key): row.value for row in await connection.execute(query)}


async def upsert_tags(
    connection: AsyncConnection, tables: Tables, values: Mapping[RunKey, str]
) -> None:
    """Set tags of runs, by (run id, key)."""
    await _insert(
        connection,
        _statements(connection.dialect.name, tables).tags,
        [
            {"run_uuid": run_id, "key": key, "value": values[run_id, key]}
            for run_id, key in sorted(values)
        ],
    )


async def _insert(
    connection: AsyncConnection, statement: Executable, rows: Sequence[dict[str, Any]]
) -> None:
    for some in chunks(rows, ROWS_AT_ONCE):
        await connection.execute(statement, some)


@dataclass(frozen=True)
class _Statements:
    stages: Select[Any]
    one_run: Select[Any]
    params: Executable
    metrics: Executable
    latest_metrics: Executable
    tags: Executable
    rename: Executable


@cache
def _statements(dialect: str, tables: Tables) -> _Statements:
    runs = tables.runs
    stages = select(runs.c.run_uuid, runs.c.lifecycle_stage, runs.c.experiment_id)
    return _Statements(
        stages=stages,
        one_run=stages.where(runs.c.run_uuid == bindparam("wanted")),
        params=insert_missing(dialect, tables.params),
        metrics=insert_missing(dialect, tables.metrics),
        latest_metrics=upsert(
            dialect,
            tables.latest_metrics,
            update=["is_nan", "value", "timestamp", "step"],
            newer=["step", "timestamp", "value"],
        ),
        tags=upsert(dialect, tables.tags, update=["value"]),
        rename=update(runs)
        .where(runs.c.run_uuid == bindparam("named_run"))
        .values(name=bindparam("name")),
    )
