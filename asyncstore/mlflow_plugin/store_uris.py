"""Which database and which artifact root a store of the plugin has."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.utils.uri import resolve_uri_if_local

from asyncstore import settings, uris

__all__ = ["artifact_root", "database_uri"]

# MLflow's default of a store that is opened without a server.
DEFAULT_ARTIFACT_ROOT = "./mlruns"


def database_uri(store_uri: str) -> str:
    """The database's own URI.

    Raises:
        MlflowException: It cannot be shared by two programs' halves, or workspaces are on.
    """
    uri = uris.without_prefix(store_uri)
    if uri in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        raise MlflowException.invalid_parameter_value(
            f"{store_uri}: a database in memory has one connection, and asyncstore and MLflow need "
            "one each; name a file"
        )
    if settings.MLFLOW_ENABLE_WORKSPACES.get():
        raise MlflowException.invalid_parameter_value(
            f"{uris.redact(store_uri)}: asyncstore knows no workspaces; unset "
            "MLFLOW_ENABLE_WORKSPACES, or leave `asyncstore+` out of the URI"
        )
    return uri


def artifact_root(artifact_uri: str | None) -> str:
    """The given root, or the one of the server that this process is, or MLflow's default.

    A local path comes out absolute, as MLflow has it.
    """
    root = artifact_uri or settings.MLFLOW_SERVER_ARTIFACT_ROOT.get() or DEFAULT_ARTIFACT_ROOT
    resolved: str = resolve_uri_if_local(root)
    return resolved
