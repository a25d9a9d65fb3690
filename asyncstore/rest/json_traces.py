"""Traces and assessments as the JSON of MLflow's REST API, version 3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from asyncstore.entities import (
    Assessment,
    AssessmentError,
    AssessmentSource,
    Expectation,
    Feedback,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
)
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_fields import (
    choice,
    duration_to_json,
    flag,
    is_too_deep,
    message,
    messages,
    optional_duration,
    optional_text,
    optional_timestamp,
    text,
    text_map,
    timestamp_to_json,
)
from asyncstore.rest.json_spans import (
    otlp_span_from_json,
    otlp_span_to_json,
    span_from_json,
    span_to_json,
)

__all__ = [
    "assessment_from_json",
    "assessment_to_json",
    "span_from_json",
    "span_to_json",
    "trace_from_json",
    "trace_info_from_json",
    "trace_info_to_json",
    "trace_location_to_json",
    "trace_to_json",
]

SOURCE_RUN_ID = "mlflow.assessment.sourceRunId"
_JSON_FORMAT = "JSON_FORMAT"
_STATES = {"STATE_UNSPECIFIED": 0, "OK": 1, "ERROR": 2, "IN_PROGRESS": 3}
_SOURCES = {"SOURCE_TYPE_UNSPECIFIED": 0, "HUMAN": 1, "LLM_JUDGE": 2, "CODE": 3}


def assessment_to_json(assessment: Assessment) -> dict[str, Any]:
    """What somebody says of a trace as MLflow's `Assessment`.

    The run goes into the metadata, where MLflow keeps it.
    """
    metadata = dict(assessment.metadata)
    if assessment.run_id is not None:
        metadata.setdefault(SOURCE_RUN_ID, assessment.run_id)
    source = {"source_type": assessment.source.source_type}
    if assessment.source.source_id is not None:
        source["source_id"] = assessment.source.source_id
    made: dict[str, Any] = {
        "assessment_id": assessment.assessment_id,
        "assessment_name": assessment.name,
        "trace_id": assessment.trace_id or "",
        "span_id": assessment.span_id,
        "source": source,
        "rationale": assessment.rationale,
        "metadata": metadata or None,
        "overrides": assessment.overrides or None,
        "valid": assessment.valid,
    }
    if assessment.create_time_ms is not None:
        made["create_time"] = timestamp_to_json(assessment.create_time_ms)
    if assessment.last_update_time_ms is not None:
        made["last_update_time"] = timestamp_to_json(assessment.last_update_time_ms)
    kind, value = _value_to_json(assessment)
    made[kind] = value
    return {key: value for key, value in made.items() if value is not None}


def _value_to_json(assessment: Assessment) -> tuple[str, Any]:
    value = assessment.value
    match assessment:
        case Feedback(error=None):
            return "feedback", {"value": value}
        case Feedback(error=AssessmentError() as error):
            said = {
                "error_code": error.error_code,
                "error_message": error.error_message or None,
                "stack_trace": error.stack_trace or None,
            }
            told = {key: text for key, text in said.items() if text is not None}
            return "feedback", {"value": value, "error": told}
        case Expectation(value=None | bool() | int() | float() | str()):
            return "expectation", {"value": value}
        case Expectation():
            serialized = {"serialization_format": _JSON_FORMAT, "value": json.dumps(value)}
            return "expectation", {"serialized_value": serialized}
    return "issue", value if isinstance(value, Mapping) else {}


def assessment_from_json(d: Mapping[str, Any]) -> Assessment:
    """What somebody says of a trace from MLflow's `Assessment`.

    A kind that asyncstore does not know, which is a reference to an issue, becomes the plain class.

    Raises:
        InvalidParameterError: It is not such a message, or says nothing.
    """
    metadata = text_map(d, "metadata")
    source = message(d, "source")
    values: dict[str, Any] = {
        "name": text(d, "assessment_name"),
        "source": AssessmentSource(
            choice(source, "source_type", _SOURCES, "SOURCE_TYPE_UNSPECIFIED"),
            optional_text(source, "source_id"),
        ),
        "trace_id": text(d, "trace_id") or None,
        "assessment_id": text(d, "assessment_id") or None,
        "run_id": metadata.get(SOURCE_RUN_ID),
        "span_id": text(d, "span_id") or None,
        "rationale": optional_text(d, "rationale"),
        "metadata": metadata,
        "overrides": text(d, "overrides") or None,
        "valid": flag(d, "valid", default=True),
        "create_time_ms": optional_timestamp(d, "create_time"),
        "last_update_time_ms": optional_timestamp(d, "last_update_time"),
    }
    if d.get("feedback") is not None:
        said = message(d, "feedback")
        found = message(said, "error")
        error = None
        if said.get("error") is not None:
            error = AssessmentError(
                text(found, "error_code"),
                text(found, "error_message") or None,
                text(found, "stack_trace") or None,
            )
        return Feedback(**values, value=said.get("value"), error=error)
    if d.get("expectation") is not None:
        return Expectation(**values, value=_expected(message(d, "expectation")))
    if d.get("issue") is not None:
        return Assessment(**values, value=dict(message(d, "issue")))
    raise InvalidParameterError(f"assessment {values['name']!r} has no feedback and no expectation")


def _expected(d: Mapping[str, Any]) -> Any:
    if d.get("serialized_value") is None:
        return d.get("value")
    serialized = message(d, "serialized_value")
    if text(serialized, "serialization_format") != _JSON_FORMAT:
        raise InvalidParameterError(
            f"the serialization_format of an expectation has to be {_JSON_FORMAT}, and is "
            f"{serialized.get('serialization_format')!r}"
        )
    try:
        value = json.loads(text(serialized, "value"))
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(f"the value of an expectation is no JSON: {error}") from error
    if is_too_deep(value):
        raise InvalidParameterError("the value of an expectation is nested too deeply")
    return value


def trace_location_to_json(experiment_id: str) -> dict[str, Any]:
    """An experiment as MLflow's `TraceLocation`."""
    return {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}


def trace_info_to_json(info: TraceInfo) -> dict[str, Any]:
    """A trace without its spans as MLflow's `TraceInfoV3`."""
    duration = info.execution_duration
    made: dict[str, Any] = {
        "trace_id": info.trace_id,
        "client_request_id": info.client_request_id,
        "trace_location": trace_location_to_json(info.experiment_id),
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "request_time": timestamp_to_json(info.request_time),
        "execution_duration": None if duration is None else duration_to_json(duration),
        "state": info.state,
        "trace_metadata": dict(info.trace_metadata) or None,
        "assessments": [assessment_to_json(each) for each in info.assessments] or None,
        "tags": dict(info.tags) or None,
    }
    return {key: value for key, value in made.items() if value is not None}


def trace_info_from_json(d: Mapping[str, Any]) -> TraceInfo:
    """A trace without its spans from MLflow's `TraceInfoV3`.

    Raises:
        InvalidParameterError: It is not such a message, or names no experiment.
    """
    experiment = message(message(d, "trace_location"), "mlflow_experiment")
    trace_id, experiment_id = text(d, "trace_id"), text(experiment, "experiment_id")
    if not experiment_id:
        raise InvalidParameterError(f"the trace_location of trace {trace_id} is no experiment")
    return TraceInfo(
        trace_id=trace_id,
        experiment_id=experiment_id,
        request_time=optional_timestamp(d, "request_time") or 0,
        state=cast("TraceState", choice(d, "state", _STATES, "STATE_UNSPECIFIED")),
        request_preview=optional_text(d, "request_preview"),
        response_preview=optional_text(d, "response_preview"),
        client_request_id=optional_text(d, "client_request_id"),
        execution_duration=optional_duration(d, "execution_duration"),
        trace_metadata=text_map(d, "trace_metadata"),
        tags=text_map(d, "tags"),
        assessments=tuple(map(assessment_from_json, messages(d, "assessments"))),
    )


def trace_to_json(trace: Trace) -> dict[str, Any]:
    """A trace as MLflow's `Trace`, whose spans are OpenTelemetry's."""
    made: dict[str, Any] = {"trace_info": trace_info_to_json(trace.info)}
    if trace.data.spans:
        made["spans"] = [otlp_span_to_json(span) for span in trace.data.spans]
    return made


def trace_from_json(d: Mapping[str, Any]) -> Trace:
    """A trace from MLflow's `Trace`, whose spans are OpenTelemetry's."""
    info = trace_info_from_json(message(d, "trace_info"))
    spans = (otlp_span_from_json(span, info.trace_id) for span in messages(d, "spans"))
    return Trace(info, TraceData(tuple(spans)))
