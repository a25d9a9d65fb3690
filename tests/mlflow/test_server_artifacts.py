"""Stock MLflow clients whose artifacts go through asyncstore's server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from asyncstore.testing.fault_proxy import Answer, FaultProxy, Request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.azurite import Azurite
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.radosgw import RadosGateway

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def storage(radosgw: RadosGateway) -> Iterator[FaultProxy]:
    """The way to S3, of the server and of clients that have presigned URLs; recorded."""
    with FaultProxy(radosgw.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bucket(radosgw: RadosGateway) -> str:
    return radosgw.create_bucket()


@pytest.fixture(scope="module")
def server(radosgw: RadosGateway, storage: FaultProxy, bucket: str) -> Iterator[AsyncstoreServer]:
    environment = {**radosgw.environment, "MLFLOW_S3_ENDPOINT_URL": storage.url}
    destination = f"s3://{bucket}/proxied"
    yield from running(
        AsyncstoreServer("--artifacts-destination", destination, environment=environment)
    )


@pytest.fixture(scope="module")
def local_server() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Small files, one with an odd name, and a large one."""
    directory = tmp_path / "tree"
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "a b.txt").write_text("text")
    (directory / "deep" / "er" / "größe 100%.json").write_text("{}")
    (directory / "deep" / "large.bin").write_bytes(os.urandom(12 * MIB))
    return directory


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


def a_run(server: AsyncstoreServer, name: str, location: str | None = None) -> tuple[Any, str]:
    mlflow.set_tracking_uri(server.url)
    client = mlflow.MlflowClient(server.url)
    experiment = client.create_experiment(name, location)
    return client, client.create_run(experiment).info.run_id


def content_of(directory: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(directory)): each.read_bytes()
        for each in directory.rglob("*")
        if each.is_file()
    }


@pytest.mark.parametrize("kind", ["server", "local_server"])
def test_a_tree_goes_through_the_server_and_back(
    kind: str, tree: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: AsyncstoreServer = request.getfixturevalue(kind)
    client, run_id = a_run(server, "through the server")
    assert client.get_run(run_id).info.artifact_uri.startswith("mlflow-artifacts:/")
    client.log_artifacts(run_id, str(tree), "models/one")
    client.log_text(run_id, "x", "models/x.txt")
    client.log_dict(run_id, {"a": 1}, "d.json")
    assert [(each.path, each.is_dir) for each in client.list_artifacts(run_id)] == [
        ("d.json", False),
        ("models", True),
    ]
    assert [(each.path, each.file_size) for each in client.list_artifacts(run_id, "models")] == [
        ("models/one", None),
        ("models/x.txt", 1),
    ]
    # MLflow: a file has no entries.
    assert client.list_artifacts(run_id, "d.json") == []
    local = client.download_artifacts(run_id, "models/one", str(tmp_path))
    assert content_of(Path(local)) == content_of(tree)
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/models/x.txt") == "x"
    with pytest.raises(Exception, match=r"404|path is correct"):
        client.download_artifacts(run_id, "nothing", str(tmp_path))
    repository: Any = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
    repository.delete_artifacts("models")
    assert [each.path for each in client.list_artifacts(run_id)] == ["d.json"]


@pytest.mark.usefixtures("in_parts")
def test_parts_go_from_the_client_to_the_storage(
    server: AsyncstoreServer,
    storage: FaultProxy,
    bucket: str,
    radosgw: RadosGateway,
    tree: Path,
    tmp_path: Path,
) -> None:
    client, run_id = a_run(server, "in parts")
    storage.requests.clear()
    client.log_artifacts(run_id, str(tree), "models")
    parts = [each for each in storage.requests if is_part(each)]
    assert sorted(int(r.query.split("partNumber=")[1].split("&")[0]) for r in parts) == [1, 2, 3]
    # The client is requests, not asyncstore.
    assert all("requests/" in each.headers["user-agent"] for each in parts)
    local = client.download_artifacts(run_id, "models", str(tmp_path))
    assert content_of(Path(local)) == content_of(tree)
    assert radosgw.open_multipart_uploads(bucket) == []


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    yield from running(Azurite())


@pytest.mark.usefixtures("in_parts")
def test_parts_go_to_azure(azurite: Azurite, tree: Path, tmp_path: Path) -> None:
    """An upload there has no id, and its parts no ETags that count."""
    with FaultProxy(azurite.address) as storage:
        environment = {
            "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string(storage.address)
        }
        container = azurite.create_container()
        destination = f"wasbs://{container}@labaccount.blob.core.windows.net/proxied"
        for server in running(
            AsyncstoreServer("--artifacts-destination", destination, environment=environment)
        ):
            client, run_id = a_run(server, "in parts")
            client.log_artifacts(run_id, str(tree), "models")
            blocks = [each for each in storage.requests if "comp=block&" in f"{each.query}&"]
            assert len(blocks) == 3
            assert all("requests/" in each.headers["user-agent"] for each in blocks)
            local = client.download_artifacts(run_id, "models", str(tmp_path))
            assert content_of(Path(local)) == content_of(tree)
    azurite.discard(container)


@pytest.mark.usefixtures("in_parts")
def test_a_part_that_fails_leaves_no_upload(
    server: AsyncstoreServer, storage: FaultProxy, bucket: str, radosgw: RadosGateway, tree: Path
) -> None:
    client, run_id = a_run(server, "a part fails")
    fault = Answer(status=403, matches=lambda each: is_part(each) and "partNumber=2" in each.query)
    storage.faults.append(fault)
    try:
        with pytest.raises(MlflowException, match="part"):
            client.log_artifact(run_id, str(tree / "deep" / "large.bin"), "models")
    finally:
        storage.faults.remove(fault)
    assert fault.count == 1
    assert radosgw.open_multipart_uploads(bucket) == []
    assert client.list_artifacts(run_id) == []


@pytest.mark.usefixtures("in_parts")
def test_a_storage_that_should_take_parts_and_fails_is_an_error(
    server: AsyncstoreServer, storage: FaultProxy, tree: Path
) -> None:
    """Only a storage that has no such thing has the whole sent through the server."""
    client, run_id = a_run(server, "no upload begins")
    refusal = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    fault = Answer(status=403, body=refusal, matches=lambda each: "uploads" in each.query)
    storage.faults.append(fault)
    try:
        with pytest.raises(Exception, match="403"):
            client.log_artifact(run_id, str(tree / "deep" / "large.bin"))
    finally:
        storage.faults.remove(fault)
    assert client.list_artifacts(run_id) == []


@pytest.mark.usefixtures("in_parts")
def test_a_storage_without_presigned_urls(local_server: AsyncstoreServer, tree: Path) -> None:
    """Clients that want to send parts send the whole through the server."""
    client, run_id = a_run(local_server, "local")
    client.log_artifacts(run_id, str(tree), "models")
    local = client.download_artifacts(run_id, "models")
    assert content_of(Path(local)) == content_of(tree)


@pytest.mark.usefixtures("in_parts")
def test_ranges_come_from_the_storage_to_the_client(
    server: AsyncstoreServer, storage: FaultProxy, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(artifact_repo, "MultipartDownloadMixin"):
        pytest.skip("an older MLflow")
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE", str(MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(5 * MIB))
    client, run_id = a_run(server, "in ranges")
    large = tree / "deep" / "large.bin"
    client.log_artifact(run_id, str(large), "models")
    storage.requests.clear()
    # Nobody tells the client to: the server says that it can.
    local = client.download_artifacts(run_id, "models/large.bin")
    assert Path(local).read_bytes() == large.read_bytes()
    signed = [each for each in storage.requests if "X-Amz-Signature=" in each.query]
    assert len(signed) == 3
    assert all("range" in each.headers for each in signed)


def test_a_client_cannot_point_the_server_anywhere(server: AsyncstoreServer, bucket: str) -> None:
    mlflow.set_tracking_uri(server.url)
    client = mlflow.MlflowClient(server.url)
    inside = client.create_experiment("inside", f"s3://{bucket}/proxied/own")
    assert client.get_experiment(inside).artifact_location == f"s3://{bucket}/proxied/own"
    for number, location in enumerate(
        ["/etc", "file:///etc", "http://169.254.169.254/latest", "sftp://elsewhere/x"]
    ):
        with pytest.raises(MlflowException) as raised:
            client.create_experiment(f"elsewhere {number}", location)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
