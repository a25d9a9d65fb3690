"""Rows of traces, read with tags, metadata and assessments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import anyio.lowlevel
from sqlalchemy import CompoundSelect, Row, Select, literal_column, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.entities import Assessment, TraceInfo
from asyncstore.metadata.sql.assessments import assessment_from_row
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import (
    among,
    among_parameter,
    chunks,
    parameter,
)
from asyncstore.metadata.sql.trace_columns import demote

__all__ = ["read_trace_infos"]

TRACES_AT_ONCE = 250


async def read_trace_infos(
    connection: AsyncConnection, tables: Tables, query: Select[Any]
) -> list[TraceInfo]:
    """The traces of a query with all that belongs to them but spans, in three statements.

    Args:
        connection: A transaction.
        tables: The tables of its schema.
        query: Selects rows of the table of traces.

    Returns:
        The traces in the query's order.
    """
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    found: list[TraceInfo] = []
    for some in chunks(rows, TRACES_AT_ONCE):
        trace_ids = [row.request_id for row in some]
        dialect = connection.dialect.name
        tags: dict[str, dict[str, str]] = {trace_id: {} for trace_id in trace_ids}
        metadata: dict[str, dict[str, str]] = {trace_id: {} for trace_id in trace_ids}
        texts = await connection.execute(
            _texts(dialect, tables), {"trace_ids": parameter(dialect, trace_ids)}
        )
        for is_tag, trace_id, key, value in texts:
            (tags if is_tag else metadata)[trace_id][key] = value
        assessments = await _assessments(connection, tables, trace_ids)
        for row in some:
            trace_id = row.request_id
            demote(row, tags[trace_id], metadata[trace_id])
            found.append(
                TraceInfo(
                    trace_id=trace_id,
                    experiment_id=str(row.experiment_id),
                    request_time=row.timestamp_ms,
                    state=row.status,
                    # MLflow 2's schema has none of these yet.
                    request_preview=getattr(row, "request_preview", None),
                    response_preview=getattr(row, "response_preview", None),
                    client_request_id=getattr(row, "client_request_id", None),
                    execution_duration=row.execution_time_ms,
                    trace_metadata=metadata[trace_id],
                    tags=tags[trace_id],
                    assessments=tuple(assessments.get(trace_id, ())),
                )
            )
        await anyio.lowlevel.checkpoint()
    return found


@cache
def _texts(dialect: str, tables: Tables) -> CompoundSelect[Any]:
    tags, metadata = tables.trace_tags.c, tables.trace_request_metadata.c
    return union_all(
        select(
            literal_column("1").label("is_tag"), tags.request_id, tags.key.label("name"), tags.value
        ).where(among_parameter(dialect, tags.request_id, "trace_ids")),
        select(literal_column("0"), metadata.request_id, metadata.key, metadata.value).where(
            among_parameter(dialect, metadata.request_id, "trace_ids")
        ),
    ).order_by(literal_column("3"))


async def _assessments(
    connection: AsyncConnection, tables: Tables, trace_ids: Sequence[str]
) -> dict[str, list[Assessment]]:
    if "assessments" not in tables:
        return {}
    table = tables.assessments
    query = (
        select(table)
        .where(among(connection.dialect.name, table.c.trace_id, trace_ids))
        .order_by(table.c.created_timestamp, table.c.assessment_id)
    )
    found: dict[str, list[Assessment]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.trace_id, []).append(assessment_from_row(row))
    return found
