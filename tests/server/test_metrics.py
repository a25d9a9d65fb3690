"""Metrics, the access log and spans."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asyncstore.server import access_log, create_app
from asyncstore.server.access_log import AccessLogMiddleware, LineWriter
from asyncstore.server.metrics import MetricsMiddleware, MetricsPage, ServerMetrics
from asyncstore.server.telemetry import TelemetryMiddleware
from tests.server.serving import Echo, behind, served

GET, CREATE = "/api/2.0/mlflow/runs/get", "/ajax-api/2.0/mlflow/runs/create"


class Sometimes(Echo):
    """Fails where it is asked to."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"fail" in scope.get("query_string", b""):
            raise RuntimeError("as asked")
        await super().__call__(scope, receive, send)


@contextmanager
def _client(app: ASGIApp) -> Iterator[httpx.Client]:
    with served(app) as url, httpx.Client(base_url=url) as client:
        yield client


def _numbers(text: str) -> dict[tuple[str, str, str], float]:
    """Requests by method, path and status."""
    return {
        (each.labels["method"], each.labels["path"], each.labels["status"]): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == "mlflow_http_request_total"
    }


# Metrics


def test_requests_are_counted_by_route_and_status() -> None:
    metrics = ServerMetrics()
    chosen = [
        Middleware(MetricsMiddleware, metrics=metrics),
        Middleware(MetricsPage, metrics=metrics, path="/metrics"),
    ]
    with _client(behind(Sometimes(), chosen)) as client:
        for _ in range(3):
            client.get(GET, params={"run_id": "secret"})
        client.post(CREATE)
        client.put("/api/2.0/mlflow-artifacts/artifacts/some/file")
        client.get("/health")
        client.get("/what/a/client/chooses")
        client.request("PROPFIND", "/")
        assert client.get(GET, params={"fail": "yes"}).status_code == 500
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert _numbers(answer.text) == {
        ("GET", GET, "200"): 3,
        ("POST", "/api/2.0/mlflow/runs/create", "200"): 1,
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/{path:path}", "200"): 1,
        ("GET", "other", "200"): 1,
        ("other", "other", "200"): 1,
        ("GET", GET, "499"): 1,
    }
    assert "secret" not in answer.text
    assert f'duration_seconds_count{{method="GET",path="{GET}",status="200"}} 3.0' in answer.text
    # The one that asks.
    assert "mlflow_http_requests_in_flight 1.0" in answer.text


def test_a_worker_that_has_ended_is_not_in_flight(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        from asyncstore.server.metrics import ServerMetrics
        metrics = ServerMetrics(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        metrics.in_flight.inc()
        metrics.ended(("GET", "/", "200"), 0.1)
        sys.stdout.buffer.write(metrics.text())
    """
    environment = {"PATH": os.defpath, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert [_numbers(each)["GET", "/", "200"] for each in texts] == [1, 2]
    assert all("mlflow_http_requests_in_flight 1.0" in each for each in texts)


# The access log


def _lines(app: ASGIApp, ask: list[tuple[str, str]]) -> list[dict[str, object]]:
    file = io.StringIO()
    logged = behind(app, [Middleware(AccessLogMiddleware, writer=LineWriter(file))])
    with _client(logged) as client:
        for method, url in ask:
            client.request(method, url, content=b"body", headers={"Authorization": "Bearer s3cr3t"})
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_request_is_a_line_without_secrets() -> None:
    (line,) = _lines(Echo(), [("POST", f"{GET}?token=s3cr3t")])
    assert "s3cr3t" not in json.dumps(line)
    assert set(line) == {
        *("time", "client", "user", "method", "path", "status", "complete", "duration_ms"),
        *("bytes_received", "bytes_sent"),
    }
    assert (line["method"], line["path"], line["status"]) == ("POST", GET, 200)
    assert (line["client"], line["bytes_received"], line["complete"]) == ("127.0.0.1", 4, True)


def test_what_fails_and_what_is_odd_is_a_line_too() -> None:
    failed, odd = _lines(Sometimes(), [("GET", "/?fail"), ("GET", "/a%0a%22b" + "x" * 2000)])
    assert (failed["status"], failed["complete"]) == (None, False)
    assert str(odd["path"]).startswith('/a\n"bxxx')
    assert len(str(odd["path"])) == 1000


def test_a_reader_that_is_slow_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            reading.wait(30)
            return super().write(text)

    monkeypatch.setattr(access_log, "MAX_WAITING", 5)
    file = Slow()
    writer = LineWriter(file)
    for number in range(20):
        writer.write(str(number))
    reading.set()
    writer.close()
    writer.write("later")
    writer.close()
    lines = file.getvalue().splitlines()
    dropped = json.loads(lines[-2])["dropped"]
    assert lines[-1] == "later"
    assert [int(each) for each in lines[:-2]] == list(range(len(lines) - 2))
    assert dropped + len(lines) - 2 == 20


def test_lines_of_several_workers_do_not_mix() -> None:
    written: list[str] = []

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    writer = LineWriter(Pipe())
    lines = [str(number) * 50 for number in range(1000)]
    for line in lines:
        writer.write(line)
    writer.close()
    assert "".join(written).splitlines() == lines
    assert len(written) > 1
    assert all(len(each) <= access_log.MAX_BLOCK and each.endswith("\n") for each in written)


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    file = io.StringIO()
    file.close()
    app = behind(Echo(), [Middleware(AccessLogMiddleware, writer=LineWriter(file))])
    with _client(app) as client:
        assert client.get(GET).status_code == 200
        assert client.get(GET).status_code == 200


# Spans


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # OpenTelemetry takes one provider in the life of a process.
    trace.set_tracer_provider(provider)
    return exporter


def test_a_request_is_a_span_below_the_client_s(exporter: InMemorySpanExporter) -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    app = behind(Sometimes(), [Middleware(TelemetryMiddleware)])
    with _client(app) as client:
        headers = {"traceparent": f"00-{trace_id}-{span_id}-01", "Authorization": "Bearer s3cr3t"}
        client.get(f"{GET}?token=s3cr3t", headers=headers)
        client.get("/nowhere?fail")
    good, bad = exporter.get_finished_spans()
    assert good.name == f"GET {GET}"
    assert good.parent is not None
    assert f"{good.context.trace_id:032x}" == trace_id
    assert f"{good.parent.span_id:016x}" == span_id
    assert good.attributes is not None
    assert good.attributes["http.route"] == GET
    assert good.attributes["http.response.status_code"] == 200
    assert "s3cr3t" not in good.to_json()
    assert (bad.name, bad.status.is_ok) == ("GET", False)


def test_the_server_has_one_span_for_a_request_and_no_query_in_it(
    exporter: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter.clear()
    monkeypatch.setenv("ASYNCSTORE_SERVER_TELEMETRY", "true")
    with served(create_app(f"sqlite:///{tmp_path}/mlflow.db")) as url:
        path = "/api/2.0/mlflow/experiments/get-by-name"
        query = {"experiment_name": "Default", "token": "s3cr3t"}
        assert httpx.get(url + path, params=query).status_code == 200
    (span,) = exporter.get_finished_spans()
    assert span.name == f"GET {path}"
    assert "s3cr3t" not in span.to_json()
