"""Logged models, inputs and sampled histories through MLflow and through asyncstore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow.entities as theirs_entities
import pytest
from mlflow.entities import LoggedModelParameter, LoggedModelStatus, LoggedModelTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore import entities
from asyncstore.metadata import MetadataStore
from tests.mlflow.error_codes import different_codes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

Both = tuple[MetadataStore, SqlAlchemyStore, str]


@pytest.fixture
async def both(shared_uri: str, tmp_path: Path) -> AsyncIterator[Both]:
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path))
    run_id = theirs.create_run("0", "me", 1, [], "run").info.run_id
    async with await MetadataStore.open(shared_uri) as ours:
        yield ours, theirs, run_id


def model_as_dict(model: Any) -> dict[str, Any]:
    names = (
        *("model_id", "experiment_id", "name", "artifact_location", "creation_timestamp"),
        *("last_updated_timestamp", "model_type", "source_run_id", "status_message"),
    )
    return {
        **{name: getattr(model, name) for name in names},
        "status": str(getattr(model.status, "value", model.status)),
        "tags": dict(model.tags),
        "params": dict(model.params),
        "metrics": sorted(
            (each.key, each.value, each.timestamp, each.step, each.run_id, str(each.dataset_name))
            for each in model.metrics or ()
        ),
    }


async def fill(ours: MetadataStore, theirs: SqlAlchemyStore, run_id: str) -> list[str]:
    """Models by both in turn, with metrics on two datasets; their ids."""
    ids = []
    for number in range(6):
        name, tag, param = f"Model {number}", "ab"[number % 2], str(number)
        if number % 2:
            model_id = theirs.create_logged_model(
                "0",
                name,
                run_id,
                [LoggedModelTag("kind", tag)],
                [LoggedModelParameter("n", param)],
                "agent",
            ).model_id
            theirs.finalize_logged_model(model_id, LoggedModelStatus.READY)
            theirs.log_metric(
                run_id,
                theirs_entities.Metric("acc", number / 10, 1, 1, model_id, "train", "1"),
            )
            await ours.log_metric(
                run_id, entities.Metric("acc", 1 - number / 10, 2, 2, model_id, "test", "2")
            )
        else:
            model = await ours.create_logged_model("0", name, None, {"kind": tag}, {"n": param})
            model_id = model.model_id
            theirs.set_logged_model_tags(model_id, [LoggedModelTag("more", "x")])
            if number:
                await ours.log_metric(run_id, entities.Metric("acc", number / 10, 1, 1, model_id))
        ids.append(model_id)
    return ids


SEARCHES: list[tuple[str | None, list[dict[str, str]] | None, list[dict[str, Any]] | None]] = [
    (None, None, [{"field_name": "name"}]),
    ("name LIKE 'Model%' AND tags.kind = 'a'", None, [{"field_name": "name", "ascending": False}]),
    ("name ILIKE 'model 3'", None, None),
    ("params.n IN ('1', '2')", None, [{"field_name": "model_id"}]),
    ("metrics.acc > 0.25", None, [{"field_name": "name"}]),
    ("metrics.acc > 0.25", [{"dataset_name": "train"}], [{"field_name": "name"}]),
    (None, [{"dataset_name": "test", "dataset_digest": "2"}], [{"field_name": "name"}]),
    (None, None, [{"field_name": "metrics.acc"}]),
    (None, None, [{"field_name": "metrics.acc", "ascending": False, "dataset_name": "train"}]),
    ("model_type = 'agent'", None, [{"field_name": "creation_timestamp"}]),
    ("creation_timestamp > 0 AND tags.more = 'x'", None, [{"field_name": "name"}]),
]


async def test_models_are_the_same(both: Both) -> None:
    ours, theirs, run_id = both
    for model_id in await fill(ours, theirs, run_id):
        assert model_as_dict(await ours.get_logged_model(model_id)) == model_as_dict(
            theirs.get_logged_model(model_id)
        )
    for text, datasets, order in SEARCHES:
        mine = await ours.search_logged_models(["0"], text, datasets, 50, order)
        other = theirs.search_logged_models(["0"], text, datasets, 50, order)
        assert [model_as_dict(each) for each in mine] == [model_as_dict(each) for each in other], (
            text,
            datasets,
            order,
        )


async def test_bad_calls_get_the_same_error_codes(both: Both) -> None:
    ours, theirs, run_id = both
    model_id, *_ = await fill(ours, theirs, run_id)
    calls: list[tuple[Any, Any]] = [
        (lambda: ours.get_logged_model("m-x"), lambda: theirs.get_logged_model("m-x")),
        (lambda: ours.delete_logged_model("m-x"), lambda: theirs.delete_logged_model("m-x")),
        (
            lambda: ours.create_logged_model("0", "a/b"),
            lambda: theirs.create_logged_model("0", "a/b"),
        ),
        (lambda: ours.create_logged_model("99"), lambda: theirs.create_logged_model("99")),
        (
            lambda: ours.delete_logged_model_tag(model_id, "x"),
            lambda: theirs.delete_logged_model_tag(model_id, "x"),
        ),
        (
            lambda: ours.log_logged_model_params(model_id, {"n": "9"}),
            lambda: theirs.log_logged_model_params(model_id, [LoggedModelParameter("n", "9")]),
        ),
        (
            lambda: ours.search_logged_models(["0"], "params.n > '1'"),
            lambda: theirs.search_logged_models(["0"], "params.n > '1'"),
        ),
        (
            lambda: ours.search_logged_models(["0"], order_by=[{"field_name": "params.n"}]),
            lambda: theirs.search_logged_models(["0"], order_by=[{"field_name": "params.n"}]),
        ),
        (
            lambda: ours.search_logged_models(["0"], datasets=[{}]),
            lambda: theirs.search_logged_models(["0"], datasets=[{}]),
        ),
    ]
    assert await different_codes(calls) == []


def inputs_as_list(run: Any) -> list[Any]:
    found = []
    for each in run.inputs.dataset_inputs:
        tags = each.tags
        if not isinstance(tags, dict):
            tags = {tag.key: tag.value for tag in tags}
        names = ("name", "digest", "source_type", "source", "schema", "profile")
        found.append(([getattr(each.dataset, name) for name in names], tags))
    return sorted(found, key=repr)


async def test_inputs_and_outputs_are_the_same(both: Both) -> None:
    ours, theirs, run_id = both
    first, second, *_ = await fill(ours, theirs, run_id)
    dataset = theirs_entities.Dataset("d", "1", "local", "{}", "s", "p")
    tag = theirs_entities.InputTag("mlflow.data.context", "training")
    theirs.log_inputs(run_id, [theirs_entities.DatasetInput(dataset, [tag])])
    same = entities.Dataset("d", "1", "other", "other")
    other = entities.Dataset("e", "2", "local", "{}")
    await ours.log_inputs(
        run_id,
        [entities.DatasetInput(same), entities.DatasetInput(other, {"a": "b"})],
        [entities.LoggedModelInput(first)],
    )
    await ours.log_outputs(run_id, [entities.LoggedModelOutput(second, 3)])
    mine, found = await ours.get_run(run_id), theirs.get_run(run_id)
    assert inputs_as_list(mine) == inputs_as_list(found)
    assert [each.model_id for each in mine.inputs.model_inputs] == [
        each.model_id for each in found.inputs.model_inputs
    ]
    assert [(each.model_id, each.step) for each in mine.outputs.model_outputs] == [
        (each.model_id, each.step) for each in found.outputs.model_outputs
    ]
    summaries = {(each.name, each.digest, each.context) for each in theirs._search_datasets(["0"])}
    assert {
        (each.name, each.digest, each.context) for each in await ours.search_datasets(["0"])
    } == summaries


async def test_sampled_histories_are_the_same(both: Both) -> None:
    ours, theirs, run_id = both
    other = theirs.create_run("0", "me", 1, [], "other").info.run_id
    await ours.log_batch(run_id, [entities.Metric("m", n / 3, n, n // 3) for n in range(200)])
    await ours.log_batch(other, [entities.Metric("m", float("nan"), 1, 0)])

    def as_list(found: list[entities.MetricWithRunId]) -> list[Any]:
        return [(each.run_id, each.step, each.timestamp, str(each.value)) for each in found]

    def of_theirs(found: Any) -> list[Any]:
        return [(each.run_id, each.step, each.timestamp, str(each.value)) for each in found]

    for count, start, end in ((5, None, None), (1, None, None), (7, 10, 40), (1000, 0, 5)):
        mine = await ours.get_metric_history_bulk_interval([run_id, other], "m", count, start, end)
        found = theirs.get_metric_history_bulk_interval([run_id, other], "m", count, start, end)
        assert as_list(mine) == of_theirs(found), count
    bulk = await ours.get_metric_history_bulk([run_id, other], "m", 50)
    assert as_list(bulk) == of_theirs(theirs.get_metric_history_bulk([run_id, other], "m", 50))
    steps = await ours.get_metric_history_bulk_interval_from_steps(run_id, "m", [3, 9], 4)
    assert as_list(steps) == of_theirs(
        theirs.get_metric_history_bulk_interval_from_steps(run_id, "m", [3, 9], 4)
    )
