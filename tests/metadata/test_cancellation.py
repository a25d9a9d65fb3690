"""Cancelled anywhere, a call leaves no connection, no task and no half-written thing behind."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import asyncstore
from asyncstore.client import gc as collector
from asyncstore.entities import Metric, Param, TraceInfo
from asyncstore.errors import InvalidParameterError, UnavailableError
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.group_commit import Entry, GroupCommit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

pytestmark = pytest.mark.anyio


def pool_of(store: MetadataStore) -> Any:
    return store._database.engine.pool  # type: ignore[attr-defined]  # looks behind the store


async def check_nothing_left(store: MetadataStore, tasks: set[asyncio.Task[Any]]) -> None:
    for _ in range(1000):
        if asyncio.all_tasks() <= tasks:
            break
        await anyio.sleep(0.002)
    assert asyncio.all_tasks() <= tasks
    assert pool_of(store).checkedout() == 0
    assert store._database._under_way == 0  # type: ignore[attr-defined]  # looks behind the store


async def cancel_after(
    steps: int, call: Callable[[], Coroutine[Any, Any, None]], *, natively: bool
) -> bool:
    """Cancel `call` after so many turns of the event loop; whether it was still running."""
    if not natively:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            for _ in range(steps):
                await anyio.lowlevel.cancel_shielded_checkpoint()
            finished = not tasks._tasks  # type: ignore[attr-defined]  # asyncio's task group
            tasks.cancel_scope.cancel()
        return not finished

    async def wrapped() -> None:
        await call()

    task = asyncio.ensure_future(wrapped())
    for _ in range(steps):
        await asyncio.sleep(0)
    finished = task.done()
    task.cancel()
    await asyncio.wait([task])
    if finished:
        await task
    return not finished


@pytest.mark.parametrize("natively", [True, False], ids=["task", "scope"])
@pytest.mark.parametrize(
    "what", ["log_metric", "log_batch", "create_run", "search_runs", "get_run"]
)
async def test_cancelled_at_every_step(
    store: MetadataStore, run_id: str, what: str, natively: bool
) -> None:
    for number in range(20):
        await store.log_batch(run_id, [Metric(f"m{number}", 1.0, 1)], [Param(f"p{number}", "v")])
    number = 0

    async def call() -> None:
        nonlocal number
        number += 1
        match what:
            case "log_metric":
                await store.log_metric(run_id, Metric("cancelled", 1.0, number))
            case "log_batch":
                params = [Param(f"a{number}", "v"), Param(f"b{number}", "v")]
                await store.log_batch(run_id, [Metric(f"c{number}", 1.0, 1)], params)
            case "create_run":
                await store.create_run("0", run_name=f"cancelled {number}")
            case "search_runs":
                await store.search_runs(["0"], "metrics.m1 > 0 AND params.p1 = 'v'")
            case "get_run":
                await store.get_run(run_id)

    tasks = asyncio.all_tasks()
    steps = 0
    while await cancel_after(steps, call, natively=natively):
        await check_nothing_left(store, tasks)
        steps += 1 + steps // 25
    assert steps > 5
    gc.collect()
    # The store works on, and nothing was written by halves.
    data = (await store.get_run(run_id)).data
    for each in range(1, number + 1):
        names = {f"a{each}", f"b{each}"} & data.params.keys()
        assert len(names) in (0, 2)
        assert (f"c{each}" in data.metrics) == bool(names)
    for run in await store.search_runs(["0"]):
        assert run.data.tags["mlflow.runName"] == run.info.run_name
    assert pool_of(store).checkedout() == 0


@pytest.mark.parametrize("what", ["start_trace", "create_model_version", "create_logged_model"])
async def test_what_has_several_tables_is_written_whole(store: MetadataStore, what: str) -> None:
    """Each with its tags, params or metadata, or not at all."""
    await store.create_registered_model("tree")
    number = 0

    async def call() -> None:
        nonlocal number
        number += 1
        texts = {"a": str(number), "b": str(number)}
        match what:
            case "start_trace":
                trace = TraceInfo(f"tr-{number}", "0", 1, tags=texts, trace_metadata=texts)
                await store.start_trace(trace)
            case "create_model_version":
                await store.create_model_version("tree", f"/{number}", tags=texts)
            case "create_logged_model":
                await store.create_logged_model("0", f"m{number}", None, texts, texts)

    tasks = asyncio.all_tasks()
    steps = 0
    while await cancel_after(steps, call, natively=True):
        await check_nothing_left(store, tasks)
        steps += 1 + steps // 25
    assert steps > 5
    found: list[tuple[str, dict[str, str]]] = []
    match what:
        case "start_trace":
            for trace in await store.search_traces(["0"]):
                assert trace.trace_metadata.items() >= {"a": trace.tags["a"]}.items()
                found.append((trace.trace_id.removeprefix("tr-"), trace.tags))
        case "create_model_version":
            versions = await store.search_model_versions()
            found = [(str(each.source).removeprefix("/"), each.tags) for each in versions]
        case "create_logged_model":
            models = await store.search_logged_models(["0"])
            found = [(str(each.name).removeprefix("m"), each.tags) for each in models]
            assert all(each.params == each.tags for each in models)
    assert found
    for name, tags in found:
        assert (tags["a"], tags["b"]) == (name, name)


async def test_gc_cancelled_at_every_step(metadata_uri: str, tmp_path: Path) -> None:
    """Whatever is left of a run, its metadata says where; the next one removes it."""
    async with asyncstore.Client(metadata_uri, artifact_location=str(tmp_path)) as client:
        store = await client.get_metadata_store()
        tasks = asyncio.all_tasks()
        steps, running = 0, True
        while running:
            run = await client.create_run("0")
            await client.log_text(run.info.run_id, "x", "a.txt")
            await client.delete_run(run.info.run_id)

            async def call() -> None:
                await collector.gc(client)

            running = await cancel_after(steps, call, natively=True)
            steps += 1 + steps // 5
        await check_nothing_left(store, tasks)
        await collector.gc(client)
        assert await store.search_runs(["0"], run_view_type="ALL") == []
    assert steps > 5
    assert not [*tmp_path.rglob("a.txt")]


async def test_opening_cancelled_at_every_step(metadata_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)):
        pass
    before = asyncio.all_tasks()
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    # What the tests before left alive need not be looked at each time.
    gc.collect()
    gc.freeze()
    steps = 0
    while True:
        task = asyncio.ensure_future(MetadataStore.open(metadata_uri, str(tmp_path)))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await (await task).aclose()
        gc.collect()
        if finished:
            break
        assert asyncio.all_tasks() <= before
        steps += 1 + steps // 20
    gc.unfreeze()
    assert steps > 50
    assert not complaints


async def test_cancelled_among_many(store: MetadataStore, run_id: str) -> None:
    before = asyncio.all_tasks()
    tasks = [
        asyncio.ensure_future(store.log_metric(run_id, Metric("m", float(number), number)))
        for number in range(200)
    ]
    await asyncio.sleep(0)
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            task.cancel()
        if number % 10 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await check_nothing_left(store, before)
    written = {metric.timestamp for metric in await store.get_metric_history(run_id, "m")}
    assert {number for number, result in enumerate(results) if result is None} <= written
    assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await store.log_metric(run_id, Metric("m", 1.0, 999))


async def test_a_bad_entry_fails_alone(store: MetadataStore, run_id: str) -> None:
    await store.log_param(run_id, Param("taken", "1"))
    calls: list[Awaitable[None]] = []
    for number in range(50):
        calls += [
            store.log_metric(run_id, Metric("m", float(number), number)),
            store.log_metric("nothing", Metric("m", float(number), number)),
            store.log_param(run_id, Param("taken", str(number))),
            store.log_param(run_id, Param("raced", str(number))),
        ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0::4] == [None] * 50
    codes = {getattr(error, "error_code", None) for error in results[1::4]}
    assert codes == {"RESOURCE_DOES_NOT_EXIST"}
    taken = [number for number, error in enumerate(results[2::4]) if error is None]
    assert taken == [1]
    raced = [number for number, error in enumerate(results[3::4]) if error is None]
    data = (await store.get_run(run_id)).data
    assert data.params == {"taken": "1", "raced": str(raced[0])}
    assert len(raced) == 1
    assert len(await store.get_metric_history(run_id, "m")) == 50


async def test_what_the_database_refuses_fails_alone(store: MetadataStore, run_id: str) -> None:
    # PostgreSQL knows no NUL in a text; SQLite takes it.
    results = await asyncio.gather(
        store.log_metric(run_id, Metric("before", 1.0, 1)),
        store.set_tag(run_id, "bad", "a\0b"),
        store.log_metric(run_id, Metric("after", 1.0, 1)),
        return_exceptions=True,
    )
    data = (await store.get_run(run_id)).data
    assert data.metrics.keys() == {"before", "after"}
    refused = isinstance(results[1], InvalidParameterError)
    assert refused == ("bad" not in data.tags)


async def test_group_commit_hands_on_when_its_leader_is_cancelled() -> None:
    """Whoever is next in the queue commits the rest."""
    groups: list[list[str]] = []
    gate = anyio.Event()

    async def commit(group: list[Entry[str]]) -> None:
        groups.append([entry.write for entry in group])
        await gate.wait()

    group_commit = GroupCommit(commit)
    leader = asyncio.ensure_future(group_commit.submit("leader"))
    await anyio.sleep(0.01)
    followers = [asyncio.ensure_future(group_commit.submit(f"f{n}")) for n in range(3)]
    await anyio.sleep(0.01)
    leader.cancel()
    followers[1].cancel()
    await anyio.sleep(0.01)
    assert not leader.done()
    gate.set()
    results = await asyncio.gather(leader, *followers, return_exceptions=True)
    assert [type(result) for result in results] == [
        asyncio.CancelledError,
        type(None),
        asyncio.CancelledError,
        type(None),
    ]
    assert groups == [["leader"], ["f0", "f2"]]


async def test_group_commit_gives_one_outage_to_all_at_once() -> None:
    calls = 0

    async def commit(_group: list[Entry[str]]) -> None:
        nonlocal calls
        calls += 1
        raise UnavailableError("the database is away")

    group_commit = GroupCommit(commit)
    results = await asyncio.gather(
        *(group_commit.submit(str(number)) for number in range(100)), return_exceptions=True
    )
    assert all(isinstance(result, UnavailableError) for result in results)
    assert len({id(result) for result in results}) == 100
    assert calls <= 2
