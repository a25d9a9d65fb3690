"""Who reads and writes metadata: each the same, in one database that `metadata.py` filled."""

from __future__ import annotations

import asyncio
import contextlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks.metadata import (
    FILTER,
    HISTORY_RUN,
    LONG_KEY,
    ORDER,
    PAGE_OF_POINTS,
    RUNS_EXPERIMENT,
    TRACE_FILTER,
    run_id_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

# A task: "uri" of the database, "what" to do, how often ("count"), and how many "runs" there are.
Task = dict[str, Any]

_TIMESTAMP = 1_700_000_000_000
PAGE = 100
# What MLflow logs with in the background: MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE.
MLFLOW_THREADS = 10
CLIENTS = 32


@contextlib.asynccontextmanager
async def asyncstore(task: Task) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    from asyncstore.metadata import MetadataStore

    async with await MetadataStore.open(task["uri"]) as store:
        experiment = await store.create_experiment(f"asyncstore-{random.random()}")
        work = _Asyncstore(store, task, experiment)
        method = getattr(work, task["what"].replace("-", "_"))
        await work.prepare()
        await method(1)

        async def measured() -> None:
            await method(task["count"])

        yield measured


class _Asyncstore:
    """One method for each thing to do."""

    def __init__(self, store: Any, task: Task, experiment: str) -> None:
        self.store, self.task, self.experiment = store, task, experiment
        self.timestamp = _TIMESTAMP

    async def prepare(self) -> None:
        self.run_id = (await self.store.create_run(self.experiment)).info.run_id

    def metrics(self, count: int) -> list[Any]:
        from asyncstore.entities import Metric

        self.timestamp += 1
        return [Metric(f"m{n % 10}", n / 7, self.timestamp, n // 10) for n in range(count)]

    async def create_run(self, count: int) -> None:
        for number in range(count):
            await self.store.create_run(
                self.experiment, "tester", _TIMESTAMP, {"a": "b"}, f"run {number}"
            )

    async def log_batch_10(self, count: int) -> None:
        for _ in range(count):
            await self.store.log_batch(self.run_id, self.metrics(10))

    async def log_batch_1000(self, count: int) -> None:
        for _ in range(count):
            await self.store.log_batch(self.run_id, self.metrics(1000))

    async def log_metric_together(self, count: int) -> None:
        await asyncio.gather(
            *(self.store.log_metric(self.run_id, metric) for metric in self.metrics(count))
        )

    async def get_run(self, count: int) -> None:
        for number in range(count):
            run = await self.store.get_run(run_id_of(number * 97 % self.task["runs"]))
            assert len(run.data.params) == self.task["keys"]

    async def search_runs(self, count: int) -> None:
        token = None
        for _ in range(count):
            page = await self.store.search_runs(
                [RUNS_EXPERIMENT], FILTER, max_results=PAGE, order_by=ORDER, page_token=token
            )
            assert len(page) == PAGE
            token = page.token

    async def metric_history(self, count: int) -> None:
        history = []
        for _ in range(count):
            history = await self.store.get_metric_history(HISTORY_RUN, "loss")
        assert len(history) == self.task["points"]

    async def metric_pages(self, count: int) -> None:
        for _ in range(count):
            points, token = 0, None
            while True:
                page = await self.store.get_metric_history(
                    HISTORY_RUN, LONG_KEY, PAGE_OF_POINTS, token
                )
                points += len(page)
                if (token := page.token) is None:
                    break
            assert points == self.task["long"]

    async def search_traces(self, count: int) -> None:
        token = None
        for _ in range(count):
            page = await self.store.search_traces(
                [RUNS_EXPERIMENT], TRACE_FILTER, PAGE, page_token=token
            )
            assert len(page) == PAGE
            token = page.token

    async def mixed_32(self, count: int) -> None:
        async def client(number: int) -> None:
            chance = random.Random(number)
            for _ in range(count):
                run_id = run_id_of(chance.randrange(self.task["runs"]))
                match chance.randrange(10):
                    case 0:
                        await self.store.log_batch(self.run_id, self.metrics(1))
                    case 1:
                        await self.store.set_tag(self.run_id, f"t{number}", str(chance.random()))
                    case 2 | 3:
                        await self.store.search_runs(
                            [RUNS_EXPERIMENT], f"attributes.run_id = '{run_id}'"
                        )
                    case _:
                        await self.store.get_run(run_id)

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = task["uri"].replace("mysql:", "mysql+pymysql:")
    store = SqlAlchemyStore(uri, task["artifacts"])
    work = _Mlflow(store, task)
    method = getattr(work, task["what"].replace("-", "_"))
    method(1)
    yield lambda: method(task["count"])


class _Mlflow:
    """The same for MLflow's store."""

    def __init__(self, store: Any, task: Task) -> None:
        self.store, self.task = store, task
        self.experiment = store.create_experiment(f"mlflow-{random.random()}")
        run = store.create_run(self.experiment, "tester", _TIMESTAMP, [], "run")
        self.run_id = run.info.run_id
        self.timestamp = _TIMESTAMP

    def metrics(self, count: int) -> list[Any]:
        from mlflow.entities import Metric

        self.timestamp += 1
        return [Metric(f"m{n % 10}", n / 7, self.timestamp, n // 10) for n in range(count)]

    def create_run(self, count: int) -> None:
        from mlflow.entities import RunTag

        for number in range(count):
            self.store.create_run(
                self.experiment, "tester", _TIMESTAMP, [RunTag("a", "b")], f"run {number}"
            )

    def log_batch_10(self, count: int) -> None:
        for _ in range(count):
            self.store.log_batch(self.run_id, self.metrics(10), [], [])

    def log_batch_1000(self, count: int) -> None:
        for _ in range(count):
            self.store.log_batch(self.run_id, self.metrics(1000), [], [])

    def log_metric_together(self, count: int) -> None:
        with ThreadPoolExecutor(MLFLOW_THREADS) as threads:
            list(threads.map(lambda m: self.store.log_metric(self.run_id, m), self.metrics(count)))

    def get_run(self, count: int) -> None:
        for number in range(count):
            run = self.store.get_run(run_id_of(number * 97 % self.task["runs"]))
            assert len(run.data.params) == self.task["keys"]

    def search_runs(self, count: int) -> None:
        from mlflow.entities import ViewType

        token = None
        for _ in range(count):
            page = self.store.search_runs(
                [RUNS_EXPERIMENT], FILTER, ViewType.ACTIVE_ONLY, PAGE, ORDER, token
            )
            assert len(page) == PAGE
            token = page.token

    def metric_history(self, count: int) -> None:
        history = []
        for _ in range(count):
            history = self.store.get_metric_history(HISTORY_RUN, "loss")
        assert len(history) == self.task["points"]

    def metric_pages(self, count: int) -> None:
        for _ in range(count):
            points, token = 0, None
            while True:
                page = self.store.get_metric_history(HISTORY_RUN, LONG_KEY, PAGE_OF_POINTS, token)
                points += len(page)
                if (token := page.token) is None:
                    break
            assert points == self.task["long"]

    def search_traces(self, count: int) -> None:
        token = None
        for _ in range(count):
            page, token = self.store.search_traces(
                [RUNS_EXPERIMENT], TRACE_FILTER, PAGE, page_token=token
            )
            assert len(page) == PAGE

    def mixed_32(self, count: int) -> None:
        from mlflow.entities import RunTag, ViewType

        def client(number: int) -> None:
            chance = random.Random(number)
            for _ in range(count):
                run_id = run_id_of(chance.randrange(self.task["runs"]))
                match chance.randrange(10):
                    case 0:
                        self.store.log_batch(self.run_id, self.metrics(1), [], [])
                    case 1:
                        self.store.set_tag(self.run_id, RunTag(f"t{number}", str(chance.random())))
                    case 2 | 3:
                        self.store.search_runs(
                            [RUNS_EXPERIMENT],
                            f"attributes.run_id = '{run_id}'",
                            ViewType.ACTIVE_ONLY,
                        )
                    case _:
                        self.store.get_run(run_id)

        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(client, range(CLIENTS)))
