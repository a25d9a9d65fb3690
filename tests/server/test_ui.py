"""The files of MLflow's UI, and what there is without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.http import call, request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def an_mlflow(directory: Path) -> Path:
    """A package `mlflow` that cannot be imported."""
    package = directory / "mlflow"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    return package


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncstoreServer]:
    """Beside a UI of two files."""
    directory = tmp_path_factory.mktemp("packages")
    build = an_mlflow(directory) / "server" / "js" / "build"
    (build / "static" / "js").mkdir(parents=True)
    (build / "index.html").write_text("<title>UI</title>")
    (build / "manifest.json").write_text("{}")
    (build / "static" / "js" / "main.0a1b2c.js").write_text("run()")
    (build.parent / "secret.txt").write_text("S3CR3T")
    yield from running(AsyncstoreServer(environment={"PYTHONPATH": str(directory)}))


def test_pages_and_scripts_and_how_long_browsers_keep_them(server: AsyncstoreServer) -> None:
    for path, body, kind, kept in (
        ("/", b"<title>UI</title>", "text/html", "no-cache"),
        ("/static-files/manifest.json", b"{}", "application/json", "public, max-age=3600"),
        (
            "/static-files/static/js/main.0a1b2c.js",
            b"run()",
            "text/javascript",
            "public, max-age=31536000, immutable",
        ),
    ):
        answer = request(server.port, "GET", path)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers.get_content_type() == kind
        assert answer.headers["Cache-Control"] == kept
        head = request(server.port, "HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(body))
        known = {"If-None-Match": answer.headers["ETag"]}
        again = request(server.port, "GET", path, headers=known)
        assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "missing.js",
        "static",
        "../secret.txt",
        "..%2fsecret.txt",
        "static/../../secret.txt",
        "%2fetc/passwd",
        "%00",
        "x" * 5000,
    ],
)
def test_nothing_else_is_a_file_of_the_ui(server: AsyncstoreServer, path: str) -> None:
    answer = request(server.port, "GET", f"/static-files/{path}")
    assert answer.status == 404
    assert answer.json["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_the_ui_sends_no_statistics(server: AsyncstoreServer) -> None:
    url = "/ajax-api/3.0/mlflow/ui-telemetry"
    assert call(server.port, "GET", url).json["disable_ui_telemetry"] is True
    assert call(server.port, "POST", url, {"records": [{}]}).json == {"status": "disabled"}


def test_without_a_ui_a_page_says_what_to_install(tmp_path: Path) -> None:
    an_mlflow(tmp_path)
    for server in running(AsyncstoreServer(environment={"PYTHONPATH": str(tmp_path)})):
        answer = request(server.port, "GET", "/")
        assert answer.status == 200
        assert b"pip install mlflow" in answer.body
        assert answer.headers["Cache-Control"] == "no-store"
        assert request(server.port, "GET", "/static-files/manifest.json").status == 404
