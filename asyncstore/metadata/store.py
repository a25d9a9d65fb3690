"""`MetadataStore`: the interface to experiments, runs and what they logged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio.to_thread

from asyncstore import settings
from asyncstore.errors import InvalidParameterError, MissingDependencyError
from asyncstore.metadata.interface.assessments import AssessmentMethods
from asyncstore.metadata.interface.deletion import DeletionMethods
from asyncstore.metadata.interface.experiments import ExperimentMethods
from asyncstore.metadata.interface.inputs import InputMethods
from asyncstore.metadata.interface.logged import LoggedMethods
from asyncstore.metadata.interface.logged_models import LoggedModelMethods
from asyncstore.metadata.interface.metric_history import MetricHistoryMethods
from asyncstore.metadata.interface.model_versions import ModelVersionMethods
from asyncstore.metadata.interface.prompts import PromptMethods
from asyncstore.metadata.interface.registered_models import RegisteredModelMethods
from asyncstore.metadata.interface.runs import RunMethods
from asyncstore.metadata.interface.traces import TraceMethods
from asyncstore.uris import redact, scheme_of, without_prefix

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MetadataStore"]

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_ARTIFACT_LOCATION = "./mlartifacts"
# Dialects that MLflow's own URIs name.
_SQL = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "mssql")
_FILES = ("", "file")
_SERVERS = ("http", "https", "databricks")


class MetadataStore(
    ExperimentMethods,
    RunMethods,
    LoggedMethods,
    InputMethods,
    MetricHistoryMethods,
    LoggedModelMethods,
    TraceMethods,
    AssessmentMethods,
    RegisteredModelMethods,
    ModelVersionMethods,
    PromptMethods,
    DeletionMethods,
    ABC,
):
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
                Or a directory that MLflow's file store wrote, `./mlruns` or `file:///...`, which is
                loaded into memory and only read: what writes raises UnsupportedError, and
                `asyncstore migrate` moves it into a database.
                Or a tracking server, `http://host:port`, `databricks` or `databricks://profile`,
                which is not asked before the first call.
                None takes MLFLOW_TRACKING_URI, or `sqlite:///mlflow.db` in the current directory.
            artifact_location: Root below which a new experiment gets its artifact location; a local
                path is made absolute. None for `./mlartifacts`. Existing experiments keep theirs. A
                tracking server has its own: only None there.

        Returns:
            The open store.

        Raises:
            NotFoundError: The directory of a file store does not exist.
            InvalidParameterError: It is something else, or the URI is neither.
            SchemaMismatchError: The database is at a schema revision that asyncstore does not know,
                or holds something else than MLflow's tables. Nothing was written.
            MissingDependencyError: The database's driver is not installed.
            UnavailableError: The database cannot be reached.
            UnauthenticatedError: It refuses the user or the password.
        """
        if uri is None:
            uri = settings.MLFLOW_TRACKING_URI.get() or DEFAULT_URI
        uri = without_prefix(uri)
        dialect = scheme_of(uri).partition("+")[0]
        if dialect in _SERVERS or uri == "databricks":
            return await _open_server(uri, artifact_location)
        if dialect not in (*_SQL, *_FILES):
            raise InvalidParameterError(
                f"{redact(uri)} is not a database or a server; there are sqlite:///path, "
                "postgresql://user:password@host/name and http://host:port"
            )
        # SQLAlchemy takes a good part of a second to import, which the event loop need not wait.
        sql: ModuleType = await anyio.to_thread.run_sync(import_module, "asyncstore.metadata.sql")
        opened: MetadataStore
        if dialect in _FILES:
            opened = await sql.open_file_store(uri)
        else:
            opened = await sql.open_store(uri, artifact_location or DEFAULT_ARTIFACT_LOCATION)
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


async def _open_server(uri: str, artifact_location: str | None) -> MetadataStore:
    if artifact_location is not None:
        raise InvalidParameterError(
            f"{redact(uri)}: a tracking server chooses where new experiments have their artifacts; "
            "leave out artifact_location, or give it to create_experiment"
        )
    try:
        connection = await anyio.to_thread.run_sync(import_module, "asyncstore.rest.connection")
        rest = await anyio.to_thread.run_sync(import_module, "asyncstore.metadata.rest")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{redact(uri)} needs {error.name}: pip install 'asyncstore[http]'"
        ) from error
    opened: MetadataStore = rest.RestStore(connection.Connection(uri))
    return opened
