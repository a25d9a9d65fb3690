"""Traces, without their spans."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import TraceInfo
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata import validation
from asyncstore.metadata.sql import locations
from asyncstore.metadata.sql.assessments import assessment_row, missing_trace
from asyncstore.metadata.sql.deletion import SqlDeletion
from asyncstore.metadata.sql.experiments import inactive_experiment
from asyncstore.metadata.sql.log_batch import missing_run
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, chunks, insert_missing, upsert
from asyncstore.metadata.sql.trace_columns import NAME_TAG, promote
from asyncstore.metadata.sql.trace_rows import read_trace_infos

__all__ = ["FINALIZED_KEY", "SqlTraces", "location_tags", "write_trace_tags"]

ARTIFACT_LOCATION_TAG = "mlflow.artifactLocation"
# MLflow's mark that what `start_trace` says goes before what spans say.
FINALIZED_KEY = "mlflow.trace.infoFinalized"
MAX_TRACE_LINKS_PER_REQUEST = 100
IDS_AT_ONCE = 500


class SqlTraces(SqlDeletion):
    """The methods of a store that concern traces, without their spans and their search."""

    @override
    async def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        number = validation.experiment_id_number(trace_info.experiment_id)
        trace_id = trace_info.trace_id
        for key in (*trace_info.tags, *trace_info.trace_metadata):
            validation.trace_key(key)
        given = promote(
            self._tables,
            {
                "trace_info": [_row(trace_info, number)],
                "trace_tags": _texts(trace_id, trace_info.tags),
                "trace_request_metadata": _texts(
                    trace_id, {**trace_info.trace_metadata, FINALIZED_KEY: "true"}
                ),
            },
        )
        (columns,) = given["trace_info"]
        row = {
            key: value
            for key, value in self._tables.known(self._tables.trace_info, columns).items()
            if value is not None
        }
        query = select(self._tables.trace_info).where(
            self._tables.trace_info.c.request_id == trace_id
        )

        async def start(connection: AsyncConnection) -> TraceInfo:
            tables = self._tables
            (location,) = await location_tags(connection, tables, number, [trace_id])
            changed = [key for key in row if key != "request_id"]
            await connection.execute(upsert(self._dialect, tables.trace_info, changed), [row])
            # Whatever spans that came first said of where and when.
            if "spans" in tables:
                await connection.execute(
                    update(tables.spans)
                    .where(tables.spans.c.trace_id == trace_id)
                    .values(experiment_id=number)
                )
            await write_trace_tags(connection, tables, [*given["trace_tags"], location])
            await connection.execute(
                upsert(self._dialect, tables.trace_request_metadata, ["value"]),
                _sorted(given["trace_request_metadata"]),
            )
            for assessment in trace_info.assessments:
                assessed = assessment_row(
                    tables, assessment, trace_id, number, trace_info.request_time
                )
                values = [key for key in assessed if key != "assessment_id"]
                await connection.execute(
                    upsert(self._dialect, tables.assessments, values), [assessed]
                )
            return (await read_trace_infos(connection, tables, query))[0]

        return await self._database.write(f"starting trace {trace_id}", start, repeatable=True)

    @override
    async def get_trace_info(self, trace_id: str) -> TraceInfo:
        found = await self.batch_get_trace_infos([trace_id])
        if not found:
            raise missing_trace(trace_id)
        return found[0]

    @override
    async def batch_get_trace_infos(
        self,
        trace_ids: Sequence[str],
        location: str | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> list[TraceInfo]:
        traces = self._tables.trace_info
        query = select(traces).where(among(self._dialect, traces.c.request_id, list(trace_ids)))
        if experiment_ids is not None:
            numbers = [validation.experiment_id_number(each) for each in experiment_ids]
            query = query.where(among(self._dialect, traces.c.experiment_id, numbers))

        async def get(connection: AsyncConnection) -> list[TraceInfo]:
            return await read_trace_infos(connection, self._tables, query)

        places = {trace_id: place for place, trace_id in enumerate(trace_ids)}
        found = await self._database.read("getting traces", get)
        return sorted(found, key=lambda info: places[info.trace_id])

    @override
    async def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        key, value = validation.trace_tag(key, value)

        async def set_tag(connection: AsyncConnection) -> None:
            await self._check_trace(connection, trace_id)
            row = {"request_id": trace_id, "key": key, "value": value}
            await write_trace_tags(connection, self._tables, [row])

        doing = f"setting tag {key!r} of trace {trace_id}"
        await self._database.write(doing, set_tag, repeatable=True)

    @override
    async def delete_trace_tag(self, trace_id: str, key: str) -> None:
        tables = self._tables
        traces, tags = tables.trace_info, tables.trace_tags

        async def delete_tag(connection: AsyncConnection) -> None:
            await self._check_trace(connection, trace_id)
            if key == NAME_TAG and "trace_name" in traces.c:
                gone = await connection.execute(
                    update(traces)
                    .where(traces.c.request_id == trace_id, traces.c.trace_name.is_not(None))
                    .values(trace_name=None)
                )
            else:
                gone = await connection.execute(
                    delete(tags).where(tags.c.request_id == trace_id, tags.c.key == key)
                )
            if not gone.rowcount:
                raise NotFoundError(f"trace {trace_id} has no tag {key!r}")

        await self._database.write(f"deleting tag {key!r} of trace {trace_id}", delete_tag)

    @override
    async def delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        if (max_timestamp_millis is None) == (not trace_ids):
            raise InvalidParameterError("give max_timestamp_millis or trace_ids, one of the two")
        if trace_ids and max_traces is not None:
            raise InvalidParameterError("max_traces does not go with trace_ids")
        if max_traces is not None and max_traces < 1:
            raise InvalidParameterError(f"max_traces must be 1 or more, not {max_traces}")
        number = validation.experiment_id_number(experiment_id)
        traces = self._tables.trace_info.c
        conditions: list[ColumnElement[bool]] = [traces.experiment_id == number]
        if trace_ids:
            conditions.append(among(self._dialect, traces.request_id, list(trace_ids)))
        else:
            conditions.append(traces.timestamp_ms <= max_timestamp_millis)
        query = (
            select(traces.request_id)
            .where(*conditions)
            .order_by(traces.timestamp_ms, traces.request_id)
            .limit(max_traces)
        )

        async def find(connection: AsyncConnection) -> list[str]:
            return list((await connection.execute(query)).scalars())

        doing = f"deleting traces of experiment {number}"
        found = await self._database.read(doing, find)
        for some in chunks(found, IDS_AT_ONCE):
            await self._hard_delete_traces(doing, list(some))
        return len(found)

    @override
    async def link_traces_to_run(self, trace_ids: Sequence[str], run_id: str) -> None:
        if not trace_ids:
            return
        if len(trace_ids) > MAX_TRACE_LINKS_PER_REQUEST:
            raise InvalidParameterError(
                f"{MAX_TRACE_LINKS_PER_REQUEST} traces can be linked at once, not {len(trace_ids)}"
            )
        rows = [
            {
                "association_id": uuid.uuid4().hex,
                "source_type": "trace",
                "source_id": trace_id,
                "destination_type": "run",
                "destination_id": run_id,
            }
            for trace_id in sorted(set(trace_ids))
        ]

        async def link(connection: AsyncConnection) -> None:
            runs = self._tables.runs.c.run_uuid
            query = select(runs).where(runs == run_id)
            if (await connection.execute(query)).first() is None:
                raise missing_run(run_id)
            table = self._tables.entity_associations
            await connection.execute(insert_missing(self._dialect, table), rows)

        await self._database.write(f"linking traces to run {run_id}", link, repeatable=True)

    async def _check_trace(self, connection: AsyncConnection, trace_id: str) -> None:
        column = self._tables.trace_info.c.request_id
        if (await connection.execute(select(column).where(column == trace_id))).first() is None:
            raise missing_trace(trace_id)


async def location_tags(
    connection: AsyncConnection, tables: Tables, experiment_id: int, trace_ids: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of the tag that says where a trace's artifacts go; refuses deleted experiments."""
    experiments = tables.experiments.c
    query = select(experiments.artifact_location, experiments.lifecycle_stage).where(
        experiments.experiment_id == experiment_id
    )
    experiment = (await connection.execute(query)).one_or_none()
    if experiment is None:
        raise NotFoundError(f"there is no experiment with the id {experiment_id}")
    if experiment.lifecycle_stage != "active":
        raise inactive_experiment(experiment_id, experiment.lifecycle_stage)
    root = experiment.artifact_location
    return [
        {
            "request_id": trace_id,
            "key": ARTIFACT_LOCATION_TAG,
            "value": locations.append(root, "traces", trace_id, "artifacts"),
        }
        for trace_id in trace_ids
    ]


async def write_trace_tags(
    connection: AsyncConnection, tables: Tables, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Set tags of traces; a name goes where the schema has it."""
    traces = tables.trace_info
    has_column = "trace_name" in traces.c
    names = [row for row in _sorted(rows) if has_column and row["key"] == NAME_TAG]
    if names:
        await connection.execute(
            update(traces)
            .where(traces.c.request_id == bindparam("named"))
            .values(trace_name=bindparam("name")),
            [{"named": row["request_id"], "name": row["value"]} for row in names],
        )
    if rest := [row for row in _sorted(rows) if row not in names]:
        await connection.execute(
            upsert(connection.dialect.name, tables.trace_tags, ["value"]), rest
        )


def _sorted(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # Everybody locks rows in the same order, and so nobody waits in a circle.
    return sorted(map(dict, rows), key=lambda row: (row["request_id"], row["key"]))


def _texts(trace_id: str, texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"request_id": trace_id, "key": key, "value": str(value)} for key, value in texts.items()
    ]


def _row(info: TraceInfo, experiment_id: int) -> dict[str, Any]:
    return {
        "request_id": info.trace_id,
        "experiment_id": experiment_id,
        "timestamp_ms": info.request_time,
        "execution_time_ms": info.execution_duration,
        "status": info.state,
        "client_request_id": info.client_request_id,
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
    }
