"""A span of OpenTelemetry for each request, where it is asked for; needs opentelemetry-api.

Names of spans and attributes are those of OpenTelemetry's semantic conventions for HTTP servers.
Where spans go is the business of OpenTelemetry's SDK: `opentelemetry-instrument asyncstore server`,
with the variables that begin with OTEL_.
"""

from __future__ import annotations

import anyio.to_thread
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import asyncstore
from asyncstore.server.refusals import path_template

__all__ = ["TelemetryMiddleware"]

FLUSH_MILLISECONDS = 5000


class TelemetryMiddleware:
    """Runs each request in a span, below the one that its `traceparent` header names.

    Spans hold no query string and no header.

    Args:
        app: What it stands before.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = trace.get_tracer("asyncstore.server", asyncstore.__version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":

            async def flushing_send(message: Message) -> None:
                # A worker ends by a signal, before which nothing else would send the last spans.
                if message["type"].startswith("lifespan.shutdown."):
                    await anyio.to_thread.run_sync(_flush)
                await send(message)

            await self._app(scope, receive, flushing_send)
            return
        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        method = scope["method"]
        with self._tracer.start_as_current_span(
            method,
            context=propagate.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "url.path": scope["path"],
                "url.scheme": scope["scheme"],
            },
        ) as span:

            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self._app(scope, receive, watched_send)
            finally:
                template = path_template(scope)
                if template is not None:
                    span.update_name(f"{method} {template}")
                    span.set_attribute("http.route", template)


def _flush() -> None:
    # The SDK's provider has the method, the one that does nothing has not.
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(FLUSH_MILLISECONDS)
