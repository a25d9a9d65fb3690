"""What is asked of the tracking servers, and the clients that ask through them.

A peer is a server: `asyncstore` and `mlflow_1` with one worker, `mlflow` with its default ones. The
client is the same for all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.child import memory
from benchmarks.load import Connection, Request, drive, json_request
from benchmarks.metadata import RUNS_EXPERIMENT, run_id_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["HTTP_CASES", "asyncstore", "mlflow", "mlflow_1"]

# What is asked, how often (a tenth with --quick), over how many connections, and in words.
HTTP_CASES = {
    "log-batch": (1000, 32, "log-batch of 10 metrics, 32 connections"),
    "create-run": (1000, 32, "create-run, 32 connections"),
    "get-run": (1000, 32, "get-run, 32 connections"),
    "search-runs": (40, 4, "search-runs, the latest 100 of 100,000, 4 connections"),
    "idle-200": (500, 1, "get-run over one connection, beside 200 that are idle"),
    "upload": (3, 1, "a PUT of 100 MiB through the proxy"),
    "download": (3, 1, "a GET of 100 MiB through the proxy"),
}
IDLE = 200
ARTIFACT_SIZE = 100 * 2**20
PIECE = 2**20
Task = dict[str, Any]


@contextlib.asynccontextmanager
async def asyncstore(task: Task) -> AsyncIterator[Any]:
    async with _peer(task, "asyncstore") as work:
        yield work


@contextlib.asynccontextmanager
async def mlflow_1(task: Task) -> AsyncIterator[Any]:
    async with _peer(task, "mlflow_1") as work:
        yield work


@contextlib.asynccontextmanager
async def mlflow(task: Task) -> AsyncIterator[Any]:
    async with _peer(task, "mlflow") as work:
        yield work


@contextlib.asynccontextmanager
async def _peer(task: Task, peer: str) -> AsyncIterator[Any]:
    url, processes = task["servers"][peer]
    what = task["what"]
    if what in ("upload", "download"):
        async with aiohttp.ClientSession() as session:
            transfer = _Transfer(session, f"{url}/api/2.0/mlflow-artifacts/artifacts/{peer}.bin")
            await transfer.up()
            once = transfer.up if what == "upload" else transfer.down

            async def transfers() -> dict[str, float]:
                with _peak_of(processes) as peak:
                    for _ in range(task["count"]):
                        await once()
                return {"server_mib": peak()}

            yield transfers
        return
    idle = [await Connection.open(url) for _ in range(IDLE if what == "idle-200" else 0)]
    busy = [await Connection.open(url) for _ in range(task["connections"])]
    requests = await _requests(what, url, busy[0])
    for connection in idle:
        await connection.send(requests(0))
    # Each worker of a server opens its database with its first request.
    await drive(busy, requests, 4 * len(busy))
    yield lambda: drive(busy, requests, task["count"])
    for connection in (*idle, *busy):
        await connection.close()


async def _requests(what: str, url: str, connection: Connection) -> Callable[[int], Request]:
    api = f"{url}/api/2.0/mlflow"
    if what == "search-runs":
        # What MLflow's page of an experiment asks for.
        search = {
            "experiment_ids": [RUNS_EXPERIMENT],
            "order_by": ["attributes.start_time DESC"],
            "max_results": 100,
        }
        return lambda _: json_request("POST", f"{api}/runs/search", search)
    create = json_request("POST", f"{api}/runs/create", {"experiment_id": RUNS_EXPERIMENT})
    if what == "create-run":
        return lambda _: create
    if what in ("get-run", "idle-200"):
        return lambda n: json_request("GET", f"{api}/runs/get?run_id={run_id_of(n % 1000)}")
    runs = [_run_id(await connection.send(create)) for _ in range(20)]

    def log_batch(number: int) -> Request:
        metrics = [
            {"key": f"m{key}", "value": number / 7, "timestamp": 1_700_000_000_000, "step": number}
            for key in range(10)
        ]
        content = {"run_id": runs[number % len(runs)], "metrics": metrics}
        return json_request("POST", f"{api}/runs/log-batch", content)

    return log_batch


def _run_id(body: bytes) -> str:
    return str(json.loads(body)["run"]["info"]["run_id"])


class _Transfer:
    """One artifact, up and down, piece by piece."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self._piece = os.urandom(PIECE)

    async def up(self) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(ARTIFACT_SIZE // PIECE):
                yield self._piece

        async with self._session.put(self._url, data=pieces()) as answer:
            assert answer.status == 200, await answer.text()

    async def down(self) -> None:
        size = 0
        async with self._session.get(self._url) as answer:
            async for piece in answer.content.iter_chunked(PIECE):
                size += len(piece)
        assert size == ARTIFACT_SIZE, size


@contextlib.contextmanager
def _peak_of(processes: list[int]) -> Iterator[Callable[[], float]]:
    """The peak of a server's memory above what it had before, in MiB; of all of its processes."""
    before = {process: memory("VmRSS", process) for process in processes}
    for process in processes:
        Path(f"/proc/{process}/clear_refs").write_text("5")
    yield lambda: sum(memory("VmHWM", p) - before[p] for p in processes) / 2**20
