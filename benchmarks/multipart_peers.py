"""Clients that send one large file by presigned parts, through the same server."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["asyncstore", "mlflow"]

Task = dict[str, Any]


@contextlib.asynccontextmanager
async def asyncstore(task: Task) -> AsyncIterator[Any]:
    from asyncstore import Client

    async with Client(task["url"]) as client:
        # A new experiment, whose artifacts are the server's.
        run = await client.create_run(await client.create_experiment(uuid.uuid4().hex))
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")
        await client.log_text(run.info.run_id, "warm", "warm.txt")
        yield lambda: client.log_artifact(run.info.run_id, task["local"])


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    from mlflow import MlflowClient

    client = MlflowClient(task["url"])
    run = client.create_run(client.create_experiment(uuid.uuid4().hex))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    client.log_text(run.info.run_id, "warm", "warm.txt")
    yield lambda: client.log_artifact(run.info.run_id, task["local"])
