"""Handlers and their clients: who is cancelled, and what is told of what went wrong."""

from __future__ import annotations

import http.client
import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from asyncstore.errors import UnavailableError
from asyncstore.server.decoding import Request
from asyncstore.server.endpoint import Endpoint
from asyncstore.server.routing import AnyRoute, Lookup, Route, Routes
from asyncstore.server.state import Server, ServerOptions
from tests.server.serving import served
from tests.servers.asyncstore_server import AsyncstoreServer

API = "/api/2.0/mlflow"


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the table has it")


def _app(*routes: AnyRoute) -> Lookup:
    table = Routes(routes)
    return Lookup(Endpoint(_nothing, Server(ServerOptions.of("sqlite://")), table), table, "")


def _hung_up(url: str, path: str, until: threading.Event) -> None:
    """Ask, wait until the handler says so, and go."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("POST", path, b"{}", {"Content-Type": "application/json"})
    assert until.wait(10)
    connection.close()


@pytest.mark.parametrize("searches", [True, False])
def test_a_search_ends_with_its_client_and_a_write_with_itself(searches: bool) -> None:
    began, gone, ended = threading.Event(), threading.Event(), threading.Event()
    ends: list[str] = []

    async def handler(server: Server, request: Request) -> dict[str, Any]:
        began.set()
        try:
            await anyio.to_thread.run_sync(gone.wait, 10)
            # A search is cancelled here or before.
            await anyio.sleep(10 if searches else 0.01)
            ends.append("whole")
        except BaseException as error:
            ends.append(type(error).__name__)
            raise
        finally:
            ended.set()
        return {}

    with served(_app(Route("POST", API, handler, searches=searches)), lifespan="off") as url:
        _hung_up(url, API, began)
        gone.set()
        assert ended.wait(9)
    assert ends == (["CancelledError"] if searches else ["whole"])


def test_a_bug_tells_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(server: Server, request: Request) -> dict[str, Any]:
        raise KeyError("a secret")

    app = _app(Route("GET", API, broken))
    with caplog.at_level(logging.ERROR), served(app, lifespan="off") as url:
        answer = httpx.get(url + API)
    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


def test_a_server_says_when_to_come_again() -> None:
    async def busy(server: Server, request: Request) -> dict[str, Any]:
        raise UnavailableError("the database is busy", retry_after=7)

    with served(_app(Route("GET", API, busy)), lifespan="off") as url:
        answer = httpx.get(url + API)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json() == {
        "error_code": "TEMPORARILY_UNAVAILABLE",
        "message": "the database is busy",
    }


def test_artifacts_only_has_no_database(tmp_path: Path) -> None:
    options = ("--backend-store-uri", f"sqlite:///{tmp_path}/none.db")
    only = {"_MLFLOW_SERVER_ARTIFACTS_ONLY": "true"}
    with AsyncstoreServer(*options, environment=only) as server:
        listed = httpx.get(f"{server.url}/api/2.0/mlflow-artifacts/artifacts")
        assert listed.status_code == 200, listed.text
        answer = httpx.post(f"{server.url}{API}/runs/search", json={"experiment_ids": ["0"]})
        assert answer.status_code == 404
    assert not (tmp_path / "none.db").exists()


def test_a_static_prefix_stands_before_every_path(tmp_path: Path) -> None:
    options = ("--backend-store-uri", f"sqlite:///{tmp_path}/db")
    prefix = {"MLFLOW_STATIC_PREFIX": "/lab"}
    with AsyncstoreServer(*options, environment=prefix) as server:
        path = f"{API}/experiments/get?experiment_id=0"
        assert httpx.get(f"{server.url}/lab{path}").status_code == 200
        assert httpx.get(f"{server.url}/lab{API}/none").json()["error_code"] == "ENDPOINT_NOT_FOUND"
