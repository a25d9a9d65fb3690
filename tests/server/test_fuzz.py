"""Every route of the server's OpenAPI document with what fits its schema, and what does not.

Longer, and with other values each time::

    ASYNCSTORE_FUZZ_EXAMPLES=500 pytest tests/server/test_fuzz.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from asyncstore.server import create_app
from asyncstore.server.app import ROUTES
from asyncstore.server.routing import Route
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

EXAMPLES = int(os.environ.get("ASYNCSTORE_FUZZ_EXAMPLES", "0"))
DOCUMENT = create_app("sqlite://").openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
API = "/api/2.0/mlflow"
API_3 = "/api/3.0/mlflow"
# A local directory signs nothing, and spans that a client keeps there are not the database's.
UNSUPPORTED = ("/mpu/", "/presigned", "/traces/get", "/traces/batchGet")


def last(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether what others need may be gone afterwards."""
    return operation.method == "delete" or any(
        word in operation.path for word in ("delete", "rename", "update", "transition")
    )


FOUND = (each.ok() for each in SCHEMA.get_all_operations() if isinstance(each, Ok))
OPERATIONS = sorted(filter(None, FOUND), key=last)


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


@pytest.fixture(scope="module")
def http(server: AsyncstoreServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def known(http: httpx.Client) -> dict[str, Any]:
    """Values of fields with which a request reaches what there is."""

    def post(path: str, content: dict[str, Any]) -> Any:
        answer = http.post(path, json=content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    run_id = post(f"{API}/runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    created = post(f"{API}/logged-models", {"experiment_id": "0", "source_run_id": run_id})
    model_id = created["model"]["info"]["model_id"]
    post(f"{API}/registered-models/create", {"name": "known"})
    source = {"name": "known", "source": f"models:/{model_id}", "model_id": model_id}
    post(f"{API}/model-versions/create", source)
    post(f"{API}/registered-models/alias", {"name": "known", "alias": "best", "version": "1"})
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {"trace_id": "tr-1", "trace_location": place, "request_time": "2026-01-01T00:00:00Z"}
    post(f"{API_3}/traces", {"trace": {"trace_info": info}})
    feedback = {"assessment_name": "good", "feedback": {"value": True}}
    made = post(f"{API_3}/traces/tr-1/assessments", {"assessment": feedback})["assessment"]
    http.put("/api/2.0/mlflow-artifacts/artifacts/known.txt", content=b"known")
    return {
        "alias": "best",
        "artifact_path": "known.txt",
        "assessment_id": made["assessment_id"],
        "experiment_id": "0",
        "experiment_ids": ["0"],
        "locations": [{"mlflow_experiment": {"experiment_id": "0"}}],
        "model_id": model_id,
        "name": "known",
        "request_id": "tr-1",
        "run_id": run_id,
        "run_ids": [run_id],
        "trace_id": "tr-1",
        "trace_ids": ["tr-1"],
        "version": "1",
    }


def test_the_document_is_valid_and_has_every_route() -> None:
    validate(DOCUMENT)
    described = {(each.method.upper(), each.path) for each in OPERATIONS}
    table = {(each.method, each.path.replace(":path}", "}")) for each in ROUTES}
    assert described == table
    for route in ROUTES:
        path = route.path.replace(":path}", "}")
        operation = DOCUMENT["paths"][path][route.method.lower()]
        assert operation["summary"]
        assert {"200", "default"} <= set(operation["responses"])
        fields = set(route.request.__struct_fields__)
        in_place = {each["name"] for each in operation["parameters"]}
        assert len(in_place) == len(operation["parameters"])
        body = operation.get("requestBody", {"content": {}})["content"]
        schema = body.get("application/json", {}).get("schema", {})
        if isinstance(route, Route):
            if "$ref" in schema:
                schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            in_body = set(schema.get("properties", ()))
            assert in_place | in_body == fields, path
            assert not in_place & in_body, path
        else:
            assert fields <= in_place, path
            assert bool(body) is (route.method in ("POST", "PUT")), path


@pytest.mark.parametrize(
    "operation", OPERATIONS, ids=[f"{each.method} {each.path}" for each in OPERATIONS]
)
def test_no_request_makes_the_server_fail(
    operation: APIOperation[Any, Any, Any, Any], server: AsyncstoreServer, known: dict[str, Any]
) -> None:
    cases = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )

    @settings(
        max_examples=EXAMPLES or 20,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, replaced=st.booleans())
    def one(case: Any, replaced: bool) -> None:
        if replaced:
            for fields in (case.path_parameters, case.query, case.body):
                if isinstance(fields, dict):
                    fields.update({key: known[key] for key in fields if key in known})
        check(operation, case.call(base_url=server.url))

    one()


def check(operation: APIOperation[Any, Any, Any, Any], answer: Any) -> None:
    shown = f"{answer.request.method} {answer.request.url} {answer.request.body!r:.2000}"
    assert b"Traceback" not in answer.content, shown
    if answer.status_code == 501:
        assert any(word in operation.path for word in UNSUPPORTED), (shown, answer.content)
    else:
        assert answer.status_code < 500, (shown, answer.content)
    if answer.status_code >= 400 and answer.request.method != "HEAD" and answer.status_code != 416:
        error = json.loads(answer.content)
        assert set(error) == {"error_code", "message"}, (shown, error)
        assert error["error_code"].isupper(), shown
        assert isinstance(error["message"], str), shown
