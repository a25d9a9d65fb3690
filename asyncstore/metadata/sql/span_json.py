"""Spans as MLflow's JSON: its `Span.to_dict`, which is OpenTelemetry's with values in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from asyncstore.entities import Span, SpanEvent, SpanStatusCode
from asyncstore.errors import InvalidParameterError

__all__ = ["attributes_of", "span_from_json", "span_to_json"]

TRACE_PREFIX = "tr-"
REQUEST_ID = "mlflow.traceRequestId"
SPAN_TYPE = "mlflow.spanType"
INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
_OWN = {REQUEST_ID, SPAN_TYPE, INPUTS, OUTPUTS}
_CODES: dict[str, SpanStatusCode] = {
    "STATUS_CODE_UNSET": "UNSET",
    "STATUS_CODE_OK": "OK",
    "STATUS_CODE_ERROR": "ERROR",
}


def span_to_json(span: Span) -> str:
    """What MLflow keeps of a span.

    Raises:
        InvalidParameterError: An id is not hexadecimal, or a value cannot be JSON.
    """
    attributes = {REQUEST_ID: span.trace_id, SPAN_TYPE: span.span_type, **span.attributes}
    if span.inputs is not None:
        attributes[INPUTS] = span.inputs
    if span.outputs is not None:
        attributes[OUTPUTS] = span.outputs
    try:
        return json.dumps(
            {
                "trace_id": _encoded(span.trace_id.removeprefix(TRACE_PREFIX), 16),
                "span_id": _encoded(span.span_id, 8),
                "parent_span_id": None if span.parent_id is None else _encoded(span.parent_id, 8),
                "name": span.name,
                "start_time_unix_nano": span.start_time_ns,
                "end_time_unix_nano": span.end_time_ns,
                "events": [
                    {
                        "name": event.name,
                        "time_unix_nano": event.timestamp,
                        "attributes": event.attributes,
                    }
                    for event in span.events
                ],
                "status": {
                    "code": f"STATUS_CODE_{span.status}",
                    "message": span.status_message,
                },
                "attributes": {
                    key: json.dumps(value, ensure_ascii=False) for key, value in attributes.items()
                },
            },
            # A search for text finds what people type, and not an escape.
            ensure_ascii=False,
        )
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"span {span.name!r} of {span.trace_id}: {error}") from error


def _encoded(digits: str, size: int) -> str:
    try:
        return base64.b64encode(bytes.fromhex(digits).rjust(size, b"\0")).decode()
    except ValueError as error:
        raise ValueError(f"{digits!r} is not an id of {2 * size} hexadecimal digits") from error


def _decoded(text: str) -> str:
    # MLflow 3.5 wrote ids as they are shown.
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text
    return found.hex() if len(found) in (8, 16) else text


def attributes_of(content: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span that `json.loads` has read, each from its own JSON."""
    return {key: _value(text) for key, text in (content.get("attributes") or {}).items()}


def _value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def span_from_json(trace_id: str, text: str) -> Span:
    """A span from what MLflow keeps of it."""
    content = json.loads(text)
    attributes = attributes_of(content)
    status = content.get("status") or {}
    parent, end = content.get("parent_span_id"), content.get("end_time_unix_nano")
    code = str(status.get("code", ""))
    return Span(
        trace_id=trace_id,
        span_id=_decoded(content["span_id"]),
        name=content["name"],
        start_time_ns=int(content["start_time_unix_nano"]),
        end_time_ns=int(end) if end else None,
        parent_id=_decoded(parent) if parent else None,
        span_type=str(attributes.get(SPAN_TYPE) or "UNKNOWN"),
        inputs=attributes.get(INPUTS),
        outputs=attributes.get(OUTPUTS),
        attributes={key: value for key, value in attributes.items() if key not in _OWN},
        status=_CODES.get(code, _CODES.get(f"STATUS_CODE_{code}", "UNSET")),
        status_message=status.get("message") or "",
        events=tuple(
            SpanEvent(event["name"], int(event["time_unix_nano"]), event.get("attributes") or {})
            for event in content.get("events") or ()
        ),
    )
