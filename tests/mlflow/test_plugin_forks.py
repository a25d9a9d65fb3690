"""Forks of a process that has used both halves of both stores: each has its own connections."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from tests.servers.base import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHDOG = 120
BEGIN = """
    import os, sys
    import mlflow
    from mlflow import MlflowClient
    from mlflow.tracking._model_registry.utils import _get_store as registry_store

    uri = os.environ["STORE"]
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient()

    def mlflows_half():
        '''Statements of MLflow's own engines, tracking and registry.'''
        for _ in range(30):
            assert list(registry_store().list_webhooks()) == []
            assert client.get_trace(trace).info.trace_id == trace

    def asyncstores_half():
        for _ in range(10):
            assert [each.name for each in client.search_registered_models()] == ["model"]

    def prepare():
        global trace
        client.create_registered_model("model")
        with mlflow.start_span("span") as span:
            trace = span.trace_id
        mlflow.flush_trace_async_logging()
        mlflows_half()
        asyncstores_half()
"""
FORKS = """
    prepare()
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                mlflows_half()
                asyncstores_half()
                with mlflow.start_run():
                    mlflow.log_metric("m", 1)
                    mlflow.log_metric("n", 1, synchronous=False)
                    mlflow.flush_async_logging()
            except BaseException as error:
                print(type(error).__name__, str(error)[:500], file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(child)
    mlflows_half()
    asyncstores_half()
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [0] * 4, ended
    mlflows_half()
    assert [sorted(run.data.metrics) for run in client.search_runs(["0"])] == [["m", "n"]] * 4
"""
APP = """
    prepare()

    def app(environ, start_response):
        mlflows_half()
        asyncstores_half()
        with mlflow.start_run():
            mlflow.log_metric("m", 1)
            mlflow.log_metric("n", 1, synchronous=False)
            mlflow.log_text("text", "text.txt")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""

pytestmark = pytest.mark.skipif(
    mlflow.__version__.startswith("2."), reason="MLflow 2 has no webhooks"
)


@pytest.fixture
def variables(
    postgresql_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    # Where a store without a root makes its own.
    monkeypatch.chdir(tmp_path)
    # MLflow makes the database, as its half does in any case.
    return {
        **os.environ,
        "STORE": f"asyncstore+{postgresql_uri}",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    }


def test_mlflows_half_has_connections_of_its_own(variables: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGIN) + textwrap.dedent(FORKS)],
        env=variables,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def gunicorn(
    variables: dict[str, str], folder: Path
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server((HOST, 0)) as taken:
        address = f"{HOST}:{taken.getsockname()[1]}"
    (folder / "forked.py").write_text(textwrap.dedent(BEGIN) + textwrap.dedent(APP))
    arguments = ["--preload", "--workers", "2", "--bind", address, "forked:app"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments],
            env=variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}/", process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WATCHDOG)


def ask(url: str, server: subprocess.Popen[bytes]) -> int:
    """Which process answered; waits until the server is up."""
    until = time.monotonic() + WATCHDOG
    while True:
        try:
            with urllib.request.urlopen(url, timeout=WATCHDOG) as answer:
                return int(answer.read())
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            if server.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="pip install gunicorn")
def test_gunicorn_with_preload(variables: dict[str, str], tmp_path: Path) -> None:
    with gunicorn(variables, tmp_path) as (url, server), ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, url, server) for _ in range(16)]
        wait(asked)
    log = (tmp_path / "log").read_text()
    assert [answer.exception() for answer in asked] == [None] * 16, log
    assert len({answer.result() for answer in asked}) == 2
    found = mlflow.MlflowClient(variables["STORE"]).search_runs(["0"])
    # What was queued is there too, since each worker ended by itself.
    assert [sorted(run.data.metrics) for run in found] == [["m", "n"]] * 16
