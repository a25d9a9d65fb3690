"""A web service whose handlers log and upload, and stop when their client goes away.

uvicorn examples.fastapi_app:app

curl -d '{"epochs": 5}' -H 'Content-Type: application/json' http://127.0.0.1:8000/train
curl --data-binary @notes.txt http://127.0.0.1:8000/runs/RUN_ID/artifacts/notes.txt
curl http://127.0.0.1:8000/runs/RUN_ID
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

import asyncstore
from asyncstore.errors import AsyncStoreError, InvalidParameterError, NotFoundError

T = TypeVar("T")
CLIENT_WENT_AWAY = 499  # nobody is there to read it; it is for the log of the server


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all handlers: its database and storages are opened once."""
    async with asyncstore.Client() as client:
        app.state.client = client
        yield


app = FastAPI(title="training service", lifespan=lifespan)


def the_client(request: Request) -> asyncstore.Client:
    client: asyncstore.Client = request.app.state.client
    return client


Client = Annotated[asyncstore.Client, Depends(the_client)]


async def while_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Await `work`, and cancel it when the client goes away.

    Raises:
        ClientDisconnect: It did. The work was cancelled and has cleaned up.
    """
    results: list[T] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            results.append(await work())
        except Exception as error:  # noqa: BLE001  raised below, not in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not results:
        raise ClientDisconnect
    return results[0]


@app.post("/train")
async def train(
    request: Request, client: Client, epochs: Annotated[int, Body(embed=True)]
) -> dict[str, str]:
    """Train a model in a run of its own, with a checkpoint after every epoch."""

    async def work() -> str:
        async with client.start_run(experiment_name="training service") as run, workspace() as here:
            await run.log_param("epochs", epochs)
            weights = np.zeros((1024, 1280))
            for epoch in range(epochs):
                checkpoint = here / f"epoch_{epoch:04}.npy"
                loss = await anyio.to_thread.run_sync(train_epoch, weights, checkpoint)
                await run.log_metric("loss", loss, step=epoch)
                await run.log_artifact(checkpoint, "checkpoints")
                await anyio.to_thread.run_sync(checkpoint.unlink)
            return run.run_id

    return {"run_id": await while_connected(request, work)}


@app.post("/runs/{run_id}/artifacts/{path:path}", status_code=201)
async def upload(request: Request, client: Client, run_id: str, path: str) -> dict[str, int]:
    """Store the body of the request as an artifact, however large it is."""
    directory, _, name = path.rpartition("/")
    if not name or name in (".", ".."):
        raise InvalidParameterError("the path must end in a file name")
    async with workspace() as here:
        async with await anyio.open_file(here / name, "wb") as file:
            async for piece in request.stream():
                await file.write(piece)
            size = await file.tell()
        await while_connected(
            request, lambda: client.log_artifact(run_id, here / name, directory or None)
        )
    return {"size": size}


@app.get("/runs/{run_id}")
async def show(client: Client, run_id: str) -> dict[str, object]:
    """What a run has logged."""
    run = await client.get_run(run_id)
    files = await client.list_artifacts(run_id, "checkpoints")
    return {
        "status": run.info.status,
        "metrics": run.data.metrics,
        "params": run.data.params,
        "checkpoints": [file.path for file in files],
    }


@app.exception_handler(ClientDisconnect)
async def client_went_away(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_WENT_AWAY)


@app.exception_handler(AsyncStoreError)
async def say_what_is_wrong(_: Request, error: Exception) -> JSONResponse:
    """Errors in the form that MLflow's server gives them."""
    assert isinstance(error, AsyncStoreError)
    status = 500
    if isinstance(error, NotFoundError):
        status = 404
    elif isinstance(error, InvalidParameterError):
        status = 400
    body = {"error_code": error.error_code, "message": error.message}
    return JSONResponse(body, status_code=status)


@asynccontextmanager
async def workspace() -> AsyncGenerator[Path]:
    """A temporary directory that is gone afterwards, also after a cancellation."""
    directory = await anyio.to_thread.run_sync(tempfile.TemporaryDirectory)
    try:
        yield Path(directory.name)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(directory.cleanup)


def train_epoch(weights: np.ndarray, checkpoint: Path) -> float:
    """One step towards a random target. Blocks: it runs in a worker thread."""
    target = np.random.default_rng(3).normal(size=weights.shape)
    weights += 0.1 * (target - weights)
    np.save(checkpoint, weights)
    return float(((target - weights) ** 2).mean())
