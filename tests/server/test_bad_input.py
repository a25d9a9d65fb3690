"""What is malformed, too much, or not there, on every route of the table."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator
from typing import Any, get_type_hints
from urllib.parse import quote, urlencode

import pytest

from asyncstore.server.app import ROUTES
from asyncstore.server.routing import AsgiRoute, Route
from tests.server.http import Answer, call, request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

API, API_3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
PLACE = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
INFO = {"trace_id": "tr-1", "trace_location": PLACE, "request_time": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


@pytest.fixture
def run_id(server: AsyncstoreServer) -> str:
    made = call(server.port, "POST", f"{API}/runs/create", {"experiment_id": "0"})
    found: str = made.json["run"]["info"]["run_id"]
    return found


@pytest.fixture
def unchanged(server: AsyncstoreServer, run_id: str) -> Iterator[None]:
    """Nothing is stored during a test, neither in the database nor in a file."""
    before = stored(server)
    yield
    assert stored(server) == before


def stored(server: AsyncstoreServer) -> tuple[list[str], list[str]]:
    database = sqlite3.connect(server.directory / "mlflow.db")
    try:
        rows = list(database.iterdump())
    finally:
        database.close()
    root = server.directory / "mlartifacts"
    return rows, sorted(str(each) for each in root.rglob("*"))


def refused(answer: Answer, status: int = 400, code: str = "INVALID_PARAMETER_VALUE") -> str:
    assert (answer.status, answer.json["error_code"]) == (status, code), answer
    assert set(answer.json) == {"error_code", "message"}
    assert b"Traceback" not in answer.body
    message: str = answer.json["message"]
    return message


def filled(path: str) -> str:
    """A path with something for each of its parameters."""
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


TAKING = [each for each in ROUTES if isinstance(each, Route) and each.method in ("POST", "PATCH")]
MALFORMED: dict[str, bytes] = {
    "cut": b'{"name": "x"',
    "list": b"[]",
    "number": b"7",
    "null": b"null",
    "text": b'"x"',
    "twice": b"{}{}",
    "comma": b'{"name": "x",}',
    "quote": b"{'name': 'x'}",
    "latin": '{"name": "é"}'.encode("latin-1"),
    "utf-16": '{"name": "x"}'.encode("utf-16"),
    "utf-32": '{"name": "x"}'.encode("utf-32"),
    "gzip": gzip.compress(b'{"name": "x"}'),
    "surrogate": b'{"name": "\\ud800", "value": "\\ud800"}',
    "deep": b'{"name": ' + b"[" * 100_000,
    "whole and deep": b'{"name": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "form": b"name=x&experiment_id=0",
    "zero": b"\0",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.usefixtures("unchanged")
def test_what_is_no_json_object(server: AsyncstoreServer, body: bytes) -> None:
    for route in TAKING:
        # What is in a field that a route does not know is not looked at.
        if body != MALFORMED["latin"] or "name" in route.request.__struct_fields__:
            refused(request(server.port, route.method, filled(route.path), body, JSON))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "\xff"},
    ],
    ids=range(6),
)
@pytest.mark.usefixtures("unchanged")
def test_other_types_of_bodies(server: AsyncstoreServer, headers: dict[str, str]) -> None:
    body = b'{"name": "x", "experiment_id": "0"}'
    for route in TAKING:
        refused(request(server.port, route.method, filled(route.path), body, headers))


# Who asks for what is not there gets nothing, instead of an error.
EMPTY = ("/search", "/delete-traces", "/batchGet", "/get-latest-versions", "/get-history")
NOWHERE: dict[str, Any] = {
    "alias": "none",
    "assessment": {"assessment_name": "x", "feedback": {"value": 1}},
    "assessment_id": "a-none",
    "artifact_file_path": "x",
    "experiment_id": "123456",
    "experiment_ids": ["123456"],
    "experiment_name": "none",
    "info": {},
    "key": "k",
    "locations": [{"mlflow_experiment": {"experiment_id": "123456"}}],
    "max_traces": 1,
    "max_timestamp_millis": 1,
    "metric_key": "m",
    "metrics": [{"key": "m", "value": 1, "timestamp": 1}],
    "model_id": "m-none",
    "model_json": '{"artifact_path": "x", "flavors": {}, "utc_time_created": "x", "run_id": "x"}',
    "models": [{"model_id": "m-none"}],
    "name": "none",
    "new_name": "new",
    "params": [{"key": "k", "value": "v"}],
    "path": "x",
    "prompt_versions": [{"name": "none", "version": "1"}],
    "request_id": "tr-none",
    "run_id": "f" * 32,
    "run_ids": ["f" * 32],
    "stage": "Production",
    "status": "LOGGED_MODEL_READY",
    "tag_key": "k",
    "tags": [{"key": "k", "value": "v"}],
    "timestamp": 1,
    "trace_id": "tr-none",
    "trace_ids": ["tr-none"],
    "update_mask": "rationale",
    "value": "1",
    "version": "1",
}
IDS = ("_id", "_ids", "name", "alias", "locations")
OTHERS = ("registered-models/create", "experiments/create", "mlflow-artifacts", "presigned")
NAMED = [
    route
    for route in ROUTES
    if any(field.endswith(IDS) for field in route.request.__struct_fields__)
    and not any(each in route.path for each in OTHERS)
    and route.request.__name__ != "GraphqlRequest"
]


@pytest.mark.parametrize("route", NAMED, ids=[f"{each.method} {each.path}" for each in NAMED])
@pytest.mark.usefixtures("unchanged")
def test_what_does_not_exist(server: AsyncstoreServer, route: Route | AsgiRoute) -> None:
    hints = get_type_hints(route.request)
    content = {name: NOWHERE[name] for name in hints if name in NOWHERE}
    if route.path.endswith("/runs/update") or route.path == f"{API}/traces/{{request_id}}":
        content["status"] = "FINISHED" if "runs" in route.path else "OK"
    if route.path.endswith("get-history-bulk"):
        content["run_id"] = [content["run_id"]]
    if route.path == f"{API_3}/traces":
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "123456"}}
        content = {"trace": {"trace_info": {**INFO, "trace_location": place}}}
    if route.path.endswith("model-versions/create"):
        content = {"name": "none", "source": "s3://none/x"}
    if route.path.endswith("/delete-traces"):
        content.pop("max_traces")
    path = "/".join(
        str(content.pop(part.strip("{}").removesuffix(":path"))) if part[:1] == "{" else part
        for part in route.path.split("/")
    )
    if route.method in ("GET", "HEAD") or isinstance(route, AsgiRoute):
        url = f"{path}?{urlencode(content, doseq=True)}"
        answer = request(server.port, route.method, url, b"x" if route.method == "POST" else None)
    else:
        answer = call(server.port, route.method, path, content)
    if route.method == "HEAD":
        assert answer.status == 404
    elif answer.status == 200:
        assert any(each in path for each in EMPTY) or f"{route.method} {path}" in (
            f"GET {API}/traces",
            # As in MLflow: it is gone.
            f"DELETE {API_3}/traces/tr-none/assessments/a-none",
        )
        assert not any(answer.json.values()), answer
    elif path.endswith("model-versions/create"):
        assert answer.status in (400, 404), answer
    else:
        refused(answer, 404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.usefixtures("unchanged")
def test_too_deep_is_refused_before_anything_is_stored(server: AsyncstoreServer) -> None:
    """What is just not too deep for the parser would be for what reads it later."""
    assessments = f"{API_3}/traces/tr-none/assessments"
    for depth in (101, 300, 500, 700, 800, 850, 900, 950, 990, 1100, 2000, 10_000):
        deep: Any = "[" * depth + "]" * depth
        for method, path, body in (
            (
                "POST",
                assessments,
                '{"assessment": {"assessment_name": "x", "feedback": {"value": %s}}}',
            ),
            (
                "PATCH",
                f"{assessments}/a",
                '{"assessment": {"metadata": %s}, "update_mask": "metadata"}',
            ),
            ("POST", f"{API_3}/traces", '{"trace": {"trace_info": {"trace_id": "x", "tags": %s}}}'),
            ("POST", f"{API}/runs/log-inputs", '{"run_id": "x", "datasets": [{"dataset": %s}]}'),
            (
                "POST",
                "/graphql",
                '{"query": "{mlflowGetRun {__typename}}", "variables": {"x": %s}}',
            ),
        ):
            sent = (body % deep).encode()
            assert "deep" in refused(request(server.port, method, path, sent, JSON))
        model = {"run_id": "x", "model_json": f'{{"flavors": {{"x": {deep}}}}}'}
        refused(call(server.port, "POST", f"{API}/runs/log-model", model))


def test_what_a_client_writes_of_json_in_texts_breaks_nothing(
    server: AsyncstoreServer, run_id: str
) -> None:
    made = call(server.port, "POST", f"{API}/logged-models", {"experiment_id": "0"}).json
    model = f"{API}/logged-models/{made['model']['info']['model_id']}"
    for number, value in enumerate(
        ("x", "5", "[5]", "null", "{", "[" * 5000, '{"num_spans": "x"}')
    ):
        tag = {"key": "mlflow.log-model.history", "value": value}
        assert (
            call(server.port, "POST", f"{API}/runs/set-tag", {"run_id": run_id, **tag}).status
            == 200
        )
        file = '{"artifact_path": "x", "flavors": {}, "utc_time_created": "x", "run_id": "x"}'
        sent = {"run_id": run_id, "model_json": file}
        assert call(server.port, "POST", f"{API}/runs/log-model", sent).status in (200, 400)
        tags = {"tags": [{"key": "mlflow.modelVersions", "value": value}]}
        assert call(server.port, "PATCH", f"{model}/tags", tags).status == 200
        metadata = {
            "mlflow.trace.sizeStats": value,
            "mlflow.trace.tokenUsage": value,
            "mlflow.trace.cost": value,
        }
        info = {**INFO, "trace_id": f"tr-{number}", "trace_metadata": metadata}
        made = call(server.port, "POST", f"{API_3}/traces", {"trace": {"trace_info": info}})
        assert made.status == 200, made
        span = {
            "traceId": f"{number:032x}",
            "spanId": "b7ad6b7169203331",
            "name": "x",
            "startTimeUnixNano": "1",
            "endTimeUnixNano": "2",
            "attributes": [{"key": "mlflow.spanInputs", "value": {"stringValue": value}}],
        }
        info = {**INFO, "trace_id": f"tr-{number:032x}", "trace_metadata": metadata}
        made = call(server.port, "POST", f"{API_3}/traces", {"trace": {"trace_info": info}})
        spans = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
        headers = {**JSON, "x-mlflow-experiment-id": "0"}
        answer = request(server.port, "POST", "/v1/traces", json.dumps(spans).encode(), headers)
        assert answer.status == 200, answer
        for partial in ("true", "false"):
            url = f"{API_3}/traces/get?trace_id=tr-{number:032x}&allow_partial={partial}"
            assert call(server.port, "GET", url).status in (200, 404)
    place = {"locations": [{"mlflow_experiment": {"experiment_id": "0"}}]}
    assert call(server.port, "POST", f"{API_3}/traces/search", place).status == 200


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        *(
            ("POST", f"{API}/traces", {"experiment_id": "0", "timestamp_ms": 2**bits})
            for bits in (48, 62)
        ),
        ("PATCH", f"{API}/traces/tr-1", {"timestamp_ms": -(2**63), "status": "OK"}),
        *(
            ("POST", f"{API_3}/traces", {"trace": {"trace_info": {**INFO, **changed}}})
            for changed in (
                {"request_time": "0001-01-01T00:00:00+23:59"},
                {"request_time": "9999-12-31T23:59:59-23:59"},
                {"request_time": "2026-01-01T00:00:00"},
                {"execution_duration": "9" * 5000 + "s"},
                {"execution_duration": "9" * 20 + "s"},
                {"execution_duration": "-" + "9" * 20 + "s"},
                {"trace_id": "x" * 100},
            )
        ),
        *(
            ("POST", path, {**wanted, "order_by": [f"tags.`{number}`" for number in range(500)]})
            for path, wanted in (
                (f"{API}/runs/search", {"experiment_ids": ["0"]}),
                (f"{API_3}/traces/search", {"locations": [PLACE]}),
            )
        ),
        *(
            ("POST", path, {**wanted, "filter": " AND ".join(["tags.a = 'b'"] * 5000)})
            for path, wanted in (
                (f"{API}/runs/search", {"experiment_ids": ["0"]}),
                (f"{API}/experiments/search", {}),
                (f"{API}/logged-models/search", {"experiment_ids": ["0"]}),
                (f"{API_3}/traces/search", {"locations": [PLACE]}),
            )
        ),
        ("POST", f"{API}/runs/search", {"experiment_ids": ["9" * 30]}),
        ("POST", f"{API}/runs/create", {"experiment_id": "9" * 5000}),
    ],
)
@pytest.mark.usefixtures("unchanged")
def test_too_much(
    server: AsyncstoreServer, method: str, path: str, content: dict[str, Any]
) -> None:
    refused(call(server.port, method, path, content))


@pytest.mark.parametrize("name", ["x" * 256, "\u00e9" * 200, "a/" * 3000 + "x"], ids=range(3))
@pytest.mark.usefixtures("unchanged")
def test_names_of_files_that_are_too_long(server: AsyncstoreServer, run_id: str, name: str) -> None:
    path = quote(name)
    proxied = "/api/2.0/mlflow-artifacts/artifacts"
    for method, url in (
        *((method, f"{proxied}/{path}") for method in ("GET", "PUT", "DELETE")),
        ("GET", f"{proxied}?path={path}"),
        ("GET", f"/get-artifact?run_id={run_id}&path={path}"),
        ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_id={run_id}&path={path}"),
    ):
        answer = request(server.port, method, url, b"x" if method in ("PUT", "POST") else None)
        # To some, what cannot be there is not there.
        if method in ("PUT", "POST"):
            refused(answer)
        else:
            assert answer.status in (400, 404) or answer.json == {}, answer


def test_a_conflict_is_no_failure_of_the_server(server: AsyncstoreServer) -> None:
    made = call(server.port, "POST", f"{API}/experiments/create", {"name": "deleted"}).json
    assert call(server.port, "POST", f"{API}/experiments/delete", made).status == 200
    renamed = {**made, "new_name": "other"}
    # MLflow's clients try a 500 again for minutes.
    refused(call(server.port, "POST", f"{API}/experiments/update", renamed), 409, "INVALID_STATE")


@pytest.mark.usefixtures("unchanged")
def test_ten_mebibytes_wherever_a_text_goes(server: AsyncstoreServer) -> None:
    large = "x" * (10 * MIB)
    for path, content in (
        (f"{API}/experiments/create", {"name": large}),
        (f"{API}/experiments/search", {"filter": large}),
        (f"{API}/experiments/search", {"page_token": large}),
        (f"{API}/experiments/search", {"order_by": [large]}),
        (f"{API}/runs/create", {"experiment_id": large}),
        (f"{API}/runs/log-parameter", {"run_id": large, "key": "k", "value": "v"}),
        (f"{API}/registered-models/create", {"name": large}),
        ("/graphql", {"query": large}),
    ):
        answer = call(server.port, "POST", path, content)
        if path == "/graphql":
            assert answer.status == 200
            assert answer.json["data"] is None
        else:
            assert answer.status in (400, 404), (path, answer.status)
            assert len(answer.body) < 10_000


def test_the_last_of_two_fields_counts(server: AsyncstoreServer, run_id: str) -> None:
    body = f'{{"run_id": "x", "run_id": "{run_id}", "key": "twice", "value": "a", "value": "b"}}'
    assert request(server.port, "POST", f"{API}/runs/set-tag", body.encode(), JSON).json == {}
    run = call(server.port, "GET", f"{API}/runs/get?run_id={run_id}").json["run"]
    assert {"key": "twice", "value": "b"} in run["data"]["tags"]
