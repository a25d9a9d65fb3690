"""asyncstore as MLflow's artifact repository: `asyncstore+s3://bucket/path` and its like.

MLflow's discovery imports this module with MLflow itself. It registers `asyncstore+` and every
protocol that asyncstore or fsspec knows, and the schemes that ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES
names.

Who wins a scheme: MLflow registers its own repositories first and then goes through the entry
points of all packages in the order of `sys.path` and of directories on the disk; the last one
counts. The schemes of the variable are registered with the first of asyncstore's entry points: they
replace MLflow's own, and those of packages that come before; a package that comes later replaces
asyncstore's.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from asyncstore import settings
from asyncstore.artifacts import known_schemes
from asyncstore.errors import AsyncStoreError

__all__ = ["artifact_repository"]

PREFIX = "asyncstore+"
REGISTRY = "mlflow.store.artifact.artifact_repository_registry"


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """MLflow's `mlflow.artifact_repository`: see `artifact_repository.AsyncStoreRepository`.

    Args:
        artifact_uri: The root, with or without `asyncstore+`.
        tracking_uri: Kept for who asks.
        registry_uri: Kept for who asks.

    Returns:
        A repository, with MLflow's mixins for what the storage can. Nothing was opened yet.

    Raises:
        MlflowException: The URI is not acceptable, or the process is an MLflow server that must not
            open it.
    """
    module = import_module("asyncstore.mlflow_plugin.artifact_repository")
    return module.repository_of(artifact_uri, tracking_uri, registry_uri)


def _register() -> None:
    """Register more than the entry points say, in MLflow's registry, which exists by now."""
    registry = import_module(REGISTRY)._artifact_repository_registry  # noqa: SLF001  there is no public name
    known = known_schemes()
    for scheme in known:
        registry.register(PREFIX + scheme, artifact_repository)
    try:
        wanted = settings.ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES.get()
    except AsyncStoreError as error:
        # `import mlflow` must not fail for it.
        warnings.warn(str(error), stacklevel=2)
        return
    for scheme in wanted:
        if scheme not in known:
            warnings.warn(
                f"ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES: asyncstore knows no scheme {scheme!r}; "
                "MLflow's own repositories go on serving it",
                stacklevel=2,
            )
            continue
        registry.register(scheme, artifact_repository)
        if scheme == "file":
            registry.register("", artifact_repository)


# MLflow's discovery looks for the function above while this line may be running.
_register()
