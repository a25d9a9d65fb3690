"""Spans of traces."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from sqlalchemy import Row, Table, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import Span, Trace, TraceData, TraceInfo
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.metadata import validation
from asyncstore.metadata.sql.assessments import missing_trace
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.previews import preview
from asyncstore.metadata.sql.span_totals import (
    COST_ATTRIBUTE,
    SpanNode,
    total_cost,
    total_usage,
)
from asyncstore.metadata.sql.statements import among, chunks, insert_missing, locked, upsert
from asyncstore.metadata.sql.trace_columns import (
    COST,
    COST_KEY,
    SESSION_KEY,
    USAGE,
    USAGE_KEY,
    numbers,
)
from asyncstore.metadata.sql.traces import FINALIZED_KEY, location_tags, write_trace_tags
from asyncstore.rest.json_spans import attributes_of, span_from_json, span_to_json

__all__ = ["SqlSpans"]

SPANS_LOCATION_TAG = "mlflow.trace.spansLocation"
IN_DATABASE = "TRACKING_STORE"
ARCHIVED = "ARCHIVE_REPO"
SIZE_STATS_KEY = "mlflow.trace.sizeStats"
USER_KEY = "mlflow.trace.user"
# On the root span, for tags of the trace.
TAG_ATTRIBUTE_PREFIX = "mlflow.traceTag."
SESSION_ATTRIBUTES = ("session.id", "gen_ai.conversation.id")
# How long a trace that is not whole yet is waited for, in steps, as MLflow does.
WAITS = (1.0, 2.0)
ROWS_AT_ONCE = 250


class SqlSpans(SqlStore):
    """The methods of a store that concern spans."""

    @override
    async def log_spans(self, location: str, spans: Sequence[Span]) -> list[Span]:
        if not spans:
            return []
        number = validation.experiment_id_number(location)
        # JSON of many spans takes its time, which the event loop need not wait.
        batches = await anyio.to_thread.run_sync(_batches, spans)

        async def log(connection: AsyncConnection) -> None:
            traces = await self._held(connection, number, batches)
            tags = await self._texts_of(connection, self._tables.trace_tags, traces)
            for trace_id in traces:
                if tags[trace_id].get(SPANS_LOCATION_TAG) == ARCHIVED:
                    raise InvalidStateError(f"trace {trace_id} is archived and takes no more spans")
            await self._write_spans(connection, traces, batches)
            await self._write_changes(connection, traces, batches)
            wanted = [
                {"request_id": trace_id, "key": key, "value": value}
                for trace_id in traces
                for key, value in {
                    SPANS_LOCATION_TAG: IN_DATABASE,
                    **batches[trace_id].tags,
                }.items()
            ]
            await write_trace_tags(connection, self._tables, wanted)

        doing = f"logging {len(spans)} spans to experiment {number}"
        await self._database.write(doing, log, repeatable=True)
        return list(spans)

    async def _held(
        self, connection: AsyncConnection, experiment_id: int, batches: Mapping[str, _Batch]
    ) -> dict[str, Row[Any]]:
        """The traces by id, made where there are none; nobody else logs spans of them meanwhile."""
        tables, trace_ids = self._tables, sorted(batches)
        traces = tables.trace_info
        # In order, so that nobody waits in a circle.
        query = locked(
            select(traces)
            .where(among(self._dialect, traces.c.request_id, trace_ids))
            .order_by(traces.c.request_id),
            traces,
        )
        found = {row.request_id: row for row in await connection.execute(query)}
        missing = [trace_id for trace_id in trace_ids if trace_id not in found]
        if not missing:
            return found
        tags = await location_tags(connection, tables, experiment_id, missing)
        rows = [
            {
                "request_id": trace_id,
                "experiment_id": experiment_id,
                "timestamp_ms": batches[trace_id].start_ms,
                "execution_time_ms": batches[trace_id].duration_ms,
                "status": batches[trace_id].state or "IN_PROGRESS",
            }
            for trace_id in missing
        ]
        await connection.execute(insert_missing(self._dialect, traces), rows)
        await connection.execute(insert_missing(self._dialect, tables.trace_tags), tags)
        found = {row.request_id: row for row in await connection.execute(query)}
        for trace_id in missing:
            if trace_id not in found:
                raise missing_trace(trace_id)
        return found

    async def _texts_of(
        self, connection: AsyncConnection, table: Table, trace_ids: Iterable[str]
    ) -> dict[str, dict[str, str]]:
        """Tags or metadata, by trace and key."""
        found: dict[str, dict[str, str]] = {trace_id: {} for trace_id in trace_ids}
        query = select(table.c.request_id, table.c.key, table.c.value).where(
            among(self._dialect, table.c.request_id, list(found))
        )
        for row in await connection.execute(query):
            found[row.request_id][row.key] = row.value
        return found

    async def _write_spans(
        self,
        connection: AsyncConnection,
        traces: Mapping[str, Row[Any]],
        batches: Mapping[str, _Batch],
    ) -> None:
        table = self._tables.spans
        rows = [
            self._tables.known(table, {**row, "experiment_id": trace.experiment_id})
            for trace_id, trace in traces.items()
            for row in batches[trace_id].rows
        ]
        for some in chunks(rows, ROWS_AT_ONCE):
            changed = [key for key in some[0] if key not in ("trace_id", "span_id")]
            await connection.execute(upsert(self._dialect, table, changed), list(some))

    async def _write_changes(
        self,
        connection: AsyncConnection,
        traces: Mapping[str, Row[Any]],
        batches: Mapping[str, _Batch],
    ) -> None:
        """Write what the spans change in the traces."""
        tables, table = self._tables, self._tables.trace_info
        metadata = await self._texts_of(connection, tables.trace_request_metadata, traces)
        nodes = await self._all_nodes(connection, batches)
        # Those that change the same columns are one statement.
        changed: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        texts: list[dict[str, str]] = []
        for trace_id, trace in traces.items():
            batch = batches[trace_id]
            changes, new = _changes(trace, metadata[trace_id], batch, nodes[trace_id])
            if "trace_name" not in table.c:
                new |= _as_metadata(changes)
            texts += [
                {"request_id": trace_id, "key": key, "value": new[key]} for key in sorted(new)
            ]
            values = tables.known(table, changes)
            changed.setdefault(tuple(sorted(values)), []).append({"changed": trace_id, **values})
        for keys, rows in changed.items():
            values = {key: bindparam(key) for key in keys}
            if "db_payload_generation" in table.c:
                values["db_payload_generation"] = table.c.db_payload_generation + 1
            if values:
                is_this = table.c.request_id == bindparam("changed")
                await connection.execute(update(table).where(is_this).values(values), rows)
        if texts:
            await connection.execute(
                upsert(self._dialect, tables.trace_request_metadata, ["value"]), texts
            )

    async def _all_nodes(
        self, connection: AsyncConnection, batches: Mapping[str, _Batch]
    ) -> dict[str, list[SpanNode]]:
        """What adding up needs of all spans of traces; of none where no new span says any."""
        found = {trace_id: batch.nodes for trace_id, batch in batches.items()}
        saying = [
            trace_id
            for trace_id, nodes in found.items()
            if any(node.usage or node.cost for node in nodes)
        ]
        if saying:
            spans = self._tables.spans.c
            query = select(
                spans.trace_id, spans.span_id, spans.parent_span_id, spans.content
            ).where(among(self._dialect, spans.trace_id, saying))
            rows: Sequence[Any] = (await connection.execute(query)).all()
            found |= await anyio.to_thread.run_sync(_nodes, rows)
        return found

    @override
    async def get_trace(self, trace_id: str, *, allow_partial: bool = False) -> Trace:
        for wait in (*WAITS, None):
            info = await self.get_trace_info(trace_id)
            location = info.tags.get(SPANS_LOCATION_TAG)
            if location != IN_DATABASE and not allow_partial:
                raise UnsupportedError(
                    f"the spans of trace {trace_id} are not in the database but in its artifacts, "
                    f"below {info.tags.get('mlflow.artifactLocation')}"
                )
            spans = (await self._spans_of([trace_id])).get(trace_id, ())
            if allow_partial or _is_whole(info, spans):
                return Trace(info, TraceData(tuple(spans)))
            if wait is not None:
                await anyio.sleep(wait)
        raise NotFoundError(f"not all spans of trace {trace_id} are there yet; ask again later")

    @override
    async def batch_get_traces(
        self,
        trace_ids: Sequence[str],
        location: str | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> list[Trace]:
        infos = await self.batch_get_trace_infos(trace_ids, location, experiment_ids)
        stored = [
            info.trace_id for info in infos if info.tags.get(SPANS_LOCATION_TAG) == IN_DATABASE
        ]
        spans = await self._spans_of(stored)
        return [
            Trace(info, TraceData(tuple(spans[info.trace_id])))
            for info in infos
            if info.trace_id in spans and _is_whole(info, spans[info.trace_id])
        ]

    async def _spans_of(self, trace_ids: Sequence[str]) -> dict[str, list[Span]]:
        spans = self._tables.spans.c
        query = (
            select(spans.trace_id, spans.content)
            .where(among(self._dialect, spans.trace_id, list(trace_ids)), spans.content != "")
            # The root first.
            .order_by(spans.parent_span_id.is_not(None), spans.start_time_unix_nano)
        )

        async def get(connection: AsyncConnection) -> Sequence[Row[Any]]:
            rows: Sequence[Any] = (await connection.execute(query)).all()
            return rows

        rows = await self._database.read("getting spans", get)
        return await anyio.to_thread.run_sync(_spans, rows)


@dataclass
class _Batch:
    """What one call logs to one trace.

    Args:
        rows: Rows of the table of spans, without the experiment.
        nodes: What adding up needs.
        start_ms: The earliest start.
        end_ms: The latest end; None when none has ended.
        state: What the root says; None without the root.
        previews: Inputs and outputs of the root, shortened.
        tags: Tags that the root carries.
        session_id: The session that a span names; None for none.
        user_id: The user that a span names; None for none.
    """

    rows: list[dict[str, Any]]
    nodes: list[SpanNode]
    start_ms: int
    end_ms: int | None
    state: str | None
    previews: dict[str, str | None]
    tags: dict[str, str]
    session_id: str | None
    user_id: str | None

    @property
    def duration_ms(self) -> int | None:
        """From the earliest start to the latest end."""
        return None if self.end_ms is None else self.end_ms - self.start_ms


def _batches(spans: Sequence[Span]) -> dict[str, _Batch]:
    by_trace: dict[str, dict[str, Span]] = {}
    for span in spans:
        # Of a span that comes twice the last counts; one statement must not write a row twice.
        by_trace.setdefault(span.trace_id, {})[span.span_id] = span
    return {trace_id: _batch(list(found.values())) for trace_id, found in by_trace.items()}


def _batch(spans: Sequence[Span]) -> _Batch:
    ends = [span.end_time_ns for span in spans if span.end_time_ns is not None]
    root = next((span for span in spans if span.parent_id is None), None)
    prefix = TAG_ATTRIBUTE_PREFIX
    return _Batch(
        rows=[_row(span) for span in spans],
        nodes=[SpanNode.of(span.span_id, span.parent_id, span.attributes) for span in spans],
        start_ms=min(span.start_time_ns for span in spans) // 1_000_000,
        end_ms=max(ends) // 1_000_000 if ends else None,
        state=None if root is None else ("ERROR" if root.status == "ERROR" else "OK"),
        previews={}
        if root is None
        else {
            "request_preview": preview(root.inputs, "user"),
            "response_preview": preview(root.outputs, "assistant"),
        },
        tags={}
        if root is None
        else {
            key.removeprefix(prefix): str(value)
            for key, value in root.attributes.items()
            if key.startswith(prefix)
        },
        session_id=_first(spans, *SESSION_ATTRIBUTES),
        user_id=_first(spans, "user.id"),
    )


def _first(spans: Sequence[Span], *keys: str) -> str | None:
    found = (span.attributes.get(key) for span in spans for key in keys)
    return next((str(value) for value in found if value), None)


def _row(span: Span) -> dict[str, Any]:
    cost = span.attributes.get(COST_ATTRIBUTE)
    said = cost if isinstance(cost, Mapping) else {}
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_id,
        "name": span.name,
        "type": span.span_type,
        "status": span.status,
        "start_time_unix_nano": span.start_time_ns,
        "end_time_unix_nano": span.end_time_ns,
        "content": _content(span),
        **{key: said.get(key) for key in COST},
        "model_name": span.attributes.get("mlflow.llm.model"),
        "model_provider": span.attributes.get("mlflow.llm.provider"),
    }


def _content(span: Span) -> str:
    try:
        # A search for text finds what people type, and not an escape.
        return json.dumps(span_to_json(span), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"span {span.name!r} of {span.trace_id}: {error}") from error


def _nodes(rows: Sequence[Row[Any]]) -> dict[str, list[SpanNode]]:
    found: dict[str, list[SpanNode]] = {}
    for row in rows:
        nodes = found.setdefault(row.trace_id, [])
        if row.content:
            attributes = attributes_of(json.loads(row.content))
            nodes.append(SpanNode.of(row.span_id, row.parent_span_id, attributes))
    return found


def _spans(rows: Sequence[Row[Any]]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for row in rows:
        found.setdefault(row.trace_id, []).append(
            span_from_json(json.loads(row.content), row.trace_id)
        )
    return found


def _is_whole(info: TraceInfo, spans: Sequence[Span]) -> bool:
    stats = numbers(info.trace_metadata.get(SIZE_STATS_KEY))
    return bool(spans) and len(spans) >= stats.get("num_spans", 0)


def _changes(
    trace: Row[Any], metadata: Mapping[str, str], batch: _Batch, nodes: Sequence[SpanNode]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What spans change in a trace's row and in its metadata."""
    finalized = FINALIZED_KEY in metadata
    known = trace._mapping  # noqa: SLF001  SQLAlchemy's public name for it
    changes: dict[str, Any] = {}
    if not finalized:
        start = min(trace.timestamp_ms, batch.start_ms)
        ends = [] if batch.end_ms is None else [batch.end_ms]
        if trace.execution_time_ms is not None:
            ends.append(trace.timestamp_ms + trace.execution_time_ms)
        changes["timestamp_ms"] = start
        if ends:
            changes["execution_time_ms"] = max(ends) - start
    if batch.state and trace.status in ("IN_PROGRESS", "STATE_UNSPECIFIED"):
        changes["status"] = batch.state
    changes |= {
        key: text
        for key, text in batch.previews.items()
        if text is not None and known.get(key) is None
    }
    for keys, key, total in ((USAGE, USAGE_KEY, total_usage), (COST, COST_KEY, total_cost)):
        said = any(known.get(column) is not None for column in keys) or key in metadata
        if not (finalized and said):
            changes |= total(nodes)
    if batch.session_id and known.get("session_id") is None and SESSION_KEY not in metadata:
        changes["session_id"] = batch.session_id
    new = {USER_KEY: batch.user_id} if batch.user_id and USER_KEY not in metadata else {}
    return changes, new


def _as_metadata(changes: Mapping[str, Any]) -> dict[str, str]:
    """What schemas without columns for it keep as metadata."""
    found = {}
    if "session_id" in changes:
        found[SESSION_KEY] = changes["session_id"]
    for keys, key in ((USAGE, USAGE_KEY), (COST, COST_KEY)):
        if values := {name: changes[name] for name in keys if name in changes}:
            found[key] = json.dumps(values)
    return found
