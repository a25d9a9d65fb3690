"""The same database through MLflow and through asyncstore."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities import ExperimentTag, Param, RunStatus, RunTag, ViewType
from mlflow.entities import Metric as MlflowMetric
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore import entities
from asyncstore.errors import AsyncStoreError
from asyncstore.metadata import MetadataStore
from tests.mlflow.test_sharing import experiment_as_dict, run_as_dict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
async def both(
    shared_uri: str, tmp_path: Path
) -> AsyncIterator[tuple[MetadataStore, SqlAlchemyStore, list[str]]]:
    """Both stores on one database with runs whose values are all sorts; the ids of the runs."""
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path))
    second = theirs.create_experiment("second", tags=[ExperimentTag("kind", "Odd")])
    third = theirs.create_experiment("Third", tags=[ExperimentTag("kind", "even")])
    theirs.delete_experiment(third)
    ids = []
    values = [0.0, 1.0, math.nan, math.inf, None, -2.5]
    for number, value in enumerate(values):
        name = ["Alpha", "beta", "gamma%", "it's", "omega_x", "alpha"][number]
        run = theirs.create_run(
            "0" if number < 5 else second, f"user{number % 2}", 7 * (number // 2), [], name
        )
        ids.append(run.info.run_id)
        if value is not None:
            theirs.log_metric(run.info.run_id, MlflowMetric("m.x y", value, 1, 1))
            theirs.log_metric(run.info.run_id, MlflowMetric("n", number % 2, 1, 1))
        theirs.log_param(run.info.run_id, Param("p", name))
        if number % 2:
            theirs.set_tag(run.info.run_id, RunTag("t/x", name.upper()))
    theirs.update_run_info(ids[1], RunStatus.FINISHED, 99, None)
    theirs.delete_run(ids[3])
    async with await MetadataStore.open(shared_uri) as ours:
        yield ours, theirs, ids


SEARCHES: list[tuple[str, list[str]]] = [
    ("", []),
    ("", ["metrics.`m.x y`"]),
    ("", ["metrics.`m.x y` DESC"]),
    ("", ["metrics.n DESC", "metrics.`m.x y` ASC"]),
    ("", ["params.p"]),
    ("", ["params.p DESC"]),
    ("", ["tags.`t/x` ASC"]),
    ("", ["tags.`t/x` DESC", "start_time ASC"]),
    ("", ["end_time"]),
    ("", ["attributes.end_time DESC"]),
    ("", ["start_time ASC"]),
    ("", ["created DESC"]),
    ("", ["run_name"]),
    ("", ["status DESC"]),
    ("metrics.n = 1", []),
    ("metrics.`m.x y` > -1e10", []),
    ("metrics.`m.x y` != 0", []),
    ("metrics.`m.x y` <= 0", []),
    ("metrics.\"m.x y\" >= 0.5 AND params.p != 'beta'", []),
    ("params.p LIKE 'a%'", []),
    ("params.p ILIKE 'A%'", []),
    ("params.p LIKE '%_x'", []),
    ("params.p LIKE '%\\%'", []),
    ('params.p = "it\'s"', []),
    ("tags.`t/x` IS NULL", []),
    ("tags.`t/x` IS NOT NULL", []),
    ("tags.mlflow.runName = 'beta'", []),
    ("params.none IS NULL", []),
    ("run_name = 'beta'", []),
    ("attributes.run_name ILIKE '%A'", []),
    ("attributes.`Run name` != 'beta'", []),
    ("status = 'FINISHED'", []),
    ("status != 'FINISHED' and user_id = 'user0'", []),
    ("start_time >= 7", []),
    ("end_time < 100", []),
    ("start_time < 7.5", []),
    ("artifact_uri LIKE '%artifacts'", []),
    ("run_id = '{0}'", []),
    ("run_id IN ('{0}', '{1}')", []),
    ("run_id NOT IN ('{0}', '{1}')", []),
    ("datasets.name = 'x'", []),
]


@pytest.mark.parametrize("view_type", ["ACTIVE_ONLY", "DELETED_ONLY", "ALL"])
async def test_searches_of_runs_find_the_same(
    both: tuple[MetadataStore, SqlAlchemyStore, list[str]], view_type: Any
) -> None:
    ours, theirs, ids = both
    for template, order_by in SEARCHES:
        text = template.format(*ids) if "{" in template else template
        view = getattr(ViewType, view_type)
        expected = [
            run_as_dict(run)
            for run in theirs.search_runs(["0", "1"], text, view, order_by=order_by)
        ]
        found = await ours.search_runs(["0", "1"], text, view_type, order_by=order_by)
        assert [run_as_dict(run) for run in found] == expected, (text, order_by)


async def test_searches_of_experiments_find_the_same(
    both: tuple[MetadataStore, SqlAlchemyStore, list[str]],
) -> None:
    ours, theirs, _ = both
    for text, order_by in [
        (None, None),
        ("name LIKE 't%'", None),
        ("name ILIKE 't%'", ["name"]),
        ("attribute.name != 'Default'", ["name DESC"]),
        ("tags.kind = 'Odd'", []),
        ("tag.kind ILIKE 'o%' AND creation_time > 0", ["creation_time ASC"]),
        ("tags.kind IS NULL", ["experiment_id"]),
        ("tags.kind IS NOT NULL", ["last_update_time DESC", "experiment_id DESC"]),
        ("experiment_id = '1'", []),
        ("experiment_id != '1'", ["experiment_id DESC"]),
        ("experiment_id IN ('0', '2')", ["name ASC"]),
        ("experiment_id NOT IN ('0', '2')", []),
    ]:
        for view_type in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL"):
            view = getattr(ViewType, view_type)
            expected = theirs.search_experiments(view, 10, text, order_by)
            found = await ours.search_experiments(view_type, 10, text, order_by)
            assert [experiment_as_dict(each) for each in found] == [
                experiment_as_dict(each) for each in expected
            ], (text, order_by)


BAD_FILTERS = [
    "metrics.a",
    "metrics.a >",
    "metrics.a > 'x'",
    "metrics.a LIKE 'x'",
    "params.a = 1",
    "params.a = x",
    "params.a > 'x'",
    "params.a IN ('x')",
    "tags.a >= 'x'",
    "nothing.a = 'x'",
    "nothing = 'x'",
    "lifecycle_stage = 'active'",
    "attributes.status IN ('FINISHED')",
    "status > 'A'",
    "start_time = '1'",
    "start_time LIKE '1'",
    "run_id IN ()",
    "run_id IN (1)",
    "metrics.a IS NULL",
    "datasets.profile = 'x'",
    "metrics.a > 1 OR metrics.b > 1",
    "metrics.a > 1; metrics.b > 1",
]


async def outcome(call: Any) -> str:
    """The error code of a call of either store, or `fine`."""
    try:
        if callable(call):
            call()
        else:
            await call
    except MlflowException as error:
        return str(error.error_code)
    except AsyncStoreError as error:
        return error.error_code
    return "fine"


async def test_bad_calls_get_the_same_error_codes(
    both: tuple[MetadataStore, SqlAlchemyStore, list[str]],
) -> None:
    ours, theirs, ids = both
    active, deleted = ids[0], ids[3]
    name_cases = ["a?b", "/a", "a/../b", "a//b", ".", "", "x" * 251]
    our_metric, their_metric = entities.Metric, MlflowMetric
    calls: list[tuple[Any, Any]] = [
        (ours.search_runs(["0"], text), lambda text=text: theirs.search_runs(["0"], text, 1))
        for text in BAD_FILTERS
    ]
    calls += [
        (
            ours.search_runs(["0"], order_by=[order]),
            lambda order=order: theirs.search_runs(["0"], "", 1, order_by=[order]),
        )
        for order in ("a", "metrics.a DOWN", "datasets.name", "metrics.a b c")
    ]
    for name in name_cases:
        calls += [
            (
                ours.log_metric(active, our_metric(name, 1.0, 1)),
                lambda name=name: theirs.log_metric(active, their_metric(name, 1.0, 1, 0)),
            ),
            (
                ours.log_param(active, entities.Param(name, "v")),
                lambda name=name: theirs.log_param(active, Param(name, "v")),
            ),
            (
                ours.set_tag(active, name, "v"),
                lambda name=name: theirs.set_tag(active, RunTag(name, "v")),
            ),
            (
                ours.set_experiment_tag("0", name, "v"),
                lambda name=name: theirs.set_experiment_tag("0", ExperimentTag(name, "v")),
            ),
        ]
    for run_id in (deleted, "nothing"):
        calls += [
            (
                ours.log_metric(run_id, our_metric("m", 1.0, 1)),
                lambda run_id=run_id: theirs.log_metric(run_id, their_metric("m", 1.0, 1, 0)),
            ),
            (
                ours.log_param(run_id, entities.Param("q", "v")),
                lambda run_id=run_id: theirs.log_param(run_id, Param("q", "v")),
            ),
            (
                ours.set_tag(run_id, "k", "v"),
                lambda run_id=run_id: theirs.set_tag(run_id, RunTag("k", "v")),
            ),
            (
                ours.delete_tag(run_id, "k"),
                lambda run_id=run_id: theirs.delete_tag(run_id, "k"),
            ),
            (
                ours.log_batch(run_id, tags={"k": "v"}),
                lambda run_id=run_id: theirs.log_batch(run_id, [], [], [RunTag("k", "v")]),
            ),
            (
                ours.update_run_info(run_id, "FAILED", 1),
                lambda run_id=run_id: theirs.update_run_info(run_id, RunStatus.FAILED, 1, None),
            ),
        ]
    hundred_one = [Param(f"p{number}", "v") for number in range(101)]
    calls += [
        (ours.get_run("nothing"), lambda: theirs.get_run("nothing")),
        (ours.delete_run("nothing"), lambda: theirs.delete_run("nothing")),
        (ours.restore_run("nothing"), lambda: theirs.restore_run("nothing")),
        (ours.delete_tag(active, "nothing"), lambda: theirs.delete_tag(active, "nothing")),
        (ours.get_experiment("99"), lambda: theirs.get_experiment("99")),
        (ours.get_experiment("x"), lambda: theirs.get_experiment("x")),
        (ours.create_experiment("second"), lambda: theirs.create_experiment("second")),
        (ours.create_experiment("Third"), lambda: theirs.create_experiment("Third")),
        (ours.create_experiment(""), lambda: theirs.create_experiment("")),
        (ours.create_experiment("x" * 501), lambda: theirs.create_experiment("x" * 501)),
        (
            ours.create_experiment("long", "x" * 3000),
            lambda: theirs.create_experiment("long", "x" * 3000),
        ),
        (ours.rename_experiment("1", "Default"), lambda: theirs.rename_experiment("1", "Default")),
        (ours.rename_experiment("2", "new"), lambda: theirs.rename_experiment("2", "new")),
        (ours.rename_experiment("99", "new"), lambda: theirs.rename_experiment("99", "new")),
        (ours.delete_experiment("2"), lambda: theirs.delete_experiment("2")),
        (ours.restore_experiment("1"), lambda: theirs.restore_experiment("1")),
        (
            ours.set_experiment_tag("2", "k", "v"),
            lambda: theirs.set_experiment_tag("2", ExperimentTag("k", "v")),
        ),
        (
            ours.set_experiment_tag("0", "k", "v" * 20001),
            lambda: theirs.set_experiment_tag("0", ExperimentTag("k", "v" * 20001)),
        ),
        (ours.delete_experiment_tag("0", "k"), lambda: theirs.delete_experiment_tag("0", "k")),
        (ours.create_run("99", "me", 1), lambda: theirs.create_run("99", "me", 1, [], None)),
        (ours.create_run("2", "me", 1), lambda: theirs.create_run("2", "me", 1, [], None)),
        (
            ours.create_run("0", "me", 1, {"mlflow.runName": "a"}, "b"),
            lambda: theirs.create_run("0", "me", 1, [RunTag("mlflow.runName", "a")], "b"),
        ),
        (
            ours.log_param(active, entities.Param("p", "changed")),
            lambda: theirs.log_param(active, Param("p", "changed")),
        ),
        (
            ours.log_param(active, entities.Param("p", "Alpha")),
            lambda: theirs.log_param(active, Param("p", "Alpha")),
        ),
        (
            ours.log_batch(active, params=[entities.Param("p", "changed")]),
            lambda: theirs.log_batch(active, [], [Param("p", "changed")], []),
        ),
        (
            ours.log_batch(active, params=[entities.Param(p.key, "v") for p in hundred_one]),
            lambda: theirs.log_batch(active, [], hundred_one, []),
        ),
        (
            ours.log_batch("a/b", tags={"k": "v"}),
            lambda: theirs.log_batch("a/b", [], [], [RunTag("k", "v")]),
        ),
        (
            ours.log_metric(active, our_metric("m", True, 1)),
            lambda: theirs.log_metric(active, their_metric("m", True, 1, 0)),
        ),
        (
            ours.log_metric(active, our_metric("m", 1.0, -1)),
            lambda: theirs.log_metric(active, their_metric("m", 1.0, -1, 0)),
        ),
        (
            ours.search_runs(["0"], max_results=0),
            lambda: theirs.search_runs(["0"], "", 1, max_results=0),
        ),
        (
            ours.search_runs(["0"], max_results=50001),
            lambda: theirs.search_runs(["0"], "", 1, max_results=50001),
        ),
        (
            ours.search_runs(["0"], page_token="nonsense"),
            lambda: theirs.search_runs(["0"], "", 1, page_token="nonsense"),
        ),
        (ours.search_runs(["x"]), lambda: theirs.search_runs(["x"], "", 1)),
        (
            ours.search_experiments(max_results=0),
            lambda: theirs.search_experiments(max_results=0),
        ),
        (
            ours.search_experiments(filter_string="metrics.a > 1"),
            lambda: theirs.search_experiments(filter_string="metrics.a > 1"),
        ),
        (
            ours.search_experiments(filter_string="experiment_id = 1"),
            lambda: theirs.search_experiments(filter_string="experiment_id = 1"),
        ),
        (
            ours.search_experiments(filter_string="creation_time = 1.5"),
            lambda: theirs.search_experiments(filter_string="creation_time = 1.5"),
        ),
        (
            ours.search_experiments(filter_string="experiment_id IN ('x')"),
            lambda: theirs.search_experiments(filter_string="experiment_id IN ('x')"),
        ),
        (
            ours.search_experiments(order_by=["tags.a"]),
            lambda: theirs.search_experiments(order_by=["tags.a"]),
        ),
    ]
    different = []
    for number, (our_call, their_call) in enumerate(calls):
        name = f"{number}: {our_call.cr_code.co_name} {our_call.cr_frame.f_locals}"
        theirs_says = await outcome(their_call)
        ours_says = await outcome(our_call)
        if ours_says != theirs_says:
            different.append((name, ours_says, theirs_says))
    assert different == []
