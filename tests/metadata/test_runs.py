from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asyncstore.entities import Metric, Param
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
)

if TYPE_CHECKING:
    from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio


async def test_create_and_get(store: MetadataStore) -> None:
    run = await store.create_run("0", "me", 17, {"a": "b"}, "first")
    assert run == await store.get_run(run.info.run_id)
    assert run.info.status == "RUNNING"
    assert (run.info.user_id, run.info.start_time, run.info.end_time) == ("me", 17, None)
    assert run.data.tags == {"a": "b", "mlflow.runName": "first"}
    named = await store.create_run("0", tags={"mlflow.runName": "by-tag"})
    assert named.info.run_name == "by-tag"
    unnamed = await store.create_run("0")
    assert unnamed.info.run_name.count("-") == 2
    assert unnamed.data.tags["mlflow.runName"] == unnamed.info.run_name
    with pytest.raises(InvalidParameterError, match=r"mlflow\.runName"):
        await store.create_run("0", tags={"mlflow.runName": "x"}, run_name="y")
    with pytest.raises(NotFoundError):
        await store.create_run("7")
    with pytest.raises(NotFoundError):
        await store.get_run("nothing")


async def test_update(store: MetadataStore, run_id: str) -> None:
    info = await store.update_run_info(run_id, "FINISHED", 99, "renamed")
    run = await store.get_run(run_id)
    assert info == run.info
    assert (info.status, info.end_time, info.run_name) == ("FINISHED", 99, "renamed")
    assert run.data.tags["mlflow.runName"] == "renamed"
    assert await store.update_run_info(run_id) == info
    with pytest.raises(InvalidParameterError, match="FINISHED"):
        await store.update_run_info(run_id, "DONE")  # type: ignore[arg-type]  # the test
    with pytest.raises(NotFoundError):
        await store.update_run_info("nothing", "FAILED")


async def test_a_deleted_run_takes_nothing(store: MetadataStore, run_id: str) -> None:
    await store.delete_run(run_id)
    assert (await store.get_run(run_id)).info.lifecycle_stage == "deleted"
    for refused in (
        store.log_metric(run_id, Metric("m", 1.0, 1)),
        store.log_param(run_id, Param("p", "v")),
        store.set_tag(run_id, "t", "v"),
        store.delete_tag(run_id, "mlflow.runName"),
        store.log_batch(run_id, [Metric("m", 1.0, 1)]),
        store.update_run_info(run_id, "FAILED"),
    ):
        with pytest.raises(InvalidStateError, match="deleted") as caught:
            await refused
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    await store.restore_run(run_id)
    run = await store.get_run(run_id)
    assert run.info.lifecycle_stage == "active"
    assert not run.data.metrics
    for missing in (store.delete_run("nothing"), store.restore_run("nothing")):
        with pytest.raises(NotFoundError):
            await missing


async def test_params_are_immutable(store: MetadataStore, run_id: str) -> None:
    await store.log_param(run_id, Param("lr", "0.1"))
    await store.log_param(run_id, Param("lr", "0.1"))
    with pytest.raises(InvalidParameterError, match=r"'0\.1'.*'0\.2'"):
        await store.log_param(run_id, Param("lr", "0.2"))
    with pytest.raises(InvalidParameterError):
        await store.log_batch(
            run_id, [Metric("m", 1.0, 1)], [Param("new", "1"), Param("lr", "0.2")], {"t": "v"}
        )
    data = (await store.get_run(run_id)).data
    assert data.params == {"lr": "0.1"}
    assert not data.metrics
    assert "t" not in data.tags


async def test_tags(store: MetadataStore, run_id: str) -> None:
    await store.set_tag(run_id, "a", "1")
    await store.set_tag(run_id, "a", "2")
    await store.log_batch(run_id, tags={"b": "3", "mlflow.runName": "named"})
    run = await store.get_run(run_id)
    assert run.data.tags == {"a": "2", "b": "3", "mlflow.runName": "named"}
    assert run.info.run_name == "named"
    await store.set_tag(run_id, "mlflow.runName", "")
    assert (await store.get_run(run_id)).info.run_name == "named"
    await store.delete_tag(run_id, "a")
    assert "a" not in (await store.get_run(run_id)).data.tags
    with pytest.raises(NotFoundError, match=r"\ba\b"):
        await store.delete_tag(run_id, "a")


@pytest.mark.parametrize(
    ("logged", "latest"),
    [
        # The greatest step wins, then the timestamp, then the value.
        ([(1.0, 5, 0), (2.0, 1, 1)], (2.0, 1, 1)),
        ([(2.0, 1, 1), (1.0, 5, 0)], (2.0, 1, 1)),
        ([(1.0, 1, 0), (2.0, 2, 0), (3.0, 1, 0)], (2.0, 2, 0)),
        ([(1.0, 1, 0), (3.0, 1, 0), (2.0, 1, 0)], (3.0, 1, 0)),
        # NaN counts as 0, as it does in MLflow.
        ([(-1.0, 1, 0), (math.nan, 1, 0)], (math.nan, 1, 0)),
        ([(1.0, 1, 0), (math.nan, 1, 0)], (1.0, 1, 0)),
        ([(math.nan, 1, 0), (1.0, 1, -1)], (math.nan, 1, 0)),
        ([(math.inf, 1, 0)], (sys.float_info.max, 1, 0)),
        ([(-math.inf, 1, 0)], (-sys.float_info.max, 1, 0)),
        ([(5e-324, 2**62, 2**62)], (5e-324, 2**62, 2**62)),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_the_latest_metric(
    store: MetadataStore,
    run_id: str,
    logged: list[tuple[float, int, int]],
    latest: tuple[float, int, int],
    together: bool,
) -> None:
    metrics = [Metric("m", *values) for values in logged]
    if together:
        await store.log_batch(run_id, metrics)
    else:
        for metric in metrics:
            await store.log_metric(run_id, metric)
    (found,) = (await store.get_run(run_id)).data.latest_metrics
    assert repr(found) == repr(Metric("m", *latest))
    assert len(await store.get_metric_history(run_id, "m")) == len(metrics)


async def test_the_same_metric_twice_is_logged_once(store: MetadataStore, run_id: str) -> None:
    await store.log_batch(run_id, [Metric("m", 1.0, 1), Metric("m", 1.0, 1)])
    await store.log_metric(run_id, Metric("m", 1.0, 1))
    await store.log_metric(run_id, Metric("m", math.nan, 1))
    await store.log_metric(run_id, Metric("m", math.nan, 1))
    history = await store.get_metric_history(run_id, "m")
    assert [str(metric.value) for metric in history] == ["nan", "1.0"]


async def test_metric_history_in_pages(store: MetadataStore, run_id: str) -> None:
    metrics = [Metric("m", step % 3 - 1.5, step // 4, step) for step in range(50)]
    metrics += [Metric("m", math.nan, 3, 13), Metric("m", 0.0, 3, 13)]
    await store.log_batch(run_id, [*metrics, Metric("other", 1.0, 1)])
    expected = await store.get_metric_history(run_id, "m")
    assert len(expected) == 52
    assert expected.token is None
    order = [(metric.timestamp, metric.step) for metric in expected]
    assert order == sorted(order)
    found: list[Metric] = []
    token = None
    while True:
        page = await store.get_metric_history(run_id, "m", 7, token)
        found += page
        if (token := page.token) is None:
            break
        # What is logged meanwhile does not shift the pages.
        await store.log_metric(run_id, Metric("m", 9.0, 0, -len(found)))
    assert repr(found) == repr(list(expected))
    assert await store.get_metric_history("nothing", "m") == []
    for bad in ("x", "eyJvZmZzZXQiOiAxfQ=="):
        with pytest.raises(InvalidParameterError, match="page_token"):
            await store.get_metric_history(run_id, "m", 7, bad)


async def test_long_values_are_cut(
    store: MetadataStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.log_param(run_id, Param("p", "x" * 6001))
    await store.set_tag(run_id, "t", "x" * 8001)
    data = (await store.get_run(run_id)).data
    assert (len(data.params["p"]), len(data.tags["t"])) == (6000, 8000)
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    with pytest.raises(InvalidParameterError, match="6000"):
        await store.log_param(run_id, Param("q", "x" * 6001))
    with pytest.raises(InvalidParameterError, match="8000"):
        await store.set_tag(run_id, "t", "x" * 8001)


_BAD_NAMES = ["", ".", "..", "/a", "a/", "a//b", "a/../b", "../a", "a?b", "a\n", "x" * 251, "\0"]


@pytest.mark.parametrize("name", _BAD_NAMES)
async def test_bad_names(store: MetadataStore, run_id: str, name: str) -> None:
    for refused in (
        store.log_metric(run_id, Metric(name, 1.0, 1)),
        store.log_param(run_id, Param(name, "v")),
        store.set_tag(run_id, name, "v"),
        store.log_batch(run_id, [Metric("fine", 1.0, 1)], tags={name: "v"}),
    ):
        with pytest.raises(InvalidParameterError) as caught:
            await refused
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert not (await store.get_run(run_id)).data.metrics


@pytest.mark.parametrize(
    "metric",
    [
        Metric("m", "1", 1),  # type: ignore[arg-type]  # the test
        Metric("m", True, 1),
        Metric("m", None, 1),  # type: ignore[arg-type]  # the test
        Metric("m", 1j, 1),  # type: ignore[arg-type]  # the test
        Metric("m", 10**400, 1),
        Metric("m", 1.0, -1),
        Metric("m", 1.0, 2**63),
        Metric("m", 1.0, 1, 2**63),
        Metric("m", 1.0, 1, "1"),  # type: ignore[arg-type]  # the test
        Metric("m", 1.0, math.nan),  # type: ignore[arg-type]  # the test
    ],
)
async def test_bad_metrics(store: MetadataStore, run_id: str, metric: Metric) -> None:
    with pytest.raises(InvalidParameterError):
        await store.log_metric(run_id, metric)


async def test_batches_have_limits(store: MetadataStore, run_id: str) -> None:
    def metrics(count: int) -> list[Metric]:
        return [Metric(f"m{number}", 1.0, 1) for number in range(count)]

    def params(count: int) -> list[Param]:
        return [Param(f"p{number}", "v") for number in range(count)]

    tags = {f"t{number}": "v" for number in range(101)}
    refused: list[dict[str, Any]] = [
        {"metrics": metrics(1001)},
        {"params": params(101)},
        {"tags": tags},
        {"metrics": metrics(950), "params": params(51)},
        {"params": [Param("p", "1"), Param("p", "1")]},
    ]
    for arguments in refused:
        with pytest.raises(InvalidParameterError):
            await store.log_batch(run_id, **arguments)
    with pytest.raises(InvalidParameterError, match="run id"):
        await store.log_batch("no run/id", metrics(1))
    await store.log_batch(run_id, metrics(850), params(100), {"t": "v"})
    data = (await store.get_run(run_id)).data
    assert (len(data.metrics), len(data.params)) == (850, 100)
