"""Stock MLflow clients with credentials, on asyncstore's server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from asyncstore.server.users import UserEntry, edit_users, hash_password, hash_token
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

TOKEN = "asyncstore_token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncstoreServer]:
    path = tmp_path_factory.mktemp("server") / "users"
    entries = [
        UserEntry("user", "alice", "write", hash_password(b"open:sesame")),
        UserEntry("token", "nightly", "read", hash_token(TOKEN.encode())),
    ]
    edit_users(path, lambda _: entries)
    yield from running(AsyncstoreServer(environment={"ASYNCSTORE_SERVER_AUTH_FILE": str(path)}))


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_a_writer_logs_and_a_reader_reads(
    server: AsyncstoreServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = MlflowClient(server.url)
    with pytest.raises(MlflowException, match="MLFLOW_TRACKING_TOKEN"):
        client.search_experiments()

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open:sesame")
    run_id = client.create_run(client.create_experiment("mine")).info.run_id
    client.log_metric(run_id, "loss", 0.5)
    client.log_text(run_id, "a note", "notes/note.txt")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    assert client.get_run(run_id).data.metrics == {"loss": 0.5}
    assert [
        run.info.run_id for run in client.search_runs([client.get_run(run_id).info.experiment_id])
    ] == [run_id]
    local = client.download_artifacts(run_id, "notes/note.txt", str(tmp_path))
    assert Path(local).read_text() == "a note"
    with pytest.raises(MlflowException) as refusal:
        client.log_metric(run_id, "loss", 0.4)
    assert refusal.value.error_code == "PERMISSION_DENIED"
    with pytest.raises((MlflowException, OSError), match=r"403|may only read"):
        client.log_text(run_id, "another note", "notes/another.txt")
    assert [each.path for each in client.list_artifacts(run_id, "notes")] == ["notes/note.txt"]


def test_wrong_credentials_are_told(
    server: AsyncstoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "asyncstore_wrong")
    with pytest.raises(MlflowException) as refusal:
        MlflowClient(server.url).search_experiments()
    assert refusal.value.error_code == "UNAUTHENTICATED"
