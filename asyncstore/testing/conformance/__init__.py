"""What every storage must do behind `ArtifactRepository`, as tests to subclass.

    class TestMyStorage(ArtifactRepositoryTests):
        @pytest.fixture
        def artifact_uri(self) -> str:
            return "mine://host/somewhere/new"

        @pytest.fixture
        def raw(self, artifact_uri: str) -> RawStorage:
            return ...  # puts, gets and lists without asyncstore

Needs pytest and the `anyio` plugin, with an `anyio_backend` fixture of "asyncio". A test is skipped
only where the storage says that it lacks something: a class attribute, or a fixture that is None.
"""

from __future__ import annotations

from typing import Any

import pytest

from asyncstore.testing.conformance.directories import DirectoryTests
from asyncstore.testing.conformance.endings import EndingTests
from asyncstore.testing.conformance.faults import FaultTests
from asyncstore.testing.conformance.files import FileTests
from asyncstore.testing.conformance.storage import (
    MIB,
    ODD_NAMES,
    TREE,
    Place,
    Progress,
    RawStorage,
)

__all__ = [
    "MIB",
    "ODD_NAMES",
    "TREE",
    "ArtifactRepositoryTests",
    "Place",
    "Progress",
    "RawStorage",
]


class ArtifactRepositoryTests(FileTests, DirectoryTests, FaultTests, EndingTests):
    """The suite. A subclass says where the storage is; it cannot replace a test."""

    pytestmark = pytest.mark.anyio

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that would silently weaken the suite."""
        super().__init_subclass__(**kwargs)
        own = {name for name in dir(ArtifactRepositoryTests) if name.startswith("test_")}
        if replaced := sorted(own & set(vars(cls))):
            raise TypeError(f"{cls.__name__} replaces {', '.join(replaced)}")
