"""Who moves files to and from any storage. Each moves the same files between the same places."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

# A task: "direction" up or down, "uri" of the root, "options", "local" path, "prefix", "single"
# file or directory, "mlflow" class, "remote" of rclone, and "warm": the same with one small file.
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

    async with ArtifactRepository(task["uri"], storage_options=task["options"]) as repository:
        await transfer(task["warm"])
        yield lambda: transfer(task)


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    module, _, name = task["mlflow"].partition(":")
    kind = getattr(importlib.import_module(f"mlflow.store.artifact.{module}"), name)
    repository = kind(task["uri"])

    def transfer(task: Task) -> None:
        if task["direction"] == "down":
            repository.download_artifacts(task["prefix"], task["local"])
        elif task["single"]:
            repository.log_artifact(task["local"], task["prefix"])
        else:
            repository.log_artifacts(task["local"], task["prefix"])

    transfer(task["warm"])
    yield lambda: transfer(task)


@contextlib.contextmanager
def rclone(task: Task) -> Iterator[Callable[[], None]]:
    beside = Path(sys.executable).with_name("rclone")
    program = str(beside) if beside.exists() else shutil.which("rclone") or "rclone"
    remote, local = f"{task['remote']}/{task['prefix']}", task["local"]
    places = [local, remote]
    if task["direction"] == "down":
        places = [remote, f"{local}/{task['prefix']}"]
    options = ["--config", "", "--log-level", "ERROR"]
    yield lambda: _run([program, "copy", *options, *places])


@contextlib.contextmanager
def cp(task: Task) -> Iterator[Callable[[], None]]:
    remote, local = Path(task["uri"], task["prefix"]), Path(task["local"])
    if task["direction"] == "down":
        source, target = remote, local / task["prefix"]
    elif task["single"]:
        source, target = local, remote / local.name
    else:
        source, target = local, remote

    def copy() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _run(["cp", "-r", str(source), str(target)])

    yield copy


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
