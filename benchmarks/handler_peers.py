"""200 handlers of a FastAPI application, each of which logs a metric to a tracking server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from benchmarks.metadata import RUNS_EXPERIMENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["asyncstore", "mlflow"]

Task = dict[str, Any]


@contextlib.asynccontextmanager
async def asyncstore(task: Task) -> AsyncIterator[Any]:
    """By `await`."""
    from asyncstore import Client

    async with Client(task["url"]) as client:
        run = await client.create_run(RUNS_EXPERIMENT)

        async def log(number: int) -> None:
            await client.log_metric(run.info.run_id, "loss", number, step=number)

        await log(0)
        async with _handlers(log, task["count"]) as work:
            yield work


@contextlib.asynccontextmanager
async def mlflow(task: Task) -> AsyncIterator[Any]:
    """With MLflow's client, in the threads of `asyncio.to_thread`."""
    from mlflow import MlflowClient

    client = MlflowClient(task["url"])
    run = client.create_run(RUNS_EXPERIMENT)

    async def log(number: int) -> None:
        await asyncio.to_thread(client.log_metric, run.info.run_id, "loss", number, step=number)

    await log(0)
    async with _handlers(log, task["count"]) as work:
        yield work


@contextlib.asynccontextmanager
async def _handlers(log: Callable[[int], Awaitable[None]], count: int) -> AsyncIterator[Any]:
    import httpx
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/log/{number}")
    async def handler(number: int) -> dict[str, int]:
        await log(number)
        return {"logged": number}

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=None) as user:
        times: list[float] = []

        async def call(number: int) -> None:
            start = time.perf_counter()
            answer = await user.post(f"/log/{number}")
            times.append(time.perf_counter() - start)
            assert answer.status_code == 200

        async def work() -> dict[str, float]:
            async with asyncio.TaskGroup() as tasks:
                for number in range(1, count + 1):
                    tasks.create_task(call(number))
            return {"p99_ms": sorted(times)[int(len(times) * 0.99)] * 1000}

        yield work
