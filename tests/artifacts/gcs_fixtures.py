"""What the tests of Google Cloud Storage share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from asyncstore.testing.fault_proxy import FaultProxy, Request
from tests.servers.gcs import GcsEmulator
from tests.servers.running import running


@pytest.fixture(scope="module")
def emulator() -> Iterator[GcsEmulator]:
    yield from running(GcsEmulator())


@pytest.fixture
def bucket(emulator: GcsEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of the emulator, to which the variable leads."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    yield emulator.create_bucket()
    emulator.wipe()


@pytest.fixture
def gcs_proxy(
    emulator: GcsEmulator, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A recording proxy in front of the emulator, to which the variable leads."""
    with FaultProxy(emulator.address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


def query(request: Request) -> dict[str, str]:
    """The parameters of a request."""
    return {name: values[0] for name, values in parse_qs(request.query).items()}


def operation(request: Request) -> str:
    """What a request does, in the API's words where it has some."""
    parameters = query(request)
    if request.path.startswith("/upload/"):
        kind = parameters.get("uploadType", "")
        if kind == "resumable" and "upload_id" in parameters:
            return "cancel" if request.method == "DELETE" else "chunk"
        return {"multipart": "insert", "media": "part", "resumable": "start"}[kind]
    if request.path.endswith("/compose"):
        return "compose"
    if request.method == "DELETE":
        return "delete"
    if request.path.endswith("/o"):
        return "list"
    return "media" if parameters.get("alt") == "media" else "look"


def of(name: str) -> Callable[[Request], bool]:
    """Matches the requests of one kind."""
    return lambda request: operation(request) == name


def only(proxy: FaultProxy, name: str) -> list[Request]:
    """The requests of one kind."""
    return [request for request in proxy.requests if operation(request) == name]


def operations(proxy: FaultProxy) -> list[str]:
    """What was requested, in order."""
    return [operation(request) for request in proxy.requests]


def object_name(request: Request) -> str:
    """The object that a request is about."""
    named = query(request).get("name")
    return named or unquote(request.path.partition("/o/")[2].removesuffix("/compose"))


def refusal(status: int, message: str, reason: str = "") -> bytes:
    """An error as the API sends it."""
    error: dict[str, Any] = {"code": status, "message": message}
    if reason:
        error["errors"] = [{"domain": "global", "reason": reason, "message": message}]
    return json.dumps({"error": error}).encode()
