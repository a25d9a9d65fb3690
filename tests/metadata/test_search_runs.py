from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from asyncstore.entities import Dataset, DatasetInput, Metric, Param, Run
from asyncstore.errors import InvalidParameterError

if TYPE_CHECKING:
    from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio


async def make_runs(store: MetadataStore) -> dict[str, str]:
    """Runs a to e in experiment 0 and f in experiment 1; their ids by name."""
    await store.create_experiment("other")
    made: dict[str, str] = {}
    values: dict[str, tuple[float | None, str, str | None]] = {
        "a": (1.0, "Small", "x"),
        "b": (2.0, "small", "it's"),
        "c": (math.nan, "LARGE", None),
        "d": (None, "large", "100%"),
        "e": (math.inf, "large", 'say "a"'),
        "f": (1.0, "small", "x"),
    }
    for start, (name, (loss, size, tag)) in enumerate(values.items()):
        run = await store.create_run("1" if name == "f" else "0", "me", start, run_name=name)
        made[name] = run.info.run_id
        await store.log_batch(
            run.info.run_id,
            [] if loss is None else [Metric("val loss", loss, 1, 1), Metric("same", 5.0, 1)],
            [Param("size", size)],
            {} if tag is None else {"tag.x": tag},
        )
    await store.update_run_info(made["b"], "FINISHED", 50)
    await store.delete_run(made["e"])
    return made


async def names(store: MetadataStore, filter_string: str = "", **options: Any) -> str:
    options.setdefault("order_by", ["run_name"])
    found = await store.search_runs(options.pop("ids", ["0"]), filter_string, **options)
    return "".join(run.info.run_name for run in found)


async def test_filters(store: MetadataStore) -> None:
    made = await make_runs(store)
    expected = {
        "": "abcd",
        "metrics.`val loss` < 2": "a",
        "metrics.`val loss` >= 1 AND metrics.same = 5": "ab",
        # NaN differs from every number, and is nothing else to it.
        "metrics.`val loss` != 1": "bc",
        "metrics.`val loss` <= 0": "",
        "params.size = 'small'": "b",
        "params.size != 'small'": "acd",
        "params.size LIKE 'S%'": "a",
        "params.size ILIKE 's%'": "ab",
        "params.size ILIKE 'L_RGE'": "cd",
        "tags.`tag.x` = 'it''s'": "b",
        'tags.tag.x = "it\'s"': "b",
        "tags.`tag.x` IS NULL": "c",
        "tags.`tag.x` IS NOT NULL AND params.size = 'large'": "d",
        "params.missing IS NULL": "abcd",
        "status = 'FINISHED'": "b",
        "attributes.status != 'FINISHED'": "acd",
        "start_time > 0 AND start_time <= 2": "bc",
        "start_time < 1.5": "ab",
        "end_time = 50": "b",
        "run_name IN ('a')": None,
        "run_name LIKE '%'": "abcd",
        "user_id = 'me' AND attr.`run name` = 'c'": "c",
        f"run_id = '{made['a']}'": "a",
        f"run_id IN ('{made['a']}', '{made['c']}', 'nothing')": "ac",
        f"run_id NOT IN ('{made['a']}', '{made['c']}')": "bd",
        f"artifact_uri LIKE '%{made['d']}%'": "d",
        "datasets.name = 'digits'": "",
        "datasets.context IN ('train')": "",
    }
    for filter_string, found in expected.items():
        if found is None:
            with pytest.raises(InvalidParameterError, match="column"):
                await names(store, filter_string)
        else:
            assert await names(store, filter_string) == found, filter_string
    assert await names(store, run_view_type="DELETED_ONLY") == "e"
    assert await names(store, run_view_type="ALL") == "abcde"
    assert await names(store, ids=["0", "1"]) == "abcdf"
    assert await names(store, ids=[]) == ""
    many = ", ".join(f"'{number}'" for number in range(40_000))
    assert await names(store, f"run_id NOT IN ({many})") == "abcd"


async def test_datasets(store: MetadataStore) -> None:
    made = await make_runs(store)
    for run, context, *datasets in (
        ("a", "train", "digits"),
        ("b", "test", "digits", "Letters"),
        ("c", "test", "lines"),
        ("f", "train", "digits"),
    ):
        inputs = [
            DatasetInput(
                Dataset(name, f"{name}-1", "local", "{}"), {"mlflow.data.context": context}
            )
            for name in datasets
        ]
        await store.log_inputs(made[run], inputs)
    for filter_string, found in {
        "dataset.name = 'digits'": "ab",
        "dataset.name LIKE 'L%'": "b",
        "dataset.name ILIKE 'L%'": "bc",
        "dataset.name IN ('lines', 'digits')": "abc",
        "dataset.name = 'digits' AND dataset.name = 'Letters'": "b",
        # Runs with some other dataset; those without any are none of them.
        "dataset.name != 'digits'": "bc",
        "dataset.name NOT IN ('digits', 'lines')": "b",
        "datasets.digest = 'digits-1' AND dataset.context = 'test'": "b",
        "dataset.context != 'test'": "a",
    }.items():
        assert await names(store, filter_string) == found, filter_string
    assert await names(store, "dataset.name = 'digits'", ids=["0", "1"]) == "abf"


async def test_order(store: MetadataStore) -> None:
    made = await make_runs(store)
    # Runs without the value come last, behind those with NaN, in both directions.
    assert await names(store, order_by=["metrics.`val loss`"]) == "abcd"
    assert await names(store, order_by=["metrics.`val loss` DESC"]) == "bacd"
    assert (await names(store, order_by=["tags.`tag.x` DESC"]))[-1] == "c"
    # Ties: the latest start first.
    assert await names(store, order_by=["metrics.same"]) == "cbad"
    assert await names(store, order_by=[]) == "dcba"
    assert await names(store, order_by=["start_time ASC"]) == "abcd"
    assert await names(store, order_by=["end_time ASC"]) == "bdca"
    by_id = "".join(sorted("abcd", key=lambda name: made[name]))
    assert await names(store, order_by=["run_id"]) == by_id
    with pytest.raises(InvalidParameterError, match="twice"):
        await names(store, order_by=["metrics.a", "metrics.a DESC"])


async def test_pages_and_what_they_hold(store: MetadataStore) -> None:
    made = await make_runs(store)
    seen: list[Run] = []
    token = None
    while True:
        page = await store.search_runs(
            ["0"], max_results=3, order_by=["run_name"], page_token=token
        )
        assert len(page) <= 3
        seen += page
        if (token := page.token) is None:
            break
    assert [run.info.run_id for run in seen] == [made[name] for name in "abcd"]
    for run in seen:
        assert repr(run) == repr(await store.get_run(run.info.run_id))
    everything = await store.search_runs(["0"], max_results=None)
    assert len(everything) == 4
    assert everything.token is None


@pytest.mark.parametrize(
    "options",
    [
        {"max_results": 0},
        {"max_results": 50_001},
        {"run_view_type": "NONE"},
        {"page_token": "nonsense"},
        {"experiment_ids": ["zero"]},
        {"experiment_ids": "0"},
    ],
)
async def test_bad_arguments(store: MetadataStore, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError):
        await store.search_runs(**{"experiment_ids": ["0"], **options})
