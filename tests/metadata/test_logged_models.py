"""Models that runs log, datasets, and the history of metrics of many runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncstore.entities import (
    Dataset,
    DatasetInput,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
)
from asyncstore.errors import (
    AlreadyExistsError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
)
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio

TRAIN = Dataset("train", "1", "local", '{"uri": "a"}', "schema", "profile")


async def test_a_model_from_its_beginning_to_its_end(store: MetadataStore, run_id: str) -> None:
    experiment = await store.get_experiment("0")
    model = await store.create_logged_model("0", "tree", run_id, {"t": "v"}, {"p": "w"}, "agent")
    assert (model.status, model.name, model.source_run_id) == ("PENDING", "tree", run_id)
    root = experiment.artifact_location
    assert model.artifact_location == f"{root}/models/{model.model_id}/artifacts"
    assert model.model_uri == f"models:/{model.model_id}"
    assert await store.get_logged_model(model.model_id) == model
    ready = await store.finalize_logged_model(model.model_id, "READY")
    assert ready.status == "READY"
    await store.set_logged_model_tags(model.model_id, {"t": "changed", "u": "new"})
    await store.log_logged_model_params(model.model_id, {"q": "x"})
    with pytest.raises(AlreadyExistsError, match="q") as caught:
        await store.log_logged_model_params(model.model_id, {"q": "y", "r": "z"})
    assert caught.value.error_code == "BAD_REQUEST"
    await store.delete_logged_model_tag(model.model_id, "u")
    with pytest.raises(NotFoundError, match="'u'"):
        await store.delete_logged_model_tag(model.model_id, "u")
    found = await store.get_logged_model(model.model_id)
    assert (found.tags, found.params) == ({"t": "changed"}, {"p": "w", "q": "x"})
    await store.delete_logged_model(model.model_id)
    with pytest.raises(NotFoundError, match=model.model_id):
        await store.get_logged_model(model.model_id)
    deleted = await store.get_logged_model(model.model_id, allow_deleted=True)
    assert deleted.params == found.params
    assert await store.search_logged_models(["0"]) == []


async def test_models_are_refused(store: MetadataStore) -> None:
    for name in ("", "a/b", "a:b", "a.b", "100%", 'a"', "a'"):
        with pytest.raises(InvalidParameterError, match="name"):
            await store.create_logged_model("0", name)
    with pytest.raises(NotFoundError):
        await store.create_logged_model("77")
    gone = await store.create_experiment("gone")
    await store.delete_experiment(gone)
    with pytest.raises(InvalidStateError, match="deleted"):
        await store.create_logged_model(gone)
    model = await store.create_logged_model("0")
    assert model.name
    with pytest.raises(InvalidParameterError, match="DONE"):
        await store.finalize_logged_model(model.model_id, "DONE")  # type: ignore[arg-type]  # the test
    for call in (
        store.finalize_logged_model("m-0", "READY"),
        store.set_logged_model_tags("m-0", {"a": "b"}),
        store.log_logged_model_params("m-0", {"a": "b"}),
        store.delete_logged_model_tag("m-0", "a"),
        store.delete_logged_model("m-0"),
    ):
        with pytest.raises(NotFoundError, match="m-0"):
            await call


async def test_metrics_of_a_model(store: MetadataStore, run_id: str) -> None:
    model = (await store.create_logged_model("0")).model_id
    metrics = [
        Metric("acc", 0.5, 1, 1, model, "train", "1"),
        Metric("acc", 0.6, 2, 2, model, "test", "2"),
        Metric("plain", 1.0, 1),
    ]
    await store.log_batch(run_id, metrics)
    await store.log_metric(run_id, Metric("acc", 0.7, 3, 3, model))
    await store.log_metric(run_id, Metric("acc", 0.7, 3, 3, model))
    found = await store.get_logged_model(model)
    assert [
        (metric.key, metric.value, metric.step, metric.dataset_name, metric.run_id)
        for metric in found.metrics
    ] == [
        ("acc", 0.5, 1, "train", run_id),
        ("acc", 0.6, 2, "test", run_id),
        ("acc", 0.7, 3, None, run_id),
    ]
    run = await store.get_run(run_id)
    assert run.data.metrics == {"acc": 0.7, "plain": 1.0}
    with pytest.raises(NotFoundError, match="m-nothing"):
        await store.log_metric(run_id, Metric("acc", 1.0, 1, 1, "m-nothing"))
    with pytest.raises(InvalidParameterError, match="dataset_digest"):
        await store.log_metric(run_id, Metric("acc", 1.0, 1, 1, model, "train"))
    # Who is wrong does not spoil the group.
    results = await asyncio.gather(
        store.log_metric(run_id, Metric("a", 1.0, 1, 1, "m-nothing")),
        store.log_metric(run_id, Metric("b", 1.0, 1, 1, model)),
        store.log_metric(run_id, Metric("c", 1.0, 1, 1)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [NotFoundError, type(None), type(None)]


async def test_search(store: MetadataStore, run_id: str) -> None:
    ids = {}
    for number, name in enumerate(("alpha", "Beta", "gamma")):
        model = await store.create_logged_model(
            "0", name, run_id, {"kind": name[0]}, {"n": str(number)}, "agent"
        )
        ids[name] = model.model_id
        await store.log_batch(
            run_id,
            [
                Metric("acc", number / 10, 1, 0, model.model_id, "train", "1"),
                Metric("acc", (9 - number) / 10, 2, 1, model.model_id, "test", "2"),
            ],
        )
    bare = await store.create_logged_model("0", "bare")
    await store.finalize_logged_model(ids["alpha"], "READY")

    async def names(filter_string: str | None = None, **options: Any) -> list[str]:
        options.setdefault("order_by", [{"field_name": "name"}])
        found = await store.search_logged_models(["0"], filter_string, **options)
        return [model.name for model in found]

    assert sorted(await names()) == ["Beta", "alpha", "bare", "gamma"]
    assert await names("name LIKE '%a' AND params.n = '2'") == ["gamma"]
    assert await names("attributes.name ILIKE 'BETA'") == ["Beta"]
    assert await names("tags.kind IN ('a', 'g')") == ["alpha", "gamma"]
    assert await names("metrics.acc >= 0.9") == ["alpha"]
    assert await names("status = 'READY'") == ["alpha"]
    assert "alpha" not in await names("status != 'READY'")
    assert await names(f"model_id = '{bare.model_id}'") == ["bare"]
    assert await names("creation_timestamp < 5") == []
    assert await names("experiment_id = '0' AND model_type = 'agent'") != []
    assert await names("experiment_id != '0'") == await names("experiment_id IN ('1', '2')") == []
    assert await names(f"source_run_id = '{run_id}' AND model_type = 'agent'") != []
    train = [{"dataset_name": "train"}]
    assert await names("metrics.acc >= 0.2", datasets=train) == ["gamma"]
    assert sorted(await names(datasets=train)) == ["Beta", "alpha", "gamma"]
    assert await names(datasets=[{"dataset_name": "train", "dataset_digest": "9"}]) == []
    latest = {"field_name": "metrics.acc", "ascending": False}
    assert await names(order_by=[latest]) == ["alpha", "Beta", "gamma", "bare"]
    on_train = {**latest, "dataset_name": "train", "dataset_digest": "1"}
    assert await names(order_by=[on_train]) == ["gamma", "Beta", "alpha", "bare"]
    pages, token = [], None
    while True:
        page = await store.search_logged_models(["0"], max_results=3, page_token=token)
        pages.append(len(page))
        if (token := page.token) is None:
            break
    assert pages == [3, 1]
    assert await store.search_logged_models([]) == []
    for bad, words in (
        ("nothing = 'x'", "column 1"),
        ("metrics.acc = 'x'", "number"),
        ("params.n > '1'", "params.n does not allow >"),
        ("status LIKE 'R%'", "status"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            await names(bad)
    for order in ({}, {"field_name": "params.n"}, {"field_name": "nothing"}):
        with pytest.raises(InvalidParameterError, match="order_by"):
            await names(order_by=[order])
    with pytest.raises(InvalidParameterError, match="dataset_name"):
        await names(datasets=[{"dataset_digest": "1"}])


async def test_inputs_and_outputs(store: MetadataStore, run_id: str) -> None:
    other = (await store.create_run("0")).info.run_id
    model = (await store.create_logged_model("0")).model_id
    context = {"mlflow.data.context": "training"}
    again = Dataset("train", "1", "other", "other")
    await store.log_inputs(
        run_id,
        [
            DatasetInput(TRAIN, context),
            DatasetInput(again),
            DatasetInput(Dataset("b", "1", "l", "s")),
        ],
        [LoggedModelInput(model)],
    )
    await store.log_outputs(run_id, [LoggedModelOutput(model, 7)])
    await store.log_outputs(run_id, [LoggedModelOutput(model, 7)])
    await store.log_inputs(other, [DatasetInput(again, {"a": "b"})])
    # What is recorded stays as it is.
    await store.log_inputs(run_id, [DatasetInput(TRAIN, {"late": "tag"})])
    run = await store.get_run(run_id)
    assert run.inputs.dataset_inputs == (
        DatasetInput(Dataset("b", "1", "l", "s"), {}),
        DatasetInput(TRAIN, context),
    )
    assert run.inputs.model_inputs == (LoggedModelInput(model),)
    assert run.outputs.model_outputs == (LoggedModelOutput(model, 7),)
    found = {each.info.run_id: each for each in await store.search_runs(["0"])}
    assert found[run_id] == run
    assert found[other].inputs.dataset_inputs == (DatasetInput(TRAIN, {"a": "b"}),)
    summaries = await store.search_datasets(["0"])
    assert {(each.name, each.context) for each in summaries} == {
        ("b", None),
        ("train", None),
        ("train", "training"),
    }
    assert [each.info.run_id for each in await store.search_runs(["0"], "dataset.name = 'b'")] == [
        run_id
    ]


async def test_datasets_logged_at_once_are_one(store: MetadataStore) -> None:
    runs = [(await store.create_run("0")).info.run_id for _ in range(8)]
    await asyncio.gather(*(store.log_inputs(run, [DatasetInput(TRAIN)]) for run in runs))
    for run in runs:
        assert (await store.get_run(run)).inputs.dataset_inputs == (DatasetInput(TRAIN),)
    assert len(await store.search_datasets(["0"])) == 1


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (DatasetInput(Dataset("n" * 501, "1", "l", "s")), "name"),
        (DatasetInput(Dataset("n", "1" * 37, "l", "s")), "digest"),
        (DatasetInput(Dataset("n", "1", "l", "s" * 65536)), "source"),
        (DatasetInput(Dataset("n", "1", "l", None)), "source"),  # type: ignore[arg-type]  # the test
        (DatasetInput(Dataset("n", "1", "l", "s"), {"k" * 256: "v"}), "key"),
        (DatasetInput(Dataset("n", "1", "l", "s"), {"k": "v" * 501}), "value"),
    ],
)
async def test_datasets_have_limits(
    store: MetadataStore, run_id: str, dataset: DatasetInput, words: str
) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        await store.log_inputs(run_id, [dataset])
    assert (await store.get_run(run_id)).inputs.dataset_inputs == ()


async def test_history_of_many_runs(store: MetadataStore) -> None:
    runs = sorted([(await store.create_run("0")).info.run_id for _ in range(3)])
    for number, run in enumerate(runs):
        count = (100, 3, 0)[number]
        await store.log_batch(run, [Metric("m", step / 2, step, step) for step in range(count)])
    bulk = await store.get_metric_history_bulk(runs, "m", 102)
    assert [(each.run_id, each.step) for each in bulk] == [
        *((runs[0], step) for step in range(100)),
        *((runs[1], step) for step in range(2)),
    ]

    async def steps(count: int, start: int | None = None, end: int | None = None) -> Any:
        wanted = [runs[1], runs[0], runs[2]]
        found = await store.get_metric_history_bulk_interval(wanted, "m", count, start, end)
        assert [each.run_id for each in found] == sorted(
            [each.run_id for each in found], key=wanted.index
        )
        return [[each.step for each in found if each.run_id == run] for run in runs]

    assert await steps(5) == [[0, 20, 40, 60, 99], [0, 1, 2], []]
    assert await steps(1) == [[99], [2], []]
    assert await steps(0) == [[99], [2], []]
    assert await steps(3, 10, 15) == [[10, 12, 15], [], []]
    assert await steps(1000) == [list(range(100)), [0, 1, 2], []]
    with pytest.raises(InvalidParameterError, match="end_step"):
        await steps(3, 1)
    assert await store.get_metric_history_bulk_interval(["nothing"], "m", 3) == []
    some = await store.get_metric_history_bulk_interval_from_steps(runs[0], "m", [9, 3, 500], 5)
    assert [each.step for each in some] == [3, 9]
    none = await store.get_metric_history_bulk_interval_from_steps("nothing", "m", [1], 5)
    assert none == []
