"""What runs logged, read and made, for many runs in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import anyio.lowlevel
from sqlalchemy import ColumnElement, CompoundSelect, false, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.entities import LoggedModelInput, LoggedModelOutput, Metric
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among_parameter, parameter

__all__ = ["RunDetails", "metric_from_row", "read_details"]

# Rows turned into objects before others may run.
ROWS_AT_ONCE = 500
_METRIC, _PARAM, _TAG, _DATASET, _MODEL_INPUT, _MODEL_OUTPUT = range(6)


@dataclass(slots=True)
class RunDetails:
    """What belongs to one run.

    Args:
        metrics: The latest value of each metric.
        params: Every parameter.
        tags: Every tag.
        reads_datasets: Whether it has dataset inputs, which are read apart.
        model_inputs: Models that it read.
        model_outputs: Models that it made.
    """

    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    reads_datasets: bool = False
    model_inputs: list[LoggedModelInput] = field(default_factory=list)
    model_outputs: list[LoggedModelOutput] = field(default_factory=list)


async def read_details(
    connection: AsyncConnection, tables: Tables, run_ids: Sequence[str]
) -> dict[str, RunDetails]:
    """What belongs to each of some runs, by run id; keys in order."""
    dialect = connection.dialect.name
    found = {run_id: RunDetails() for run_id in run_ids}
    result = await connection.execute(
        _statement(dialect, tables), {"run_ids": parameter(dialect, run_ids)}
    )
    for rows in result.partitions(ROWS_AT_ONCE):
        for kind, run_id, key, text, value, timestamp, step, is_nan in rows:
            run = found[run_id]
            match kind:
                case 0:  # _METRIC
                    run.metrics.append(metric_from_row(key, value, timestamp, step, is_nan))
                case 1:  # _PARAM
                    run.params[key] = text
                case 2:  # _TAG
                    run.tags[key] = text
                case 3:  # _DATASET
                    run.reads_datasets = True
                case 4:  # _MODEL_INPUT
                    run.model_inputs.append(LoggedModelInput(key))
                case _:  # _MODEL_OUTPUT
                    run.model_outputs.append(LoggedModelOutput(key, step))
        await anyio.lowlevel.checkpoint()
    return found


def metric_from_row(key: str, value: float, timestamp: int, step: int, is_nan: bool) -> Metric:
    """A metric from the columns of its row."""
    return Metric(key, float("nan") if is_nan else value, timestamp, step)


@cache
def _statement(dialect: str, tables: Tables) -> CompoundSelect[Any]:
    latest, inputs = tables.latest_metrics.c, tables.inputs.c
    none: ColumnElement[Any] = literal_column("''")
    zero: ColumnElement[Any] = literal_column("0")
    # The first SELECT decides the types of the columns.
    metrics = select(
        literal_column(str(_METRIC)).label("kind"),
        latest.run_uuid,
        latest.key.label("name"),
        none.label("text"),
        latest.value,
        latest.timestamp,
        latest.step,
        latest.is_nan,
    ).where(among_parameter(dialect, latest.run_uuid, "run_ids"))

    def of(
        kind: int,
        run_id: ColumnElement[Any],
        key: ColumnElement[Any],
        text: ColumnElement[Any] = none,
        step: ColumnElement[Any] = zero,
        *conditions: ColumnElement[bool],
    ) -> Any:
        return select(
            literal_column(str(kind)), run_id, key, text, zero, zero, step, false()
        ).where(among_parameter(dialect, run_id, "run_ids"), *conditions)

    step = inputs.step if "step" in inputs else zero
    params, tags = tables.params.c, tables.tags.c
    return union_all(
        metrics,
        of(_PARAM, params.run_uuid, params.key, params.value),
        of(_TAG, tags.run_uuid, tags.key, tags.value),
        of(
            _DATASET,
            inputs.destination_id,
            inputs.source_id,
            none,
            zero,
            inputs.destination_type == "RUN",
            inputs.source_type == "DATASET",
        ),
        of(
            _MODEL_INPUT,
            inputs.source_id,
            inputs.destination_id,
            none,
            zero,
            inputs.source_type == "RUN_INPUT",
            inputs.destination_type == "MODEL_INPUT",
        ),
        of(
            _MODEL_OUTPUT,
            inputs.source_id,
            inputs.destination_id,
            none,
            step,
            inputs.source_type == "RUN_OUTPUT",
            inputs.destination_type == "MODEL_OUTPUT",
        ),
    ).order_by(literal_column("3"))
