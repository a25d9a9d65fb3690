"""The interface to traces and spans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from asyncstore.entities import PagedList, Span, Trace, TraceInfo

__all__ = ["SEARCH_TRACES_DEFAULT_MAX_RESULTS", "TraceMethods"]

SEARCH_TRACES_DEFAULT_MAX_RESULTS = 100


class TraceMethods(ABC):
    """The methods of a store that concern traces and spans."""

    @abstractmethod
    async def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        """Record a trace, or what is known of one whose spans came first.

        Args:
            trace_info: The trace, with tags, metadata and assessments.

        Returns:
            What is recorded now.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def log_spans(self, location: str, spans: Sequence[Span]) -> list[Span]:
        """Record spans; a trace that nobody started is made from them.

        Calls at once for one trace lose nothing. Token usage and cost of the spans become the
        trace's, unless `start_trace` gave it some.

        Args:
            location: The id of the experiment, for traces that are made.
            spans: Spans of one or more traces; one that is there already is replaced.

        Returns:
            The spans.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: A trace was archived elsewhere.
        """

    @abstractmethod
    async def get_trace_info(self, trace_id: str) -> TraceInfo:
        """A trace without its spans.

        Args:
            trace_id: The trace.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def get_trace(self, trace_id: str, *, allow_partial: bool = False) -> Trace:
        """A trace with its spans.

        Args:
            trace_id: The trace.
            allow_partial: Whether to take what is there. Otherwise a trace whose spans are on
                their way is asked for again, for up to 3 seconds.

        Raises:
            NotFoundError: There is none, or not all of its spans are there.
            UnsupportedError: Its spans are artifacts, and not in the database.
        """

    @abstractmethod
    async def batch_get_traces(
        self,
        trace_ids: Sequence[str],
        location: str | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> list[Trace]:
        """Some traces with their spans; those that are not there, or not whole, are left out.

        Args:
            trace_ids: The traces.
            location: Has no meaning here; for MLflow's callers.
            experiment_ids: Only traces of these; None for all.

        Returns:
            The traces, in the order of their ids in `trace_ids`.
        """

    @abstractmethod
    async def batch_get_trace_infos(
        self,
        trace_ids: Sequence[str],
        location: str | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> list[TraceInfo]:
        """Some traces without their spans; those that are not there are left out.

        Args:
            trace_ids: The traces.
            location: Has no meaning here; for MLflow's callers.
            experiment_ids: Only traces of these; None for all.

        Returns:
            The traces, in the order of their ids in `trace_ids`.
        """

    @abstractmethod
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
        """Search traces with MLflow's filter grammar.

        Args:
            experiment_ids: The experiments to search; None for all.
            filter_string: Such as ``status = 'ERROR' AND tags.team = 'a' AND
                metadata.user LIKE 'x%' AND span.name = 'retrieve' AND feedback.score > 0.5``; None
                for all. What is said of spans must hold for one span.
            max_results: Size of a page, 1 to 50,000.
            order_by: Such as `["timestamp ASC"]`; None and ties: the latest first, then the id.
            page_token: `token` of the page before; None for the first page.
            model_id: Only traces of this logged model; None for all.
            locations: The same as `experiment_ids`, by the name that MLflow uses now. Only one of
                the two may be given.

        Returns:
            A page; its `token` is None on the last one.
        """

    @abstractmethod
    async def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag of a trace.

        Args:
            trace_id: The trace.
            key: At most 250 characters.
            value: Above 8,000 characters it is cut, unless MLFLOW_TRUNCATE_LONG_VALUES is false.

        Raises:
            NotFoundError: There is no such trace.
        """

    @abstractmethod
    async def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Delete a tag of a trace.

        Args:
            trace_id: The trace.
            key: The tag.

        Raises:
            NotFoundError: The trace or its tag does not exist.
        """

    @abstractmethod
    async def delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: Sequence[str] | None = None,
    ) -> int:
        """Delete traces for good, with spans and assessments. Their artifacts stay.

        Args:
            experiment_id: The experiment.
            max_timestamp_millis: Delete those that began by then; None when `trace_ids` is given.
            max_traces: How many at most, the oldest first; None for all.
            trace_ids: Delete these; None when `max_timestamp_millis` is given.

        Returns:
            How many were deleted.

        Raises:
            InvalidParameterError: Neither or both of time and ids are given, or `max_traces` with
                ids.
        """

    @abstractmethod
    async def link_traces_to_run(self, trace_ids: Sequence[str], run_id: str) -> None:
        """Record that traces belong to a run; `run_id` in a search finds them.

        Args:
            trace_ids: At most 100 traces; those that are linked already stay so.
            run_id: The run.

        Raises:
            NotFoundError: There is no such run.
            InvalidParameterError: There are more than 100.
        """
