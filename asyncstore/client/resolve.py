"""Where artifacts really are that a URI names by a run or a model."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from asyncstore import uris
from asyncstore.client.base import ClientBase
from asyncstore.errors import InvalidParameterError, NotFoundError

if TYPE_CHECKING:
    from asyncstore.artifacts import ArtifactRepository
    from asyncstore.artifacts.repository import StrPath

__all__ = ["Place", "ResolvingClient"]

_TAIL = re.compile(r"[?#].*")
# Of these a path is written with escapes in a URI.
_ESCAPED = (
    *("file", "local", "sftp", "ssh", "ftp", "ftps", "http", "https"),
    *("mlflow-artifacts", "sqlite", "postgresql", "mysql", "mariadb", "mssql"),
)
# A version may be of a model's URI, and that one of a run's.
MOST_STEPS = 5


class Place(NamedTuple):
    """A path below the URI of a storage."""

    uri: str
    path: str

    @property
    def whole(self) -> str:
        """The URI of the path itself."""
        return uris.join(self.uri, self.path)


class ResolvingClient(ClientBase):
    """A client that finds what `runs:/` and `models:/` name."""

    @abstractmethod
    async def _storage_of(self, artifact_uri: StrPath) -> ArtifactRepository:
        """The repository of a storage's URI."""

    async def _place_of(self, uri: str) -> Place:
        """The storage that a URI means, and the path on it.

        Args:
            uri: `runs:/run_id/path`, `models:/name/version/path`, `models:/name/stage/path`,
                `models:/name/latest/path`, `models:/name@alias/path`, `models:/model_id`, or any
                other, which means itself.

        Raises:
            NotFoundError: There is no such run, model, version or alias.
            InvalidParameterError: The URI is none of these, or turns in a circle.
        """
        found = Place(uri, "")
        for _ in range(MOST_STEPS):
            scheme = uris.scheme_of(found.uri)
            if scheme == "runs":
                below = await self._of_run(found.uri)
            elif scheme == "models":
                below = await self._of_model(found.uri)
            else:
                return found
            found = Place(below.uri, "/".join(filter(None, (below.path, found.path))))
        raise InvalidParameterError(f"{uris.redact(uri)} leads in a circle")

    async def _directory_of(self, uri: str) -> Place:
        """The directory that a file or a directory is in, and its name in it.

        All of a run or a model has no name.
        """
        place = await self._place_of(uri)
        if not place.path and place.uri == uri:
            return _cut(uri)
        return Place(uris.join(place.uri, uris.parent(place.path)), place.path.rpartition("/")[2])

    async def _of_run(self, uri: str) -> Place:
        run_id, _, rest = uri.partition(":")[2].lstrip("/").partition("/")
        if not run_id or uri.partition(":")[2].startswith("//"):
            raise InvalidParameterError(f"{uri!r} names no run; write runs:/run_id/path")
        path = uris.artifact_path(rest)
        store = await self.get_metadata_store()
        info = (await store.get_run(run_id)).info
        if path and not await (await self._storage_of(info.artifact_uri)).exists(path):
            # Since MLflow 3 the models that a run logs are elsewhere, and still go by its URI.
            name, _, below = path.partition("/")
            location = await self._model_of_run(info.experiment_id, run_id, name)
            if location is not None:
                return Place(location, below)
        return Place(info.artifact_uri, path)

    async def _model_of_run(self, experiment_id: str, run_id: str, name: str) -> str | None:
        if "'" in name:
            return None
        store = await self.get_metadata_store()
        page_token = None
        while True:
            page = await store.search_logged_models(
                [experiment_id], f"name = '{name}'", page_token=page_token
            )
            for model in page:
                if model.source_run_id == run_id:
                    return model.artifact_location
            page_token = page.token
            if not page_token:
                return None

    async def _of_model(self, uri: str) -> Place:
        store = await self.get_metadata_store()
        # It came with the store.
        from asyncstore.metadata.model_uris import parse_model_uri

        parts = uri.partition(":")[2].strip("/").split("/")
        named = 1 if "@" in parts[0] else 2
        path = uris.artifact_path("/".join(parts[named:]))
        parsed = parse_model_uri("models:/" + "/".join(parts[:named]))
        if parsed.model_id is not None:
            return Place((await store.get_logged_model(parsed.model_id)).artifact_location, path)
        name = parsed.name or ""
        if parsed.alias is not None:
            version = (await store.get_model_version_by_alias(name, parsed.alias)).version
        elif parsed.stage is not None:
            version = await self._latest(name, parsed.stage)
        else:
            version = parsed.version or 0
        return Place(await store.get_model_version_download_uri(name, version), path)

    async def _latest(self, name: str, stage: str) -> int:
        store = await self.get_metadata_store()
        stages = None if stage.lower() == "latest" else [stage]
        found = await store.get_latest_versions(name, stages)
        if not found:
            of_stage = f" in stage {stage!r}" if stages else ""
            raise NotFoundError(f"model {name!r} has no version{of_stage}")
        return max(int(version.version) for version in found)


def _cut(uri: str) -> Place:
    """A storage's URI without the last name of its path, and that name."""
    tail = ""
    if uris.scheme_of(uri) and (found := _TAIL.search(uri)):
        uri, tail = uri[: found.start()], found[0]
    directory, slash, name = uri.rstrip("/").rpartition("/")
    # What stands behind `//` is a host or a bucket.
    if not slash or not directory or directory.endswith((":", ":/")):
        return Place(uri + tail, "")
    escaped = uris.scheme_of(uri).partition("+")[0] in _ESCAPED
    return Place(directory + tail, unquote(name) if escaped else name)
