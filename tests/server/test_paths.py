"""Paths and URIs as somebody sends them who wants what is not the server's to give."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.server.http import Answer, call, request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.base import HOST
from tests.servers.running import running

API, API_3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
PROXIED = "/api/2.0/mlflow-artifacts"
AJAX = "/ajax-api/2.0/mlflow"
SECRET = b"S3CR3T"
LISTED = """query($given: MlflowListArtifactsInput) {
  mlflowListArtifacts(input: $given) { files { path isDir fileSize } }
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    """`secret.txt` is beside its artifacts, and its database too."""
    for started in running(AsyncstoreServer()):
        (started.directory / "secret.txt").write_bytes(SECRET)
        yield started


class Listener:
    """An address that nobody has a reason to call."""

    def __init__(self) -> None:
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self.calls = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if connection.recv(1) == b"!":
                    return
            self.calls += 1

    def close(self) -> None:
        with socket.create_connection((HOST, self.port)) as last:
            last.sendall(b"!")
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listening = Listener()
    yield listening
    listening.close()


@pytest.fixture(scope="module")
def run_id(server: AsyncstoreServer) -> str:
    made = call(server.port, "POST", f"{API}/runs/create", {"experiment_id": "0"}).json
    found: str = made["run"]["info"]["run_id"]
    uploaded = f"{AJAX}/upload-artifact?run_id={found}&path=x.txt"
    assert request(server.port, "POST", uploaded, b"x").status == 200
    return found


@pytest.fixture(scope="module")
def model_id(server: AsyncstoreServer, run_id: str) -> str:
    content = {"experiment_id": "0", "source_run_id": run_id}
    made = call(server.port, "POST", f"{API}/logged-models", content).json
    found: str = made["model"]["info"]["model_id"]
    return found


@pytest.fixture(scope="module")
def version(server: AsyncstoreServer, run_id: str) -> str:
    """A model with a version that has artifacts."""
    call(server.port, "POST", f"{API}/registered-models/create", {"name": "model"})
    run = call(server.port, "GET", f"{API}/runs/get?run_id={run_id}").json["run"]
    content = {"name": "model", "source": run["info"]["artifact_uri"], "run_id": run_id}
    made = call(server.port, "POST", f"{API}/model-versions/create", content)
    assert made.status == 200, made
    return "1"


@pytest.fixture(scope="module")
def trace_id(server: AsyncstoreServer) -> str:
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {
        "trace_id": "tr-1",
        "trace_location": place,
        "request_time": "2026-01-01T00:00:00Z",
        "tags": {"mlflow.artifactLocation": str(server.directory)},
    }
    made = call(server.port, "POST", f"{API_3}/traces", {"trace": {"trace_info": info}})
    assert made.status == 200, made
    return "tr-1"


def tree(server: AsyncstoreServer) -> dict[str, bytes]:
    """Every file of the server but its database and its log."""
    return {
        str(path.relative_to(server.directory)): path.read_bytes()
        for path in server.directory.rglob("*")
        if path.is_file() and path.suffix != ".log" and "mlflow.db" not in path.name
    }


def spellings(target: str, ups: int) -> list[str]:
    """Ways to write the path of a file of the server's directory, from `ups` levels below."""
    plain = "../" * ups + target
    once = plain.replace(".", "%2e").replace("/", "%2f")
    twice = once.replace("%", "%25")
    return [
        plain,
        f"x/../{plain}",
        f"./{plain}",
        f"x/./../{plain}",
        once,
        twice,
        twice.replace("%", "%25"),
        plain.replace("/", "\\"),
        plain.replace("/", "%5c"),
        plain.replace("../", "..;/"),
        plain.replace("../", ".%00./"),
        plain.replace("../", "%c0%ae%c0%ae/"),
        plain.replace("../", "%e0%80%ae%e0%80%ae/"),
        plain.replace("../", "\uff0e\uff0e/"),
        f"x\0/{plain}",
        f"{plain}\0.txt",
    ]


def absolute(server: AsyncstoreServer) -> list[str]:
    secret = server.directory / "secret.txt"
    return [
        str(secret),
        f"/{secret}",
        secret.as_uri(),
        f"file:{secret}",
        f"file://localhost{secret}",
    ]


def harmless(answer: Answer) -> None:
    assert answer.status < 500 or answer.status == 501, answer
    assert SECRET not in answer.body
    assert b"SQLite format" not in answer.body
    assert b"root:" not in answer.body
    assert b'"secret.txt","is_dir":false' not in answer.body


def test_no_spelling_of_a_path_leaves_the_artifacts(
    server: AsyncstoreServer, run_id: str, model_id: str, version: str, trace_id: str
) -> None:
    port = server.port
    files = [f"/get-artifact?run_id={run_id}&path="]
    files += [f"/model-versions/get-artifact?name=model&version={version}&path="]
    files += [f"{AJAX}/logged-models/{model_id}/artifacts/files?artifact_file_path="]
    files += [f"/ajax-api/{v}/mlflow/get-trace-artifact?request_id=tr-1&path=" for v in (2.0, 3.0)]
    for prefix in ("/api", "/ajax-api"):
        proxied = PROXIED.replace("/api", prefix)
        files += [f"{proxied}/artifacts?path=", f"{proxied}/artifacts/", f"{proxied}/presigned/"]
        files += [f"{prefix}/2.0/mlflow/artifacts/list?run_id={run_id}&path="]
        directories = f"{prefix}/2.0/mlflow/logged-models/{model_id}/artifacts/directories"
        files += [f"{directories}?artifact_directory_path="]
    before = tree(server)
    hostile = [
        path
        for target in ("secret.txt", "mlflow.db", "")
        for ups in (1, 2, 3, 4, 5, 6)
        for path in spellings(target, ups)
    ]
    hostile += spellings("etc/passwd", 12) + absolute(server)
    # What is in the URL as it is, and what the server decodes once.
    sent = [quote(path, safe="/%\\;") for path in hostile]
    for path in sent:
        for url in files:
            harmless(request(port, "GET", url + path))
        upload = f"{AJAX}/upload-artifact?run_id={run_id}&path={path}"
        for answer in (
            request(port, "DELETE", f"{PROXIED}/artifacts/{path}"),
            request(port, "PUT", f"{PROXIED}/artifacts/{path}/evil.txt", b"evil"),
            request(port, "POST", f"{upload}/evil.txt", b"evil"),
        ):
            harmless(answer)
    for path in (*hostile, *sent):
        for how in ("create", "complete", "abort"):
            for place, name in ((path, "x"), ("x", path), (path, path)):
                content: dict[str, Any] = {"path": name, "num_parts": 1, "parts": []}
                url = f"{PROXIED}/mpu/{how}/{quote(place, safe='/%')}"
                harmless(call(port, "POST", url, {**content, "upload_id": path}))
        for what in ("upload", "download"):
            url = f"{API}/artifacts/presigned-{what}-url"
            harmless(call(port, "POST", url, {"run_id": run_id, "path": path}))
        given = {"given": {"runId": run_id, "path": path}}
        harmless(call(port, "POST", "/graphql", {"query": LISTED, "variables": given}))
    after = tree(server)
    root = "mlartifacts/"
    assert {path: content for path, content in after.items() if not path.startswith(root)} == {
        path: content for path, content in before.items() if not path.startswith(root)
    }
    assert not (server.directory.parent / "evil.txt").exists()


def hostile_uris(server: AsyncstoreServer, listener: Listener) -> list[str]:
    here, port = server.directory, listener.port
    address = f"{HOST}:{port}"
    (here / "mlartifacts").mkdir(exist_ok=True)
    link = here / "mlartifacts" / "link"
    if not link.is_symlink():
        link.symlink_to(here)
    schemes = [
        *("http", "https", "ftp", "ftps", "sftp", "ssh", "hdfs", "viewfs", "webhdfs", "smb"),
        *("asyncstore+http", "asyncstore+sftp", "HTTP", "dask", "reference", "git", "dbfs"),
    ]
    return [
        *(f"{scheme}://{address}/x" for scheme in schemes),
        f"http://user:word@{address}/x",
        f"http://{address}/api/2.0/mlflow-artifacts/artifacts/x",
        f"simplecache::http://{address}/x",
        f"filecache::http://{address}/x",
        f"zip://x::http://{address}/x.zip",
        f"blockcache::file://{here}",
        f"s3://bucket/x?endpoint_url=http://{address}",
        f"s3://{address}/x",
        f"mlflow-artifacts://{address}/x",
        f"mlflow-artifacts://{HOST}/x",
        f"//{address}/x",
        f"\\\\{HOST}\\share",
        *("s3://elsewhere/x", "gs://elsewhere/x", "r2://elsewhere/x", "b2://elsewhere/x"),
        f"wasbs://c@{HOST}/x",
        f"abfss://c@account.dfs.core.windows.net@{address}/x",
        *(str(here), here.as_uri(), f"file:{here}", f"file://localhost{here}", f"FILE://{here}"),
        *(f"local://{here}", f"asyncstore+file://{here}", "/etc", "file:///etc", " /etc", "\t/etc"),
        *("memory://x", "data:,x", "C:\\x", "~", "~root", "$HOME", "."),
        *(f"{here}/mlartifacts/../x", f"{here}/mlartifacts-evil", f"{here}/mlartifacts/link"),
        f"{here}/mlartifacts/%2e%2e/x",
        *("mlflow-artifacts:/../x", "mlflow-artifacts:/%2e%2e/x", "mlflow-artifacts:/%252e%252e/x"),
        *(
            "mlflow-artifacts:/x/..%5c..%5cx",
            "mlflow-artifacts:/\\..\\x",
            "mlflow-artifacts:..%2fx",
        ),
        *("mlflow-artifacts:/x#/../..", "mlflow-artifacts:/x;../..", "mlflow-artifacts:/x%00"),
        *("runs:/x/../../y", "models:/../1", "models:/m/../1"),
    ]


def test_no_location_and_no_source_leads_elsewhere(
    server: AsyncstoreServer, listener: Listener, run_id: str, model_id: str, version: str
) -> None:
    port = server.port
    before = tree(server)
    for number, uri in enumerate(hostile_uris(server, listener)):
        content = {"name": f"location {number}", "artifact_location": uri}
        made = call(port, "POST", f"{API}/experiments/create", content)
        assert (made.status, made.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), uri
        named = f"{API}/experiments/get-by-name?experiment_name=location%20{number}"
        assert call(port, "GET", named).status == 404
        for belongs in ({}, {"run_id": run_id}, {"model_id": model_id}, {"run_id": "0" * 32}):
            content = {"name": "model", "source": uri, **belongs}
            made = call(port, "POST", f"{API}/model-versions/create", content)
            assert made.status in (400, 404), (uri, belongs, made)
            assert set(made.json) == {"error_code", "message"}
        content = {"name": "model", "source": uri}
        prompt = {"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
        made = call(port, "POST", f"{API}/model-versions/create", {**content, **prompt})
        assert made.status == 400, (uri, made)
    found = call(port, "GET", f"{API}/model-versions/search").json["model_versions"]
    assert [each["version"] for each in found] == [version]
    assert listener.calls == 0
    assert tree(server) == before


def test_the_source_of_a_dataset_is_not_opened(
    server: AsyncstoreServer, listener: Listener, run_id: str
) -> None:
    for number, uri in enumerate(hostile_uris(server, listener)):
        dataset = {"name": "d", "digest": str(number), "source_type": "http", "source": uri}
        content = {"run_id": run_id, "datasets": [{"dataset": dataset}]}
        assert call(server.port, "POST", f"{API}/runs/log-inputs", content).status == 200
    assert call(server.port, "GET", f"{API}/runs/get?run_id={run_id}").status == 200
    assert listener.calls == 0


def test_where_a_traces_artifacts_are_is_not_a_clients_to_say(
    server: AsyncstoreServer, listener: Listener, trace_id: str
) -> None:
    tag = "mlflow.artifactLocation"
    for uri in hostile_uris(server, listener):
        for version in ("2.0", "3.0"):
            url = f"/api/{version}/mlflow/traces/{trace_id}/tags"
            assert call(server.port, "PATCH", url, {"key": tag, "value": uri}).status == 400
            assert call(server.port, "DELETE", url, {"key": tag}).status == 400
    found = call(server.port, "GET", f"{API_3}/traces/{trace_id}").json["trace"]["trace_info"]
    assert found["tags"][tag] == f"mlflow-artifacts:/0/traces/{trace_id}/artifacts"
    ended = {"tags": [{"key": tag, "value": str(server.directory)}], "status": "OK"}
    info = call(server.port, "PATCH", f"{API}/traces/{trace_id}", ended).json["trace_info"]
    tags = {each["key"]: each["value"] for each in info["tags"]}
    assert tags[tag] == f"mlflow-artifacts:/0/traces/{trace_id}/artifacts"
    assert listener.calls == 0


@pytest.mark.parametrize("trace_id", ["../../x", "..", "a/b", "a\\..\\b", "/etc", "%2e%2e", "x\0"])
def test_an_id_that_is_a_path(server: AsyncstoreServer, trace_id: str) -> None:
    """It would become a part of a location."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    info = {"trace_id": trace_id, "trace_location": place, "request_time": "2026-01-01T00:00:00Z"}
    made = call(server.port, "POST", f"{API_3}/traces", {"trace": {"trace_info": info}})
    assert (made.status, made.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "/x", "a:b", ".", "..", "models:/x", "a\\..\\b\0/"]
)
def test_the_name_of_a_model_is_no_path(server: AsyncstoreServer, name: str) -> None:
    made = call(server.port, "POST", f"{API}/registered-models/create", {"name": name})
    assert (made.status, made.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    call(server.port, "POST", f"{API}/registered-models/create", {"name": "plain"})
    renamed = {"name": "plain", "new_name": name}
    made = call(server.port, "POST", f"{API}/registered-models/rename", renamed)
    assert (made.status, made.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_what_is_below_the_root_is_taken(server: AsyncstoreServer, tmp_path: Path) -> None:
    """So that what is refused above is not refused for another reason."""
    below = server.directory / "mlartifacts" / "below"
    for number, uri in enumerate((str(below), below.as_uri(), "mlflow-artifacts:/below")):
        content = {"name": f"below {number}", "artifact_location": uri}
        made = call(server.port, "POST", f"{API}/experiments/create", content)
        assert made.status == 200, made
        run = call(server.port, "POST", f"{API}/runs/create", made.json).json["run"]["info"]
        upload = f"{AJAX}/upload-artifact?run_id={run['run_id']}&path=x.txt"
        assert request(server.port, "POST", upload, b"below").status == 200
        assert (below / run["run_id"] / "artifacts" / "x.txt").read_bytes() == b"below"
