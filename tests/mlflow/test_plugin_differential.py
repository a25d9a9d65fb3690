"""The same random calls of MLflow's store methods on asyncstore and on MLflow alone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
from asyncstore.mlflow_plugin.portal import get_portal
from asyncstore.mlflow_plugin.tracking_store import TrackingStore
from tests.mlflow.conftest import with_driver

if TYPE_CHECKING:
    from tests.servers.postgresql import PostgreSQL

# The same calls each time, unless asked for others: ASYNCSTORE_TEST_EXAMPLES=1000 pytest ...
EXAMPLES = int(os.environ.get("ASYNCSTORE_TEST_EXAMPLES", "0"))


def _mostly(good: list[Any], *bad: Any) -> st.SearchStrategy[Any]:
    """What works nine times of ten, or most random calls would only fail."""
    return st.one_of(*[st.sampled_from(good)] * 9, st.sampled_from([*good, *bad]))


NAMES = _mostly(["a", "B", "a b", "ü", "it's"], "x/y", "")
KEYS = _mostly(["k", "K", "a.b", "with space", "mlflow.note.content"], "/bad", "")
TEXTS = _mostly(["v", "Ünï", "1", "t" * 300], "", "t" * 6001)
NUMBERS = st.sampled_from([0.0, -1.5, 1e300, float("nan"), float("inf"), -float("inf")])
STEPS = st.integers(-2, 3)
# The last one is no run or model.
PICK = _mostly([0, 1, 2, 3, 4], 5)
EXPERIMENT = _mostly([0, 1, 2])
STAGES = _mostly(["Staging", "production", "Archived", "None"], "Nowhere")
VERSIONS = _mostly([1, 2], 3)
ALIASES = st.sampled_from(["best", "Best", "1", ""])
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
    *("deleted_time", "end_time", "create_time_ms", "last_update_time_ms"),
}
# MLflow's searches leave out the aliases of versions, asyncstore has them everywhere.
LEFT_OUT = TIMES | {"aliases"}
# In no order, in MLflow.
UNORDERED = {"_get_deleted_runs", "_get_deleted_logged_models", "get_latest_versions"}
UNORDERED_FIELDS = ("dataset_inputs", "assessments", "latest_versions")
PAGES = 5
HEX = re.compile(r"[0-9a-f]{32}")


class Side:
    """One pair of stores, and the ids that it gave."""

    def __init__(self, tracking: Any, registry: Any, folder: str) -> None:
        self.stores = {"tracking": tracking, "registry": registry}
        self.folder = folder
        self.ids = {_trace_id(n).removeprefix("tr-"): f"trace {n}" for n in range(6)}
        self.runs: list[str] = []
        self.models: list[str] = []
        self.assessments: list[str] = []
        self.outputs: set[tuple[str, str]] = set()
        self.gone: set[str] = set()

    def call(self, store: str, name: str, arguments: Callable[[Side], dict[str, Any]]) -> Any:
        try:
            result = getattr(self.stores[store], name)(**arguments(self))
        except MlflowException as error:
            if name == "set_trace_tag":
                # MLflow's BAD_REQUEST is a trace that does not exist.
                return error.error_code.replace("BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")
            return error.error_code
        if isinstance(result, entities.Run):
            self._remember(self.runs, result.info.run_id, "run")
        if isinstance(result, entities.LoggedModel):
            self._remember(self.models, result.model_id.removeprefix("m-"), "model")
        if isinstance(result, entities.Assessment):
            new = str(result.assessment_id).removeprefix("a-")
            self._remember(self.assessments, new, "assessment")
        plain = self.plain(result)
        unordered = name in UNORDERED and isinstance(plain, list)
        return sorted(plain, key=repr) if unordered else plain

    def pages(self, store: str, name: str, arguments: dict[str, Any]) -> Any:
        """The pages of a search, or its error."""
        found: list[Any] = []
        token = None
        for _ in range(PAGES):
            try:
                result = getattr(self.stores[store], name)(**arguments, page_token=token)
            except MlflowException as error:
                return error.error_code
            page, token = result if isinstance(result, tuple) else (result, result.token)
            found.append([self.plain(each) for each in page])
            if not token:
                break
        # MLflow gives a token with a last page that is full, in its searches of traces.
        return found if found[-1] or name != "search_traces" else found[:-1]

    def _remember(self, known: list[str], new: str, kind: str) -> None:
        if new not in known:
            known.append(new)
            self.ids[new] = f"{kind} {len(known)}"

    def run(self, pick: int) -> str:
        return self.runs[pick % len(self.runs)] if self.runs and pick < 5 else "f" * 32

    def model(self, pick: int) -> str:
        return "m-" + (self.models[pick % len(self.models)] if self.models and pick < 5 else "f")

    def assessment(self, pick: int) -> str:
        known = self.assessments
        return "a-" + (known[pick % len(known)] if known and pick < 5 else "f")

    def plain(self, value: Any) -> Any:
        """A value without what differs: ids as numbers in order, no times."""
        if isinstance(value, PagedList):
            return ([self.plain(each) for each in value], bool(value.token))
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if isinstance(value, entities.RunOutputs):
            # MLflow keeps links to models that were deleted for good.
            kept = [each for each in value.model_outputs if each.model_id not in self.gone]
            # A run that MLflow has just made has None there, and one that it reads no model.
            return {"model_outputs": sorted(self.plain(kept), key=repr)} if kept else None
        if isinstance(value, dict):
            plain = {key: self.plain(each) for key, each in value.items() if key not in LEFT_OUT}
            for name in UNORDERED_FIELDS:
                if isinstance(plain.get(name), list):
                    plain[name].sort(key=repr)
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


def _fill(uri: str) -> None:
    """MLflow's tables and no row, to copy: MLflow takes seconds to make them."""
    store = MlflowTracking(uri, str(Path.cwd()))
    # Its default experiment is that of another folder.
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM experiments")
    store.engine.dispose()


class OnSQLite:
    """Databases that are copies of an empty one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        _fill(f"sqlite:///{folder}/empty.db")

    def create(self) -> str:
        copy = self._folder / f"{next(self._numbers)}.db"
        shutil.copy(self._folder / "empty.db", copy)
        return f"sqlite:///{copy}"

    def drop(self, uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).unlink()


class OnPostgreSQL:
    """As `OnSQLite`."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._empty = server.create_database()
        _fill(with_driver(self._empty))

    def create(self) -> str:
        return with_driver(self._server.create_database(self._empty))

    def drop(self, uri: str) -> None:
        self._server.drop_database(uri)


class TwoStores(RuleBasedStateMachine):
    """Calls both, and compares what comes out."""

    databases: ClassVar[OnSQLite | OnPostgreSQL]

    @initialize()
    def open(self) -> None:
        ours, theirs = self.uris = self.databases.create(), self.databases.create()
        self.sides = (
            Side(
                TrackingStore(f"asyncstore+{ours}", "/ours"),
                ModelRegistryStore(f"asyncstore+{ours}"),
                "/ours",
            ),
            Side(MlflowTracking(theirs, "/theirs"), MlflowRegistry(theirs), "/theirs"),
        )
        self.clock = 0
        self.links_to_nothing = False
        for name in ("a", "B"):
            self.tracking("create_experiment", name=name)
            self.registry("create_registered_model", name=name)
            for _ in range(2):
                self.create_run(1, name, "k", "v")
                self.create_model_version(name, 0, "k", "v")
            self.create_logged_model(0, 1, "k", "v")
            self.start_trace(len(name), 1, "k", "v")

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        clients = get_portal()._clients
        for key in [key for key in clients if key[0] == self.uris[0]]:
            get_portal().call(clients.pop(key).aclose)
        for side in self.sides:
            for store in side.stores.values():
                store.engine.dispose()
        for uri in self.uris:
            self.databases.drop(uri)

    def both(self, store: str, name: str, arguments: Callable[[Side], dict[str, Any]]) -> None:
        ours, theirs = (side.call(store, name, arguments) for side in self.sides)
        assert ours == theirs, name

    def tracking(self, name: str, /, **arguments: Any) -> None:
        self.both("tracking", name, lambda _: arguments)

    def registry(self, name: str, /, **arguments: Any) -> None:
        self.both("registry", name, lambda _: arguments)

    def pages(self, store: str, name: str, /, **arguments: Any) -> None:
        ours, theirs = (side.pages(store, name, arguments) for side in self.sides)
        assert ours == theirs, name

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

    @rule(pick=EXPERIMENT, key=KEYS)
    def delete_experiment_tag(self, pick: int, key: str) -> None:
        self.tracking("delete_experiment_tag", experiment_id=str(pick), key=key)
        self.tracking("get_experiment", experiment_id=str(pick))

    @rule(pick=EXPERIMENT)
    def hard_delete_experiment(self, pick: int) -> None:
        self.tracking("_hard_delete_experiment", experiment_id=str(pick))
        self.tracking("_get_deleted_runs")

    @rule(view=VIEWS, text=st.sampled_from([None, "name LIKE 'a%'", "tags.k = 'v'", "oops"]))
    def search_experiments(self, view: int, text: str | None) -> None:
        self.pages(
            *("tracking", "search_experiments"),
            view_type=view,
            filter_string=text,
            order_by=["name"],
            max_results=2,
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
        self.pages(
            *("tracking", "search_runs"),
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

    @rule(pick=PICK)
    def hard_delete_run(self, pick: int) -> None:
        # What is not deleted, asyncstore does not delete for good.
        self.both("tracking", "delete_run", lambda side: {"run_id": side.run(pick)})
        self.tracking("_get_deleted_runs")
        self.links_to_nothing = True
        self.both("tracking", "_hard_delete_run", lambda side: {"run_id": side.run(pick)})
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

    @rule(text=st.sampled_from([None, "name = 'model'", "params.k = 'v'", "?"]))
    def search_logged_models(self, text: str | None) -> None:
        self.pages(
            *("tracking", "search_logged_models"),
            experiment_ids=["0", "1"],
            filter_string=text,
            max_results=2,
        )

    @rule(pick=PICK, key=KEYS, text=TEXTS)
    def log_logged_model_params(self, pick: int, key: str, text: str) -> None:
        params = [entities.LoggedModelParameter(key, text)]
        self.both(
            "tracking",
            "log_logged_model_params",
            lambda side: {"model_id": side.model(pick), "params": params},
        )
        self.both("tracking", "get_logged_model", lambda side: {"model_id": side.model(pick)})

    @rule(pick=PICK, picks=st.lists(PICK, max_size=2, unique=True), step=STEPS)
    def log_outputs(self, pick: int, picks: list[int], step: int) -> None:
        def arguments(side: Side) -> dict[str, Any]:
            run_id = side.run(pick)
            # MLflow fails with one that the run has, and asyncstore keeps it.
            new = {(run_id, side.model(one)) for one in picks} - side.outputs
            side.outputs |= new
            models = [entities.LoggedModelOutput(model_id, step) for _, model_id in sorted(new)]
            return {"run_id": run_id, "models": models}

        self.both("tracking", "log_outputs", arguments)
        self.both("tracking", "get_run", lambda side: {"run_id": side.run(pick)})

    @rule(pick=PICK)
    def hard_delete_logged_model(self, pick: int) -> None:
        self.both("tracking", "delete_logged_model", lambda side: {"model_id": side.model(pick)})
        self.tracking("_get_deleted_logged_models")
        self.both(
            "tracking", "_hard_delete_logged_model", lambda side: {"model_id": side.model(pick)}
        )
        for side in self.sides:
            side.gone.add(side.model(pick))
        self.both("tracking", "get_logged_model", lambda side: {"model_id": side.model(pick)})

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
        self.both(
            "tracking",
            "get_metric_history_bulk_interval_from_steps",
            lambda side: {
                "run_id": side.run((picks or [0])[0]),
                "metric_key": key,
                "steps": [start, start + 1, start],
                "max_results": most,
            },
        )
        run_ids = [side.run((picks or [0])[0]) for side in self.sides]
        ours, theirs = (
            side.pages(
                "tracking",
                "get_metric_history",
                {"run_id": run_id, "metric_key": key, "max_results": most or None},
            )
            for side, run_id in zip(self.sides, run_ids, strict=True)
        )
        assert ours == theirs, "get_metric_history"

    @rule(pick=EXPERIMENT)
    def search_datasets(self, pick: int) -> None:
        if self.links_to_nothing:
            # MLflow finds datasets of runs that were deleted for good.
            return
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
        self.pages(
            *("tracking", "search_traces"),
            experiment_ids=["0", "1"],
            filter_string=text,
            max_results=most,
            order_by=["timestamp_ms ASC"],
        )

    # MLflow fails with a trace that is named twice.
    @rule(picks=st.lists(PICK, max_size=3, unique=True), run=PICK)
    def link_traces(self, picks: list[int], run: int) -> None:
        mlflows = self.sides[1]
        known = mlflows.call("tracking", "get_run", lambda side: {"run_id": side.run(run)})
        if isinstance(known, str):
            # MLflow links to a run that does not exist too.
            return
        self.both(
            "tracking",
            "link_traces_to_run",
            lambda side: {
                "trace_ids": [_trace_id(pick) for pick in picks],
                "run_id": side.run(run),
            },
        )
        run_ids = [side.run(run) for side in self.sides]
        ours, theirs = (
            side.pages(
                "tracking",
                "search_traces",
                {
                    "experiment_ids": ["0", "1"],
                    "filter_string": f"attributes.run_id = '{run_id}'",
                    "order_by": ["timestamp_ms ASC"],
                },
            )
            for side, run_id in zip(self.sides, run_ids, strict=True)
        )
        assert ours == theirs, "search_traces of a run"

    @rule(pick=PICK, text=TEXTS, overrides=st.booleans())
    def create_assessment(self, pick: int, text: str, overrides: bool) -> None:
        def arguments(side: Side) -> dict[str, Any]:
            made = entities.Feedback(
                name="good",
                value=text[:200],
                trace_id=_trace_id(pick),
                overrides=side.assessment(pick) if overrides else None,
            )
            return {"assessment": made}

        self.both("tracking", "create_assessment", arguments)
        self.tracking("get_trace_info", trace_id=_trace_id(pick))

    @rule(pick=PICK, assessment=PICK)
    def get_assessment(self, pick: int, assessment: int) -> None:
        self.both(
            "tracking",
            "get_assessment",
            lambda side: {
                "trace_id": _trace_id(pick),
                "assessment_id": side.assessment(assessment),
            },
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

    @rule(name=NAMES, alias=ALIASES, version=VERSIONS)
    def alias(self, name: str, alias: str, version: int) -> None:
        self.registry("set_registered_model_alias", name=name, alias=alias, version=version)
        self.registry("get_model_version_by_alias", name=name, alias=alias)

    @rule(name=NAMES, version=VERSIONS, text=TEXTS)
    def update_model_version(self, name: str, version: int, text: str) -> None:
        self.registry("update_model_version", name=name, version=version, description=text)
        self.registry("get_model_version", name=name, version=version)

    @rule(name=NAMES, text=TEXTS)
    def update_registered_model(self, name: str, text: str) -> None:
        self.registry("update_registered_model", name=name, description=text)

    @rule(name=NAMES, key=KEYS, text=TEXTS)
    def tag_registered_model(self, name: str, key: str, text: str) -> None:
        tag = RegisteredModelTag(key, text)
        self.registry("set_registered_model_tag", name=name, tag=tag)
        self.registry("get_registered_model", name=name)

    @rule(name=NAMES, key=KEYS)
    def delete_registered_model_tag(self, name: str, key: str) -> None:
        self.registry("delete_registered_model_tag", name=name, key=key)
        self.registry("get_registered_model", name=name)

    @rule(name=NAMES, version=VERSIONS, key=KEYS, text=TEXTS)
    def tag_version(self, name: str, version: int, key: str, text: str) -> None:
        tag = ModelVersionTag(key, text)
        self.registry("set_model_version_tag", name=name, version=version, tag=tag)
        self.registry("get_model_version", name=name, version=version)

    @rule(name=NAMES, version=VERSIONS, key=KEYS)
    def delete_version_tag(self, name: str, version: int, key: str) -> None:
        self.registry("delete_model_version_tag", name=name, version=version, key=key)
        self.registry("get_model_version", name=name, version=version)

    @rule(name=NAMES, alias=ALIASES)
    def delete_alias(self, name: str, alias: str) -> None:
        self.registry("delete_registered_model_alias", name=name, alias=alias)
        self.registry("get_model_version_by_alias", name=name, alias=alias)

    @rule(name=NAMES, version=VERSIONS, to=NAMES)
    def copy_model_version(self, name: str, version: int, to: str) -> None:
        def arguments(side: Side) -> dict[str, Any]:
            found = side.stores["registry"].get_model_version(name, version)
            return {"src_mv": found, "dst_name": to}

        self.both("registry", "copy_model_version", arguments)
        self.registry("get_model_version_download_uri", name=to, version=version)

    @rule(name=NAMES, version=VERSIONS)
    def delete_model_version(self, name: str, version: int) -> None:
        self.registry("delete_model_version", name=name, version=version)

    @rule(name=st.sampled_from(["ü", "it's"]))
    def delete_registered_model(self, name: str) -> None:
        self.registry("delete_registered_model", name=name)

    @rule(text=st.sampled_from([None, "name LIKE 'a%'", "name ILIKE 'B'", "tags.k = 'v'", "oops"]))
    def search_registry(self, text: str | None) -> None:
        for name in ("search_registered_models", "search_model_versions"):
            self.pages("registry", name, filter_string=text, max_results=2)


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> OnSQLite | OnPostgreSQL:
    if request.param == "sqlite":
        return OnSQLite(tmp_path)
    return OnPostgreSQL(request.getfixturevalue("postgresql"))


@pytest.mark.filterwarnings("ignore")
def test_random_calls_end_alike(databases: OnSQLite | OnPostgreSQL) -> None:
    few = isinstance(databases, OnPostgreSQL)
    run = settings(
        max_examples=EXAMPLES // (10 if few else 1) or (4 if few else 25),
        derandomize=not EXAMPLES,
        database=None,
        stateful_step_count=40,
        deadline=None,
        # Making a long failure short takes longer than reading it.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    machine = type("TwoStores", (TwoStores,), {"databases": databases})
    run_state_machine_as_test(machine, settings=run)


def test_the_database_of_the_machine_is_a_file() -> None:
    with pytest.raises(MlflowException, match="name a file"):
        TrackingStore("asyncstore+sqlite:///:memory:", str(Path.cwd()))
