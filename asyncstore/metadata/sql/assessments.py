"""Assessments of traces."""

from __future__ import annotations

import dataclasses
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import (
    Assessment,
    AssessmentError,
    AssessmentSource,
    Expectation,
    Feedback,
)
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.schema.tables import Tables

__all__ = ["SqlAssessments", "assessment_from_row", "assessment_row", "missing_trace"]


class SqlAssessments(SqlStore):
    """The methods of a store that concern assessments of traces."""

    @override
    async def create_assessment(self, assessment: Assessment) -> Assessment:
        trace_id = assessment.trace_id
        if not trace_id:
            raise InvalidParameterError("an assessment needs the trace_id of its trace")
        made = _with_id_and_times(assessment)
        table = self._tables.assessments

        async def create(connection: AsyncConnection) -> None:
            experiment_id, timestamp = await _trace_of(connection, self._tables, trace_id)
            if made.overrides:
                replaced = await connection.execute(
                    update(table)
                    .where(table.c.trace_id == trace_id, table.c.assessment_id == made.overrides)
                    .values(valid=False)
                )
                if not replaced.rowcount:
                    raise _missing(trace_id, made.overrides)
            row = assessment_row(self._tables, made, trace_id, experiment_id, timestamp)
            await connection.execute(insert(table).values(row))

        await self._database.write(f"assessing trace {trace_id}", create)
        return made

    @override
    async def get_assessment(self, trace_id: str, assessment_id: str) -> Assessment:
        async def get(connection: AsyncConnection) -> Assessment:
            return await self._get_assessment(connection, trace_id, assessment_id)

        return await self._database.read(f"getting assessment {assessment_id}", get)

    async def _get_assessment(
        self, connection: AsyncConnection, trace_id: str, assessment_id: str
    ) -> Assessment:
        table = self._tables.assessments
        query = select(table).where(
            table.c.trace_id == trace_id, table.c.assessment_id == assessment_id
        )
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            await _trace_of(connection, self._tables, trace_id)
            raise _missing(trace_id, assessment_id)
        return assessment_from_row(row)

    @override
    async def update_assessment(
        self,
        trace_id: str,
        assessment_id: str,
        name: str | None = None,
        expectation: Expectation | None = None,
        feedback: Feedback | None = None,
        rationale: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Assessment:
        if expectation is not None and feedback is not None:
            raise InvalidParameterError("give expectation or feedback, not both")
        table = self._tables.assessments

        async def change(connection: AsyncConnection) -> Assessment:
            old = await self._get_assessment(connection, trace_id, assessment_id)
            changes: dict[str, Any] = {
                "name": name or old.name,
                "rationale": old.rationale if rationale is None else rationale,
                "metadata": {**old.metadata, **(metadata or {})},
                "last_update_time_ms": now_ms(),
            }
            for new, kind in ((expectation, Expectation), (feedback, Feedback)):
                if new is None:
                    continue
                if not isinstance(old, kind):
                    raise InvalidParameterError(
                        f"assessment {assessment_id} is no {kind.__name__.lower()}"
                    )
                changes["value"] = new.value
                if isinstance(new, Feedback):
                    changes["error"] = new.error
            changed = dataclasses.replace(old, **changes)
            row = assessment_row(self._tables, changed, trace_id, None, None)
            kept = ("name", "value", "error", "rationale", "assessment_metadata")
            derived = ("last_updated_timestamp", "aggregate_value", "is_numeric_value")
            values = {key: row[key] for key in (*kept, *derived) if key in row}
            await connection.execute(
                update(table)
                .where(table.c.trace_id == trace_id, table.c.assessment_id == assessment_id)
                .values(**values)
            )
            return changed

        return await self._database.write(
            f"updating assessment {assessment_id}", change, repeatable=True
        )

    @override
    async def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        table = self._tables.assessments

        async def delete_one(connection: AsyncConnection) -> None:
            one = [table.c.trace_id == trace_id, table.c.assessment_id == assessment_id]
            overrides = (
                await connection.execute(select(table.c.overrides).where(*one))
            ).scalar_one_or_none()
            if overrides:
                await connection.execute(
                    update(table).where(table.c.assessment_id == overrides).values(valid=True)
                )
            await connection.execute(delete(table).where(*one))

        doing = f"deleting assessment {assessment_id}"
        await self._database.write(doing, delete_one, repeatable=True)


def missing_trace(trace_id: str) -> NotFoundError:
    """The error for a trace that does not exist."""
    return NotFoundError(f"trace {trace_id} does not exist")


def _missing(trace_id: str, assessment_id: str) -> NotFoundError:
    return NotFoundError(f"trace {trace_id} has no assessment {assessment_id}")


async def _trace_of(connection: AsyncConnection, tables: Tables, trace_id: str) -> tuple[int, int]:
    """Experiment and time of a trace, which are kept with its assessments."""
    traces = tables.trace_info.c
    query = select(traces.experiment_id, traces.timestamp_ms).where(traces.request_id == trace_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise missing_trace(trace_id)
    return row.experiment_id, row.timestamp_ms


def _with_id_and_times(assessment: Assessment) -> Assessment:
    now = now_ms()
    return dataclasses.replace(
        assessment,
        assessment_id=assessment.assessment_id or f"a-{uuid.uuid4().hex}",
        create_time_ms=assessment.create_time_ms or now,
        last_update_time_ms=assessment.last_update_time_ms or now,
    )


def assessment_row(
    tables: Tables,
    assessment: Assessment,
    trace_id: str,
    experiment_id: int | None,
    timestamp: int | None,
) -> dict[str, Any]:
    """A row of the table of assessments.

    Raises:
        InvalidParameterError: It is neither a feedback nor an expectation.
    """
    if not isinstance(assessment, Feedback | Expectation):
        raise InvalidParameterError(f"{assessment!r:.100} is no Feedback and no Expectation")
    made = _with_id_and_times(assessment)
    error = made.error if isinstance(made, Feedback) else None
    aggregate, is_numeric = _aggregate(made.value)
    row = {
        "assessment_id": made.assessment_id,
        "trace_id": trace_id,
        "name": made.name,
        "assessment_type": "feedback" if isinstance(made, Feedback) else "expectation",
        "value": json.dumps(made.value),
        "error": None if error is None else json.dumps(dataclasses.asdict(error)),
        "created_timestamp": made.create_time_ms,
        "last_updated_timestamp": made.last_update_time_ms,
        "source_type": made.source.source_type,
        "source_id": made.source.source_id,
        "run_id": made.run_id,
        "span_id": made.span_id,
        "rationale": made.rationale,
        "overrides": made.overrides,
        "valid": made.valid,
        "assessment_metadata": json.dumps(made.metadata) if made.metadata else None,
        "experiment_id": experiment_id,
        "trace_timestamp_ms": timestamp,
        "aggregate_value": aggregate,
        "is_numeric_value": is_numeric,
    }
    return tables.known(tables.assessments, row)


def _aggregate(value: Any) -> tuple[float | None, bool]:
    """The number that MLflow's charts show for a value, and whether it is one by itself."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None, False
        return (number, True) if math.isfinite(number) else (None, False)
    if isinstance(value, str) and (word := value.strip().lower()) in ("yes", "no"):
        return float(word == "yes"), False
    return None, False


def assessment_from_row(row: Row[Any]) -> Assessment:
    """An assessment from its row; of a kind that asyncstore does not know, the plain class."""
    values: dict[str, Any] = {
        "name": row.name,
        "value": json.loads(row.value),
        "source": AssessmentSource(row.source_type, row.source_id),
        "trace_id": row.trace_id,
        "assessment_id": row.assessment_id,
        "run_id": row.run_id,
        "span_id": row.span_id,
        "rationale": row.rationale,
        "metadata": json.loads(row.assessment_metadata) if row.assessment_metadata else {},
        "overrides": row.overrides,
        "valid": bool(row.valid),
        "create_time_ms": row.created_timestamp,
        "last_update_time_ms": row.last_updated_timestamp,
    }
    match row.assessment_type:
        case "feedback":
            error = AssessmentError(**json.loads(row.error)) if row.error else None
            return Feedback(**values, error=error)
        case "expectation":
            return Expectation(**values)
    return Assessment(**values)
