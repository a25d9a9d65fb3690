"""`Client`: metadata and artifacts behind one object, with the names of `MlflowClient`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from os import fspath
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from typing_extensions import override

from asyncstore import plugins, settings, uris
from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.artifacts.repository import StrPath
from asyncstore.client.active_run import ActiveRun, now_ms, running, system_tags
from asyncstore.client.base import texts
from asyncstore.client.datasets import DatasetMethods
from asyncstore.client.logged_models import LoggedModelMethods
from asyncstore.client.registry import RegistryMethods
from asyncstore.client.resolve import ResolvingClient
from asyncstore.client.traces import TraceMethods
from asyncstore.concurrency import in_own_task, shielded
from asyncstore.entities import (
    Experiment,
    FileInfo,
    Metric,
    PagedList,
    Param,
    Run,
    RunStatus,
    ViewType,
)
from asyncstore.errors import InvalidParameterError, InvalidStateError

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

    from asyncstore.metadata import MetadataStore

__all__ = ["Client"]

DEFAULT_EXPERIMENT_ID = "0"
CLOSE_WITHIN = 60.0
REMEMBERED_RUNS = 1024


class Client(RegistryMethods, TraceMethods, LoggedModelMethods, DatasetMethods, ResolvingClient):
    """Experiments, runs and their artifacts.

    An async context manager: `async with asyncstore.Client() as client: ...`. The database and the
    storages are opened when they are first needed, once, however many tasks ask. It belongs to the
    event loop that first used it. Runs whose artifacts are on one storage share its connections and
    budgets.

    Args:
        tracking_uri: The database, such as `sqlite:///mlflow.db` or
            `postgresql://user:password@host/name`, or a tracking server, `http://host:port`; None
            takes MLFLOW_TRACKING_URI, or `sqlite:///mlflow.db` in the current directory.
        artifact_location: Root below which a new experiment gets its artifact location; None for
            `./mlartifacts`. Experiments that exist keep theirs.
        storage_options: Arguments of the fsspec filesystem of the artifacts, above the variables;
            None for none.
        transfer: Part sizes, budgets, timeout and retries; None takes the variables.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        artifact_location: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        transfer: TransferOptions | None = None,
    ) -> None:
        self._tracking_uri = tracking_uri
        self._artifact_location = artifact_location
        self._storage_options = storage_options
        self._transfer = transfer
        self._opening = anyio.Lock()
        self._connecting = anyio.Lock()
        self._opened: MetadataStore | None = None
        self._storages: list[ArtifactRepository] = []
        self._artifact_uris: dict[str, str] = {}
        self._closed = False

    async def __aenter__(self) -> Client:
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the database and every storage. Closing again does nothing."""
        self._closed = True

        async def close() -> None:
            async with self._connecting:
                while self._storages:
                    await self._storages.pop().aclose()
            async with self._opening:
                store, self._opened = self._opened, None
                if store is not None:
                    await store.aclose()

        await in_own_task(lambda: shielded(close, within=CLOSE_WITHIN))

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidStateError("the client is closed; make a new one")

    @override
    async def get_metadata_store(self) -> MetadataStore:
        """The metadata store underneath, opened if need be. It ends with the client.

        Raises:
            SchemaMismatchError: The database is at a schema revision that asyncstore does not know.
            UnavailableError: The database cannot be reached.
            InvalidStateError: The client is closed.
        """
        if self._opened is not None and not self._closed:
            return self._opened
        async with self._opening:
            self._check_open()
            if self._opened is None:
                metadata = await anyio.to_thread.run_sync(import_module, "asyncstore.metadata")
                self._opened = await metadata.MetadataStore.open(
                    self._tracking_uri, self._artifact_location
                )
            return self._opened

    async def get_artifact_repository(self, artifact_uri: StrPath) -> ArtifactRepository:
        """The repository of an artifact URI, over the shared connections of its storage.

        Args:
            artifact_uri: Such as `run.info.artifact_uri`; or `runs:/run_id/path`,
                `models:/name/version`, `models:/name@alias`, `models:/name/stage`,
                `models:/name/latest` or `models:/model_id`, which are looked up.

        Returns:
            An open repository that need not be closed; it ends with the client.

        Raises:
            NotFoundError: There is no such run or model.
            InvalidParameterError: Nobody knows the scheme.
            MissingDependencyError: The storage's library is not installed.
            InvalidStateError: The client is closed.
        """
        place = await self._place_of(fspath(artifact_uri))
        return await self._storage_of(place.whole)

    @override
    async def _storage_of(self, artifact_uri: StrPath) -> ArtifactRepository:
        found = self._connected(artifact_uri)
        if found is None:
            async with self._connecting:
                found = self._connected(artifact_uri)
                if found is None:
                    found = await ArtifactRepository(
                        artifact_uri,
                        storage_options=self._options_of(artifact_uri),
                        transfer=self._transfer,
                    ).open()
                    self._storages.append(found)
        return found

    def _options_of(self, artifact_uri: StrPath) -> Mapping[str, Any] | None:
        if uris.scheme_of(fspath(artifact_uri)) != "mlflow-artifacts":
            return self._storage_options
        uri = self._tracking_uri
        return None if uri is None else {"tracking_uri": uris.without_prefix(uri)}

    def _connected(self, artifact_uri: StrPath) -> ArtifactRepository | None:
        self._check_open()
        for storage in self._storages:
            if (repository := storage.at(artifact_uri)) is not None:
                return repository
        return None

    async def _artifacts_of(self, run_id: str) -> ArtifactRepository:
        uri = self._artifact_uris.get(run_id)
        if uri is None:
            uri = (await self.get_run(run_id)).info.artifact_uri
            self._remember(run_id, uri)
        return await self._storage_of(uri)

    def _remember(self, run_id: str, artifact_uri: str) -> None:
        # A run's artifact URI never changes; a service must not remember every run it ever saw.
        while len(self._artifact_uris) >= REMEMBERED_RUNS:
            del self._artifact_uris[next(iter(self._artifact_uris))]
        self._artifact_uris[run_id] = artifact_uri

    # Runs as context managers

    @asynccontextmanager
    async def start_run(
        self,
        *,
        run_id: str | None = None,
        experiment_id: str | None = None,
        experiment_name: str | None = None,
        run_name: str | None = None,
        parent_run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> AsyncGenerator[ActiveRun]:
        """Start a run, or resume one, and end it with the block.

        The run ends FINISHED; FAILED when the block raises an error; KILLED when it is cancelled or
        interrupted. Sets the tags that MLflow sets: user, source name and type, run name, parent;
        and those of run context providers (`mlflow.run_context_provider`), among them asyncstore's
        own, `RunContext`. As in MLflow, a provider's go before the first ones, and `tags` before
        all.

        Args:
            run_id: An existing run to resume; None creates one.
            experiment_id: The experiment; None takes `experiment_name`.
            experiment_name: The experiment, made if it does not exist; None takes
                MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID or experiment 0, as MLflow does.
            run_name: A name; None for a random one.
            parent_run_id: The run to nest it under; `ActiveRun.start_run` does the same.
            tags: Tags, values as text.
            description: Text of the run's description box.

        Yields:
            The run, to log to.

        Raises:
            NotFoundError: The experiment, the parent or the run to resume does not exist.
            InvalidStateError: The parent or the run to resume is deleted.

        A cancellation leaves a run that is KILLED, even when it comes while the run is made. When
        marking it takes longer than 30 s it stays RUNNING and a warning is logged.
        """
        wanted = {key: str(value) for key, value in (tags or {}).items()}
        if description is not None:
            wanted["mlflow.note.content"] = description
        if run_id is not None:
            resumed = run_id
            await self._check_active(resumed)
            block = running(self, lambda: self._resume(resumed, run_name, wanted))
        else:
            if parent_run_id is not None:
                await self._check_active(parent_run_id)
                wanted["mlflow.parentRunId"] = parent_run_id
            experiment = await self._experiment_of_run(experiment_id, experiment_name)
            # Abandoned, they do no harm, and a stranger's provider may take long.
            context = await anyio.to_thread.run_sync(_context_tags, abandon_on_cancel=True)
            wanted = context | wanted
            block = running(
                self, lambda: self.create_run(experiment, tags=wanted, run_name=run_name)
            )
        async with block as run:
            self._remember(run.run_id, run.info.artifact_uri)
            yield run

    async def _resume(self, run_id: str, run_name: str | None, tags: Mapping[str, str]) -> Run:
        store = await self.get_metadata_store()
        await store.update_run_info(run_id, "RUNNING", None, run_name)
        if tags:
            await store.log_batch(run_id, (), (), tags)
        return await store.get_run(run_id)

    async def _check_active(self, run_id: str) -> None:
        run = await self.get_run(run_id)
        if run.info.lifecycle_stage != "active":
            raise InvalidStateError(f"run {run_id} is deleted; restore it first")

    async def _experiment_of_run(self, experiment_id: str | None, name: str | None) -> str:
        if experiment_id is not None:
            if name is not None:
                raise InvalidParameterError("give experiment_id or experiment_name, not both")
            return str(experiment_id)
        if name is not None:
            return (await self.get_or_create_experiment(name)).experiment_id
        name = settings.MLFLOW_EXPERIMENT_NAME.get()
        configured: str | None = settings.MLFLOW_EXPERIMENT_ID.get()
        if name is None:
            return configured or DEFAULT_EXPERIMENT_ID
        found = (await self.get_or_create_experiment(name)).experiment_id
        if configured not in (None, found):
            raise InvalidParameterError(
                f"MLFLOW_EXPERIMENT_ID is {configured}, but the experiment that "
                f"MLFLOW_EXPERIMENT_NAME names has the id {found}; unset one of them"
            )
        return found

    # Experiments

    async def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        """Create an experiment; see `MetadataStore.create_experiment`.

        Returns:
            Its id.

        Raises:
            AlreadyExistsError: The name is taken.
        """
        store = await self.get_metadata_store()
        return await store.create_experiment(name, artifact_location, texts(tags))

    async def get_or_create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Experiment:
        """The experiment of a name, made if it does not exist; safe when many ask at once."""
        store = await self.get_metadata_store()
        return await store.get_or_create_experiment(name, artifact_location, texts(tags))

    async def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment by its id.

        Raises:
            NotFoundError: There is none.
        """
        return await (await self.get_metadata_store()).get_experiment(experiment_id)

    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        """An experiment by its name; None when there is none."""
        return await (await self.get_metadata_store()).get_experiment_by_name(name)

    async def search_experiments(
        self,
        view_type: ViewType = "ACTIVE_ONLY",
        max_results: int = 1000,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Search experiments; see `MetadataStore.search_experiments`."""
        store = await self.get_metadata_store()
        return await store.search_experiments(
            view_type, max_results, filter_string, order_by, page_token
        )

    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an experiment."""
        await (await self.get_metadata_store()).rename_experiment(experiment_id, new_name)

    async def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs as deleted; `restore_experiment` undoes it."""
        await (await self.get_metadata_store()).delete_experiment(experiment_id)

    async def restore_experiment(self, experiment_id: str) -> None:
        """Undo `delete_experiment`."""
        await (await self.get_metadata_store()).restore_experiment(experiment_id)

    async def set_experiment_tag(self, experiment_id: str, key: str, value: Any) -> None:
        """Set a tag of an experiment; the value as text."""
        store = await self.get_metadata_store()
        await store.set_experiment_tag(experiment_id, key, str(value))

    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Delete a tag of an experiment.

        Raises:
            NotFoundError: The experiment or its tag does not exist.
        """
        await (await self.get_metadata_store()).delete_experiment_tag(experiment_id, key)

    # Runs

    async def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Create a run, which stays RUNNING until `set_terminated`; `start_run` ends it by itself.

        Args:
            experiment_id: The experiment.
            start_time: Milliseconds since the epoch; None for now.
            tags: Tags, values as text. `mlflow.user` is the run's user too.
            run_name: A name; None for a random one.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: The experiment is deleted.
        """
        store = await self.get_metadata_store()
        wanted = texts(tags)
        start = now_ms() if start_time is None else start_time
        user = wanted.get("mlflow.user", "unknown")
        return await store.create_run(experiment_id, user, start, wanted, run_name)

    async def get_run(self, run_id: str) -> Run:
        """A run with its latest metrics, params and tags.

        Raises:
            NotFoundError: There is none.
        """
        return await (await self.get_metadata_store()).get_run(run_id)

    async def get_parent_run(self, run_id: str) -> Run | None:
        """The run that a run is nested under; None for a run of its own."""
        parent = (await self.get_run(run_id)).data.tags.get("mlflow.parentRunId")
        return None if parent is None else await self.get_run(parent)

    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: ViewType = "ACTIVE_ONLY",
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """Search runs; see `MetadataStore.search_runs`."""
        store = await self.get_metadata_store()
        return await store.search_runs(
            experiment_ids, filter_string, run_view_type, max_results, order_by, page_token
        )

    async def update_run(
        self, run_id: str, status: RunStatus | None = None, name: str | None = None
    ) -> None:
        """Change a run's status or name; None keeps it."""
        store = await self.get_metadata_store()
        await store.update_run_info(run_id, status, None, name)

    async def set_terminated(
        self, run_id: str, status: RunStatus = "FINISHED", end_time: int | None = None
    ) -> None:
        """End a run.

        Args:
            run_id: The run.
            status: FINISHED, FAILED or KILLED.
            end_time: Milliseconds since the epoch; None for now.
        """
        store = await self.get_metadata_store()
        end = now_ms() if end_time is None else end_time
        await store.update_run_info(run_id, status, end, None)

    async def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted; `restore_run` undoes it."""
        await (await self.get_metadata_store()).delete_run(run_id)

    async def restore_run(self, run_id: str) -> None:
        """Undo `delete_run`."""
        await (await self.get_metadata_store()).restore_run(run_id)

    # What is logged

    async def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        *,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> None:
        """Log one value of a metric.

        Args:
            run_id: The run.
            key: The metric.
            value: Anything that `float` takes; NaN and the infinities are allowed.
            timestamp: Milliseconds since the epoch; None for now.
            step: The training step; None for 0.
            dataset_name: The dataset that it was measured on; None for none.
            dataset_digest: The dataset's digest.
            model_id: The logged model that it is about, besides the run; None for none.
        """
        at = now_ms() if timestamp is None else timestamp
        store = await self.get_metadata_store()
        metric = Metric(key, float(value), at, step or 0, model_id, dataset_name, dataset_digest)
        await store.log_metric(run_id, metric)

    async def log_param(self, run_id: str, key: str, value: Any) -> None:
        """Log a parameter, as text. A parameter is immutable.

        Raises:
            InvalidParameterError: It was logged before with another value.
        """
        await (await self.get_metadata_store()).log_param(run_id, Param(key, str(value)))

    async def set_tag(self, run_id: str, key: str, value: Any) -> None:
        """Set a tag of a run; the value as text."""
        await (await self.get_metadata_store()).set_tag(run_id, key, str(value))

    async def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag of a run.

        Raises:
            NotFoundError: The run has no such tag.
        """
        await (await self.get_metadata_store()).delete_tag(run_id, key)

    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Log metrics, params and tags in one go: all of them or, on an error, none."""
        store = await self.get_metadata_store()
        await store.log_batch(run_id, metrics, params, texts(tags) or {})

    async def get_metric_history(self, run_id: str, key: str) -> PagedList[Metric]:
        """Every value of a metric that was logged."""
        return await (await self.get_metadata_store()).get_metric_history(run_id, key)

    # Artifacts

    async def log_artifact(
        self,
        run_id: str,
        local_path: StrPath,
        artifact_path: str | None = None,
        *,
        callback: Callback | None = None,
    ) -> None:
        """Upload a file, or what is in a directory under the directory's name, as MLflow does.

        Args:
            run_id: The run.
            local_path: The file or directory.
            artifact_path: The directory to put it in; None for the run's root.
            callback: Progress in bytes; None for none.

        Raises:
            NotFoundError: It does not exist, or there is no such run or bucket.

        See `ArtifactRepository.log_artifact` for the rest, and for what a cancellation leaves.
        """
        repository = await self._artifacts_of(run_id)
        path = Path(local_path)
        if await anyio.to_thread.run_sync(path.is_dir):
            below = f"{artifact_path}/{path.name}" if artifact_path else path.name
            await repository.log_artifacts(path, below, callback=callback)
        else:
            await repository.log_artifact(path, artifact_path, callback=callback)

    async def log_artifacts(
        self,
        run_id: str,
        local_dir: StrPath,
        artifact_path: str | None = None,
        *,
        callback: Callback | None = None,
    ) -> None:
        """Upload what is in a directory; see `ArtifactRepository.log_artifacts`."""
        repository = await self._artifacts_of(run_id)
        await repository.log_artifacts(local_dir, artifact_path, callback=callback)

    async def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Store text, in UTF-8, as the artifact `artifact_file`."""
        repository = await self._artifacts_of(run_id)
        await repository.write_bytes(artifact_file, text.encode())

    async def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """List a directory of a run's artifacts; see `ArtifactRepository.list_artifacts`."""
        return await (await self._artifacts_of(run_id)).list_artifacts(path)

    async def download_artifacts(
        self,
        run_id: str | None = None,
        path: str = "",
        dst_path: StrPath | None = None,
        *,
        artifact_uri: str | None = None,
        callback: Callback | None = None,
    ) -> str:
        """Download a file or a directory; see `ArtifactRepository.download_artifacts`.

        Args:
            run_id: The run; None with `artifact_uri`.
            path: The file or directory of the run; an empty string for everything.
            dst_path: The directory to put it in; None makes a temporary one.
            artifact_uri: A file or directory by its URI instead, `runs:/run_id/path` or
                `models:/name/version` for instance, or one of a storage. It comes under its own
                name; all of a run or a model comes without one, as in MLflow.
            callback: Progress in bytes; None for none.

        Returns:
            The local path of what was asked for.

        Raises:
            NotFoundError: There is no such artifact, run or model.
            InvalidParameterError: Not exactly one of run and URI is given.
        """
        if (run_id is None) == (artifact_uri is None) or (path and run_id is None):
            raise InvalidParameterError("give either run_id, with a path, or artifact_uri")
        if run_id is not None:
            repository = await self._artifacts_of(run_id)
            return await repository.download_artifacts(path, dst_path, callback=callback)
        directory, name = await self._directory_of(artifact_uri or "")
        repository = await self._storage_of(directory)
        return await repository.download_artifacts(name, dst_path, callback=callback)


def _context_tags() -> dict[str, str]:
    """Tags of a new run that nobody gave. Blocks."""
    return system_tags() | plugins.run_context_tags()
