"""Traces, their spans and assessments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Assessment",
    "AssessmentError",
    "AssessmentSource",
    "Expectation",
    "Feedback",
    "Span",
    "SpanEvent",
    "SpanStatusCode",
    "Trace",
    "TraceData",
    "TraceInfo",
    "TraceState",
]

TraceState = Literal["STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS"]
SpanStatusCode = Literal["UNSET", "OK", "ERROR"]


@dataclass(frozen=True, slots=True)
class AssessmentSource:
    """Who assessed: `HUMAN`, `LLM_JUDGE` or `CODE`, and which one."""

    source_type: str = "CODE"
    source_id: str | None = "default"


@dataclass(frozen=True, slots=True)
class AssessmentError:
    """Why there is no feedback."""

    error_code: str
    error_message: str | None = None
    stack_trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What somebody says of a trace. Times are milliseconds since the epoch.

    Args:
        name: What is assessed, such as `correctness`.
        value: The verdict: a number, a truth value, a text, or a list or dict of them.
        source: Who says so.
        trace_id: The trace; None until it is logged.
        assessment_id: Its id; None for one that the store gives.
        run_id: The run that it was made in; None for none.
        span_id: The span that it is about; None for the whole trace.
        rationale: Why; None for nothing said.
        metadata: Texts by key.
        overrides: The id of the assessment that this one replaces; None for none.
        valid: Whether it was not replaced.
        create_time_ms: When it was made; None for now.
        last_update_time_ms: When it was changed last; None for now.
    """

    name: str
    value: Any = None
    source: AssessmentSource = field(default_factory=AssessmentSource)
    trace_id: str | None = None
    assessment_id: str | None = None
    run_id: str | None = None
    span_id: str | None = None
    rationale: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    overrides: str | None = None
    valid: bool = True
    create_time_ms: int | None = None
    last_update_time_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback(Assessment):
    """A verdict on what came out; `error` says why there is none."""

    error: AssessmentError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation(Assessment):
    """What should have come out."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened in a span, at nanoseconds since the epoch."""

    name: str
    timestamp: int
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One step of a trace. Times are nanoseconds since the epoch.

    Args:
        trace_id: The trace: `tr-` and 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        name: What it does.
        start_time_ns: When it began.
        end_time_ns: When it ended; None while it runs.
        parent_id: The span that it is a part of; None for the root.
        span_type: Such as `LLM`, `RETRIEVER` or `TOOL`.
        inputs: What went in, as JSON can hold it; None for nothing.
        outputs: What came out, as JSON can hold it; None for nothing.
        attributes: Anything else, as JSON can hold it.
        status: How it went.
        status_message: Why; empty for nothing to say.
        events: What happened in it.
    """

    trace_id: str
    span_id: str
    name: str
    start_time_ns: int
    end_time_ns: int | None = None
    parent_id: str | None = None
    span_type: str = "UNKNOWN"
    inputs: Any = None
    outputs: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)
    status: SpanStatusCode = "UNSET"
    status_message: str = ""
    events: tuple[SpanEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What identifies a trace, and its state. Times are in milliseconds.

    Args:
        trace_id: `tr-` and 32 hexadecimal digits.
        experiment_id: The experiment that it belongs to.
        request_time: When it began, since the epoch.
        state: How it went.
        request_preview: The beginning of what went in; None for not known.
        response_preview: The beginning of what came out; None for not known.
        client_request_id: The client's own id of the request; None for none.
        execution_duration: How long it took; None while it runs.
        trace_metadata: Texts that stay as they are.
        tags: Texts that may change.
        assessments: What was said of it.
    """

    trace_id: str
    experiment_id: str
    request_time: int
    state: TraceState = "STATE_UNSPECIFIED"
    request_preview: str | None = None
    response_preview: str | None = None
    client_request_id: str | None = None
    execution_duration: int | None = None
    trace_metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    assessments: tuple[Assessment, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceData:
    """The spans of a trace, the root first, then by their start."""

    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace: its `info` and its `data`."""

    info: TraceInfo
    data: TraceData
