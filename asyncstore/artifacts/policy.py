"""Which artifact URIs a server opens, though a client said where.

A server has credentials, files and a network that its clients have not: a URI that a client stored
must not have it read another file, or connect to an address of the client's choosing.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from urllib.parse import unquote

from asyncstore import uris
from asyncstore.errors import InvalidParameterError

__all__ = ["ArtifactPolicy"]

LOCAL = ("", "file", "local")
# A bucket of one of these is only reached with the server's own credentials, at a known host.
BUCKETS = ("s3", "s3a", "gs", "gcs")
AZURE = re.compile(
    r"(?:wasbs?|abfss?)://[^@/]+@[a-z0-9]+\.(?:blob|dfs)\.core\."
    r"(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)(?:/.*)?"
)


@dataclass(frozen=True)
class ArtifactPolicy:
    """What a server was started with, and what it was told to open besides.

    Args:
        roots: URIs below which everything may be opened: the server's artifact root and its
            destination.
        schemes: Of these schemes everything may be opened; `file` is for plain paths too.
        any_bucket: Whether every bucket of Amazon S3, Google and Azure may be opened, as MLflow's
            server does; its own credentials decide.
    """

    roots: tuple[str, ...]
    schemes: tuple[str, ...] = ()
    any_bucket: bool = False

    def check(self, artifact_uri: str) -> None:
        """Refuse a URI that is elsewhere. Blocks: links of local directories are followed.

        Args:
            artifact_uri: What a client stored; `asyncstore+` may stand before it.

        Raises:
            InvalidParameterError: It is elsewhere.
        """
        uri = uris.without_prefix(artifact_uri)
        scheme = uris.scheme_of(uri) or "file"
        if scheme in self.schemes:
            return
        if self.any_bucket and (scheme in BUCKETS or AZURE.fullmatch(uri)):
            return
        if any(_below(uri, uris.without_prefix(root)) for root in self.roots):
            return
        raise InvalidParameterError(
            f"the tracking server does not open {uris.redact(artifact_uri)}: it is not below the "
            "server's artifact root or destination; MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES,"
            f" set on the server, can allow {scheme!r}"
        )


def _below(uri: str, root: str) -> bool:
    if uris.scheme_of(uri) in LOCAL:
        if uris.scheme_of(root) not in LOCAL:
            return False
        inside = os.path.realpath(uris.local_path(uri))
        top = os.path.realpath(uris.local_path(root))
        return os.path.commonpath([inside, top]) == top
    decoded = uri
    while (further := unquote(decoded)) != decoded:
        decoded = further
    if ".." in re.split(r"[/\\]", decoded):
        return False
    return uri == root or uri.startswith(root.rstrip("/") + "/")
