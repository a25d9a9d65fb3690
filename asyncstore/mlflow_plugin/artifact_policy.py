"""Which artifact URIs an MLflow server opens, though a client said where.

MLflow's server refuses what a client could use to have it connect to any host, or read any local
file: it looks at the scheme, and does not know those that begin with `asyncstore+`.
"""

from __future__ import annotations

import os.path
import re
from urllib.parse import unquote

from asyncstore import settings, uris
from asyncstore.errors import InvalidParameterError

__all__ = ["check"]

# A bucket of one of these is only reached with the server's own credentials, at a known host.
BUCKETS = ("s3", "s3a", "gs", "gcs")
AZURE = re.compile(
    r"(?:wasbs?|abfss?)://[^@/]+@[a-z0-9]+\.(?:blob|dfs)\.core\."
    r"(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)(?:/.*)?"
)


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
    uri = uris.without_prefix(artifact_uri)
    if own is None or uri == artifact_uri:
        return
    scheme = uris.scheme_of(uri)
    allowed = settings.MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES.get()
    if scheme in (*BUCKETS, *allowed) or AZURE.fullmatch(uri):
        return
    for root in (own, settings.MLFLOW_SERVER_ARTIFACT_DESTINATION.get()):
        if root is not None and _below(uri, uris.without_prefix(root)):
            return
    raise InvalidParameterError(
        f"the tracking server does not open {uris.redact(artifact_uri)}: it is not below the "
        "server's artifact root or destination; MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES, "
        f"set on the server, can allow {scheme!r}"
    )


def _below(uri: str, root: str) -> bool:
    if uris.scheme_of(uri) in ("", "file", "local"):
        if uris.scheme_of(root) not in ("", "file", "local"):
            return False
        inside = os.path.realpath(uris.local_path(uri))
        return os.path.commonpath([inside, os.path.realpath(uris.local_path(root))]) == (
            os.path.realpath(uris.local_path(root))
        )
    decoded = uri
    while (further := unquote(decoded)) != decoded:
        decoded = further
    if ".." in re.split(r"[/\\]", decoded):
        return False
    return uri == root or uri.startswith(root.rstrip("/") + "/")
