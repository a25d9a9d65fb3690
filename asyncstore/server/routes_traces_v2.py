"""Traces in the form of MLflow 2, whose clients keep their spans as artifacts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from asyncstore.entities import TraceInfo, TraceState
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_tracking import tags_to_json
from asyncstore.server.decoding import Clauses, Int64, Request, RequiredText, Timestamp
from asyncstore.server.requests import Tag, page, tags_of
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

API = "/api/2.0/mlflow/traces"
SEARCH_MAX_RESULTS = 100
MOST_RESULTS = 500
UNSPECIFIED = "TRACE_STATUS_UNSPECIFIED"
_STATES: dict[str, TraceState] = {
    UNSPECIFIED: "STATE_UNSPECIFIED",
    "OK": "OK",
    "ERROR": "ERROR",
    "IN_PROGRESS": "IN_PROGRESS",
    "0": "STATE_UNSPECIFIED",
    "1": "OK",
    "2": "ERROR",
    "3": "IN_PROGRESS",
}


class StartTraceV2(Request):
    """A new trace."""

    experiment_id: RequiredText
    timestamp_ms: Timestamp | None = None
    request_metadata: list[Tag] | None = None
    tags: list[Tag] | None = None


class OfTraceV2(Request):
    """A trace."""

    request_id: RequiredText


class EndTraceV2(OfTraceV2):
    """How a trace ended."""

    timestamp_ms: Timestamp | None = None
    status: str | Int64 | None = None
    request_metadata: list[Tag] | None = None
    tags: list[Tag] | None = None


class SearchTracesV2(Request):
    """Which traces to find."""

    experiment_ids: list[str]
    filter: str | None = None
    max_results: Int64 | None = None
    order_by: Clauses[str] | None = None
    page_token: str | None = None


def _to_json(info: TraceInfo) -> dict[str, Any]:
    state = info.state
    made: dict[str, Any] = {
        "request_id": info.trace_id,
        "experiment_id": info.experiment_id,
        "timestamp_ms": info.request_time,
        "status": UNSPECIFIED if state == "STATE_UNSPECIFIED" else state,
        "request_metadata": tags_to_json(info.trace_metadata),
        "tags": tags_to_json(info.tags),
    }
    if info.execution_duration is not None:
        made["execution_time_ms"] = info.execution_duration
    return made


async def start_trace_v2(server: Server, request: StartTraceV2) -> dict[str, Any]:
    """Record that a trace began."""
    info = await server.store.start_trace(
        TraceInfo(
            uuid4().hex,
            request.experiment_id,
            request.timestamp_ms or 0,
            "IN_PROGRESS",
            trace_metadata=tags_of(request.request_metadata),
            tags=tags_of(request.tags),
        )
    )
    return {"trace_info": _to_json(info)}


async def end_trace_v2(server: Server, request: EndTraceV2) -> dict[str, Any]:
    """Record that a trace ended."""
    state = _STATES.get(UNSPECIFIED if request.status is None else str(request.status))
    if state is None:
        raise InvalidParameterError(f"{request.status!r:.100} is no status of a trace")
    begun = await server.store.get_trace_info(request.request_id)
    info = await server.store.start_trace(
        replace(
            begun,
            state=state,
            execution_duration=(request.timestamp_ms or 0) - begun.request_time,
            trace_metadata=tags_of(request.request_metadata),
            tags=tags_of(request.tags),
            assessments=(),
        )
    )
    return {"trace_info": _to_json(info)}


async def get_trace_info_v2(server: Server, request: OfTraceV2) -> dict[str, Any]:
    """A trace without its spans."""
    return {"trace_info": _to_json(await server.store.get_trace_info(request.request_id))}


async def search_traces_v2(server: Server, request: SearchTracesV2) -> dict[str, Any]:
    """Search traces."""
    wanted = SEARCH_MAX_RESULTS if request.max_results is None else request.max_results
    if wanted > MOST_RESULTS:
        raise InvalidParameterError(f"max_results is {wanted}, and must be at most {MOST_RESULTS}")
    found = await server.store.search_traces(
        request.experiment_ids,
        request.filter or None,
        wanted,
        request.order_by,
        request.page_token or None,
    )
    return await page("traces", found, _to_json)


ROUTES: tuple[AnyRoute, ...] = (
    Route("GET", API, search_traces_v2, SearchTracesV2, searches=True),
    Route("POST", API, start_trace_v2, StartTraceV2),
    Route("PATCH", API + "/{request_id}", end_trace_v2, EndTraceV2),
    Route("GET", API + "/{request_id}/info", get_trace_info_v2, OfTraceV2),
)
