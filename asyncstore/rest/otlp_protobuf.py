"""Spans in OpenTelemetry's protobuf, which every server with `/v1/traces` takes.

MLflow 3.6 takes nothing else. The messages are few and do not change, so their encoding is written
out (https://protobuf.dev/programming-guides/encoding), from the JSON of `json_spans`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from asyncstore.entities import Span
from asyncstore.rest.json_spans import otlp_span_to_json

__all__ = ["otlp_export_to_protobuf"]

_CODES = {"STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def otlp_export_to_protobuf(spans: Sequence[Span]) -> bytes:
    """Spans as an `ExportTraceServiceRequest`.

    Raises:
        InvalidParameterError: An id is not hexadecimal, or a value cannot be JSON.
    """
    content = b"".join(_bytes(2, _span(otlp_span_to_json(span))) for span in spans)
    return _bytes(1, _bytes(2, content))


def _span(span: Mapping[str, Any]) -> bytes:
    status = span["status"]
    return b"".join(
        (
            _bytes(1, base64.b64decode(span["trace_id"])),
            _bytes(2, base64.b64decode(span["span_id"])),
            _bytes(4, base64.b64decode(span.get("parent_span_id", ""))),
            _text(5, span.get("name", "")),
            _fixed(7, span.get("start_time_unix_nano", 0)),
            _fixed(8, span.get("end_time_unix_nano", 0)),
            _attributes(9, span),
            *(
                _bytes(
                    11,
                    _fixed(1, event.get("time_unix_nano", 0))
                    + _text(2, event.get("name", ""))
                    + _attributes(3, event),
                )
                for event in span.get("events", ())
            ),
            _bytes(
                15,
                _text(2, status.get("message", ""))
                + _key(3, _VARINT)
                + _varint(_CODES.get(status.get("code", ""), 0)),
            ),
        )
    )


def _attributes(field: int, holder: Mapping[str, Any], name: str = "attributes") -> bytes:
    return b"".join(
        _bytes(field, _text(1, each["key"]) + _bytes(2, _value(each["value"])))
        for each in holder.get(name, ())
    )


def _value(value: Mapping[str, Any]) -> bytes:
    match value:
        case {"string_value": text}:
            return _text(1, text)
        case {"bool_value": flag}:
            return _key(2, _VARINT) + _varint(int(flag))
        case {"int_value": number}:
            return _key(3, _VARINT) + _varint(number % 2**64)
        case {"double_value": number}:
            return _key(4, _FIXED64) + struct.pack("<d", float(number))
        case {"array_value": array}:
            return _bytes(5, b"".join(_bytes(1, _value(each)) for each in array.get("values", ())))
        case {"kvlist_value": pairs}:
            return _bytes(6, _attributes(1, pairs, "values"))
    return b""


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, _LENGTH) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _fixed(field: int, number: int) -> bytes:
    return _key(field, _FIXED64) + struct.pack("<Q", number)
