"""The same random calls of MLflow's store methods on asyncstore and on MLflow alone."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from mlflow import entities
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as MlflowRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as MlflowTracking

from asyncstore.mlflow_plugin.model_registry_store import ModelRegistryStore
from asyncstore.mlflow_plugin.tracking_store import TrackingStore

# The same calls each time, unless asked for others: ASYNCSTORE_TEST_EXAMPLES=1000 pytest ...
EXAMPLES = int(os.environ.get("ASYNCSTORE_TEST_EXAMPLES", "0"))


def _mostly(good: list[Any], *bad: Any) -> st.SearchStrategy[Any]:
    """What works nine times of ten, or most random calls would only fail."""
    return st.one_of(*[st.sampled_from(good)] * 9, st.sampled_from([*good, *bad]))


NAMES = _mostly(["a", "B", "a b", "ü", "it's"], "x/y", "")
KEYS = _mostly(["k", "K", "a.b", "with space", "mlflow.note.content"], "/bad", "")
TEXTS = _mostly(["v", "Ünï", "1", "a" * 300], "", "a" * 6001)
NUMBERS = st.sampled_from([0.0, -1.5, 1e300, float("nan"), float("inf"), -float("inf")])
STEPS = st.integers(-2, 3)
# The last one is no run or model.
PICK = _mostly([0, 1, 2, 3, 4], 5)
EXPERIMENT = _mostly([0, 1, 2])
STAGES = _mostly(["Staging", "production", "Archived", "None"], "Nowhere")
VERSIONS = _mostly([1, 2], 3)
VIEWS = st.sampled_from([1, 2, 3])
RUN_FILTERS = st.sampled_from(
    [
        "",
        "metrics.k > 0",
        "metrics.`with space` != 1",
        "params.k LIKE '%v%'",
        "params.K ILIKE 'V'",
        "tags.`a.b` = 'v'",
        "attributes.status = 'FINISHED'",
        "attributes.run_name LIKE 'a%'",
        "start_time >= 2",
        "params.k = 'v' AND metrics.k <= 1e300",
        "params.k = 1",
        "metrics.k = 'x'",
        "nonsense ==",
        "OR",
    ]
)
RUN_ORDERS = st.sampled_from(
    [
        [],
        ["metrics.k DESC"],
        ["params.k", "start_time"],
        ["attributes.start_time ASC"],
        ["nonsense.k"],
    ]
)
# Moments that no clock gives to both alike.
TIMES = {
    *("creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp"),
    *("deleted_time", "end_time"),
}
# MLflow's searches leave out the aliases of versions, asyncstore has them everywhere.
LEFT_OUT = TIMES | {"aliases"}
HEX = re.compile(r"[0-9a-f]{32}")


class Side:
    """One pair of stores, and the ids that it gave."""

    def __init__(self, tracking: Any, registry: Any, folder: str) -> None:
        self.stores = {"tracking": tracking, "registry": registry}
        self.folder = folder
        self.ids: dict[str, str] = {}
        self.runs: list[str] = []
        self.models: list[str] = []

    def call(self, store: str, name: str, arguments: Callable[[Side], dict[str, Any]]) -> Any:
        try:
            result = getattr(self.stores[store], name)(**arguments(self))
        except MlflowException as error:
            # MLflow's BAD_REQUEST is a tag for a trace that does not exist.
            return error.error_code.replace("BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
        if isinstance(result, entities.Run):
            self._remember(self.runs, result.info.run_id, "run")
        if isinstance(result, entities.LoggedModel):
            self._remember(self.models, result.model_id.removeprefix("m-"), "model")
        return self.plain(result)

    def _remember(self, known: list[str], new: str, kind: str) -> None:
        if new not in known:
            known.append(new)
            self.ids[new] = f"{kind} {len(known)}"

    def run(self, pick: int) -> str:
        return self.runs[pick % len(self.runs)] if self.runs and pick < 5 else "f" * 32

    def model(self, pick: int) -> str:
        return "m-" + (self.models[pick % len(self.models)] if self.models and pick < 5 else "f")

    def plain(self, value: Any) -> Any:
        """A value without what differs: ids as numbers in order, no times."""
        if isinstance(value, PagedList):
            return ([self.plain(each) for each in value], bool(value.token))
        if isinstance(value, tuple):
            # A search of traces: the page, and the token of the next one, which MLflow also gives
            # with a last page that is full.
            return self.plain(value[0])
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if isinstance(value, entities.RunOutputs) and not value.model_outputs:
            # A run that MLflow has just made has None there, and one that it reads has this.
            return None
        if isinstance(value, dict):
            plain = {key: self.plain(each) for key, each in value.items() if key not in LEFT_OUT}
            if "dataset_inputs" in plain:
                # In no order, in MLflow.
                plain["dataset_inputs"].sort(key=repr)
            return plain
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, str):
            known = HEX.sub(lambda found: self.ids.get(found[0], "?"), value)
            return known.replace(self.folder, "")
        if isinstance(value, float):
            return repr(value)
        if is_dataclass(value):
            return self.plain(vars(value))
        if hasattr(value, "__iter__"):
            return self.plain(dict(value))
        if hasattr(value, "__dict__"):
            return self.plain(vars(value))
        return value


def _trace_id(number: int) -> str:
    return f"tr-{number:032x}"


@lru_cache
def _empty_database() -> Path:
    """A file to copy: MLflow takes seconds to make one."""
    folder = Path(tempfile.mkdtemp())
    store = MlflowTracking(f"sqlite:///{folder}/empty.db", str(folder))
    # Its default experiment is that of another folder.
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM experiments")
    store.engine.dispose()
    atexit.register(shutil.rmtree, folder)
    return folder / "empty.db"


class TwoStores(RuleBasedStateMachine):
    """Calls both, and compares what comes out."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        ours, theirs = f"{self.folder.name}/ours", f"{self.folder.name}/theirs"
        for copy in (ours, theirs):
            shutil.copy(_empty_database(), f"{copy}.db")
        self.sides = (
            Side(
                TrackingStore(f"asyncstore+sqlite:///{ours}.db", ours),
                ModelRegistryStore(f"asyncstore+sqlite:///{ours}.db"),
                ours,
            ),
            Side(
                MlflowTracking(f"sqlite:///{theirs}.db", theirs),
                MlflowRegistry(f"sqlite:///{theirs}.db"),
                theirs,
            ),
        )
        self.clock = 0
        for name in ("a", "B"):
            self.tracking("create_experiment", name=name)
            self.registry("create_registered_model", name=name)
            for _ in range(2):
                self.create_run(1, name, "k", "v")
                self.create_model_version(name, 0, "k", "v")
            self.create_logged_model(0, 1, "k", "v")
            self.start_trace(len(name), 1, "k", "v")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def both(self, store: str, name: str, arguments: Callable[[Side], dict[str, Any]]) -> None:
        ours, theirs = (side.call(store, name, arguments) for side in self.sides)
        assert ours == theirs, name

    def tracking(self, name: str, /, **arguments: Any) -> None:
        self.both("tracking", name, lambda _: arguments)

    def registry(self, name: str, /, **arguments: Any) -> None:
        self.both("registry", name, lambda _: arguments)

    # Experiments

    @rule(name=NAMES, key=KEYS, text=TEXTS)
    def create_experiment(self, name: str, key: str, text: str) -> None:
        self.tracking("create_experiment", name=name, tags=[entities.ExperimentTag(key, text)])

    @rule(pick=EXPERIMENT, name=NAMES)
    def change_experiment(self, pick: int, name: str) -> None:
        self.tracking("rename_experiment", experiment_id=str(pick), new_name=name)
        self.tracking("get_experiment_by_name", experiment_name=name)

    @rule(pick=EXPERIMENT, what=st.sampled_from(["delete_experiment", "restore_experiment"]))
    def delete_experiment(self, pick: int, what: str) -> None:
        self.tracking(what, experiment_id=str(pick))
        self.tracking("get_experiment", experiment_id=str(pick))

    @rule(pick=EXPERIMENT, key=KEYS, text=TEXTS)
    def tag_experiment(self, pick: int, key: str, text: str) -> None:
        tag = entities.ExperimentTag(key, text)
        self.tracking("set_experiment_tag", experiment_id=str(pick), tag=tag)

    @rule(view=VIEWS, text=st.sampled_from([None, "name LIKE 'a%'", "tags.k = 'v'", "oops"]))
    def search_experiments(self, view: int, text: str | None) -> None:
        self.tracking(
            "search_experiments",
            view_type=view,
            filter_string=text,
            order_by=["name"],
            max_results=3,
        )

    # Runs

    @rule(pick=EXPERIMENT, name=NAMES, key=KEYS, text=TEXTS)
    def create_run(self, pick: int, name: str, key: str, text: str) -> None:
        self.clock += 1
        self.tracking(
            "create_run",
            experiment_id=str(pick),
            user_id="me",
            start_time=self.clock,
            tags=[entities.RunTag(key, text)],
            run_name=name or "a name",
        )

    @rule(
        pick=PICK,
        name=st.sampled_from(["delete_run", "restore_run", "get_run"]),
    )
    def run_by_id(self, pick: int, name: str) -> None:
        self.both("tracking", name, lambda side: {"run_id": side.run(pick)})

    @rule(pick=PICK, key=KEYS, value=NUMBERS, step=STEPS, moment=st.integers(0, 3))
    def log_metric(self, pick: int, key: str, value: float, step: int, moment: int) -> None:
        metric = entities.Metric(key, value, moment, step)
        self.both("tracking", "log_metric", lambda s: {"run_id": s.run(pick), "metric": metric})
        self.both(
            "tracking",
            "get_metric_history",
            lambda side: {"run_id": side.run(pick), "metric_key": key},
        )

    @rule(pick=PICK, key=KEYS, text=TEXTS)
    def log_param(self, pick: int, key: str, text: str) -> None:
        param = entities.Param(key, text)
        self.both("tracking", "log_param", lambda s: {"run_id": s.run(pick), "param": param})

    @rule(pick=PICK, key=KEYS, text=TEXTS)
    def set_tag(self, pick: int, key: str, text: str) -> None:
        tag = entities.RunTag(key, text)
        self.both("tracking", "set_tag", lambda side: {"run_id": side.run(pick), "tag": tag})

    @rule(pick=PICK, key=KEYS)
    def delete_tag(self, pick: int, key: str) -> None:
        self.both("tracking", "delete_tag", lambda side: {"run_id": side.run(pick), "key": key})

    @rule(pick=PICK, keys=st.lists(KEYS, max_size=3), value=NUMBERS, text=TEXTS)
    def log_batch(self, pick: int, keys: list[str], value: float, text: str) -> None:
        self.both(
            "tracking",
            "log_batch",
            lambda side: {
                "run_id": side.run(pick),
                "metrics": [entities.Metric(key, value, 1, n) for n, key in enumerate(keys)],
                "params": [entities.Param(key, text) for key in keys],
                "tags": [entities.RunTag(key, text) for key in keys],
            },
        )
        self.both("tracking", "get_run", lambda side: {"run_id": side.run(pick)})

    @rule(pick=PICK, status=st.sampled_from([1, 3, 4, 5]), name=NAMES)
    def update_run(self, pick: int, status: int, name: str) -> None:
        self.both(
            "tracking",
            "update_run_info",
            lambda side: {
                "run_id": side.run(pick),
                "run_status": status,
                "end_time": 9,
                "run_name": name or None,
            },
        )

    @rule(view=VIEWS, text=RUN_FILTERS, order=RUN_ORDERS, most=st.sampled_from([1, 2, 1000, 0]))
    def search_runs(self, view: int, text: str, order: list[str], most: int) -> None:
        self.tracking(
            "search_runs",
            experiment_ids=["0", "1", "2"],
            filter_string=text,
            run_view_type=view,
            max_results=most,
            order_by=order,
        )

    @rule(pick=PICK, name=st.sampled_from(["d", "e" * 501]), text=st.sampled_from(["x", "y"]))
    def log_inputs(self, pick: int, name: str, text: str) -> None:
        dataset = entities.Dataset(name, text, "local", "{}", None, None)
        given = [entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", text)])]
        self.both("tracking", "log_inputs", lambda s: {"run_id": s.run(pick), "datasets": given})
        self.both("tracking", "get_run", lambda side: {"run_id": side.run(pick)})

    # Logged models

    @rule(pick=PICK, experiment=EXPERIMENT, key=KEYS, text=TEXTS)
    def create_logged_model(self, pick: int, experiment: int, key: str, text: str) -> None:
        self.both(
            "tracking",
            "create_logged_model",
            lambda side: {
                "experiment_id": str(experiment),
                "name": "model",
                "source_run_id": side.run(pick),
                "tags": [entities.LoggedModelTag(key, text)],
                "params": [entities.LoggedModelParameter(key, text)],
                "model_type": "t",
            },
        )

    @rule(pick=PICK, status=st.sampled_from(list(entities.LoggedModelStatus)), key=KEYS, text=TEXTS)
    def change_logged_model(self, pick: int, status: Any, key: str, text: str) -> None:
        self.both(
            "tracking",
            "finalize_logged_model",
            lambda side: {"model_id": side.model(pick), "status": status},
        )
        tags = [entities.LoggedModelTag(key, text)]
        self.both(
            "tracking",
            "set_logged_model_tags",
            lambda side: {"model_id": side.model(pick), "tags": tags},
        )
        self.both("tracking", "get_logged_model", lambda side: {"model_id": side.model(pick)})

    @rule(text=st.sampled_from([None, "name = 'model'", "params.k = 'v'", "status = 'READY'", "?"]))
    def search_logged_models(self, text: str | None) -> None:
        self.tracking("search_logged_models", experiment_ids=["0", "1"], filter_string=text)

    @rule(pick=PICK, key=KEYS)
    def delete_logged_model(self, pick: int, key: str) -> None:
        self.both(
            "tracking",
            "delete_logged_model_tag",
            lambda side: {"model_id": side.model(pick), "key": key},
        )
        self.both("tracking", "delete_logged_model", lambda side: {"model_id": side.model(pick)})

    # Histories, datasets

    @rule(picks=st.lists(PICK, max_size=3), key=KEYS, most=st.integers(0, 4), start=STEPS)
    def histories(self, picks: list[int], key: str, most: int, start: int) -> None:
        self.both(
            "tracking",
            "get_metric_history_bulk",
            lambda side: {
                # MLflow orders by the id, which no two sides have in common.
                "run_ids": [side.run(pick) for pick in picks[:1]],
                "metric_key": key,
                "max_results": most,
            },
        )
        self.both(
            "tracking",
            "get_metric_history_bulk_interval",
            lambda side: {
                "run_ids": [side.run(pick) for pick in picks[:1]],
                "metric_key": key,
                "max_results": most + 1,
                "start_step": start,
                "end_step": start + 2,
            },
        )

    @rule(pick=EXPERIMENT)
    def search_datasets(self, pick: int) -> None:
        self.tracking("_search_datasets", experiment_ids=[str(pick)])

    # Traces

    @rule(pick=PICK, experiment=EXPERIMENT, key=KEYS, text=TEXTS)
    def start_trace(self, pick: int, experiment: int, key: str, text: str) -> None:
        info = entities.TraceInfo(
            trace_id=_trace_id(pick),
            trace_location=entities.TraceLocation.from_experiment_id(str(experiment)),
            request_time=pick,
            state=TraceState.OK,
            tags={key: text[:200]},
            trace_metadata={"user": text[:200]},
        )
        self.tracking("start_trace", trace_info=info)
        self.tracking("get_trace_info", trace_id=_trace_id(pick))

    @rule(pick=PICK, key=KEYS, text=TEXTS)
    def tag_trace(self, pick: int, key: str, text: str) -> None:
        self.tracking("set_trace_tag", trace_id=_trace_id(pick), key=key, value=text)
        self.tracking("batch_get_trace_infos", trace_ids=[_trace_id(pick), _trace_id(1)])

    @rule(pick=PICK, key=KEYS)
    def delete_trace_tag(self, pick: int, key: str) -> None:
        self.tracking("delete_trace_tag", trace_id=_trace_id(pick), key=key)

    @rule(
        text=st.sampled_from(
            [None, "tags.k = 'v'", "metadata.user != 'v'", "timestamp_ms > 1", "status = 'OK'", "?"]
        ),
        most=st.integers(1, 3),
    )
    def search_traces(self, text: str | None, most: int) -> None:
        self.tracking(
            "search_traces",
            experiment_ids=["0", "1"],
            filter_string=text,
            max_results=most,
            order_by=["timestamp_ms ASC"],
        )

    # The model registry

    @rule(name=NAMES, key=KEYS, text=TEXTS)
    def create_registered_model(self, name: str, key: str, text: str) -> None:
        tags = [RegisteredModelTag(key, text)]
        self.registry("create_registered_model", name=name, tags=tags, description=text)

    @rule(name=NAMES, pick=PICK, key=KEYS, text=TEXTS)
    def create_model_version(self, name: str, pick: int, key: str, text: str) -> None:
        self.both(
            "registry",
            "create_model_version",
            lambda side: {
                "name": name,
                "source": "s3://bucket/path",
                "run_id": side.run(pick),
                "tags": [ModelVersionTag(key, text)],
            },
        )

    @rule(name=NAMES, new=NAMES)
    def rename_registered_model(self, name: str, new: str) -> None:
        self.registry("rename_registered_model", name=name, new_name=new)
        self.registry("get_registered_model", name=new)

    @rule(name=NAMES, version=VERSIONS, stage=STAGES, archive=st.booleans())
    def transition(self, name: str, version: int, stage: str, archive: bool) -> None:
        self.registry(
            "transition_model_version_stage",
            name=name,
            version=version,
            stage=stage,
            archive_existing_versions=archive,
        )
        self.registry("get_latest_versions", name=name)

    @rule(name=NAMES, alias=st.sampled_from(["best", "Best", "1", ""]), version=VERSIONS)
    def alias(self, name: str, alias: str, version: int) -> None:
        self.registry("set_registered_model_alias", name=name, alias=alias, version=version)
        self.registry("get_model_version_by_alias", name=name, alias=alias)

    @rule(name=NAMES, version=VERSIONS, text=TEXTS)
    def update_model_version(self, name: str, version: int, text: str) -> None:
        self.registry("update_model_version", name=name, version=version, description=text)
        self.registry("get_model_version", name=name, version=version)

    @rule(name=NAMES, version=VERSIONS)
    def delete_model_version(self, name: str, version: int) -> None:
        self.registry("delete_model_version", name=name, version=version)

    @rule(name=st.sampled_from(["ü", "it's"]))
    def delete_registered_model(self, name: str) -> None:
        self.registry("delete_registered_model", name=name)

    @rule(text=st.sampled_from([None, "name LIKE 'a%'", "name ILIKE 'B'", "tags.k = 'v'", "oops"]))
    def search_registry(self, text: str | None) -> None:
        self.registry("search_registered_models", filter_string=text, max_results=2)
        self.registry("search_model_versions", filter_string=text, max_results=2)


@pytest.mark.filterwarnings("ignore")
def test_random_calls_end_alike() -> None:
    run = settings(
        max_examples=EXAMPLES or 25,
        derandomize=not EXAMPLES,
        database=None,
        stateful_step_count=40,
        deadline=None,
        # Making a long failure short takes longer than reading it.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(TwoStores, settings=run)


def test_the_database_of_the_machine_is_a_file() -> None:
    with pytest.raises(MlflowException, match="name a file"):
        TrackingStore("asyncstore+sqlite:///:memory:", str(Path.cwd()))
