"""What a server was started with, and what its handlers work on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from asyncstore import settings
from asyncstore.artifacts.policy import ArtifactPolicy
from asyncstore.client import Client
from asyncstore.errors import InvalidStateError
from asyncstore.metadata import MetadataStore

__all__ = ["PROXIED_ROOT", "Server", "ServerOptions"]

T = TypeVar("T")

# Where artifacts are that go through the server; clients resolve it against the server's address.
PROXIED_ROOT = "mlflow-artifacts:/"
DEFAULT_DESTINATION = "./mlartifacts"


@dataclass(frozen=True)
class ServerOptions:
    """The options of a server, with the names of those of `mlflow server`.

    Args:
        backend_store_uri: The database.
        registry_store_uri: The database of the model registry.
        default_artifact_root: Where a new experiment keeps its artifacts.
        artifacts_destination: Where artifacts are that go through the server.
        serve_artifacts: Whether artifacts go through the server.
        artifacts_only: Whether nothing but artifacts is served.
        static_prefix: What stands before every path, such as `/mlflow`; empty for nothing.
    """

    backend_store_uri: str
    registry_store_uri: str
    default_artifact_root: str
    artifacts_destination: str
    serve_artifacts: bool
    artifacts_only: bool
    static_prefix: str

    @staticmethod
    def of(
        backend_store_uri: str | None = None,
        registry_store_uri: str | None = None,
        default_artifact_root: str | None = None,
        artifacts_destination: str | None = None,
        serve_artifacts: bool | None = None,
        artifacts_only: bool | None = None,
        static_prefix: str | None = None,
    ) -> ServerOptions:
        """Options, of which None takes the variable that `mlflow server` sets, or its default."""
        backend = (
            backend_store_uri or settings.MLFLOW_SERVER_FILE_STORE.get() or "sqlite:///mlflow.db"
        )
        serve = serve_artifacts
        if serve is None:
            serve = settings.MLFLOW_SERVER_SERVE_ARTIFACTS.get()
        destination = (
            artifacts_destination
            or settings.MLFLOW_SERVER_ARTIFACT_DESTINATION.get()
            or DEFAULT_DESTINATION
        )
        root = default_artifact_root or settings.MLFLOW_SERVER_ARTIFACT_ROOT.get()
        only = artifacts_only
        if only is None:
            only = settings.MLFLOW_SERVER_ARTIFACTS_ONLY.get()
        prefix = static_prefix
        if prefix is None:
            prefix = settings.MLFLOW_STATIC_PREFIX.get() or ""
        return ServerOptions(
            backend_store_uri=backend,
            registry_store_uri=registry_store_uri
            or settings.MLFLOW_SERVER_REGISTRY_STORE.get()
            or backend,
            default_artifact_root=root or (PROXIED_ROOT if serve else DEFAULT_DESTINATION),
            artifacts_destination=destination,
            serve_artifacts=serve,
            artifacts_only=only,
            static_prefix=prefix.rstrip("/"),
        )


class Server:
    """What handlers work on: the stores and the client, open from start to shutdown.

    Args:
        options: What the server was started with.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._client: Client | None = None
        self._store: MetadataStore | None = None
        self._registry: MetadataStore | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Open the databases, and close what is open when the block ends."""
        options = self.options
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                Client(options.backend_store_uri, artifact_location=options.default_artifact_root)
            )
            if not options.artifacts_only:
                self._store = self._registry = await client.get_metadata_store()
                if options.registry_store_uri != options.backend_store_uri:
                    self._registry = await stack.enter_async_context(
                        await MetadataStore.open(options.registry_store_uri)
                    )
            self._client = client
            try:
                yield
            finally:
                self._client = self._store = self._registry = None

    @property
    def client(self) -> Client:
        """Metadata and artifacts."""
        return _open(self._client)

    @property
    def store(self) -> MetadataStore:
        """Experiments, runs, logged models and traces."""
        return _open(self._store)

    @property
    def registry(self) -> MetadataStore:
        """Registered models and their versions."""
        return _open(self._registry)

    @cached_property
    def artifact_policy(self) -> ArtifactPolicy:
        """What the server opens, and clients may name as a place of artifacts."""
        options = self.options
        return ArtifactPolicy(
            (options.default_artifact_root, options.artifacts_destination),
            settings.MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES.get(),
        )


def _open(part: T | None) -> T:
    if part is None:
        raise InvalidStateError("the server is not running; its lifespan opens the databases")
    return part
