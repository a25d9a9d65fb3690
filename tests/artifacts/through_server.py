"""The suite for artifacts that go through a tracking server, MLflow's or asyncstore's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from asyncstore.testing.conformance import ODD_NAMES, ArtifactRepositoryTests, Place
from asyncstore.testing.fault_proxy import FaultProxy
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.mlflow_server import MlflowServer

__all__ = ["ThroughServer"]

TrackingServer = AsyncstoreServer | MlflowServer
_numbers = itertools.count()
# MLflow's server would take these for others.
NAMES = tuple(
    name for name in ODD_NAMES if "#" not in name and name not in ("100%25.txt", "%41.txt")
)


class ThroughServer(ArtifactRepositoryTests):
    """Subclasses have the fixtures `tracking_server` and `raw`, and the server's name."""

    storage = "Artifacts through a tracking server"
    odd_names = NAMES
    many = 200

    @pytest.fixture
    def prefix(self) -> str:
        return f"{next(_numbers)}/a b+/artifacts"

    @pytest.fixture
    def artifact_uri(self, prefix: str) -> str:
        return f"mlflow-artifacts:/{quote(prefix)}"

    @pytest.fixture
    def storage_options(self, tracking_server: TrackingServer) -> dict[str, str]:
        return {"tracking_uri": tracking_server.url}

    @pytest.fixture
    def proxy(self, tracking_server: TrackingServer) -> Iterator[FaultProxy]:
        with FaultProxy(tracking_server.url.removeprefix("http://")) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, proxy: FaultProxy, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"tracking_uri": proxy.url})
