"""Artifacts of runs, model versions, logged models and traces, by HTTP."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

import pytest

import asyncstore
from asyncstore.entities import TraceInfo
from tests.server.http import call, request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
MPU = "/api/2.0/mlflow-artifacts/mpu"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


@pytest.fixture(scope="module")
def bucket(radosgw: RadosGateway) -> str:
    return radosgw.create_bucket()


@pytest.fixture(scope="module")
def s3_server(radosgw: RadosGateway, bucket: str) -> Iterator[AsyncstoreServer]:
    """Proxies to S3; experiments may also be directly on it."""
    destination = f"s3://{bucket}/proxied"
    yield from running(
        AsyncstoreServer("--artifacts-destination", destination, environment=radosgw.environment)
    )


def database_of(server: AsyncstoreServer) -> str:
    return f"sqlite:///{server.directory}/mlflow.db"


def a_run(server: AsyncstoreServer, name: str, location: str | None = None) -> str:
    content = {"name": name} if location is None else {"name": name, "artifact_location": location}
    made = call(server.port, "POST", f"{API}/experiments/create", content).json
    run = call(server.port, "POST", f"{API}/runs/create", made).json["run"]
    run_id: str = run["info"]["run_id"]
    return run_id


def upload(server: AsyncstoreServer, run_id: str, path: str, content: bytes) -> int:
    url = f"{AJAX}/upload-artifact?run_uuid={run_id}&path={path}"
    return request(server.port, "POST", url, content).status


def test_files_of_a_run(server: AsyncstoreServer) -> None:
    run_id = a_run(server, "files")
    assert upload(server, run_id, "plots/a.txt", b"text") == 200
    assert upload(server, run_id, "b.html", b"<b>") == 200
    for prefix in (API, AJAX):
        listed = call(server.port, "GET", f"{prefix}/artifacts/list?run_id={run_id}").json
        assert listed["files"] == [
            {"path": "b.html", "is_dir": False, "file_size": 3},
            {"path": "plots", "is_dir": True},
        ]
        assert listed["root_uri"].startswith("mlflow-artifacts:/")
        below = f"{prefix}/artifacts/list?run_uuid={run_id}&path=plots"
        assert [each["path"] for each in call(server.port, "GET", below).json["files"]] == [
            "plots/a.txt"
        ]
    for name in ("run_id", "run_uuid"):
        answer = request(server.port, "GET", f"/get-artifact?{name}={run_id}&path=plots/a.txt")
        assert (answer.status, answer.body) == (200, b"text")
        assert answer.headers["Content-Disposition"] == "attachment; filename=a.txt"
    part = request(
        server.port,
        "GET",
        f"/get-artifact?run_id={run_id}&path=plots/a.txt",
        headers={"Range": "bytes=1-2"},
    )
    assert (part.status, part.body) == (206, b"ex")


def test_what_is_wrong_with_a_request(server: AsyncstoreServer) -> None:
    run_id = a_run(server, "wrong")
    for url, status in (
        ("/get-artifact", 400),
        (f"/get-artifact?run_id={run_id}", 400),
        ("/get-artifact?path=x", 400),
        (f"/get-artifact?run_id={run_id}&path=", 400),
        (f"/get-artifact?run_id={run_id}&path=missing", 404),
        (f"/get-artifact?run_id={'0' * 32}&path=x", 404),
        (f"/get-artifact?run_id={run_id}&path=../../mlflow.db", 400),
        (f"/get-artifact?run_id={run_id}&path=%252e%252e/%252e%252e/%252e%252e/mlflow.db", 400),
        (f"{API}/artifacts/list?run_id={run_id}&path=../..", 400),
        (f"{API}/artifacts/list", 400),
        ("/model-versions/get-artifact?name=no&version=1&path=x", 404),
        (f"{AJAX}/logged-models/m-no/artifacts/files?artifact_file_path=x", 404),
        (f"{AJAX}/get-trace-artifact?request_id=tr-no", 404),
    ):
        answer = request(server.port, "GET", url)
        assert answer.status == status, (url, answer)
        assert set(answer.json) == {"error_code", "message"}
    assert upload(server, run_id, "empty.txt", b"") == 400
    assert upload(server, run_id, "large.bin", bytes(10 * MIB + 1)) == 400
    assert upload(server, run_id, "../x.txt", b"x") == 400
    assert call(server.port, "GET", f"{API}/artifacts/list?run_id={run_id}").json.keys() == {
        "root_uri"
    }


async def test_a_place_that_is_not_the_servers(server: AsyncstoreServer, tmp_path: Path) -> None:
    """As if somebody had written it to the database, who may not read the server's files."""
    (tmp_path / "secret.txt").write_text("S3CR3T")
    async with asyncstore.Client(database_of(server)) as client:
        for number, location in enumerate(
            [str(tmp_path), tmp_path.as_uri(), "http://127.0.0.1:9/x", "s3://elsewhere/x"]
        ):
            experiment = await client.create_experiment(f"elsewhere {number}", location)
            run_id = (await client.create_run(experiment)).info.run_id
            for url in (
                f"{API}/artifacts/list?run_id={run_id}",
                f"/get-artifact?run_id={run_id}&path=secret.txt",
                f"/get-artifact?run_id={run_id}&path=../secret.txt",
            ):
                answer = request(server.port, "GET", url)
                assert (answer.status, answer.json["error_code"]) == (
                    400,
                    "INVALID_PARAMETER_VALUE",
                )
                assert b"S3CR3T" not in answer.body


async def test_model_versions_and_logged_models(server: AsyncstoreServer) -> None:
    run_id = a_run(server, "models")
    upload(server, run_id, "model/MLmodel", b"flavors: {}")
    run = call(server.port, "GET", f"{API}/runs/get?run_id={run_id}").json["run"]
    async with asyncstore.Client(database_of(server)) as client:
        await client.create_registered_model("tree")
        source = f"{run['info']['artifact_uri']}/model"
        await client.create_model_version("tree", source, run_id)
        model = await client.create_logged_model(run["info"]["experiment_id"], "logged")
    answer = request(
        server.port, "GET", "/model-versions/get-artifact?name=tree&version=1&path=MLmodel"
    )
    assert (answer.status, answer.body) == (200, b"flavors: {}")
    # Where clients that log a model send its files.
    path = model.artifact_location.removeprefix("mlflow-artifacts:/")
    proxied = f"/api/2.0/mlflow-artifacts/artifacts/{path}/data/x.txt"
    assert request(server.port, "PUT", proxied, b"x").status == 200
    found = f"{API}/logged-models/{model.model_id}/artifacts/directories"
    assert call(server.port, "GET", found).json["files"] == [{"path": "data", "is_dir": True}]
    below = call(server.port, "GET", f"{found}?artifact_directory_path=data").json
    assert [each["path"] for each in below["files"]] == ["data/x.txt"]
    file = f"{AJAX}/logged-models/{model.model_id}/artifacts/files"
    answer = request(server.port, "GET", f"{file}?artifact_file_path=data/x.txt")
    assert (answer.status, answer.body) == (200, b"x")


async def test_spans_and_attachments_of_traces(server: AsyncstoreServer) -> None:
    async with asyncstore.Client(database_of(server)) as client:
        store = await client.get_metadata_store()
        info = await store.start_trace(
            TraceInfo(trace_id="tr-1", experiment_id="0", request_time=1, state="OK")
        )
    location = info.tags["mlflow.artifactLocation"].removeprefix("mlflow-artifacts:/")
    target = f"/api/2.0/mlflow-artifacts/artifacts/{location}"
    request(server.port, "PUT", f"{target}/attachments/a.png", b"png")
    request(server.port, "PUT", f"{target}/traces.json", b'{"spans": []}')
    for version in ("2.0", "3.0"):
        url = f"/ajax-api/{version}/mlflow/get-trace-artifact?request_id=tr-1"
        assert request(server.port, "GET", url).json == {"spans": []}
        picture = request(server.port, "GET", f"{url}&path=a.png")
        assert (picture.body, picture.headers["Content-Type"]) == (b"png", "image/png")
        assert request(server.port, "GET", f"{url}&path=../traces.json").status == 400


def follow(method: str, signed: str, headers: dict[str, str], body: bytes | None = None) -> Any:
    address, _, rest = signed.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, f"/{rest}", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return content if method == "GET" else answer.headers["ETag"]


def test_parts_on_s3(s3_server: AsyncstoreServer, radosgw: RadosGateway, bucket: str) -> None:
    content = {"path": "/home/person/large.bin", "num_parts": 2}
    made = call(s3_server.port, "POST", f"{MPU}/create/1/x/artifacts", content).json
    assert [each["part_number"] for each in made["credentials"]] == [1, 2]
    parts = []
    for each, data in zip(made["credentials"], (bytes(5 * MIB), b"end"), strict=True):
        etag = follow("PUT", each["url"], each["headers"], data)
        parts.append({"part_number": each["part_number"], "etag": etag, "url": each["url"]})
    ended = {"path": "/home/person/large.bin", "upload_id": made["upload_id"], "parts": parts}
    assert call(s3_server.port, "POST", f"{MPU}/complete/1/x/artifacts", ended).json == {}
    path = "1/x/artifacts/large.bin"
    whole = request(s3_server.port, "GET", f"/api/2.0/mlflow-artifacts/artifacts/{path}")
    assert whole.body == bytes(5 * MIB) + b"end"
    signed = call(s3_server.port, "GET", f"/api/2.0/mlflow-artifacts/presigned/{path}").json
    assert signed["file_size"] == 5 * MIB + 3
    assert follow("GET", signed["url"], signed["headers"]) == whole.body
    again = call(s3_server.port, "POST", f"{MPU}/create/1/x/artifacts", content).json
    given_up = {"path": "large.bin", "upload_id": again["upload_id"]}
    assert call(s3_server.port, "POST", f"{MPU}/abort/1/x/artifacts", given_up).json == {}
    assert radosgw.open_multipart_uploads(bucket) == []
    for wrong in ({"num_parts": 2}, {"path": "x", "num_parts": 0}, {"path": "..", "num_parts": 1}):
        assert call(s3_server.port, "POST", f"{MPU}/create/1/x", wrong).status == 400


def test_a_server_that_hands_out_no_parts(radosgw: RadosGateway, bucket: str) -> None:
    environment = {**radosgw.environment, "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false"}
    destination = f"s3://{bucket}/refused"
    for server in running(
        AsyncstoreServer("--artifacts-destination", destination, environment=environment)
    ):
        info = call(server.port, "GET", "/api/3.0/mlflow/server-info").json
        assert info["multipart_uploads_enabled"] is False
        assert info["multipart_downloads_enabled"] is True
        answer = call(server.port, "POST", f"{MPU}/create/x", {"path": "x", "num_parts": 1})
        assert (answer.status, answer.json["error_code"]) == (501, "NOT_IMPLEMENTED")


def test_a_storage_that_has_no_parts(server: AsyncstoreServer) -> None:
    info = call(server.port, "GET", "/api/3.0/mlflow/server-info").json
    assert info["multipart_uploads_enabled"] is info["multipart_downloads_enabled"] is False
    answer = call(server.port, "POST", f"{MPU}/create/x", {"path": "x", "num_parts": 1})
    assert (answer.status, answer.json["error_code"]) == (501, "NOT_IMPLEMENTED")
    # By these words clients know that they are to send the whole.
    assert answer.json["message"].startswith(
        "Multipart upload is not supported for the current artifact repository"
    )


def test_presigned_requests(s3_server: AsyncstoreServer, bucket: str) -> None:
    direct = a_run(s3_server, "direct", f"s3://{bucket}/proxied/direct")
    content = {"run_id": direct, "path": "a/b.txt"}
    made = call(s3_server.port, "POST", f"{API}/artifacts/presigned-upload-url", content).json
    follow("PUT", made["presigned_url"], made.get("headers", {}), b"content")
    found = call(s3_server.port, "POST", f"{API}/artifacts/presigned-download-url", content).json
    assert found["file_size"] == 7
    assert follow("GET", found["presigned_url"], found.get("headers", {})) == b"content"
    proxied = a_run(s3_server, "proxied")
    for wrong in (
        {"run_id": proxied, "path": "x"},
        {"run_id": direct, "path": "../x"},
        {"run_id": direct, "path": "x", "expiration": 604_801},
        {"run_id": direct},
    ):
        for what in ("upload", "download"):
            url = f"{API}/artifacts/presigned-{what}-url"
            assert call(s3_server.port, "POST", url, wrong).status == 400
    both = {"run_id": direct, "model_id": "m-1", "path": "x"}
    assert call(s3_server.port, "POST", f"{API}/artifacts/presigned-upload-url", both).status == 400


def test_a_server_without_artifacts(tmp_path: Path) -> None:
    environment = {"_MLFLOW_SERVER_SERVE_ARTIFACTS": "false"}
    for server in running(AsyncstoreServer(environment=environment)):
        answer = request(server.port, "PUT", "/api/2.0/mlflow-artifacts/artifacts/x", b"x")
        assert answer.status == 503
        assert "--no-serve-artifacts" in answer.json["message"]
        run_id = a_run(server, "direct")
        run = call(server.port, "GET", f"{API}/runs/get?run_id={run_id}").json["run"]
        # The default root, which the server may read.
        assert "mlflow-artifacts" not in run["info"]["artifact_uri"]
        assert upload(server, run_id, "x.txt", b"x") == 200
        answer = request(server.port, "GET", f"/get-artifact?run_id={run_id}&path=x.txt")
        assert (answer.status, answer.body) == (200, b"x")
