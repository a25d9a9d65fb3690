"""`MetadataStore`: the interface to experiments, runs and what they logged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio.to_thread

from asyncstore import settings
from asyncstore.entities import (
    Experiment,
    Metric,
    PagedList,
    Param,
    Run,
    RunInfo,
    RunStatus,
    ViewType,
)
from asyncstore.errors import InvalidParameterError, UnsupportedError
from asyncstore.uris import redact, scheme_of

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MetadataStore"]

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_ARTIFACT_LOCATION = "./mlartifacts"
SEARCH_MAX_RESULTS_DEFAULT = 1000
# Dialects that MLflow's own URIs name; the ones without a database yet say so.
_SQL = ("sqlite", "postgresql", "postgres")
_LATER = ("http", "https", "mysql", "mariadb", "mssql", "databricks", "file")


class MetadataStore(ABC):
    """Where experiments and runs are recorded, with the methods of MLflow's tracking store.

    Made by `MetadataStore.open`, which is awaited. An async context manager that closes itself; it
    belongs to the event loop that opened it. Any number of tasks may use it at once.

    Every method raises, besides the errors that it names:

    - InvalidStateError: The store is closed, or used from another event loop.
    - InvalidParameterError: An argument is not what MLflow accepts.
    - UnavailableError: The database cannot be reached or is too busy; worth a retry.

    A cancelled write is either done or not done, never half; a cancelled read leaves nothing.
    """

    @staticmethod
    async def open(uri: str | None = None, artifact_location: str | None = None) -> MetadataStore:
        """Open a store.

        A new database gets MLflow's tables; one that MLflow made is used as it is.

        Args:
            uri: The database, as MLflow names it: `sqlite:///relative.db`, `sqlite:////absolute.db`
                or `postgresql://user:password@host:port/name`; a driver in the scheme is ignored.
                None takes MLFLOW_TRACKING_URI, or `sqlite:///mlflow.db` in the current directory.
            artifact_location: Root below which a new experiment gets its artifact location; a local
                path is made absolute. None for `./mlartifacts`. Existing experiments keep theirs.

        Returns:
            The open store.

        Raises:
            SchemaMismatchError: The database is at a schema revision that asyncstore does not know,
                or holds something else than MLflow's tables. Nothing was written.
            UnsupportedError: No store for this scheme.
            MissingDependencyError: The database's driver is not installed.
            UnavailableError: The database cannot be reached.
            UnauthenticatedError: It refuses the user or the password.
        """
        if uri is None:
            uri = settings.MLFLOW_TRACKING_URI.get() or DEFAULT_URI
        dialect = scheme_of(uri).partition("+")[0]
        if dialect not in _SQL:
            known = "sqlite:///path and postgresql://user:password@host/name"
            if dialect in _LATER:
                raise UnsupportedError(
                    f"{redact(uri)}: this version of asyncstore keeps metadata in {known}"
                )
            raise InvalidParameterError(f"{redact(uri)} is not a database; there are {known}")
        # SQLAlchemy takes a good part of a second to import, which the event loop need not wait.
        sql: ModuleType = await anyio.to_thread.run_sync(import_module, "asyncstore.metadata.sql")
        opened: MetadataStore = await sql.open_store(
            uri, artifact_location or DEFAULT_ARTIFACT_LOCATION
        )
        return opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Wait for calls that are under way, then close all connections.

        Closing again does nothing. A cancellation comes out when the connections are closed.
        """

    # Experiments

    @abstractmethod
    async def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Create an experiment.

        Args:
            name: Unique name, at most 500 characters (PostgreSQL: 256, the column's length).
            artifact_location: Path or URI of the artifacts; a local path is made absolute. At most
                MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH characters. None for `<root>/<experiment id>`.
            tags: Tags to set; keys up to 250 characters, values up to 20,000. None for none.

        Returns:
            The id of the experiment.

        Raises:
            AlreadyExistsError: The name is taken, also by a deleted experiment.
        """

    @abstractmethod
    async def get_or_create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """The experiment of a name, created if there is none.

        However many tasks and processes ask at once, one experiment comes of it.

        Args:
            name: As for `create_experiment`.
            artifact_location: As for `create_experiment`; not looked at when the name exists.
            tags: As for `create_experiment`; not set when the name exists.

        Returns:
            The experiment, which may be a deleted one.
        """

    @abstractmethod
    async def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment by its id, active or deleted.

        Args:
            experiment_id: The id.

        Returns:
            The experiment with its tags.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """An experiment by its name, active or deleted.

        Args:
            experiment_name: The name.

        Returns:
            The experiment with its tags; None when there is none.
        """

    @abstractmethod
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an active experiment.

        Args:
            experiment_id: The experiment.
            new_name: A name that no other has.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted.
            AlreadyExistsError: The name is taken (`BAD_REQUEST`, as in MLflow).
        """

    @abstractmethod
    async def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and all its runs as deleted. Artifacts stay.

        Args:
            experiment_id: The experiment.

        Raises:
            NotFoundError: There is no active experiment of this id.
        """

    @abstractmethod
    async def restore_experiment(self, experiment_id: str) -> None:
        """Undo `delete_experiment`, for the experiment and all its runs.

        Args:
            experiment_id: The experiment.

        Raises:
            NotFoundError: There is no deleted experiment of this id.
        """

    @abstractmethod
    async def search_experiments(
        self,
        view_type: ViewType = "ACTIVE_ONLY",
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Search experiments.

        Args:
            view_type: Active ones, deleted ones, or all.
            max_results: Size of a page, 1 to 50,000.
            filter_string: Such as ``name LIKE 'vision-%' AND tags.team = 'a'``; None for all.
                Attributes: name, experiment_id, creation_time, last_update_time.
            order_by: Such as `["name ASC"]`; None for the newest first.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """

    @abstractmethod
    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an active experiment.

        Args:
            experiment_id: The experiment.
            key: At most 250 characters.
            value: At most 20,000 characters.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Delete a tag of an active experiment.

        Args:
            experiment_id: The experiment.
            key: The tag.

        Raises:
            NotFoundError: The experiment or its tag does not exist.
            InvalidStateError: The experiment is deleted (`INVALID_PARAMETER_VALUE`).
        """

    # Runs

    @abstractmethod
    async def create_run(
        self,
        experiment_id: str,
        user_id: str | None = None,
        start_time: int | None = None,
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Create a run, with the status RUNNING.

        Args:
            experiment_id: An active experiment.
            user_id: Who runs it; None for `unknown`, as MLflow's client writes it.
            start_time: Milliseconds since the epoch; None for now.
            tags: Tags to set; None for none.
            run_name: A name, which becomes the tag `mlflow.runName` too; None for that tag's value
                or a random name.

        Returns:
            The run.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: `run_name` and the tag `mlflow.runName` differ.
        """

    @abstractmethod
    async def get_run(self, run_id: str) -> Run:
        """A run, active or deleted, with its latest metrics, params and tags.

        Args:
            run_id: The run.

        Returns:
            The run.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def update_run_info(
        self,
        run_id: str,
        run_status: RunStatus | None = None,
        end_time: int | None = None,
        run_name: str | None = None,
    ) -> RunInfo:
        """Change what identifies an active run.

        Args:
            run_id: The run.
            run_status: The new status; None keeps it.
            end_time: Milliseconds since the epoch; None keeps it.
            run_name: The new name, also of the tag `mlflow.runName`; None or empty keeps it.

        Returns:
            The changed info.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted. Its artifacts stay.

        Args:
            run_id: The run.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def restore_run(self, run_id: str) -> None:
        """Undo `delete_run`.

        Args:
            run_id: The run.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: ViewType = "ACTIVE_ONLY",
        max_results: int | None = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """Search runs with MLflow's filter grammar.

        Args:
            experiment_ids: The experiments to search; none of them finds nothing.
            filter_string: Comparisons joined by AND, such as
                ``metrics.loss < 0.1 AND params."lr" = '0.01' AND tags.team ILIKE 'a%'``; empty for
                all. A quote inside a quoted string is written twice.
            run_view_type: Active ones, deleted ones, or all.
            max_results: Size of a page, 1 to 50,000; None for everything.
            order_by: Such as `["metrics.loss ASC", "start_time DESC"]`; runs without the value come
                last, behind those with NaN. Ties: the latest start first, then the run id.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """

    # What is logged

    @abstractmethod
    async def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value of a metric to an active run.

        Calls that wait at the same time share one transaction; each has its own result. The latest
        value of a metric is the one of the greatest (step, timestamp, value).

        Args:
            run_id: The run.
            metric: NaN is kept; an infinity becomes the largest float of its sign, as in MLflow.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def log_param(self, run_id: str, param: Param) -> None:
        """Log a parameter to an active run. A parameter is immutable.

        Args:
            run_id: The run.
            param: A value above 6,000 characters is cut, unless MLFLOW_TRUNCATE_LONG_VALUES is
                false.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: It was logged before with another value.
        """

    @abstractmethod
    async def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of an active run; `mlflow.runName` renames the run.

        Args:
            run_id: The run.
            key: At most 250 characters.
            value: Above 8,000 characters it is cut, unless MLFLOW_TRUNCATE_LONG_VALUES is false.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag of an active run.

        Args:
            run_id: The run.
            key: The tag.

        Raises:
            NotFoundError: The run or its tag does not exist.
            InvalidStateError: The run is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log metrics, params and tags to an active run in one go: all of them, or none on error.

        Args:
            run_id: The run.
            metrics: At most 1,000.
            params: At most 100, each key once.
            tags: At most 100; None for none. At most 1,000 metrics, params and tags together.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: A limit is exceeded, or a param was logged with another value.
        """

    @abstractmethod
    async def get_metric_history(
        self,
        run_id: str,
        metric_key: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Metric]:
        """Every value of a metric that was logged, by timestamp, step and value.

        Args:
            run_id: The run; one that does not exist has no history.
            metric_key: The metric.
            max_results: Size of a page; None for everything.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """
