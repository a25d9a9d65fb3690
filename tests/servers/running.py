"""Servers as fixtures."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.servers.base import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ServerT = TypeVar("ServerT", bound=Server)


def running(server: ServerT) -> Iterator[ServerT]:
    """The body of a fixture: the server, started, and stopped behind the tests."""
    require(server)
    with server:
        yield server


def require(server: Server) -> None:
    """A server that is not installed skips the test, and fails it where `CI=true`."""
    if server.available():
        return
    message = f"{server.name} is not installed: {server.install_hint}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
