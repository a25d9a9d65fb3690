"""MLflow's web UI on asyncstore's server, in a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.mlflow.test_plugin_ui import page, sync_api
from tests.server.http import call, request
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.servers.radosgw import RadosGateway

__all__ = ["page"]

# What MLflow itself answers only with logins or on its own assistant's machine.
ABSENT = ("/users/current", "/mlflow/assistant/")


class Site(NamedTuple):
    server: AsyncstoreServer
    experiment_id: str
    best_run_id: str

    @property
    def experiment(self) -> str:
        return f"{self.server.url}/#/experiments/{self.experiment_id}"


@pytest.fixture(scope="module")
def site(radosgw: RadosGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The demo's runs in SQLite and S3, and asyncstore's server over them."""
    directory: Path = tmp_path_factory.mktemp("site")
    tracking_uri = f"sqlite:///{directory}/demo.db"
    root = f"s3://{radosgw.create_bucket()}/demo"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "asyncstore.cli", "demo", "--epochs", "10", "--json"),
            *("--tracking-uri", tracking_uri, "--artifact-location", root),
        ],
        env={**os.environ, **radosgw.environment},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    server = AsyncstoreServer(
        *("--backend-store-uri", tracking_uri, "--default-artifact-root", root),
        environment=radosgw.environment,
    )
    require(server)
    with server:
        yield Site(server, report["experiment_id"], report["best_run_id"])


@pytest.fixture
def failed(site: Site, page: Page) -> Iterator[list[str]]:
    """What the server refused to the page, and what its scripts complain of."""
    found: list[str] = []

    def note(response: Any) -> None:
        if response.status >= 400 and not any(each in response.url for each in ABSENT):
            found.append(f"{response.status} {response.url}")

    page.on("response", note)
    page.on("pageerror", lambda error: found.append(str(error)))
    # No font or statistics from elsewhere.
    page.route(lambda url: not url.startswith(site.server.url), lambda route: route.abort())
    yield found
    assert found == []


@pytest.mark.usefixtures("failed")
def test_experiments_and_a_filter_of_runs(site: Site, page: Page) -> None:
    expect = sync_api.expect
    page.goto(f"{site.server.url}/#/experiments")
    expect(page.get_by_role("link", name="asyncstore demo")).to_be_visible()
    page.goto(f"{site.experiment}/runs")
    expect(page.get_by_role("link", name="digits", exact=True)).to_be_visible()
    # The runs of the networks are below it, folded up.
    page.get_by_role("gridcell", name="digits").get_by_role("button").click()
    networks = page.get_by_role("link", name=re.compile("^learning rate"))
    expect(networks).to_have_count(3)
    search = page.get_by_placeholder(re.compile("metrics.rmse"))
    search.fill("attributes.run_name LIKE 'learning%' AND params.learning_rate = '0.003'")
    search.press("Enter")
    # The run that it is nested under stays.
    expect(networks).to_have_count(1)


@pytest.mark.usefixtures("failed")
def test_a_run_its_charts_and_its_artifacts(site: Site, page: Page) -> None:
    expect = sync_api.expect
    run = f"{site.experiment}/runs/{site.best_run_id}"
    page.goto(run)
    # From GraphQL: the run, its experiment and the model version that came from it.
    expect(page.get_by_text("Finished").first).to_be_visible()
    expect(page.get_by_text("validation_accuracy").first).to_be_visible()
    expect(page.get_by_role("link", name="asyncstore-demo-digits").first).to_be_visible()
    page.goto(f"{run}/model-metrics")
    # The line that the chart library has drawn of the epochs' losses.
    expect(page.locator(".js-plotly-plot .scatterlayer path.js-line").first).to_be_attached()
    expect(page.get_by_text("validation_loss").first).to_be_visible()
    page.goto(f"{run}/artifacts")
    picture = page.get_by_text("confusion_matrix.png").first
    expect(picture).to_be_visible()
    picture.click()
    # Fetched from S3 through the server, decoded and shown.
    image = page.locator("img[src^='blob:']").first
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 600


@pytest.mark.usefixtures("failed")
def test_a_registered_model(site: Site, page: Page) -> None:
    expect = sync_api.expect
    page.goto(f"{site.server.url}/#/models")
    expect(page.get_by_text("asyncstore-demo-digits").first).to_be_visible()
    page.goto(f"{site.server.url}/#/models/asyncstore-demo-digits")
    expect(page.get_by_role("link", name="Version 1").first).to_be_visible()
    expect(page.get_by_text("best").first).to_be_visible()


def test_html_does_not_run_as_a_page_of_the_server(site: Site, page: Page) -> None:
    """The page is the one that a person is lured to; the script would speak for the person."""
    port = site.server.port
    script = "<script>document.title = 'run'</script>"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{script}</svg>'
    for name, content in (("page.html", script), ("picture.svg", svg)):
        path = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={site.best_run_id}&path={name}"
        assert request(port, "POST", path, content.encode()).status == 200
        url = f"/get-artifact?run_id={site.best_run_id}&path={name}"
        # A download, which ends the navigation.
        with page.expect_download(), pytest.raises(sync_api.Error, match="Download"):
            page.goto(f"{site.server.url}{url}")
        page.goto(f"{site.server.url}/health")
        page.evaluate(
            "url => new Promise(done => { const frame = document.createElement('object');"
            " frame.data = url; frame.onload = frame.onerror = done;"
            " document.body.append(frame); setTimeout(done, 2000); })",
            url,
        )
        assert page.title() != "run"


def test_a_run_that_is_not_there(site: Site) -> None:
    query = """query GetRun($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) {
        run { info { runUuid } } apiError { code } } }"""
    content = {"query": query, "variables": {"data": {"runUuid": "0" * 32}}}
    answer = call(site.server.port, "POST", "/graphql", content).json
    assert answer["errors"] is None
    assert answer["data"]["mlflowGetRun"] == {
        "run": None,
        "apiError": {"code": "RESOURCE_DOES_NOT_EXIST"},
    }
