"""The async storage layer for machine learning.

Artifacts go to any fsspec filesystem (`ArtifactRepository`), metadata to a SQL database on MLflow's
schema (`MetadataStore`), and `Client` joins both. Names and meanings are MLflow's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncstore.artifacts import ArtifactRepository, TransferOptions
    from asyncstore.client import ActiveRun, Client
    from asyncstore.metadata import MetadataStore

__version__ = "0.1.0"
__all__ = ["ActiveRun", "ArtifactRepository", "Client", "MetadataStore", "TransferOptions"]

_HOME = {
    "ActiveRun": "asyncstore.client",
    "ArtifactRepository": "asyncstore.artifacts",
    "Client": "asyncstore.client",
    "MetadataStore": "asyncstore.metadata",
    "TransferOptions": "asyncstore.artifacts",
}


def __getattr__(name: str) -> Any:
    # Imported when first used, so that `import asyncstore` costs next to nothing.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
