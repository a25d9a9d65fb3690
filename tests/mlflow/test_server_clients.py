"""MLflow's own clients get the same from asyncstore's server as from MLflow's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from tests.mlflow.used import Printed, differences, used
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.mlflow_server import MlflowServer

VERSION_3 = int(mlflow.__version__.partition(".")[0]) >= 3
# What asyncstore's server does not do.
LEFT_OUT = "evaluation_datasets"
# What the script does on purpose, in each server's words.
OWN_WORDS = re.compile(r"param|trace|Trace|View (run|experiment)")


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    with AsyncstoreServer() as running:
        yield running


@pytest.fixture
def client(server: AsyncstoreServer) -> Iterator[MlflowClient]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.url)
    yield MlflowClient(server.url)
    mlflow.set_tracking_uri(before)


def _registry(client: Any) -> Any:
    """What sends a source as it is, where the client resolves it first."""
    return client._get_registry_client().store


def _of_mlflow(directory: Path) -> Printed:
    options = ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    options += ["--artifacts-destination", f"{directory}/artifacts"]
    with MlflowServer(*options, environment={}) as stock:
        return used(directory, stock.url, "mlflow-artifacts:/place", LEFT_OUT)


@pytest.mark.skipif(
    mlflow.__version__.startswith("3.6."),
    reason="the server of MLflow 3.6 serves no artifact whose name is not ASCII",
)
def test_a_day_over_http(
    server: AsyncstoreServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    theirs = _of_mlflow(tmp_path_factory.mktemp("theirs"))
    ours = used(tmp_path_factory.mktemp("ours"), server.url, "mlflow-artifacts:/place", LEFT_OUT)
    different = differences(ours, theirs)
    assert not different, json.dumps(different, indent=1)
    assert len({name.partition(":")[0] for name, _ in ours.results}) == 12
    assert {each for each in ours.messages - theirs.messages if not OWN_WORDS.search(each)} == set()


@pytest.mark.skipif(not VERSION_3, reason="MLflow 2 has no datasets of evaluation")
def test_what_it_does_not_do_has_mlflows_code(client: MlflowClient) -> None:
    with pytest.raises(MlflowException, match="does not do") as caught:
        mlflow.genai.datasets.create_dataset("questions")
    assert caught.value.error_code == "NOT_IMPLEMENTED"


def test_a_history_is_read_page_by_page(client: MlflowClient) -> None:
    run = client.create_run("0")
    metrics = [Metric("m", float(step), 1, step) for step in range(1000)]
    client.log_batch(run.info.run_id, metrics=metrics)
    store = client._tracking_client.store
    pages: list[list[float]] = []
    token = None
    while token or not pages:
        page = store.get_metric_history(run.info.run_id, "m", max_results=300, page_token=token)
        pages.append([each.value for each in page])
        token = page.token
    assert [len(page) for page in pages] == [300, 300, 300, 100]
    assert [value for page in pages for value in page] == [float(step) for step in range(1000)]


@pytest.mark.parametrize(
    "source",
    [
        *("/etc/passwd", "file:///etc", "file:relative", "relative", "C:\\x", "file://host/etc"),
        *("http://169.254.169.254/latest", "ftp://example.com/x", "hdfs://example.com/x"),
        *("sftp://example.com/x", "s3://elsewhere/x", "gs://elsewhere/x", "memory://x/y"),
        *("mlflow-artifacts:/other", "mlflow-artifacts://example.com/{run}/artifacts"),
        *("http://example.com/api/2.0/mlflow-artifacts/artifacts/x", "runs:/other/x"),
        *("{root}/../../x", "{root}/%2e%2e/x", "{root}/%252e%252e/x", "{root}#x", "{root};x"),
        *("{root}%00", "runs:/{run}/../../x", "runs://example.com/{run}/x", "models:/m-1"),
        *("asyncstore+file:///etc", "sqlite:////etc/x", "http://[", "models:/none/1"),
    ],
)
def test_a_source_of_a_version_is_within_its_run(client: MlflowClient, source: str) -> None:
    run = client.create_run("0")
    name = f"sources-{run.info.run_id}"
    client.create_registered_model(name)
    given = source.format(root=run.info.artifact_uri, run=run.info.run_id)
    with pytest.raises(MlflowException) as caught:
        _registry(client).create_model_version(name, given, run_id=run.info.run_id)
    assert caught.value.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    assert not client.search_model_versions(f"name = '{name}'")


def test_a_source_within_its_run_is_taken(client: MlflowClient) -> None:
    run = client.create_run("0")
    name = f"sources-{run.info.run_id}"
    client.create_registered_model(name)
    for source in (f"{run.info.artifact_uri}/model", f"runs:/{run.info.run_id}/model"):
        store = _registry(client)
        made = store.create_model_version(name, source, run_id=run.info.run_id)
        assert client.get_model_version(name, made.version).source == source
        with pytest.raises(MlflowException, match="run_id"):
            store.create_model_version(name, source)


@pytest.mark.parametrize(
    "location",
    [
        *("/etc", "file:///etc", "relative", "../x", "mlflow-artifacts:/../x", "s3://elsewhere/x"),
        *("http://example.com/x", "mlflow-artifacts://example.com/x", "runs:/1/x", "models:/x/1"),
        *("mlflow-artifacts:/x#y", "mlflow-artifacts:/x?y=../z", "asyncstore+file:///etc"),
        *("sftp://example.com/x", "http://["),
    ],
)
def test_an_artifact_location_is_below_the_servers_roots(
    client: MlflowClient, location: str
) -> None:
    with pytest.raises(MlflowException) as caught:
        client.create_experiment(f"at {location}", artifact_location=location)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert client.get_experiment_by_name(f"at {location}") is None
