"""Where the artifacts of runs, models and traces are, seen from the server.

A location that begins with `mlflow-artifacts:` is below the server's own destination; any other is
opened directly, where the policy allows it.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import anyio.to_thread

from asyncstore import uris
from asyncstore.artifacts import ArtifactRepository
from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError, UnsupportedError
from asyncstore.server.state import Server

__all__ = ["ArtifactLocation", "destination", "is_proxied", "location_of"]

PROXIED = ("mlflow-artifacts", "http", "https")
ROUTE = "/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class ArtifactLocation:
    """A directory of artifacts in an open repository.

    Args:
        repository: The repository.
        root: The directory's path in it; an empty string for its root.
    """

    repository: ArtifactRepository
    root: str = ""

    def path(self, artifact_path: str | None) -> str:
        """The path in the repository of a path below the directory.

        Raises:
            InvalidParameterError: The path would leave the directory.
        """
        return "/".join(each for each in (self.root, uris.artifact_path(artifact_path)) if each)

    async def list_artifacts(self, artifact_path: str | None) -> list[FileInfo]:
        """List a directory; the paths of the entries are relative to `root`."""
        found = await self.repository.list_artifacts(self.path(artifact_path))
        return [
            FileInfo(posixpath.relpath(each.path, self.root or "."), each.is_dir, each.file_size)
            for each in found
        ]


async def destination(server: Server) -> ArtifactRepository:
    """The repository below which clients name paths.

    Raises:
        UnsupportedError: The server was started with `--no-serve-artifacts`.
    """
    if not server.options.serve_artifacts:
        raise UnsupportedError(
            "the server serves no artifacts: it was started with --no-serve-artifacts",
            error_code="TEMPORARILY_UNAVAILABLE",
        )
    return await server.client.get_artifact_repository(server.options.artifacts_destination)


def is_proxied(artifact_uri: str) -> bool:
    """Whether clients reach a location through a server only."""
    return uris.scheme_of(artifact_uri) in PROXIED


async def location_of(server: Server, artifact_uri: str) -> ArtifactLocation:
    """Open the location of a run, a model or a trace.

    Args:
        server: The server.
        artifact_uri: As it is stored.

    Raises:
        InvalidParameterError: The policy refuses it, or it would leave the destination.
        UnsupportedError: It is behind a server, and this one serves no artifacts.
    """
    path = _proxied_path(artifact_uri)
    if path is not None:
        root = uris.artifact_path(path)
        return ArtifactLocation(await destination(server), root)
    await anyio.to_thread.run_sync(server.artifact_policy.check, artifact_uri)
    return ArtifactLocation(await server.client.get_artifact_repository(artifact_uri))


def _proxied_path(artifact_uri: str) -> str | None:
    """The path below the destination; None for a location that is not behind a server."""
    if not is_proxied(artifact_uri):
        return None
    try:
        parts = urlsplit(artifact_uri)
    except ValueError as error:
        raise InvalidParameterError(f"{uris.redact(artifact_uri)} is not a URI") from error
    path = parts.path
    if parts.scheme != "mlflow-artifacts":
        _, route, path = path.partition(ROUTE)
        if not route:
            return None
    # Clients send it as the path of a URL, which the server decodes.
    return unquote(path.lstrip("/"))
