"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import asyncstore
from asyncstore import errors
from asyncstore.cli.app import cli
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_settings_page_is_the_generated_one() -> None:
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == _script("write_settings_page").page(), (
        "run: python scripts/write_settings_page.py"
    )


def test_the_api_page_has_every_exported_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: asyncstore\.(\w+)$", page, re.MULTILINE))
    assert set(asyncstore.__all__) == documented - {"entities", "errors"}


def test_the_errors_page_has_every_error_with_its_code() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| `(\w+)` \|", page, re.MULTILINE))
    expected = {
        name: getattr(errors, name).default_error_code
        for name in errors.__all__
        if name != "AsyncStoreError"
    }
    assert rows == expected


@pytest.mark.parametrize("group", [name for name, c in cli.commands.items() if c.name != "demo"])
def test_the_command_line_page_has_every_command(group: str) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    commands = cli.commands[group]
    names = commands.commands if isinstance(commands, click.Group) else ("",)
    for name in names:
        assert f"asyncstore {group} {name}" in page


def _run_first_sample(page: str, folder: Path, **variables: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    samples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", samples[0]],
        cwd=folder,
        env={**environment, "TMPDIR": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_sample_of_a_page_logs_and_downloads(page: str, tmp_path: Path) -> None:
    printed = _run_first_sample(page, tmp_path)
    assert (tmp_path / "mlflow.db").is_file()
    assert Path(printed.split()[-1]).is_dir()


def test_the_first_sample_of_the_metadata_page_finds_its_model(tmp_path: Path) -> None:
    assert _run_first_sample("docs/metadata.md", tmp_path) == "s3://bucket/tree\n"
    assert (tmp_path / "mlflow.db").is_file()


def test_the_first_sample_of_the_page_about_http_logs_and_downloads(tmp_path: Path) -> None:
    for server in running(AsyncstoreServer()):
        printed = _run_first_sample("docs/client.md", tmp_path, MLFLOW_TRACKING_URI=server.url)
        assert Path(printed.strip()).read_text() == "notes"
        assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
