"""MLflow's web UI over asyncstore's stores, in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.servers.mlflow_server import MlflowServer
from tests.servers.running import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.servers.radosgw import RadosGateway

sync_api: Any = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
BROWSER = shutil.which("chromium")
# Nothing of it talks to anybody but the page's server.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# The UI loads megabytes of scripts, on a machine that is busy too.
TIMEOUT_MS = 60_000


class Site(NamedTuple):
    url: str
    experiment_id: str
    best_run_id: str


@pytest.fixture
def site(radosgw: RadosGateway, s3_bucket: str, tmp_path: Path) -> Iterator[Site]:
    """The demo's runs in SQLite and S3, and MLflow's server over them through asyncstore."""
    tracking_uri = f"asyncstore+sqlite:///{tmp_path}/demo.db"
    root = f"asyncstore+s3://{s3_bucket}/demo"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "asyncstore.cli", "demo", "--epochs", "10", "--json"),
            *("--tracking-uri", tracking_uri, "--artifact-location", root),
        ],
        env={**os.environ, **radosgw.environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    server = MlflowServer(
        *("--backend-store-uri", tracking_uri, "--default-artifact-root", root),
        environment=radosgw.environment,
    )
    require(server)
    with server:
        yield Site(server.url, report["experiment_id"], report["best_run_id"])


@pytest.fixture
def page() -> Iterator[Page]:
    if BROWSER is None:
        message = "chromium is not installed: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(OPTIONS))
        found = browser.new_page(viewport={"width": 1600, "height": 1000})
        found.set_default_timeout(TIMEOUT_MS)
        sync_api.expect.set_options(timeout=TIMEOUT_MS)
        yield found
        browser.close()


def test_the_demo_in_mlflows_ui(site: Site, page: Page) -> None:
    expect = sync_api.expect
    failed: list[str] = []

    def note(response: Any) -> None:
        # Only a server with logins knows a user.
        if response.status >= 400 and not response.url.endswith("/users/current"):
            failed.append(f"{response.status} {response.url}")

    page.on("response", note)
    # No font or statistics from elsewhere.
    page.route(lambda url: not url.startswith(site.url), lambda route: route.abort())
    experiment = f"{site.url}/#/experiments/{site.experiment_id}"

    page.goto(f"{experiment}/runs")
    expect(page.get_by_role("link", name="digits", exact=True)).to_be_visible()
    # The runs of the networks are below it, folded up.
    page.get_by_role("gridcell", name="digits").get_by_role("button").click()
    expect(page.get_by_role("link", name=re.compile("^learning rate"))).to_have_count(3)

    run = f"{experiment}/runs/{site.best_run_id}"
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

    page.goto(f"{site.url}/#/models")
    expect(page.get_by_text("asyncstore-demo-digits").first).to_be_visible()
    assert failed == []
