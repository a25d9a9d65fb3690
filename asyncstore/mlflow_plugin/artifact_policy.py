"""Which artifact URIs an MLflow server opens, though a client said where.

MLflow's server refuses what a client could use to have it connect to any host, or read any local
file: it looks at the scheme, and does not know those that begin with `asyncstore+`.
"""

from __future__ import annotations

from asyncstore import settings, uris
from asyncstore.artifacts.policy import ArtifactPolicy

__all__ = ["check"]


def check(artifact_uri: str) -> None:
    """Refuse a URI in an MLflow server that is not below what the server was started with.

    Args:
        artifact_uri: As MLflow has it. One without `asyncstore+` is what MLflow's own rules let
            through.

    Raises:
        InvalidParameterError: It is elsewhere, and the scheme is neither one of a cloud's nor in
            MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES.
    """
    own = settings.MLFLOW_SERVER_ARTIFACT_ROOT.get()
    if own is None or uris.without_prefix(artifact_uri) == artifact_uri:
        return
    destination = settings.MLFLOW_SERVER_ARTIFACT_DESTINATION.get()
    ArtifactPolicy(
        (own,) if destination is None else (own, destination),
        settings.MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES.get(),
        any_bucket=True,
    ).check(artifact_uri)
