"""What wants the plain URI of a database: MLflow's jobs, and its upgrades."""

from __future__ import annotations

import http
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner
from mlflow import db
from sqlalchemy.exc import NoSuchModuleError

from asyncstore.mlflow_plugin.tracking_store import TrackingStore
from tests.servers.mlflow_server import MlflowServer

if TYPE_CHECKING:
    from pathlib import Path

NO_JOBS = "job execution requirements not met"


def search(url: str) -> tuple[int, object]:
    """The status and the body of a search of all jobs."""
    request = urllib.request.Request(
        f"{url}/ajax-api/3.0/jobs/search",
        data=b"{}",
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class TestJobs:
    def test_the_app_has_them(self, tmp_path: Path) -> None:
        server = MlflowServer(
            *("--app-name", "asyncstore", "--backend-store-uri", f"sqlite:///{tmp_path}/jobs.db"),
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        with server:
            assert search(server.url) == (http.HTTPStatus.OK, {"jobs": []})

    def test_the_prefix_has_not(self, tmp_path: Path) -> None:
        server = MlflowServer(
            *("--backend-store-uri", f"asyncstore+sqlite:///{tmp_path}/jobs.db"),
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true"},
        )
        with server:
            status, said = search(server.url)
            assert status >= http.HTTPStatus.BAD_REQUEST, said
            assert NO_JOBS in server.processes[0].log.read_text()


class TestUpgrade:
    def test_the_plain_uri(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        # MLflow's methods have no types.
        store: Any = TrackingStore(f"asyncstore+{uri}", str(tmp_path))
        experiment_id = store.create_experiment("kept")
        done = CliRunner().invoke(db.commands, ["upgrade", uri])
        assert done.exit_code == 0, done.output
        assert store.get_experiment(experiment_id).name == "kept"

    def test_the_prefix(self, tmp_path: Path) -> None:
        uri = f"asyncstore+sqlite:///{tmp_path}/mlflow.db"
        done = CliRunner().invoke(db.commands, ["upgrade", uri])
        assert isinstance(done.exception, NoSuchModuleError)
