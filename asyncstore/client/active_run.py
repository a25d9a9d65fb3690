"""`ActiveRun`: a run while it is being logged to."""

from __future__ import annotations

import asyncio
import getpass
import logging
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from asyncstore.concurrency import in_own_task, shielded
from asyncstore.entities import (
    DatasetInput,
    FileInfo,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunStatus,
)
from asyncstore.errors import AsyncStoreError

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

    from asyncstore.artifacts import ArtifactRepository
    from asyncstore.artifacts.repository import StrPath
    from asyncstore.client.client import Client

__all__ = ["ActiveRun", "now_ms", "running", "system_tags"]

# Bound of a step that a cancellation must not cut in two, in seconds.
STEP_WITHIN = 30.0
_CANCELLATION = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
_logger = logging.getLogger(__name__)


class ActiveRun:
    """A run that `Client.start_run` started: the client's methods without the run's id.

    Methods may be awaited at once from many tasks.

    Args:
        client: The client that started it.
        run: The run as it was then; `data` does not follow what is logged later.
    """

    def __init__(self, client: Client, run: Run) -> None:
        self._client = client
        self._run = run

    def __repr__(self) -> str:
        return f"ActiveRun({self.run_id!r}, run_name={self.info.run_name!r})"

    @property
    def info(self) -> RunInfo:
        """What identifies the run."""
        return self._run.info

    @property
    def data(self) -> RunData:
        """What it held when it was started."""
        return self._run.data

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.info.run_id

    def start_run(
        self,
        *,
        run_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> AbstractAsyncContextManager[ActiveRun]:
        """Start a run nested under this one, in its experiment; see `Client.start_run`."""
        return self._client.start_run(
            experiment_id=self.info.experiment_id,
            parent_run_id=self.run_id,
            run_name=run_name,
            tags=tags,
            description=description,
        )

    async def log_metric(
        self, key: str, value: float, step: int | None = None, timestamp: int | None = None
    ) -> None:
        """Log one value of a metric; see `Client.log_metric`."""
        await self._client.log_metric(self.run_id, key, value, timestamp, step)

    async def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, timestamp: int | None = None
    ) -> None:
        """Log several metrics of one step in one go.

        Args:
            metrics: Values by name.
            step: The training step; None for 0.
            timestamp: Milliseconds since the epoch; None for now.
        """
        at = now_ms() if timestamp is None else timestamp
        values = [Metric(key, float(value), at, step or 0) for key, value in metrics.items()]
        await self._client.log_batch(self.run_id, metrics=values)

    async def log_param(self, key: str, value: Any) -> None:
        """Log a parameter, as text; see `Client.log_param`."""
        await self._client.log_param(self.run_id, key, value)

    async def log_params(self, params: Mapping[str, Any]) -> None:
        """Log several parameters in one go; values as text."""
        values = [Param(key, str(value)) for key, value in params.items()]
        await self._client.log_batch(self.run_id, params=values)

    async def set_tag(self, key: str, value: Any) -> None:
        """Set a tag; the value as text."""
        await self._client.set_tag(self.run_id, key, value)

    async def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set several tags in one go; values as text."""
        await self._client.log_batch(self.run_id, tags=tags)

    async def delete_tag(self, key: str) -> None:
        """Delete a tag; see `Client.delete_tag`."""
        await self._client.delete_tag(self.run_id, key)

    async def log_batch(
        self,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Log metrics, params and tags in one go: all of them or, on an error, none."""
        await self._client.log_batch(self.run_id, metrics, params, tags)

    async def log_artifact(
        self,
        local_path: StrPath,
        artifact_path: str | None = None,
        *,
        callback: Callback | None = None,
    ) -> None:
        """Upload a file or a directory; see `Client.log_artifact`."""
        await self._client.log_artifact(self.run_id, local_path, artifact_path, callback=callback)

    async def log_artifacts(
        self,
        local_dir: StrPath,
        artifact_path: str | None = None,
        *,
        callback: Callback | None = None,
    ) -> None:
        """Upload what is in a directory; see `Client.log_artifacts`."""
        await self._client.log_artifacts(self.run_id, local_dir, artifact_path, callback=callback)

    async def log_inputs(
        self,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        """Record datasets and models that the run read; see `MetadataStore.log_inputs`."""
        await self._client.log_inputs(self.run_id, datasets, models)

    async def log_outputs(self, models: Sequence[LoggedModelOutput]) -> None:
        """Record models that the run made; see `MetadataStore.log_outputs`."""
        await self._client.log_outputs(self.run_id, models)

    async def log_text(self, text: str, artifact_file: str) -> None:
        """Store text, in UTF-8, as the artifact `artifact_file`."""
        await self._client.log_text(self.run_id, text, artifact_file)

    async def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a directory of the run's artifacts."""
        return await self._client.list_artifacts(self.run_id, path)

    async def download_artifacts(
        self, path: str, dst_path: StrPath | None = None, *, callback: Callback | None = None
    ) -> str:
        """Download a file or a directory; see `Client.download_artifacts`."""
        return await self._client.download_artifacts(self.run_id, path, dst_path, callback=callback)

    async def get_artifact_repository(self) -> ArtifactRepository:
        """The repository of the run's artifacts, for what has no method here."""
        return await self._client.get_artifact_repository(self.info.artifact_uri)


def now_ms() -> int:
    """The time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def running(client: Client, begin: Callable[[], Awaitable[Run]]) -> AsyncGenerator[ActiveRun]:
    """A run that begins and ends with the block.

    Args:
        client: What ends it.
        begin: Creates or resumes the run; a cancellation does not cut it in two.

    Yields:
        The run.
    """
    begun: list[Run] = []

    async def step() -> None:
        begun.append(await begin())

    try:
        await in_own_task(lambda: shielded(step, within=STEP_WITHIN))
        yield ActiveRun(client, begun[0])
    except BaseException as error:
        for run in begun:
            await _end_after(error, client, run.info.run_id)
        raise
    run_id = begun[0].info.run_id
    await in_own_task(lambda: shielded(lambda: client.set_terminated(run_id), within=STEP_WITHIN))


async def _end_after(error: BaseException, client: Client, run_id: str) -> None:
    """Mark a run whose block raised `error`, which must not be hidden by what happens here."""
    status = _status_after(error)
    try:
        await in_own_task(
            lambda: shielded(lambda: client.set_terminated(run_id, status), within=STEP_WITHIN)
        )
    except AsyncStoreError as trouble:
        _logger.warning("run %s could not be marked %s: %s", run_id, status, trouble)


def _status_after(error: BaseException) -> RunStatus:
    if isinstance(error, BaseExceptionGroup):
        return "KILLED" if error.subgroup(_CANCELLATION) else "FAILED"
    return "KILLED" if isinstance(error, _CANCELLATION) else "FAILED"


def system_tags() -> dict[str, str]:
    """What MLflow's default context sets. Blocks: the user may come from a directory service."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):
        user = "unknown"
    return {
        "mlflow.user": user,
        "mlflow.source.name": (sys.argv[0] if sys.argv else "") or "<console>",
        "mlflow.source.type": "LOCAL",
    }
