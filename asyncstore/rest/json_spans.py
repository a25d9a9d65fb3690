"""Spans as JSON, in the two forms that MLflow has.

`span_to_json` is what MLflow keeps in its database and in `traces.json`: its `Span.to_dict`.
`otlp_span_to_json` is what its REST API sends: OpenTelemetry's protobuf message
(https://github.com/open-telemetry/opentelemetry-proto, trace.proto), named and numbered as all of
MLflow's JSON is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from asyncstore.entities import Span, SpanEvent, SpanStatusCode
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_fields import integer, list_of, message, messages, number, text
from asyncstore.rest.json_tracking import number_to_json

__all__ = [
    "attributes_of",
    "otlp_span_from_json",
    "otlp_span_to_json",
    "span_from_json",
    "span_to_json",
]

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
_CODE_NUMBERS: tuple[SpanStatusCode, ...] = ("UNSET", "OK", "ERROR")


def _all_attributes(span: Span) -> dict[str, Any]:
    attributes = {REQUEST_ID: span.trace_id, SPAN_TYPE: span.span_type, **span.attributes}
    if span.inputs is not None:
        attributes[INPUTS] = span.inputs
    if span.outputs is not None:
        attributes[OUTPUTS] = span.outputs
    return attributes


def span_to_json(span: Span) -> dict[str, Any]:
    """A span as MLflow's `Span.to_dict`.

    Raises:
        InvalidParameterError: An id is not hexadecimal, or a value cannot be JSON.
    """
    try:
        return {
            **_ids_to_json(span),
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
            "status": {"code": f"STATUS_CODE_{span.status}", "message": span.status_message},
            "attributes": {
                # A search for text finds what people type, and not an escape.
                key: json.dumps(value, ensure_ascii=False)
                for key, value in _all_attributes(span).items()
            },
        }
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"span {span.name!r} of {span.trace_id}: {error}") from error


def span_from_json(content: Mapping[str, Any], trace_id: str | None = None) -> Span:
    """A span from MLflow's `Span.to_dict`.

    Args:
        content: The span; what MLflow 3.5 wrote is read too.
        trace_id: Its trace; None for the one that it names.
    """
    attributes = attributes_of(content)
    status = message(content, "status")
    code = text(status, "code")
    return Span(
        trace_id=trace_id or str(attributes.get(REQUEST_ID) or ""),
        span_id=_decoded(text(content, "span_id")),
        name=text(content, "name"),
        start_time_ns=integer(content, "start_time_unix_nano"),
        end_time_ns=integer(content, "end_time_unix_nano") or None,
        parent_id=_decoded(text(content, "parent_span_id")) or None,
        **_known(attributes),
        status=_CODES.get(code, _CODES.get(f"STATUS_CODE_{code}", "UNSET")),
        status_message=text(status, "message"),
        events=tuple(
            SpanEvent(
                text(event, "name"),
                integer(event, "time_unix_nano"),
                dict(message(event, "attributes")),
            )
            for event in messages(content, "events")
        ),
    )


def attributes_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of MLflow's `Span.to_dict`, each from its own JSON."""
    return {key: _value(found) for key, found in message(content, "attributes").items()}


def _value(found: Any) -> Any:
    if not isinstance(found, str):
        return found
    try:
        return json.loads(found)
    except (ValueError, RecursionError):
        return found


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "span_type": str(attributes.get(SPAN_TYPE) or "UNKNOWN"),
        "inputs": attributes.get(INPUTS),
        "outputs": attributes.get(OUTPUTS),
        "attributes": {key: value for key, value in attributes.items() if key not in _OWN},
    }


def _ids_to_json(span: Span) -> dict[str, str | None]:
    return {
        "trace_id": _encoded(span.trace_id.removeprefix(TRACE_PREFIX), 16),
        "span_id": _encoded(span.span_id, 8),
        "parent_span_id": None if span.parent_id is None else _encoded(span.parent_id, 8),
    }


def _encoded(digits: str, size: int) -> str:
    try:
        return base64.b64encode(bytes.fromhex(digits).rjust(size, b"\0")).decode()
    except ValueError as error:
        raise ValueError(f"{digits!r} is not an id of {2 * size} hexadecimal digits") from error


def _decoded(found: str) -> str:
    # MLflow 3.5 wrote ids as they are shown.
    try:
        content = base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError):
        return found
    return content.hex() if len(content) in (8, 16) else found


def otlp_span_to_json(span: Span) -> dict[str, Any]:
    """A span as OpenTelemetry's `Span` message.

    Raises:
        InvalidParameterError: An id is not hexadecimal, or a value cannot be JSON.
    """
    try:
        status = {} if span.status == "UNSET" else {"code": f"STATUS_CODE_{span.status}"}
        if span.status_message:
            status["message"] = span.status_message
        return {
            **_set(
                **_ids_to_json(span),
                name=span.name,
                start_time_unix_nano=span.start_time_ns,
                end_time_unix_nano=span.end_time_ns,
                attributes=_otlp_attributes(_all_attributes(span)),
                events=[
                    _set(
                        time_unix_nano=event.timestamp,
                        name=event.name,
                        attributes=_otlp_attributes(event.attributes),
                    )
                    for event in span.events
                ],
            ),
            "status": status,
        }
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"span {span.name!r} of {span.trace_id}: {error}") from error


def _set(**fields: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, as protobuf's version 3 has no others."""
    return {key: value for key, value in fields.items() if value}


def _otlp_attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": str(key), "value": _otlp_value(value)} for key, value in attributes.items()]


def _otlp_value(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
        case int() if -(2**63) <= value < 2**63:
            return {"int_value": value}
        case float():
            return {"double_value": number_to_json(value)}
        case list() | tuple():
            return {"array_value": _set(values=[_otlp_value(item) for item in value])}
        case Mapping():
            return {"kvlist_value": _set(values=_otlp_attributes(value))}
        case int():
            return {"string_value": str(value)}
    raise TypeError(f"{value!r:.100} is not JSON serializable")


def otlp_span_from_json(content: Mapping[str, Any], trace_id: str | None = None) -> Span:
    """A span from OpenTelemetry's `Span` message.

    Args:
        content: The span.
        trace_id: Its trace; None for `tr-` and the digits that it names. What the span says in an
            attribute is not trusted.

    Raises:
        InvalidParameterError: It is not such a message.
    """
    attributes = _plain_attributes(content)
    status = message(content, "status")
    code = status.get("code")
    return Span(
        trace_id=trace_id or f"{TRACE_PREFIX}{_decoded(text(content, 'trace_id'))}",
        span_id=_decoded(text(content, "span_id")),
        name=text(content, "name"),
        start_time_ns=integer(content, "start_time_unix_nano"),
        end_time_ns=integer(content, "end_time_unix_nano") or None,
        parent_id=_decoded(text(content, "parent_span_id")) or None,
        **_known(attributes),
        status=_CODE_NUMBERS[code] if code in (0, 1, 2) else _CODES.get(str(code), "UNSET"),
        status_message=text(status, "message"),
        events=tuple(
            SpanEvent(
                text(event, "name"), integer(event, "time_unix_nano"), _plain_attributes(event)
            )
            for event in messages(content, "events")
        ),
    )


def _plain_attributes(content: Mapping[str, Any]) -> dict[str, Any]:
    found = messages(content, "attributes")
    return {text(each, "key"): _plain_value(message(each, "value")) for each in found}


def _plain_value(content: Mapping[str, Any]) -> Any:
    for kind, value in content.items():
        match kind:
            case "int_value":
                return integer(content, kind)
            case "double_value":
                return number(content, kind)
            case "array_value":
                return [_plain_value(item) for item in list_of(message(content, kind), "values")]
            case "kvlist_value":
                found = messages(message(content, kind), "values")
                return {text(item, "key"): _plain_value(message(item, "value")) for item in found}
        return value
    return None
