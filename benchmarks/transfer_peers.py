"""Who uploads and downloads. Each moves the same files between the same places."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

# A task: "direction" up or down, "local" path, "bucket", "prefix", "single" file or directory,
# and "warm": the same with one small file.
Task = dict[str, Any]


@contextlib.asynccontextmanager
async def asyncstore(task: Task) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    from asyncstore import ArtifactRepository

    async def transfer(task: Task) -> None:
        if task["direction"] == "down":
            await repository.download_artifacts(task["prefix"], task["local"])
        elif task["single"]:
            await repository.log_artifact(task["local"], task["prefix"])
        else:
            await repository.log_artifacts(task["local"], task["prefix"])

    async with ArtifactRepository(f"s3://{task['bucket']}") as repository:
        await transfer(task["warm"])
        yield lambda: transfer(task)


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    repository = S3ArtifactRepository(f"s3://{task['bucket']}")

    def transfer(task: Task) -> None:
        if task["direction"] == "down":
            repository.download_artifacts(task["prefix"], task["local"])
        elif task["single"]:
            repository.log_artifact(task["local"], task["prefix"])
        else:
            repository.log_artifacts(task["local"], task["prefix"])

    transfer(task["warm"])
    yield lambda: transfer(task)


@contextlib.asynccontextmanager
async def s3fs(task: Task) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    import s3fs as library

    filesystem = library.S3FileSystem(
        asynchronous=True,
        skip_instance_cache=True,
        endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"],
    )
    session = await filesystem.set_session()

    async def transfer(task: Task) -> None:
        remote = f"{task['bucket']}/{task['prefix']}/"
        local = task["local"]
        if task["direction"] == "down":
            await filesystem._get(remote, f"{local}/{task['prefix']}/", recursive=True)
        elif task["single"]:
            await filesystem._put(local, remote + Path(local).name)
        else:
            await filesystem._put(f"{local}/", remote, recursive=True)

    await transfer(task["warm"])
    yield lambda: transfer(task)
    await session.close()


@contextlib.contextmanager
def s5cmd(task: Task) -> Iterator[Callable[[], None]]:
    from importlib.metadata import distribution

    # The command itself, not the Python script that starts it.
    program = str(distribution("s5cmd").locate_file("s5cmd/bin/s5cmd"))
    endpoint = os.environ["MLFLOW_S3_ENDPOINT_URL"]
    remote = f"s3://{task['bucket']}/{task['prefix']}/"
    local = task["local"]
    if task["direction"] == "down":
        places = [f"{remote}*", f"{local}/{task['prefix']}/"]
    else:
        places = [local if task["single"] else f"{local}/", remote]
    command = [program, "--log", "error", "--endpoint-url", endpoint, "cp", *places]
    yield lambda: _run(command)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
