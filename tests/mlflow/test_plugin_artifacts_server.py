"""MLflow's own server and stock clients of it, whose artifacts are on asyncstore's storages."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from packaging.version import Version

from asyncstore.testing.fault_proxy import Answer, FaultProxy, Request
from tests.servers.base import HOST
from tests.servers.mlflow_server import MlflowServer
from tests.servers.radosgw import RadosGateway
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("s3fs")

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def storage(radosgw: RadosGateway) -> Iterator[FaultProxy]:
    """The server's way to S3, recorded."""
    with FaultProxy(radosgw.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bucket(radosgw: RadosGateway) -> str:
    return radosgw.create_bucket()


@pytest.fixture(scope="module")
def server(
    storage: FaultProxy,
    bucket: str,
    radosgw: RadosGateway,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MlflowServer]:
    """Proxies artifacts to S3; experiments may also be directly on it."""
    directory = tmp_path_factory.mktemp("server")
    yield from running(
        MlflowServer(
            *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
            *("--artifacts-destination", f"asyncstore+s3://{bucket}/proxied"),
            environment={**radosgw.environment, "MLFLOW_S3_ENDPOINT_URL": storage.url},
        )
    )


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(12 * MIB))
    return file


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(6 * MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 * MIB))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(autouse=True)
def tracking() -> Iterator[None]:
    """MLflow 2 asks the one of the process for its server, whatever the client was given."""
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


def is_part(request: Request) -> bool:
    return (
        request.method == "PUT"
        and "partNumber=" in request.query
        and "X-Amz-Signature=" in request.query
    )


def a_run(server: MlflowServer, name: str, location: str | None = None) -> tuple[Any, str]:
    mlflow.set_tracking_uri(server.url)
    client = mlflow.MlflowClient(server.url)
    experiment = client.create_experiment(name, location)
    return client, client.create_run(experiment).info.run_id


@pytest.mark.usefixtures("in_parts")
def test_parts_go_from_the_client_to_the_storage(
    server: MlflowServer,
    storage: FaultProxy,
    bucket: str,
    radosgw: RadosGateway,
    large: Path,
    tmp_path: Path,
) -> None:
    client, run_id = a_run(server, "in parts")
    assert client.get_run(run_id).info.artifact_uri.startswith("mlflow-artifacts:")
    storage.requests.clear()
    client.log_artifact(run_id, str(large), "models")
    parts = [request for request in storage.requests if is_part(request)]
    assert sorted(int(r.query.split("partNumber=")[1].split("&")[0]) for r in parts) == [1, 2, 3]
    # The client is requests, not asyncstore.
    assert all("requests/" in request.headers["user-agent"] for request in parts)
    assert [(each.path, each.file_size) for each in client.list_artifacts(run_id, "models")] == [
        ("models/large.bin", 12 * MIB)
    ]
    local = client.download_artifacts(run_id, "models", str(tmp_path))
    assert (tmp_path / "models/large.bin").read_bytes() == large.read_bytes()
    assert local == str(tmp_path / "models")
    assert radosgw.open_multipart_uploads(bucket) == []


@pytest.mark.usefixtures("in_parts")
def test_a_part_that_fails_leaves_no_upload(
    server: MlflowServer, storage: FaultProxy, bucket: str, radosgw: RadosGateway, large: Path
) -> None:
    client, run_id = a_run(server, "a part fails")
    fault = Answer(
        status=403, matches=lambda request: is_part(request) and "partNumber=2" in request.query
    )
    storage.faults.append(fault)
    try:
        with pytest.raises(MlflowException, match="part"):
            client.log_artifact(run_id, str(large), "models")
    finally:
        storage.faults.remove(fault)
    assert fault.count == 1
    assert radosgw.open_multipart_uploads(bucket) == []
    assert client.list_artifacts(run_id) == []


def test_all_through_the_server(
    server: MlflowServer, storage: FaultProxy, large: Path, tmp_path: Path
) -> None:
    client, run_id = a_run(server, "through the server")
    storage.requests.clear()
    client.log_artifact(run_id, str(large), "models")
    client.log_text(run_id, "text", "notes/a b.txt")
    assert not any("X-Amz-Signature=" in request.query for request in storage.requests)
    client.download_artifacts(run_id, "", str(tmp_path))
    assert (tmp_path / "models/large.bin").read_bytes() == large.read_bytes()
    assert (tmp_path / "notes/a b.txt").read_text() == "text"
    repository = get_artifact_repository(f"{server.url}/api/2.0/mlflow-artifacts/artifacts/x")
    assert repository.list_artifacts() == []
    with pytest.raises(Exception, match=r"404|no artifact"):
        repository.download_artifacts("nothing", str(tmp_path))


@pytest.mark.usefixtures("in_parts")
def test_ranges_come_from_the_storage_to_the_client(
    server: MlflowServer, storage: FaultProxy, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(artifact_repo, "MultipartDownloadMixin"):
        pytest.skip("an older MLflow")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE", str(MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(5 * MIB))
    client, run_id = a_run(server, "in ranges")
    client.log_artifact(run_id, str(large), "models")
    storage.requests.clear()
    local = client.download_artifacts(run_id, "models/large.bin")
    assert Path(local).read_bytes() == large.read_bytes()
    signed = [r for r in storage.requests if "X-Amz-Signature=" in r.query]
    assert len(signed) == 3
    assert all("range" in request.headers for request in signed)


@pytest.mark.usefixtures("s3_env")
def test_presigned_requests(server: MlflowServer, bucket: str) -> None:
    if not hasattr(artifact_repo, "PresignedUploadMixin"):
        pytest.skip("an older MLflow")
    client, run_id = a_run(server, "direct", f"asyncstore+s3://{bucket}/direct")

    def post(what: str) -> Any:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
        connection.request(
            "POST",
            f"/api/2.0/mlflow/artifacts/presigned-{what}-url",
            json.dumps({"run_id": run_id, "path": "a/b.txt"}),
            {"Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, content
        return content

    def follow(method: str, signed: Any, body: bytes | None = None) -> bytes:
        address, _, rest = signed["presigned_url"].removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request(method, f"/{rest}", body, signed.get("headers", {}))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status == 200, content
        return content

    follow("PUT", post("upload"), b"content")
    assert [each.path for each in client.list_artifacts(run_id, "a")] == ["a/b.txt"]
    assert follow("GET", post("download")) == b"content"


def test_a_client_cannot_point_the_server_anywhere(server: MlflowServer, tmp_path: Path) -> None:
    """MLflow's own rules do not know `asyncstore+`."""
    (tmp_path / "secret.txt").write_text("secret")
    _, run_id = a_run(server, "elsewhere", f"asyncstore+file://{tmp_path}")
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    connection.request("GET", f"/get-artifact?run_id={run_id}&path=../../secret.txt")
    assert connection.getresponse().read() != b"secret"
    connection.close()
    connection.request("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}")
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert b"secret" not in content
    # MLflow 2 takes the refusal for a repository, and fails.
    if Version(mlflow.__version__).major > 2:
        assert json.loads(content)["error_code"] == "INVALID_PARAMETER_VALUE"
        assert answer.status == 400
    else:
        assert answer.status == 500


@pytest.mark.usefixtures("in_parts")
def test_a_storage_without_presigned_urls(tmp_path: Path, large: Path) -> None:
    """Clients that want to send parts send the whole through the server."""
    destination = (tmp_path / "artifacts").as_uri()
    for server in running(
        MlflowServer(
            *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"),
            *("--artifacts-destination", f"asyncstore+{destination}"),
            environment={},
        )
    ):
        client, run_id = a_run(server, "local")
        client.log_artifact(run_id, str(large), "models")
        (found,) = (tmp_path / "artifacts").rglob("large.bin")
        assert found.read_bytes() == large.read_bytes()
        local = client.download_artifacts(run_id, "models/large.bin")
        assert Path(local).read_bytes() == large.read_bytes()
