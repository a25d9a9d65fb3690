"""Spans in OpenTelemetry's protocol, OTLP over HTTP: `POST /v1/traces`.

The body is a protobuf message or its JSON (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import anyio.to_thread
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from asyncstore.entities import Span
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_spans import otlp_span_from_json
from asyncstore.server.refusals import header
from asyncstore.server.routing import AnyRoute, AsgiRoute
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

PROTOBUF, JSON = b"application/x-protobuf", b"application/json"
# What a body may unpack to: it is held whole, and a small one could become any size.
MOST_BYTES = 64 * 1024 * 1024
# Parsed in a thread, so that the event loop need not wait.
LARGE = 64 * 1024
_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_IDS = ("traceId", "spanId", "parentSpanId")


async def export_traces(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Record spans; a trace that nobody started is made from them."""
    try:
        body = await HttpRequest(scope, receive).body()
    except ClientDisconnect:
        return
    kind = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind not in (PROTOBUF, JSON):
        raise InvalidParameterError(
            f"the Content-Type must be {PROTOBUF.decode()} or {JSON.decode()}"
        )
    experiment_id = (header(scope, b"x-mlflow-experiment-id") or b"").decode("latin-1")
    if not experiment_id:
        raise InvalidParameterError("the header x-mlflow-experiment-id must name an experiment")
    encoding = (header(scope, b"content-encoding") or b"").strip().lower()
    if encoding or len(body) > LARGE:
        spans = await anyio.to_thread.run_sync(_spans, body, encoding, kind)
    else:
        spans = _spans(body, encoding, kind)
    await server.store.log_spans(experiment_id, spans)
    run_id = (header(scope, b"x-mlflow-run-id") or b"").decode("latin-1")
    whole = list({span.trace_id: None for span in spans if span.parent_id is None})
    if run_id and whole:
        await server.store.link_traces_to_run(whole, run_id)
    content = b"{}" if kind == JSON else b""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _spans(body: bytes, encoding: bytes, kind: bytes) -> list[Span]:
    message = ExportTraceServiceRequest()
    try:
        if encoding:
            body = _unpacked(body, encoding)
        if kind == JSON:
            json_format.ParseDict(_with_base64(body), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
        content = json_format.MessageToDict(message, preserving_proto_field_name=True)
    except (DecodeError, json_format.Error, zlib.error, ValueError, RecursionError) as error:
        raise InvalidParameterError(f"the body is not OTLP: {error}") from error
    spans = [
        span
        for resource in content.get("resource_spans", ())
        for within in resource.get("scope_spans", ())
        for span in within.get("spans", ())
    ]
    if not spans:
        raise InvalidParameterError("the body is not OTLP: it has no spans")
    if not all(span.get("trace_id") and span.get("span_id") for span in spans):
        raise InvalidParameterError("the body is not OTLP: a span has no trace_id or no span_id")
    return [otlp_span_from_json(span) for span in spans]


def _unpacked(body: bytes, encoding: bytes) -> bytes:
    if encoding not in _WINDOWS:
        raise InvalidParameterError("the Content-Encoding must be gzip or deflate")
    try:
        return _inflated(body, _WINDOWS[encoding])
    except zlib.error:
        if encoding != b"deflate":
            raise
        # Some clients send it without the header that HTTP asks for.
        return _inflated(body, -zlib.MAX_WBITS)


def _inflated(body: bytes, window: int) -> bytes:
    unpacking = zlib.decompressobj(window)
    content = unpacking.decompress(body, MOST_BYTES)
    if unpacking.unconsumed_tail:
        raise InvalidParameterError(f"the body unpacks to more than {MOST_BYTES} bytes")
    if not unpacking.eof:
        raise InvalidParameterError("the body is not OTLP: it ends before it is whole")
    return content


def _with_base64(body: bytes) -> dict[str, Any]:
    """OTLP's JSON, whose ids are hexadecimal, as protobuf's, where bytes are base64."""
    content = json.loads(body)
    try:
        for resource in content.get("resourceSpans", ()):
            for within in resource.get("scopeSpans", ()):
                for span in within.get("spans", ()):
                    for name in _IDS:
                        if span.get(name):
                            digits = bytes.fromhex(span[name])
                            span[name] = base64.b64encode(digits).decode()
    except (AttributeError, TypeError) as error:
        raise InvalidParameterError(f"the body is not OTLP: {error}") from error
    found: dict[str, Any] = content
    return found


ROUTES: tuple[AnyRoute, ...] = (
    AsgiRoute(
        "POST",
        "/v1/traces",
        export_traces,
        headers=("x-mlflow-experiment-id",),
        takes=(PROTOBUF.decode(), JSON.decode()),
    ),
)
