"""The conformance suite on storages of other packages.

Not collected by itself: `tests/artifacts/test_plugins.py` runs it where they are installed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from asyncstore.testing.conformance import ArtifactRepositoryTests, RawStorage
from tests.artifacts.raw import RawDirectory


class _InADirectory(ArtifactRepositoryTests):
    many = 1_001

    @pytest.fixture
    def root(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("root", numbered=True) / "a b%c"

    @pytest.fixture
    def raw(self, root: Path) -> RawStorage:
        root.mkdir()
        return RawDirectory(root)


class TestFsspecEntryPoint(_InADirectory):
    """`attic:`, through the group `fsspec.specs`."""

    storage = "Any fsspec protocol"
    server = "a package with an entry point of fsspec"

    @pytest.fixture
    def artifact_uri(self, root: Path) -> str:
        return f"attic://{root}"


class TestMLflowPlugin(_InADirectory):
    """`cellar:`, through the group `mlflow.artifact_repository`."""

    storage = "Artifact plugins of MLflow"
    server = "a package with an entry point of MLflow"

    @pytest.fixture
    def artifact_uri(self, root: Path) -> str:
        return f"cellar://{root}"


class RawCrate:
    """What the package keeps, by its own names for it."""

    def __init__(self, root: Path) -> None:
        package = importlib.import_module("asyncstore_test_crate")
        self._backend: Any = package.CrateBackend(str(root))

    def put(self, path: str, data: bytes) -> None:
        self._backend._write(path, [data])

    def get(self, path: str) -> bytes:
        data: bytes = self._backend._file(path).read_bytes()
        return data

    def paths(self) -> list[str]:
        return sorted(path for path, _ in self._backend._paths())


class TestBackendPlugin(_InADirectory):
    """`crate:`, through the group `asyncstore.backends`."""

    storage = "Storages of other packages"
    server = "a package with an entry point of asyncstore"

    @pytest.fixture
    def artifact_uri(self, root: Path) -> str:
        return f"crate://{root}"

    @pytest.fixture
    def raw(self, root: Path) -> RawStorage:
        root.mkdir()
        return RawCrate(root)
