"""Prometheus: how many requests, how long they took, and how many there are at this moment.

Names are those of `mlflow server --expose-prometheus`, with the path as it stands in the table of
routes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncstore.server.refusals import OPEN_PATHS, path_template

__all__ = ["MetricsMiddleware", "MetricsPage", "ServerMetrics"]

# A read of a database takes a few milliseconds, an upload minutes.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# What a client chooses freely must not become a label.
OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ServerMetrics:
    """The numbers of this process, and of the other workers where they share a directory.

    Args:
        directory: Where worker processes keep their numbers, which PROMETHEUS_MULTIPROC_DIR names
            since before prometheus_client was imported; None counts this process alone.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._registry = CollectorRegistry()
        labels = ("method", "path", "status")
        self._total = Counter(
            "mlflow_http_request_total", "Requests", labels, registry=self._registry
        )
        self._duration = Histogram(
            "mlflow_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer",
            labels,
            buckets=BUCKETS,
            registry=self._registry,
        )
        # The library looks for labels more slowly.
        self._found: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self.in_flight = Gauge(
            "mlflow_http_requests_in_flight",
            "Requests without a whole answer",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def ended(self, labels: tuple[str, str, str], seconds: float) -> None:
        """Count a request.

        Args:
            labels: Method, path and status.
            seconds: How long it took.
        """
        found = self._found.get(labels)
        if found is None:
            found = self._total.labels(*labels), self._duration.labels(*labels)
            self._found[labels] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self) -> bytes:
        """What Prometheus reads. Blocks: call it in a worker thread."""
        if self._directory is None:
            return generate_latest(self._registry)
        for path in self._directory.glob("gauge_live*_*.db"):
            pid = int(path.stem.rpartition("_")[2])
            if not _alive(pid):
                mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]  # the library has no type there
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._directory))  # type: ignore[no-untyped-call]  # as above
        return generate_latest(registry)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class MetricsMiddleware:
    """Counts requests.

    Args:
        app: What it stands before.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http" or path_template(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        # Requests that get no answer count as what nginx calls them.
        status = 499
        began = time.perf_counter()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watched_send)
        finally:
            self._metrics.in_flight.dec()
            labels = (_method(scope), path_template(scope) or OTHER, str(status))
            self._metrics.ended(labels, time.perf_counter() - began)


class MetricsPage:
    """Serves the numbers at `/metrics`.

    Args:
        app: What it stands before.
        metrics: The numbers.
        path: Where they are.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, path: str) -> None:
        self._app = app
        self._metrics = metrics
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        text = await anyio.to_thread.run_sync(self._metrics.text)
        headers = [
            (b"content-type", CONTENT_TYPE_LATEST.encode()),
            (b"content-length", str(len(text)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


def _method(scope: Scope) -> str:
    method = str(scope["method"])
    return method if method in METHODS else OTHER
