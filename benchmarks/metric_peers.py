"""Who logs metrics. Each logs the same ones to a database that MLflow made."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

# A task: "uri" of the database, "count" of metrics, "together" or one after the other.
Task = dict[str, Any]

KEYS = 10
_TIMESTAMP = 1_700_000_000_000


def values(count: int) -> Iterator[tuple[str, float, int, int]]:
    """Metrics as (key, value, timestamp, step): some keys, each with many steps."""
    for number in range(count):
        yield f"metric-{number % KEYS}", number / 7, _TIMESTAMP + number, number // KEYS


@contextlib.asynccontextmanager
async def asyncstore(task: Task) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    from asyncstore.entities import Metric
    from asyncstore.metadata import MetadataStore

    async with await MetadataStore.open(task["uri"]) as store:
        experiment = await store.create_experiment("asyncstore")
        warm = await store.create_run(experiment)
        run = await store.create_run(experiment)
        await store.log_metric(warm.info.run_id, Metric("warm", 1.0, _TIMESTAMP, 0))
        metrics = [Metric(*value) for value in values(task["count"])]

        async def one_after_the_other() -> None:
            for metric in metrics:
                await store.log_metric(run.info.run_id, metric)

        async def together() -> None:
            await asyncio.gather(*(store.log_metric(run.info.run_id, m) for m in metrics))

        yield together if task["together"] else one_after_the_other


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    """MLflow's store has no other way than one after the other."""
    from mlflow.entities import Metric
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(task["uri"], task["artifacts"])
    experiment = store.create_experiment("mlflow")
    warm, run = (
        store.create_run(experiment, "tester", _TIMESTAMP, [], name) for name in ("warm", "run")
    )
    store.log_metric(warm.info.run_id, Metric("warm", 1.0, _TIMESTAMP, 0))
    metrics = [Metric(*value) for value in values(task["count"])]

    def one_after_the_other() -> None:
        for metric in metrics:
            store.log_metric(run.info.run_id, metric)

    yield one_after_the_other


@contextlib.contextmanager
def make_database(task: Task) -> Iterator[Callable[[], None]]:
    """Not a peer: lets MLflow make the database that the measurements copy."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = task["uri"].replace("mysql:", "mysql+pymysql:")
    yield lambda: SqlAlchemyStore(uri, task["artifacts"])._dispose_engine()
