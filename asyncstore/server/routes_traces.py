"""Traces, in the form of MLflow 3, and their assessments."""

from __future__ import annotations

import re
from typing import Any

from asyncstore import uris
from asyncstore.entities import Expectation, Feedback, PromptVersion
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_traces import (
    assessment_from_json,
    assessment_to_json,
    trace_info_from_json,
    trace_info_to_json,
    trace_to_json,
)
from asyncstore.server.decoding import Clauses, Int64, Request, RequiredText
from asyncstore.server.requests import listed, page
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

API = "/api/3.0/mlflow/traces"
OLDER_API = "/api/2.0/mlflow/traces"
SEARCH_MAX_RESULTS = 100
MOST_RESULTS = 500
# Of MLflow's schema.
LONGEST_ID = 50
# Where the spans and the artifacts of a trace are is the server's to say.
_OWN_TAGS = frozenset(
    {
        "mlflow.artifactLocation",
        "mlflow.trace.archivalFailure",
        "mlflow.trace.archiveLocation",
        "mlflow.trace.spansLocation",
    }
)
_DELETABLE = frozenset({"mlflow.trace.archivalFailure"})


class TraceMessage(Request):
    """A trace without its spans."""

    trace_info: dict[str, Any]


class StartTrace(Request):
    """A new trace."""

    trace: TraceMessage


class OfTrace(Request):
    """A trace."""

    trace_id: RequiredText


class GetTrace(OfTrace):
    """A trace with its spans."""

    allow_partial: bool | None = None


class BatchGetTraces(Request):
    """Some traces."""

    trace_ids: list[str]
    experiment_ids: list[str] | None = None


class InExperiment(Request):
    """An experiment, as a place of traces."""

    experiment_id: RequiredText


class TraceLocation(Request):
    """A place of traces."""

    mlflow_experiment: InExperiment | None = None


class SearchTraces(Request):
    """Which traces to find."""

    locations: list[TraceLocation]
    filter: str | None = None
    max_results: Int64 | None = None
    order_by: Clauses[str] | None = None
    page_token: str | None = None


class DeleteTraces(Request):
    """Which traces go."""

    experiment_id: RequiredText
    max_timestamp_millis: Int64 | None = None
    max_traces: Int64 | None = None
    request_ids: list[str] | None = None


class SetTraceTag(OfTrace):
    """A tag of a trace."""

    key: RequiredText
    value: str | None = None


class DeleteTraceTag(OfTrace):
    """A tag of a trace that goes."""

    key: RequiredText


class LinkTracesToRun(Request):
    """Traces of a run."""

    trace_ids: list[str]
    run_id: RequiredText


class PromptVersionRef(Request):
    """A version of a prompt."""

    name: RequiredText
    version: Int64


class LinkPromptsToTrace(OfTrace):
    """Versions of prompts that a trace used."""

    prompt_versions: list[PromptVersionRef]


class CreateAssessment(OfTrace):
    """What somebody says of a trace."""

    assessment: dict[str, Any]


class OfAssessment(OfTrace):
    """An assessment."""

    assessment_id: RequiredText


class UpdateAssessment(OfAssessment):
    """What changes of an assessment: what the mask names."""

    assessment: dict[str, Any]
    update_mask: str | dict[str, list[str]]


async def start_trace(server: Server, request: StartTrace) -> dict[str, Any]:
    """Record a trace."""
    info = trace_info_from_json(request.trace.trace_info)
    if not info.trace_id:
        raise InvalidParameterError("the trace_info of a trace must have a trace_id")
    if len(info.trace_id) > LONGEST_ID:
        raise InvalidParameterError(
            f"the trace_id may have {LONGEST_ID} characters, this one has {len(info.trace_id)}"
        )
    # It is a directory of the trace's artifacts.
    if "/" in info.trace_id or uris.artifact_path(info.trace_id) != info.trace_id:
        raise InvalidParameterError(f"the trace_id {info.trace_id!r:.100} must not be a path")
    return {"trace": {"trace_info": trace_info_to_json(await server.store.start_trace(info))}}


async def get_trace_info(server: Server, request: OfTrace) -> dict[str, Any]:
    """A trace without its spans."""
    info = await server.store.get_trace_info(request.trace_id)
    return {"trace": {"trace_info": trace_info_to_json(info)}}


async def get_trace(server: Server, request: GetTrace) -> dict[str, Any]:
    """A trace with its spans."""
    trace = await server.store.get_trace(
        request.trace_id, allow_partial=bool(request.allow_partial)
    )
    return {"trace": trace_to_json(trace)}


async def batch_get_traces(server: Server, request: BatchGetTraces) -> dict[str, Any]:
    """Some traces with their spans."""
    found = await server.store.batch_get_traces(
        _ids(request.trace_ids), None, request.experiment_ids
    )
    return {"traces": await listed(found, trace_to_json)} if found else {}


async def batch_get_trace_infos(server: Server, request: BatchGetTraces) -> dict[str, Any]:
    """Some traces without their spans."""
    found = await server.store.batch_get_trace_infos(
        _ids(request.trace_ids), None, request.experiment_ids
    )
    return {"trace_infos": await listed(found, trace_info_to_json)} if found else {}


def _ids(trace_ids: list[str]) -> list[str]:
    if not trace_ids:
        raise InvalidParameterError("trace_ids must name at least one trace")
    return list(dict.fromkeys(trace_ids))


async def search_traces(server: Server, request: SearchTraces) -> dict[str, Any]:
    """Search traces."""
    if not request.locations:
        raise InvalidParameterError("locations must name at least one experiment")
    wanted = SEARCH_MAX_RESULTS if request.max_results is None else request.max_results
    if wanted > MOST_RESULTS:
        raise InvalidParameterError(f"max_results is {wanted}, and must be at most {MOST_RESULTS}")
    experiments = [
        each.mlflow_experiment.experiment_id
        for each in request.locations
        if each.mlflow_experiment is not None
    ]
    found = await server.store.search_traces(
        filter_string=request.filter or None,
        max_results=wanted,
        order_by=request.order_by,
        page_token=request.page_token or None,
        locations=experiments,
    )
    return await page("traces", found, trace_info_to_json)


async def delete_traces(server: Server, request: DeleteTraces) -> dict[str, Any]:
    """Delete traces for good."""
    deleted = await server.store.delete_traces(
        request.experiment_id,
        request.max_timestamp_millis,
        request.max_traces,
        request.request_ids or None,
    )
    return {"traces_deleted": deleted}


async def set_trace_tag(server: Server, request: SetTraceTag) -> dict[str, Any]:
    """Set a tag of a trace."""
    if request.key in _OWN_TAGS:
        raise InvalidParameterError(f"the tag {request.key} of a trace cannot be set")
    await server.store.set_trace_tag(request.trace_id, request.key, request.value or "")
    return {}


async def delete_trace_tag(server: Server, request: DeleteTraceTag) -> dict[str, Any]:
    """Delete a tag of a trace."""
    if request.key in _OWN_TAGS - _DELETABLE:
        raise InvalidParameterError(f"the tag {request.key} of a trace cannot be deleted")
    await server.store.delete_trace_tag(request.trace_id, request.key)
    return {}


async def link_traces_to_run(server: Server, request: LinkTracesToRun) -> dict[str, Any]:
    """Record that traces belong to a run."""
    await server.store.link_traces_to_run(_ids(request.trace_ids), request.run_id)
    return {}


async def link_prompts_to_trace(server: Server, request: LinkPromptsToTrace) -> dict[str, Any]:
    """Record that a trace used versions of prompts."""
    versions = [PromptVersion(each.name, each.version, "") for each in request.prompt_versions]
    await server.store.link_prompts_to_trace(request.trace_id, versions)
    return {}


async def create_assessment(server: Server, request: CreateAssessment) -> dict[str, Any]:
    """Record what somebody says of a trace."""
    given = assessment_from_json({**request.assessment, "trace_id": request.trace_id})
    return {"assessment": assessment_to_json(await server.store.create_assessment(given))}


async def get_assessment(server: Server, request: OfAssessment) -> dict[str, Any]:
    """An assessment."""
    found = await server.store.get_assessment(request.trace_id, request.assessment_id)
    return {"assessment": assessment_to_json(found)}


async def update_assessment(server: Server, request: UpdateAssessment) -> dict[str, Any]:
    """Change an assessment."""
    mask = request.update_mask
    named = mask.split(",") if isinstance(mask, str) else mask.get("paths", [])
    # The JSON of a mask has its names in camel case.
    paths = {re.sub("([A-Z])", r"_\1", name.strip()).lower() for name in named}
    changes: dict[str, Any] = {}
    given = assessment_from_json({"feedback": {}, **request.assessment})
    if "assessment_name" in paths:
        changes["name"] = given.name
    if "rationale" in paths:
        changes["rationale"] = given.rationale or ""
    if "metadata" in paths:
        changes["metadata"] = given.metadata
    if "feedback" in paths and isinstance(given, Feedback):
        changes["feedback"] = given
    if "expectation" in paths:
        expected = {key: value for key, value in request.assessment.items() if key != "feedback"}
        given = assessment_from_json({"expectation": {}, **expected})
        if isinstance(given, Expectation):
            changes["expectation"] = given
    changed = await server.store.update_assessment(
        request.trace_id, request.assessment_id, **changes
    )
    return {"assessment": assessment_to_json(changed)}


async def delete_assessment(server: Server, request: OfAssessment) -> dict[str, Any]:
    """Delete an assessment."""
    await server.store.delete_assessment(request.trace_id, request.assessment_id)
    return {}


ASSESSMENT = API + "/{trace_id}/assessments/{assessment_id}"
ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", API, start_trace, StartTrace),
    Route("GET", API + "/get", get_trace, GetTrace, searches=True),
    Route("GET", API + "/batchGet", batch_get_traces, BatchGetTraces, searches=True),
    Route(
        "POST",
        API + "/batchGetInfos",
        batch_get_trace_infos,
        BatchGetTraces,
        reads=True,
        searches=True,
    ),
    Route("POST", API + "/search", search_traces, SearchTraces, reads=True, searches=True),
    Route("POST", API + "/delete-traces", delete_traces, DeleteTraces),
    Route("POST", OLDER_API + "/delete-traces", delete_traces, DeleteTraces),
    Route("POST", OLDER_API + "/link-to-run", link_traces_to_run, LinkTracesToRun),
    Route("POST", OLDER_API + "/link-prompts", link_prompts_to_trace, LinkPromptsToTrace),
    Route("GET", API + "/{trace_id}", get_trace_info, OfTrace),
    Route("PATCH", API + "/{trace_id}/tags", set_trace_tag, SetTraceTag),
    Route("PATCH", OLDER_API + "/{trace_id}/tags", set_trace_tag, SetTraceTag),
    Route("DELETE", API + "/{trace_id}/tags", delete_trace_tag, DeleteTraceTag),
    Route("DELETE", OLDER_API + "/{trace_id}/tags", delete_trace_tag, DeleteTraceTag),
    Route("POST", API + "/{trace_id}/assessments", create_assessment, CreateAssessment),
    Route("GET", ASSESSMENT, get_assessment, OfAssessment),
    Route("PATCH", ASSESSMENT, update_assessment, UpdateAssessment),
    Route("DELETE", ASSESSMENT, delete_assessment, OfAssessment),
)
