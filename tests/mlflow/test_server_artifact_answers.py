"""The same requests to MLflow's server and to asyncstore's, over one database and one directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import mlflow
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from packaging.version import Version

from tests.server.http import Answer, request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.mlflow_server import MlflowServer
from tests.servers.running import require

if TYPE_CHECKING:
    from collections.abc import Iterator

if Version(mlflow.__version__) < Version("3.17"):
    pytest.skip("the reference answers of MLflow 3.17", allow_module_level=True)

NAMES = ("text.txt", "MLmodel", "a b.png", "größe.csv", "page.html", "x.svg", "data.bin", "x.js")
DIRECTORIES = "/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories"


class Pair(NamedTuple):
    theirs: MlflowServer
    ours: AsyncstoreServer
    run_id: str
    model_id: str

    def ask(self, method: str, path: str) -> tuple[Answer, Answer]:
        path = path.format(run_id=self.run_id, model_id=self.model_id)
        theirs, ours = (request(each.port, method, path) for each in (self.theirs, self.ours))
        return theirs, ours


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("both")
    options = (
        *("--backend-store-uri", f"sqlite:///{directory}/mlflow.db"),
        *("--artifacts-destination", str(directory / "artifacts")),
    )
    theirs = MlflowServer(*options, environment={})
    ours = AsyncstoreServer(*options)
    require(theirs)
    require(ours)
    before = mlflow.get_tracking_uri()
    with theirs, ours:
        mlflow.set_tracking_uri(theirs.url)
        client: Any = mlflow.MlflowClient(theirs.url)
        experiment = client.create_experiment("both")
        run_id = client.create_run(experiment).info.run_id
        model = client.create_logged_model(experiment, "model")
        for name in NAMES:
            client.log_text(run_id, f"content of {name}", f"files/{name}")
        repository: Any = get_artifact_repository(model.artifact_location)
        path = directory / "MLmodel"
        path.write_text("flavors: {}")
        repository.log_artifact(str(path))
        repository.log_artifact(str(path), "deep")
        yield Pair(theirs, ours, run_id, model.model_id)
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow/artifacts/list?run_id={run_id}",
        "/ajax-api/2.0/mlflow/artifacts/list?run_uuid={run_id}&path=files",
        "/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=missing",
        "/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=files/text.txt",
        "/api/2.0/mlflow-artifacts/artifacts",
        "/api/2.0/mlflow-artifacts/artifacts?path=1/{run_id}/artifacts/files",
        "/ajax-api/2.0/mlflow-artifacts/artifacts?path=missing",
        DIRECTORIES,
        f"{DIRECTORIES}?artifact_directory_path=deep",
    ],
)
def test_listings(pair: Pair, path: str) -> None:
    theirs, ours = pair.ask("GET", path)
    assert (ours.status, ours.json) == (theirs.status, theirs.json)
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]


@pytest.mark.parametrize("name", NAMES)
def test_files(pair: Pair, name: str) -> None:
    for path in (
        "/get-artifact?run_id={run_id}&path=files/" + quote(name),
        "/api/2.0/mlflow-artifacts/artifacts/1/{run_id}/artifacts/files/" + quote(name),
    ):
        theirs, ours = pair.ask("GET", path)
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        for header in ("Content-Type", "X-Content-Type-Options", "Content-Length"):
            assert ours.headers[header] == theirs.headers[header]
        # The name of a file that is not ASCII has a different spelling for old browsers.
        if name.isascii():
            assert ours.headers["Content-Disposition"] == theirs.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/get-artifact?run_id={run_id}&path=../x"),
        ("GET", "/get-artifact?run_id={run_id}&path=%2e%2e%2fx"),
        ("GET", "/get-artifact?run_id=0123&path=x"),
        ("GET", "/get-artifact?run_id={run_id}&path=files"),
        ("GET", "/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=../x"),
        ("GET", "/api/2.0/mlflow/artifacts/list?run_id=0123"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=../x"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/%2e%2e%2fx"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/%2e%2e%2fx"),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/missing"),
        ("GET", "/ajax-api/2.0/mlflow/logged-models/m-no/artifacts/files?artifact_file_path=x"),
        ("GET", "/model-versions/get-artifact?name=no&version=1&path=x"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path=x"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}"),
        ("GET", "/api/2.0/mlflow-artifacts/presigned/x"),
    ],
)
def test_refusals(pair: Pair, method: str, path: str) -> None:
    theirs, ours = pair.ask(method, path)
    assert ours.status == theirs.status
    assert ours.json.get("error_code") == theirs.json.get("error_code")
