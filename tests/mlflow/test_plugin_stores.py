"""MLflow's stores on asyncstore: which methods are whose, what is refused, what falls back."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as MlflowRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as MlflowTracking

from asyncstore.errors import InvalidStateError
from asyncstore.metadata import MetadataStore
from asyncstore.mlflow_plugin import delegation
from asyncstore.mlflow_plugin.entry_points import model_registry_store, tracking_store
from asyncstore.mlflow_plugin.model_registry_store import ModelRegistryStore
from asyncstore.mlflow_plugin.portal import get_portal
from asyncstore.mlflow_plugin.tracking_store import TrackingStore

PAGE = (Path(__file__).parents[2] / "docs" / "mlflow.md").read_text(encoding="utf-8")
MLFLOW_2 = mlflow.__version__.startswith("2.")


@pytest.fixture
def store(shared_uri: str, tmp_path: Path) -> TrackingStore:
    found: TrackingStore = tracking_store(f"asyncstore+{shared_uri}", str(tmp_path / "artifacts"))
    return found


@pytest.fixture
def run_id(store: TrackingStore) -> str:
    run = store.create_run("0", "me", 1, [RunTag("a", "b")], "a run")
    found: str = run.info.run_id
    return found


def test_the_sample_of_the_page_runs(tmp_path: Path) -> None:
    sample = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", sample],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.split()[-1]) / "note.txt").read_text() == "a note"
    assert (tmp_path / "mlartifacts").is_dir()


def _listed(begin: str, end: str) -> set[str]:
    section = PAGE[PAGE.index(begin) : PAGE.index(end)]
    return {name for name in re.findall(r"`(\w+)`", section) if name.islower()}


def test_the_page_says_which_methods_are_whose() -> None:
    tracking = _listed("On asyncstore, tracking:", "and what `mlflow gc` calls")
    registry = _listed("On asyncstore, model registry:", "MLflow's, though")
    mlflows = _listed("MLflow's, though", "A call with an argument")
    for kind, base, listed in (
        (TrackingStore, MlflowTracking, tracking),
        (ModelRegistryStore, MlflowRegistry, registry),
    ):
        on_asyncstore = {name for name in kind.on_asyncstore if not name.startswith("_")}
        on_asyncstore |= {"copy_model_version"} & vars(kind).keys()
        existing = {name for name in listed if hasattr(base, name)}
        if MLFLOW_2:
            assert on_asyncstore <= existing
        else:
            assert on_asyncstore == existing
        # Whatever asyncstore has is on one of the lists.
        for name, _ in inspect.getmembers(MetadataStore, inspect.isfunction):
            if hasattr(base, name) and name not in on_asyncstore and not MLFLOW_2:
                assert name in mlflows, name


def test_the_methods_do_not_reach_mlflows(
    store: TrackingStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("MLflow's own")

    # What the session of MLflow's half would do.
    monkeypatch.setattr(store, "ManagedSessionMaker", fail)
    store.log_metric(run_id, Metric("m", 1.5, 2, 3))
    store.log_batch(run_id, metrics=[], params=[Param("p", "v")], tags=[RunTag("t", "u")])
    store.set_tag(run_id, RunTag("one", "two"))
    run = store.get_run(run_id)
    assert run.data.metrics == {"m": 1.5}
    assert run.data.params == {"p": "v"}
    assert run.data.tags.items() >= {"a": "b", "t": "u", "one": "two"}.items()
    assert [each.info.run_id for each in store.search_runs(["0"], "metrics.m > 1", 1)] == [run_id]
    assert [each.value for each in store.get_metric_history(run_id, "m")] == [1.5]


def test_both_halves_see_each_others(store: TrackingStore, shared_uri: str, run_id: str) -> None:
    alone = MlflowTracking(shared_uri, "/nowhere")
    alone.log_metric(run_id, Metric("theirs", 1, 1, 1))
    store.log_metric(run_id, Metric("ours", 2, 1, 1))
    for each in (store, alone):
        assert each.get_run(run_id).data.metrics == {"theirs": 1, "ours": 2}


def test_experiments_get_locations_as_mlflows_do(tmp_path: Path) -> None:
    for folder, make in (("ours", tracking_store), ("theirs", None)):
        uri, root = f"sqlite:///{tmp_path}/{folder}.db", str(tmp_path / folder)
        opened = make(f"asyncstore+{uri}", root) if make else MlflowTracking(uri, root)
        made = opened.create_experiment("e")
        locations = [opened.get_experiment(each).artifact_location for each in ("0", made)]
        assert locations == [f"{root}/0", f"{root}/1"]


def test_errors_have_mlflows_codes(store: TrackingStore) -> None:
    with pytest.raises(MlflowException, match="does not exist") as missing:
        store.get_run("f" * 32)
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(TypeError):
        store.get_run()


@pytest.mark.skipif(MLFLOW_2, reason="MLflow 2 has no such argument")
def test_an_argument_that_asyncstore_lacks_is_mlflows(
    store: TrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = delegation.OnAsyncStore.run_on_asyncstore

    def spy(self: Any, name: str, arguments: Any) -> Any:
        asked.append(name)
        return original(self, name, arguments)

    monkeypatch.setattr(delegation.OnAsyncStore, "run_on_asyncstore", spy)
    assert store.search_traces(["0"])[0] == []
    assert asked == ["search_traces"]
    assert store.search_traces(["0"], model_id="m-1")[0] == []
    assert asked == ["search_traces"]


@pytest.mark.skipif(MLFLOW_2, reason="MLflow 2 has no deployment jobs")
def test_deployment_jobs_are_ignored_as_mlflow_does(shared_uri: str) -> None:
    registry = model_registry_store(f"asyncstore+{shared_uri}")
    assert registry.create_registered_model("tree", deployment_job_id="1").name == "tree"
    assert (
        registry.update_registered_model("tree", "text", deployment_job_id="1").description
        == "text"
    )


@pytest.mark.parametrize("path", ["", "/", "/:memory:"])
@pytest.mark.parametrize("make", [tracking_store, model_registry_store])
def test_a_database_in_memory_is_refused(path: str, make: Any) -> None:
    with pytest.raises(MlflowException, match="name a file"):
        make(f"asyncstore+sqlite://{path}")


def test_workspaces_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    with pytest.raises(MlflowException, match="knows no workspaces"):
        tracking_store(f"asyncstore+sqlite:///{tmp_path}/m.db")
    assert not list(tmp_path.iterdir())


def test_mlflows_own_client_finds_the_stores(shared_uri: str, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(f"asyncstore+{shared_uri}", f"asyncstore+{shared_uri}")
    experiment = client.create_experiment("e", str(tmp_path))
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "m", 1)
    client.create_registered_model("model", {"a": "b"})
    version = client.create_model_version("model", "s3://bucket/model", run.info.run_id)
    client.set_registered_model_alias("model", "best", version.version)
    client.copy_model_version("models:/model@best", "copy")
    assert [each.name for each in client.search_registered_models()] == ["copy", "model"]
    assert client.get_model_version_by_alias("model", "best").run_id == run.info.run_id
    assert [each.data.metrics for each in client.search_runs([experiment])] == [{"m": 1}]


def test_what_cannot_be_queued_any_more_has_an_error(
    store: TrackingStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric("m", 1, 1, 1)
    portal = get_portal()
    start = portal.start

    def closing(function: Any) -> Any:
        # Another thread comes in between, and does not start what has been started.
        monkeypatch.setattr(portal, "start", start)
        others.append(store.log_metric_async(run_id, metric))
        raise InvalidStateError("asyncstore is closed")

    others: list[Any] = []
    monkeypatch.setattr(portal, "start", closing)
    with pytest.raises(MlflowException, match="is closed"):
        store.log_metric_async(run_id, metric)
    with pytest.raises(MlflowException, match="is closed"):
        others[0].wait()
    store.log_metric_async(run_id, metric).wait()
    assert store.get_run(run_id).data.metrics == {"m": 1}
