"""Traces and spans, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from asyncstore.entities import PagedList, PromptVersion, Span, Trace, TraceInfo
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.metadata import validation
from asyncstore.metadata.interface.traces import SEARCH_TRACES_DEFAULT_MAX_RESULTS
from asyncstore.metadata.rest.base import API, API_3, RestBase, chunks, piece, token_of
from asyncstore.rest.json_fields import integer, message, messages
from asyncstore.rest.json_traces import (
    trace_from_json,
    trace_info_from_json,
    trace_info_to_json,
    trace_location_to_json,
)
from asyncstore.rest.otlp_protobuf import otlp_export_to_protobuf

__all__ = ["RestTraces"]

TRACES = f"{API_3}/traces"
EXPERIMENT_HEADER = "x-mlflow-experiment-id"
PROTOBUF = "application/x-protobuf"
MODEL_KEY = "mlflow.modelId"
# What MLflow's server finds at once.
SEARCH_AT_ONCE = 500
# So many ids fit a request's first line everywhere.
TRACES_AT_ONCE = 50
DELETE_AT_ONCE = 100
LINK_AT_ONCE = 100


class RestTraces(RestBase):
    """The methods of a store that concern traces and spans."""

    @override
    async def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        wanted = {"trace": {"trace_info": trace_info_to_json(trace_info)}}
        found = await self._post(TRACES, wanted, repeatable=True)
        return trace_info_from_json(message(message(found, "trace"), "trace_info"))

    @override
    async def log_spans(self, location: str, spans: Sequence[Span]) -> list[Span]:
        if not spans:
            return []
        validation.experiment_id_number(location)
        await self._ask(
            "POST",
            "/v1/traces",
            body=otlp_export_to_protobuf(spans),
            repeatable=True,
            headers={EXPERIMENT_HEADER: str(location), "Content-Type": PROTOBUF},
        )
        return list(spans)

    @override
    async def get_trace_info(self, trace_id: str) -> TraceInfo:
        found = await self._get(f"{TRACES}/{piece(trace_id)}")
        return trace_info_from_json(message(message(found, "trace"), "trace_info"))

    @override
    async def get_trace(self, trace_id: str, *, allow_partial: bool = False) -> Trace:
        wanted = {"trace_id": trace_id, "allow_partial": allow_partial}
        try:
            # MLflow's server says with a 500 that the spans are elsewhere, which stays so.
            found = await self._ask("GET", f"{TRACES}/get", params=wanted, repeatable=False)
        except AsyncStoreError as error:
            if isinstance(error, NotFoundError) and "'get'" in error.message:
                # MLflow 3.6 takes the question for the id of a trace.
                return await self._whole_trace(trace_id)
            if "not stored in tracking store" not in error.message:
                raise
            raise _elsewhere(trace_id) from error
        return trace_from_json(message(found, "trace"))

    async def _whole_trace(self, trace_id: str) -> Trace:
        traces = await self.batch_get_traces([trace_id])
        if not traces or not traces[0].data.spans:
            await self.get_trace_info(trace_id)
            raise _elsewhere(trace_id)
        return traces[0]

    @override
    async def batch_get_traces(
        self,
        trace_ids: Sequence[str],
        location: str | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> list[Trace]:
        if experiment_ids is not None and not experiment_ids:
            return []
        traces: dict[str, Trace] = {}
        for some in chunks(trace_ids, TRACES_AT_ONCE):
            found = await self._get(
                f"{TRACES}/batchGet",
                trace_ids=list(some),
                experiment_ids=None if experiment_ids is None else list(experiment_ids),
            )
            read = map(trace_from_json, messages(found, "traces"))
            traces |= {trace.info.trace_id: trace for trace in read}
        return [traces[each] for each in dict.fromkeys(trace_ids) if each in traces]

    @override
    async def batch_get_trace_infos(
        self,
        trace_ids: Sequence[str],
        location: str | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> list[TraceInfo]:
        if not trace_ids or (experiment_ids is not None and not experiment_ids):
            return []
        wanted = {
            "trace_ids": list(trace_ids),
            "experiment_ids": None if experiment_ids is None else list(experiment_ids),
        }
        try:
            found = await self._post(f"{TRACES}/batchGetInfos", wanted, repeatable=True)
        except UnsupportedError:
            # MLflow 3.6 is asked for one after the other.
            infos = [await self._trace_info_or_none(each) for each in dict.fromkeys(trace_ids)]
            return [
                info
                for info in infos
                if info and (experiment_ids is None or info.experiment_id in experiment_ids)
            ]
        by_id = {
            info.trace_id: info
            for info in map(trace_info_from_json, messages(found, "trace_infos"))
        }
        return [by_id[each] for each in dict.fromkeys(trace_ids) if each in by_id]

    async def _trace_info_or_none(self, trace_id: str) -> TraceInfo | None:
        try:
            return await self.get_trace_info(trace_id)
        except NotFoundError:
            return None

    @override
    async def search_traces(
        self,
        experiment_ids: Sequence[str] | None = None,
        filter_string: str | None = None,
        max_results: int = SEARCH_TRACES_DEFAULT_MAX_RESULTS,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
        model_id: str | None = None,
        locations: Sequence[str] | None = None,
    ) -> PagedList[TraceInfo]:
        if model_id is not None:
            # As the SQL store does it: the API has no field for it.
            of_model = f"metadata.`{MODEL_KEY}` = '{model_id}'"
            filter_string = f"{filter_string} AND {of_model}" if filter_string else of_model
        where = locations or experiment_ids
        if not where or (locations and experiment_ids):
            raise InvalidParameterError("give either experiment_ids or locations, not both")
        validation.max_results(max_results)
        wanted: dict[str, Any] = {
            "locations": [trace_location_to_json(str(each)) for each in where],
            "filter": filter_string,
            "order_by": list(order_by or ()),
            "page_token": page_token,
        }
        infos: list[TraceInfo] = []
        while True:
            wanted["max_results"] = min(max_results - len(infos), SEARCH_AT_ONCE)
            found = await self._post(f"{TRACES}/search", wanted, repeatable=True)
            infos.extend(map(trace_info_from_json, messages(found, "traces")))
            token = token_of(found)
            if token is None or len(infos) >= max_results:
                return PagedList(infos, token)
            wanted["page_token"] = token

    @override
    async def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        key, value = validation.trace_tag(key, value)
        path = f"{API}/traces/{piece(trace_id)}/tags"
        await self._ask("PATCH", path, {"key": key, "value": value})

    @override
    async def delete_trace_tag(self, trace_id: str, key: str) -> None:
        path = f"{API}/traces/{piece(trace_id)}/tags"
        await self._ask("DELETE", path, {"key": key}, repeatable=False)

    @override
    async def link_prompts_to_trace(
        self, trace_id: str, prompt_versions: Sequence[PromptVersion]
    ) -> None:
        wanted = [{"name": each.name, "version": str(each.version)} for each in prompt_versions]
        content = {"trace_id": trace_id, "prompt_versions": wanted}
        await self._ask("POST", f"{API}/traces/link-prompts", content, repeatable=True)

    @override
    async def delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        validation.experiment_id_number(experiment_id)
        deleted = 0
        for some in chunks(trace_ids or (), DELETE_AT_ONCE) or [()]:
            wanted = {
                "experiment_id": str(experiment_id),
                "max_timestamp_millis": max_timestamp_millis,
                "max_traces": max_traces,
                "request_ids": list(some),
            }
            found = await self._post(f"{API}/traces/delete-traces", wanted)
            deleted += integer(found, "traces_deleted")
        return deleted

    @override
    async def link_traces_to_run(self, trace_ids: Sequence[str], run_id: str) -> None:
        validation.run_id(run_id)
        if not trace_ids:
            return
        if len(trace_ids) > LINK_AT_ONCE:
            raise InvalidParameterError(
                f"{LINK_AT_ONCE} traces can be linked at once, not {len(trace_ids)}"
            )
        wanted = {"trace_ids": list(trace_ids), "run_id": run_id}
        await self._post(f"{API}/traces/link-to-run", wanted, repeatable=True)


def _elsewhere(trace_id: str) -> UnsupportedError:
    return UnsupportedError(
        f"the spans of trace {trace_id} are artifacts, or not all there: the server has them not"
    )
