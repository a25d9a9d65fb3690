"""MLflow finds asyncstore's providers and its app, and uses them as its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags
from mlflow.tracking.request_header.registry import resolve_request_headers
from mlflow.utils.rest_utils import MlflowHostCreds, http_request

import asyncstore
from asyncstore import request_auth, run_context
from asyncstore.run_context import RunContext
from tests.servers.base import HOST, Process, free_port

pytestmark = pytest.mark.anyio

VERSION_3 = int(mlflow.__version__.partition(".")[0]) >= 3


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    request_auth._forget()
    run_context._git_tags.cache_clear()
    yield
    run_context._git_tags.cache_clear()


class TestRunContext:
    @pytest.fixture
    def script(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A script in a repository, which runs."""
        (tmp_path / "src").mkdir()
        path = tmp_path / "src" / "train.py"
        path.touch()
        (tmp_path / "src" / "env").mkdir()
        (tmp_path / "src" / "env" / "tool.py").touch()
        (tmp_path / ".gitignore").write_text("env/\n")
        for words in (
            ("init", "--quiet", "--initial-branch", "team/main"),
            ("remote", "add", "origin", "https://example.com/team/it.git"),
            ("add", "."),
            ("commit", "--quiet", "-m", "first"),
        ):
            identity = ("-c", "user.name=n", "-c", "user.email=e@example.com")
            subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
        monkeypatch.setattr(sys, "argv", [str(path)])
        return path

    def test_it_says_the_same_of_git_as_mlflow(
        self, script: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs = GitRunContext().tags()
        ours = _git(RunContext().tags())
        assert set(ours) == {f"mlflow.source.git.{key}" for key in ("commit", "branch", "repoURL")}
        # Earlier ones have the commit alone.
        assert "mlflow.source.git.commit" in theirs
        assert theirs.items() <= ours.items()
        for argument in (script.parent / "env" / "tool.py", "", "-c", script.parent, "no/such.py"):
            monkeypatch.setattr(sys, "argv", [str(argument)])
            run_context._git_tags.cache_clear()
            provider = GitRunContext()
            ours = _git(RunContext().tags())
            assert bool(ours) is provider.in_context(), argument
            if ours:
                assert provider.tags().items() <= ours.items(), argument

    def test_mlflow_tags_its_runs(
        self, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        tags = resolve_tags({"asyncstore.host.name": "mine"})
        assert tags["asyncstore.slurm.job_id"] == "17"
        assert tags["asyncstore.host.name"] == "mine"
        monkeypatch.setenv("ASYNCSTORE_RUN_CONTEXT", "false")
        assert not [key for key in resolve_tags() if key.startswith("asyncstore.")]

    async def test_both_start_a_run_with_the_same_tags(self, script: Path, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path}/shared.db"
        theirs = MlflowClient(uri)
        run_id = theirs.create_run("0", tags=resolve_tags(), run_name="r").info.run_id
        async with asyncstore.Client(uri) as client:
            async with client.start_run(run_name="r") as run:
                pass
            assert (await client.get_run(run.run_id)).data.tags == theirs.get_run(run_id).data.tags


def _git(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key.startswith("mlflow.source.git.")}


class Listening(BaseHTTPRequestHandler):
    headers_seen: list[Any]

    def do_GET(self) -> None:
        type(self).headers_seen.append(self.headers)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Listening, "headers_seen", [], raising=False)
    with ThreadingHTTPServer((HOST, 0), Listening) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://{HOST}:{running.server_port}"
        running.shutdown()
        thread.join()


class TestRequests:
    def test_mlflow_sends_the_credentials_of_a_file_that_rotates(
        self, listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCSTORE_AUTH_FILE", str(tmp_path / "token"))
        creds = MlflowHostCreds(listening, auth="asyncstore")
        for content in ("first", "second", "me:third"):
            (tmp_path / "token").write_text(content)
            assert http_request(creds, "/x", "GET").status_code == 200
        sent = [headers["Authorization"] for headers in Listening.headers_seen]
        assert sent == ["Bearer first", "Bearer second", "Basic bWU6dGhpcmQ="]

    def test_the_providers_go_before_what_mlflow_would_send(
        self, listening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCSTORE_AUTH_FILE", str(tmp_path / "token"))
        (tmp_path / "token").write_text("of-the-file")
        creds = MlflowHostCreds(listening, token="of-mlflow", auth="asyncstore")
        http_request(creds, "/x", "GET")
        assert Listening.headers_seen[0]["Authorization"] == "Bearer of-the-file"

    def test_no_credentials_are_an_error_that_says_what_to_do(self, listening: str) -> None:
        creds = MlflowHostCreds(listening, auth="asyncstore")
        with pytest.raises(Exception, match="set ASYNCSTORE_AUTH_FILE"):
            http_request(creds, "/x", "GET")
        assert Listening.headers_seen == []

    def test_mlflow_merges_the_headers(
        self, listening: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCSTORE_REQUEST_HEADERS", '{"X-Team": "vision"}')
        version = asyncstore.__version__
        agent = f"mlflow-python-client/{mlflow.__version__} asyncstore/{version}"
        assert resolve_request_headers()["User-Agent"] == agent
        http_request(MlflowHostCreds(listening), "/x", "GET")
        (sent,) = Listening.headers_seen
        assert sent["X-Team"] == "vision"
        assert sent["X-Asyncstore-Version"] == version


IN_PROCESS = """
import json, os
from asyncstore.mlflow_plugin.app import create_app

app = create_app()
from mlflow.server import handlers
stores = [handlers._get_tracking_store(), handlers._get_model_registry_store()]
modules = [type(store).__module__ for store in stores]
print(json.dumps([type(app).__name__, modules, os.environ["_MLFLOW_SERVER_FILE_STORE"]]))
"""


class TestApp:
    @pytest.mark.parametrize(
        ("prefix", "server"),
        [("", "uvicorn"), ("", "gunicorn"), ("", "waitress"), ("", ""), ("asyncstore+", "")],
    )
    def test_asyncstore_serves_the_databases(
        self, prefix: str, server: str, tmp_path: Path
    ) -> None:
        uri = f"{prefix}sqlite:///{tmp_path}/mlflow.db"
        done = subprocess.run(
            [sys.executable, "-c", IN_PROCESS],
            env={
                **os.environ,
                "_MLFLOW_SERVER_FILE_STORE": uri,
                "_MLFLOW_SERVER_ARTIFACT_ROOT": str(tmp_path / "artifacts"),
                "_MLFLOW_SGI_NAME": server,
            },
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        asgi = VERSION_3 and server not in ("gunicorn", "waitress")
        stores = ["tracking_store", "model_registry_store"]
        assert json.loads(done.stdout.splitlines()[-1]) == [
            "FastAPI" if asgi else "Flask",
            [f"asyncstore.mlflow_plugin.{name}" for name in stores],
            # As it was given: MLflow's jobs want a database there.
            uri,
        ]

    def test_mlflow_server_with_it(self, tmp_path: Path) -> None:
        port = free_port()
        server = Process(
            [
                *(sys.executable, "-m", "mlflow", "server", "--app-name", "asyncstore"),
                *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"),
                *("--default-artifact-root", tmp_path / "artifacts"),
                *("--host", HOST, "--port", str(port), "--workers", "1"),
            ],
            tmp_path / "server.log",
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            server.wait_for_port(port, 120)
            uri = f"http://{HOST}:{port}"
            client = MlflowClient(uri)
            run_id = client.create_run("0").info.run_id
            client.log_metric(run_id, "loss", 0.5)
            client.log_param(run_id, "p", "1")
            client.log_text(run_id, "text", "a/b.txt")
            client.set_terminated(run_id)
            client.create_registered_model("model")
            data = client.get_run(run_id).data
            assert (data.metrics, data.params) == ({"loss": 0.5}, {"p": "1"})
            assert [run.info.run_id for run in client.search_runs(["0"])] == [run_id]
            assert [model.name for model in client.search_registered_models()] == ["model"]
            assert (tmp_path / "artifacts" / "0" / run_id / "artifacts/a/b.txt").is_file()
            with urllib.request.urlopen(uri, timeout=30) as page:
                assert b"<!doctype html" in page.read()[:100].lower()
        finally:
            server.stop()
