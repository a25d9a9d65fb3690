"""MLflow's providers inside asyncstore, installed for real, and the command that lists plugins."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import asyncstore
from asyncstore import plugins
from asyncstore.errors import InvalidParameterError
from tests.artifacts.test_plugins import install
from tests.command_line import Cli

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("in_tmp_path")]

WITHOUT_MLFLOW = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed here"
)
BAD = {
    ("mlflow.run_context_provider", "broken"): "RuntimeError: this plugin is from another age",
    ("mlflow.run_context_provider", "quitter"): "SystemExit: 3",
    ("mlflow.request_auth_provider", "broken"): "RuntimeError: this plugin is from another age",
    ("mlflow.request_header_provider", "broken"): "RuntimeError: this plugin is from another age",
    (
        "asyncstore.backends",
        "nowhere",
    ): "ModuleNotFoundError: No module named 'asyncstore_test_nowhere'",
}
# What each of the broken run context providers does.
TROUBLE = {
    "broken": "cannot be loaded: RuntimeError: this plugin is from another age",
    "quitter": "cannot be loaded: SystemExit: 3",
    "sad": "gives no tags: ValueError: the provider is sad",
    "wrong": "gives no tags: AttributeError: 'Wrong' object has no attribute 'in_context'",
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["workshop", "crate"], tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["broken"], tmp_path_factory.mktemp("broken"))


@pytest.fixture
def installed(honest: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(honest)
    plugins._providers.cache_clear()
    yield
    plugins._providers.cache_clear()
    for name in [name for name in sys.modules if name.startswith("asyncstore_test_")]:
        del sys.modules[name]


@pytest.fixture
def with_broken(installed: None, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(broken)


class TestStartRun:
    async def test_providers_feed_tags(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        async with (
            asyncstore.Client() as client,
            client.start_run(tags={"note": "mine"}, run_name="named") as run,
        ):
            tags = (await client.get_run(run.run_id)).data.tags
        assert tags["porch.seats"] == "4"
        assert tags["asyncstore.slurm.job_id"] == "17"
        # As in MLflow: a provider's above those that MLflow sets, the person's above all.
        assert tags["mlflow.source.name"] == "the porch"
        assert tags["note"] == "mine"
        assert tags["mlflow.runName"] == "named"
        assert tags["mlflow.source.type"] == "LOCAL"

    async def test_they_work_in_a_thread(self, installed: None) -> None:
        async with asyncstore.Client() as client, client.start_run():
            pass
        asked = importlib.import_module("asyncstore_test_porch").asked
        assert len(asked) == 1
        assert threading.get_ident() not in asked

    async def test_a_resumed_run_keeps_its_tags(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with asyncstore.Client() as client:
            async with client.start_run() as run:
                await run.set_tag("porch.seats", "5")
            async with client.start_run(run_id=run.run_id) as again:
                assert again.data.tags["porch.seats"] == "5"

    async def test_bad_ones_are_named_and_do_not_hurt(self, with_broken: None) -> None:
        async with asyncstore.Client() as client:
            with pytest.warns(UserWarning, match="plugin") as caught:
                async with client.start_run() as run:
                    tags = run.data.tags
            assert tags["porch.seats"] == "4"
            assert "asyncstore.host.name" in tags
            messages = [str(warning.message) for warning in caught]
            assert len(messages) == len(TROUBLE)
            for name, trouble in TROUBLE.items():
                (message,) = [text for text in messages if f"the plugin {name} = " in text]
                assert " of asyncstore-test-broken 0.1 " in message
                assert message.endswith(trouble)
            # What cannot be loaded is not tried again.
            with pytest.warns(UserWarning, match="gives no tags") as caught:
                async with client.start_run():
                    pass
            assert len(caught) == 2


class TestRequests:
    def test_headers_of_all_providers(self, installed: None) -> None:
        version = asyncstore.__version__
        assert plugins.request_headers() == {
            "User-Agent": f"asyncstore/{version} porch/2.5",
            "X-Asyncstore-Version": version,
            "X-Seats": "4",
        }

    def test_headers_beside_bad_ones(self, with_broken: None) -> None:
        with pytest.warns(UserWarning, match="plugin") as caught:
            assert plugins.request_headers()["X-Seats"] == "4"
        assert len(caught) == 2

    @pytest.mark.parametrize(
        ("name", "header"), [("porch-key", "of-the-porch"), ("asyncstore", "own")]
    )
    def test_credentials_by_the_providers_name(
        self, name: str, header: str, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "own")
        request = SimpleNamespace(headers={})
        plugins.request_auth(name)(request)
        assert request.headers == {"Authorization": f"Bearer {header}"}

    def test_credentials_beside_bad_ones(self, with_broken: None) -> None:
        with pytest.warns(UserWarning, match="plugin") as caught:
            assert callable(plugins.request_auth("porch-key"))
        assert [str(warning.message).partition(" = ")[0] for warning in caught] == [
            "the plugin broken",
            "the plugin nameless",
        ]

    def test_nobody_has_that_name(self, installed: None) -> None:
        with pytest.raises(
            InvalidParameterError, match="'porch'; there are: asyncstore, porch-key"
        ):
            plugins.request_auth("porch")


class TestCommand:
    def test_what_is_there_and_from_where(self, installed: None, cli: Cli) -> None:
        status, out, _ = cli("plugins")
        assert status == 0
        rows = [line.split("\t") for line in out.splitlines()]
        package = "asyncstore-test-workshop 2.5"
        for row in [
            ["mlflow.run_context_provider", "porch", package, "tags of runs"],
            ["mlflow.request_auth_provider", "porch", package, "credentials of requests"],
            ["mlflow.request_header_provider", "porch", package, "headers of requests"],
            ["mlflow.project_backend", "workshop", package, "mlflow run --backend workshop"],
            [
                "mlflow.model_evaluator",
                "workshop",
                package,
                "mlflow.evaluate(evaluators='workshop')",
            ],
            [
                *("mlflow.deployments", "workshop", package),
                "mlflow.deployments.get_deploy_client('workshop')",
            ],
            ["asyncstore.backends", "crate", "asyncstore-test-crate 1.0", "artifact URIs crate:"],
            [
                *("mlflow.tracking_store", "asyncstore+sqlite"),
                *(f"asyncstore {asyncstore.__version__}", "tracking URIs asyncstore+sqlite:"),
            ],
        ]:
            assert row in rows
        assert not [name for name in sys.modules if name.startswith("asyncstore_test_")]

    def test_json_and_errors(self, with_broken: None, cli: Cli) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            status, out, err = cli("plugins", "--check", "--json")
        assert status == 0
        found = {(plugin["group"], plugin["name"]): plugin for plugin in json.loads(out)}
        assert {key: found[key]["error"] for key in BAD} == BAD
        assert found["mlflow.run_context_provider", "porch"] == {
            "group": "mlflow.run_context_provider",
            "name": "porch",
            "value": "asyncstore_test_porch:RunContext",
            "package": "asyncstore-test-workshop",
            "version": "2.5",
            "serves": "tags of runs",
            "error": "",
        }
        # What a module prints is no JSON.
        assert "goodbye" in err

    def test_the_table_says_what_can_be_loaded(self, with_broken: None, cli: Cli) -> None:
        _, out, _ = cli("plugins", "--check")
        loads = {tuple(row[:2]): row[4] for row in map(_cells, out.splitlines())}
        assert loads["mlflow.request_header_provider", "porch"] == "yes"
        assert loads["mlflow.run_context_provider", "quitter"] == "SystemExit: 3"

    @WITHOUT_MLFLOW
    def test_a_plugin_that_needs_mlflow(self, installed: None, cli: Cli) -> None:
        _, out, _ = cli("plugins", "--check")
        loads = {tuple(row[:2]): row[4] for row in map(_cells, out.splitlines())}
        trouble = "ModuleNotFoundError: No module named 'mlflow'"
        assert loads["mlflow.project_backend", "workshop"] == trouble


def _cells(line: str) -> list[str]:
    return line.split("\t")


def test_nothing_is_looked_for_before_it_is_needed(honest: Path, broken: Path) -> None:
    code = "import sys, asyncstore; asyncstore.Client(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": f"{honest}:{broken}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "asyncstore_test_" not in done.stdout


@pytest.mark.parametrize("module", ["run_context", "request_auth", "request_headers"])
def test_what_mlflow_loads_while_it_is_imported_is_light(module: str) -> None:
    code = f"import sys, asyncstore.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"mlflow", "requests", "anyio", "fsspec", "sqlalchemy"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}


def test_a_provider_that_is_interrupted(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins, "_load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        plugins.run_context_tags()
    with pytest.raises(KeyboardInterrupt):
        plugins.installed(check=True)
