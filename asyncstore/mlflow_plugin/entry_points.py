"""What MLflow's discovery loads while it is itself being imported: nothing heavy, no MLflow."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["model_registry_store", "tracking_store"]


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """MLflow's `mlflow.tracking_store`: see `TrackingStore`."""
    module = import_module("asyncstore.mlflow_plugin.tracking_store")
    return module.TrackingStore(store_uri, artifact_uri)


def model_registry_store(store_uri: str) -> Any:
    """MLflow's `mlflow.model_registry_store`: see `ModelRegistryStore`."""
    module = import_module("asyncstore.mlflow_plugin.model_registry_store")
    return module.ModelRegistryStore(store_uri)
