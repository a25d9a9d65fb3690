"""The routes on the wire: errors, pages, and what is not what it should be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.asyncstore_server import AsyncstoreServer

API = "/api/2.0/mlflow"
API_3 = "/api/3.0/mlflow"
MIB = 1024 * 1024
NOBODY = "f" * 32


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with AsyncstoreServer() as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def run_id(http: httpx.Client) -> str:
    created = http.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": "5"})
    found: str = created.json()["run"]["info"]["run_id"]
    return found


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The message of an error, which is in MLflow's form and tells nothing of the server."""
    body = answer.json()
    assert (answer.status_code, body["error_code"]) == (status, code), body
    assert set(body) == {"error_code", "message"}
    assert "Traceback" not in answer.text
    message: str = body["message"]
    return message


def test_numbers_may_be_texts_and_null_is_absent(http: httpx.Client, run_id: str) -> None:
    run = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]
    assert run["info"]["start_time"] == 5
    metric: dict[str, Any] = {
        "key": "m",
        "value": "NaN",
        "timestamp": "7",
        "step": None,
        "unknown": {"a": []},
    }
    sent = {"run_id": run_id, "metrics": [metric], "params": None, "more": 1}
    assert http.post(f"{API}/runs/log-batch", json=sent).json() == {}
    found = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["data"]["metrics"]
    assert found == [{"key": "m", "value": "NaN", "timestamp": 7, "step": 0}]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_python_writes_of_numbers_is_read(http: httpx.Client, run_id: str, value: str) -> None:
    body = f'{{"run_id": "{run_id}", "key": "m", "value": {value}, "timestamp": 1}}'
    headers = {"Content-Type": "application/json"}
    answer = http.post(f"{API}/runs/log-metric", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    twice = json.dumps(body.replace(value, f'"{value}"'))
    answer = http.post(f"{API}/runs/log-metric", content=twice, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[", b"nonsense", b"\xff\xfe", b"[1]", b"7", b"null", b'"x"', b'"{"'),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"run_id": "\xff"}', b'{"run_id": "\\ud800"}'),
        *(b'{"run_id": NaN', b'{"run_id": "a", "a": NaN, "b": "\\ud800"}'),
    ],
    ids=range(15),
)
def test_what_is_no_json_object(http: httpx.Client, body: bytes) -> None:
    for path in (f"{API}/runs/log-batch", f"{API}/logged-models/m-1/params"):
        headers = {"Content-Type": "application/json"}
        answer = http.post(path, content=body, headers=headers)
        refused(answer, 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run_id": None}, "Missing value for required parameter 'run_id'"),
        ({"run_id": ""}, "Missing value for required parameter 'run_id'"),
        ({"run_id": 5}, "Invalid value for parameter 'run_id'"),
        ({"metrics": {}}, "Invalid value for parameter 'metrics'"),
        ({"metrics": [1]}, "parameter 'metrics[0]'"),
        ({"metrics": [{"key": "a", "timestamp": 1}]}, "required parameter 'metrics[0].value'"),
        ({"metrics": [{"key": "a", "value": "much", "timestamp": 1}]}, "'metrics[0].value'"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": 1.5}]}, "'metrics[0].timestamp'"),
        ({"metrics": [{"key": "a", "value": 1, "timestamp": 2**63}]}, "'metrics[0].timestamp'"),
        ({"params": [{"key": "", "value": "x"}]}, "required parameter 'params[0].key'"),
        ({"tags": [{"key": "a", "value": 5}]}, "'tags[0].value'"),
        ({"params": [{"key": "a\0b", "value": "x"}]}, ""),
    ],
)
def test_wrong_types(
    http: httpx.Client, run_id: str, changed: dict[str, Any], message: str
) -> None:
    answer = http.post(f"{API}/runs/log-batch", json={"run_id": run_id, **changed})
    assert message in refused(answer, 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{API}/runs/get?run_id={NOBODY}", None),
        ("GET", f"{API}/experiments/get?experiment_id=123456", None),
        ("GET", f"{API}/experiments/get-by-name?experiment_name=none", None),
        ("GET", f"{API}/registered-models/get?name=none", None),
        ("GET", f"{API}/model-versions/get?name=none&version=1", None),
        ("GET", f"{API}/logged-models/m-none", None),
        ("PATCH", f"{API}/logged-models/m-none", {"status": "LOGGED_MODEL_READY"}),
        ("DELETE", f"{API}/logged-models/m-none/tags/a/b", None),
        ("GET", f"{API_3}/traces/tr-none", None),
        ("GET", f"{API_3}/traces/get?trace_id=tr-none", None),
        ("GET", f"{API_3}/traces/tr-none/assessments/a-none", None),
        ("PATCH", f"{API_3}/traces/tr-none/tags", {"key": "a", "value": "b"}),
        ("GET", f"{API}/traces/tr-none/info", None),
        ("POST", f"{API}/runs/log-parameter", {"run_id": NOBODY, "key": "a", "value": "b"}),
    ],
)
def test_what_does_not_exist(
    http: httpx.Client, method: str, path: str, body: dict[str, Any] | None
) -> None:
    refused(http.request(method, path, json=body), 404, "RESOURCE_DOES_NOT_EXIST")
    other = path.replace("/api/", "/ajax-api/", 1)
    refused(http.request(method, other, json=body), 404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"{API}/nothing", 404, "ENDPOINT_NOT_FOUND"),
        ("POST", f"{API}/runs/get", 405, "ENDPOINT_NOT_FOUND"),
        ("PUT", f"{API_3}/traces/tr-1/tags", 405, "ENDPOINT_NOT_FOUND"),
        ("GET", f"{API_3}/mlflow/gateway/endpoints/list", 404, "ENDPOINT_NOT_FOUND"),
        ("GET", f"{API_3}/gateway/endpoints/get", 501, "NOT_IMPLEMENTED"),
        ("POST", f"{API_3}/scorers/register", 501, "NOT_IMPLEMENTED"),
        ("POST", f"{API_3}/traces/metrics", 501, "NOT_IMPLEMENTED"),
    ],
)
def test_what_there_is_no_route_for(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = http.request(method, path)
    refused(answer, status, code)
    assert ("allow" in answer.headers) is (status == 405)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_another_sites_form_could_send_is_refused(http: httpx.Client, kind: str) -> None:
    headers = {"Content-Type": kind}
    answer = http.post(f"{API}/experiments/create", content=b'{"name": "x"}', headers=headers)
    assert "application/json" in refused(answer, 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "query",
    [
        *("max_results=many", "max_results=0", "max_results=-1", "max_results=999999999999"),
        *("page_token=nonsense", "view_type=SOME", "filter=nonsense", "order_by=nonsense"),
        *("filter=%ff", "filter=name+LIKE", "view_type=9"),
    ],
)
def test_wrong_queries(http: httpx.Client, query: str) -> None:
    answer = http.get(f"{API}/experiments/search?{query}")
    refused(answer, 400, "INVALID_PARAMETER_VALUE")


def test_page_by_page(http: httpx.Client) -> None:
    for number in range(5):
        created = http.post(f"{API}/experiments/create", json={"name": f"page {number}"})
        assert created.status_code == 200
    wanted = {"filter": "name LIKE 'page %'", "max_results": "2", "order_by": ["name ASC"]}
    for method in ("GET", "POST"):
        pages: list[list[str]] = []
        token = ""
        while token or not pages:
            asked: dict[str, Any] = {**wanted, "page_token": token}
            given: dict[str, Any] = {"params": asked} if method == "GET" else {"json": asked}
            answer = http.request(method, f"{API}/experiments/search", **given).json()
            pages.append([each["name"] for each in answer["experiments"]])
            token = answer.get("next_page_token", "")
        assert pages == [["page 0", "page 1"], ["page 2", "page 3"], ["page 4"]]


def test_ten_mebibytes(http: httpx.Client, run_id: str) -> None:
    large = "x" * (10 * MIB)
    sent = {"run_id": run_id, "params": [{"key": "large", "value": large}]}
    answer = http.post(f"{API}/runs/log-batch", json=sent)
    assert answer.status_code in (200, 400, 413)
    data = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["data"]
    params = {each["key"]: each["value"] for each in data.get("params", [])}
    # Cut as MLflow cuts it, or refused whole.
    assert params == ({"large": large[:6000]} if answer.status_code == 200 else {})


def _otlp(trace_id: str = "0af7651916cd43dd8448eb211c80319c") -> dict[str, Any]:
    span = {
        "traceId": trace_id,
        "spanId": "b7ad6b7169203331",
        "name": "work",
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000001000000000",
        "status": {"code": 1},
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def test_spans_of_otlp(http: httpx.Client, run_id: str) -> None:
    body = gzip.compress(json.dumps(_otlp()).encode())
    headers = {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "x-mlflow-experiment-id": "0",
        "x-mlflow-run-id": run_id,
    }
    assert http.post("/v1/traces", content=body, headers=headers).status_code == 200
    trace_id = "tr-0af7651916cd43dd8448eb211c80319c"
    trace = http.get(f"{API_3}/traces/get", params={"trace_id": trace_id}).json()["trace"]
    assert trace["trace_info"]["execution_duration"] == "1s"
    assert [span["name"] for span in trace["spans"]] == ["work"]
    location = {"mlflow_experiment": {"experiment_id": "0"}}
    asked = {"locations": [location], "filter": f"run_id = '{run_id}'"}
    found = http.post(f"{API_3}/traces/search", json=asked).json()["traces"]
    assert [each["trace_id"] for each in found] == [trace_id]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{}", {}),
        (b"{", {}),
        (b"[]", {}),
        (b'{"resourceSpans": 5}', {}),
        (json.dumps(_otlp("nonsense")).encode(), {}),
        (json.dumps(_otlp("")).encode(), {}),
        (b"\xff\xff", {"Content-Type": "application/x-protobuf"}),
        (b"", {"Content-Type": "application/x-protobuf"}),
        (b"x", {"Content-Encoding": "gzip"}),
        (b"x", {"Content-Encoding": "br"}),
        (gzip.compress(json.dumps(_otlp()).encode())[:-9], {"Content-Encoding": "gzip"}),
        (gzip.compress(bytes(65 * MIB)), {"Content-Encoding": "gzip"}),
        (json.dumps(_otlp()).encode(), {"Content-Type": "text/plain"}),
        (json.dumps(_otlp()).encode(), {"x-mlflow-experiment-id": ""}),
        (json.dumps(_otlp()).encode(), {"x-mlflow-experiment-id": "nonsense"}),
    ],
    ids=range(15),
)
def test_what_is_not_otlp(http: httpx.Client, body: bytes, headers: dict[str, str]) -> None:
    usual = {"Content-Type": "application/json", "x-mlflow-experiment-id": "0"}
    answer = http.post("/v1/traces", content=body, headers={**usual, **headers})
    refused(answer, 400, "INVALID_PARAMETER_VALUE")


def test_a_trace_of_mlflow_2(http: httpx.Client) -> None:
    begun = {
        "experiment_id": "0",
        "timestamp_ms": "1000",
        "request_metadata": [{"key": "mlflow.traceInputs", "value": "{}"}],
        "tags": [{"key": "mlflow.traceName", "value": "old"}, {"key": "a", "value": "b"}],
    }
    info = http.post(f"{API}/traces", json=begun).json()["trace_info"]
    assert (info["status"], info["timestamp_ms"]) == ("IN_PROGRESS", 1000)
    ended = {
        "timestamp_ms": 1500,
        "status": "OK",
        "request_metadata": [{"key": "mlflow.traceOutputs", "value": "{}"}],
    }
    request_id = info["request_id"]
    info = http.patch(f"{API}/traces/{request_id}", json=ended).json()["trace_info"]
    assert (info["status"], info["execution_time_ms"]) == ("OK", 500)
    assert info == http.get(f"{API}/traces/{request_id}/info").json()["trace_info"]
    tags = {each["key"]: each["value"] for each in info["tags"]}
    assert tags["a"] == "b"
    assert tags["mlflow.artifactLocation"].endswith(f"/traces/{request_id}/artifacts")
    assert {each["key"] for each in info["request_metadata"]} >= {
        "mlflow.traceInputs",
        "mlflow.traceOutputs",
    }
    asked = {"experiment_ids": ["0"], "filter": "tags.a = 'b'"}
    found = http.get(f"{API}/traces", params=asked).json()["traces"]
    assert [each["request_id"] for each in found] == [request_id]


def test_openapi_describes_every_route(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    create = described["paths"][f"{API}/runs/create"]["post"]
    reference = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.rpartition("/")[2] in described["components"]["schemas"]
    get = described["paths"][f"{API}/runs/get"]["get"]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in get] == [
        ("run_id", "query", True)
    ]


def test_a_model_that_mlflow_2_logged(http: httpx.Client, run_id: str) -> None:
    model = {
        "run_id": run_id,
        "artifact_path": "model",
        "utc_time_created": "2025-01-01 00:00:00",
        "flavors": {"python_function": {"config": {"large": True}, "env": "conda.yaml"}},
        "signature": {"inputs": "[]"},
    }
    broken = {"run_id": run_id, "key": "mlflow.log-model.history", "value": "{"}
    assert http.post(f"{API}/runs/set-tag", json=broken).json() == {}
    for _ in range(2):
        sent = {"run_id": run_id, "model_json": json.dumps(model)}
        assert http.post(f"{API}/runs/log-model", json=sent).json() == {}
    data = http.get(f"{API}/runs/get", params={"run_id": run_id}).json()["run"]["data"]
    tags = {each["key"]: each["value"] for each in data["tags"]}
    entry = {key: value for key, value in model.items() if key != "signature"}
    entry["flavors"] = {"python_function": {"env": "conda.yaml"}}
    assert json.loads(tags["mlflow.log-model.history"]) == [entry, entry]
    for wrong in ("{", "[]", "7", json.dumps({**model, "flavors": 5}), json.dumps({"run_id": "x"})):
        answer = http.post(f"{API}/runs/log-model", json={"run_id": run_id, "model_json": wrong})
        refused(answer, 400, "INVALID_PARAMETER_VALUE")
