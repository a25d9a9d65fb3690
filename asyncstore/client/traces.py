"""The client's methods for traces and assessments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asyncstore.client.base import ClientBase
from asyncstore.entities import (
    Assessment,
    Expectation,
    Feedback,
    PagedList,
    Span,
    Trace,
    TraceInfo,
)

__all__ = ["TraceMethods"]


class TraceMethods(ClientBase):
    """The methods of a client that concern traces and assessments."""

    async def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        """Record a trace; see `MetadataStore.start_trace`."""
        return await (await self.get_metadata_store()).start_trace(trace_info)

    async def log_spans(self, experiment_id: str, spans: Sequence[Span]) -> list[Span]:
        """Record spans, and their traces if need be; see `MetadataStore.log_spans`."""
        return await (await self.get_metadata_store()).log_spans(experiment_id, spans)

    async def get_trace(self, trace_id: str) -> Trace:
        """A trace with its spans.

        Raises:
            NotFoundError: There is none, or not all of its spans are there.
        """
        return await (await self.get_metadata_store()).get_trace(trace_id)

    async def search_traces(
        self,
        experiment_ids: Sequence[str] | None = None,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
        run_id: str | None = None,
        include_spans: bool = True,
        model_id: str | None = None,
        locations: Sequence[str] | None = None,
    ) -> PagedList[Trace] | PagedList[TraceInfo]:
        """Search traces; see `MetadataStore.search_traces`.

        Args:
            experiment_ids: The experiments to search; None for all.
            filter_string: The filter; None for all.
            max_results: Size of a page.
            order_by: The order; None for the latest first.
            page_token: `token` of the page before; None for the first page.
            run_id: Only traces of this run; None for all.
            include_spans: Whether to read the spans too; traces whose spans are not in the
                database are left out then, as in MLflow.
            model_id: Only traces of this logged model; None for all.
            locations: The same as `experiment_ids`; only one of the two may be given.

        Returns:
            A page of traces, or of their infos without spans.
        """
        store = await self.get_metadata_store()
        if run_id is not None:
            quoted = run_id.replace("'", "''")
            of_run = f"run_id = '{quoted}'"
            filter_string = f"{filter_string} AND {of_run}" if filter_string else of_run
        infos = await store.search_traces(
            experiment_ids, filter_string, max_results, order_by, page_token, model_id, locations
        )
        if not include_spans:
            return infos
        traces = await store.batch_get_traces([info.trace_id for info in infos])
        return PagedList(traces, infos.token)

    async def set_trace_tag(self, trace_id: str, key: str, value: Any) -> None:
        """Set a tag of a trace; the value as text."""
        await (await self.get_metadata_store()).set_trace_tag(trace_id, key, str(value))

    async def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Delete a tag of a trace.

        Raises:
            NotFoundError: The trace or its tag does not exist.
        """
        await (await self.get_metadata_store()).delete_trace_tag(trace_id, key)

    async def delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        """Delete traces for good; see `MetadataStore.delete_traces`."""
        store = await self.get_metadata_store()
        return await store.delete_traces(experiment_id, max_timestamp_millis, max_traces, trace_ids)

    async def link_traces_to_run(self, trace_ids: Sequence[str], run_id: str) -> None:
        """Record that traces belong to a run; see `MetadataStore.link_traces_to_run`."""
        await (await self.get_metadata_store()).link_traces_to_run(trace_ids, run_id)

    async def log_assessment(self, trace_id: str, assessment: Assessment) -> Assessment:
        """Record what somebody says of a trace; see `MetadataStore.create_assessment`."""
        store = await self.get_metadata_store()
        return await store.create_assessment(replace(assessment, trace_id=trace_id))

    async def get_assessment(self, trace_id: str, assessment_id: str) -> Assessment:
        """An assessment.

        Raises:
            NotFoundError: There is none.
        """
        return await (await self.get_metadata_store()).get_assessment(trace_id, assessment_id)

    async def update_assessment(
        self,
        trace_id: str,
        assessment_id: str,
        *,
        name: str | None = None,
        expectation: Expectation | None = None,
        feedback: Feedback | None = None,
        rationale: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Assessment:
        """Change an assessment; see `MetadataStore.update_assessment`."""
        store = await self.get_metadata_store()
        return await store.update_assessment(
            trace_id, assessment_id, name, expectation, feedback, rationale, metadata
        )

    async def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Delete an assessment; see `MetadataStore.delete_assessment`."""
        await (await self.get_metadata_store()).delete_assessment(trace_id, assessment_id)
