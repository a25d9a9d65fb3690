"""MLflow's artifact plugins: synchronous repositories of other packages, awaited.

MLflow is not imported here; a plugin's own module does that.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.backends.plugins import Plugin
from asyncstore.backends.spooled import SpooledUpload, pieces_of, spool_directory, spooled
from asyncstore.backends.threaded_errors import translate
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    MissingDependencyError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.files.reading import ContentType
from asyncstore.files.threads import run_in_thread

__all__ = ["PluginBackend", "open_backend"]

T = TypeVar("T")
# As many as MLflow's own thread pools have on a small machine.
MAX_CONCURRENCY = 8
BASE = "mlflow.store.artifact.artifact_repo"


async def open_backend(plugin: Plugin, uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Make the plugin's repository for a URI.

    Args:
        plugin: The class, or a function that returns a repository.
        uri: The root.
        storage_options: MLflow's plugins have none.

    Raises:
        InvalidParameterError: There are storage options, or the plugin refuses the URI.
        MissingDependencyError: The plugin lacks a library.
    """
    if storage_options:
        raise InvalidParameterError(
            f"open {uris.redact(uri)}: {plugin.name} is a plugin of MLflow, which takes no "
            f"storage_options: {', '.join(storage_options)}"
        )
    backend = PluginBackend(_Repositories(plugin), uri)
    try:
        await backend.connect()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await backend.aclose()
        raise
    return backend


class _Repositories:
    """The plugin's objects, one for a root, made in worker threads and ended together."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.threads = anyio.CapacityLimiter(MAX_CONCURRENCY)
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def get(self, uri: str) -> Any:
        """The repository of a root. Blocks."""
        with self._lock:
            if uri not in self._made:
                self._made[uri] = self._make(uri)
            return self._made[uri]

    def _make(self, uri: str) -> Any:
        arguments = {"tracking_uri": None, "registry_uri": None}
        try:
            inspect.signature(self.plugin.value).bind(uri, **arguments)
        except (TypeError, ValueError):
            # Plugins from before MLflow 3 take the URI alone.
            arguments = {}
        return self.plugin.value(uri, **arguments)

    def end(self) -> None:
        """End the thread pools that MLflow's base class gives every repository. Blocks."""
        with self._lock:
            for repository in self._made.values():
                for value in list(getattr(repository, "__dict__", {}).values()):
                    if isinstance(value, Executor):
                        value.shutdown()
            self._made.clear()


class PluginBackend(Backend):
    """A repository with MLflow's synchronous methods, whole files only."""

    def __init__(self, repositories: _Repositories, uri: str) -> None:
        capabilities = Capabilities(ranges=False, max_concurrency=MAX_CONCURRENCY)
        super().__init__(None, uri, capabilities)
        self._repositories = repositories

    async def connect(self) -> None:
        """Make the plugin's object; `fs` is that one, as there is no fsspec filesystem."""
        uri = self.root
        try:
            self.fs = await self._run("", lambda repository: repository)
        except AsyncStoreError as error:
            if isinstance(error.__cause__, ImportError):
                raise MissingDependencyError(
                    f"open {uris.redact(uri)}: {self._repositories.plugin.name} needs "
                    f"{error.__cause__.name or error.__cause__}"
                ) from error.__cause__
            raise

    async def _run(self, path: str, call: Callable[[Any], T]) -> T:
        """Do one thing with the plugin's repository in a worker thread."""
        repositories, uri = self._repositories, self.root
        try:
            return await anyio.to_thread.run_sync(
                lambda: call(repositories.get(uri)), limiter=repositories.threads
            )
        except FileNotFoundError as error:
            raise self.missing(path) from error
        except Exception as error:
            raise translate(uris.redact(self.full_path(path)), error) from error

    def at(self, uri: str) -> Backend | None:
        """Another object of the same plugin, made when it is first used."""
        if uris.scheme_of(uri) != uris.scheme_of(self.root):
            return None
        backend = PluginBackend(self._repositories, uri)
        backend.retry = self.retry
        return backend

    async def info(self, path: str) -> FileInfo:
        """From the listing of the directory above: MLflow has no other way."""
        if not path:
            return FileInfo("", True, None)
        for entry in await self._list(uris.parent(path)):
            if entry.path == path:
                return entry
        if await self._list(path):
            return FileInfo(path, True, None)
        raise self.missing(path)

    async def _list(self, path: str) -> Sequence[FileInfo]:
        def entries(repository: Any) -> list[FileInfo]:
            found = [_entry(entry) for entry in repository.list_artifacts(path or None) or ()]
            # Some list a directory or a file as itself.
            return [entry for entry in found if entry.path not in ("", ".", path)]

        try:
            return await self.retry.run(lambda: self._run(path, entries))
        except (NotFoundError, InvalidParameterError):
            return []

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        """`list_artifacts`."""
        for entry in await self._list(path):
            yield entry

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        """`download_artifacts` to a local file that is gone when the reading ends."""
        async with spooled() as directory:
            try:
                received = await self._run(
                    path, lambda repository: repository.download_artifacts(path, str(directory))
                )
            except AsyncStoreError:
                # MLflow reports whatever happened to a download in the same way.
                await self.info(path)
                raise
            local = Path(received)
            if not await run_in_thread(local.is_file):
                raise InvalidParameterError(f"{uris.redact(self.full_path(path))} is no file")
            async for piece in pieces_of(local, start, end):
                yield piece

    async def _log(self, file: Path, path: str) -> None:
        directory = uris.parent(path) or None
        await self._run(path, lambda repository: repository.log_artifact(str(file), directory))

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        """`log_artifact` of a local file."""
        async with spooled() as directory:
            file = directory / path.rpartition("/")[2]
            await run_in_thread(lambda: file.write_bytes(data))
            await self._log(file, path)

    async def start_upload(self, path: str, content_type: ContentType) -> SpooledUpload:
        """Parts are kept in a local file for `log_artifact`."""
        directory = await run_in_thread(spool_directory)
        return SpooledUpload(directory, path.rpartition("/")[2], lambda file: self._log(file, path))

    async def delete(self, paths: Sequence[str]) -> None:
        """`delete_artifacts`, one by one."""
        for path in paths:
            with contextlib.suppress(NotFoundError):
                await self._run(path, partial(_delete, path=path))

    async def delete_directory(self, path: str) -> None:
        """`delete_artifacts` of what is left: directories that exist by themselves."""
        if path:
            with contextlib.suppress(NotFoundError):
                if (await self.info(path)).is_dir:
                    await self.delete([path])
        else:
            await self.delete([entry.path for entry in await self._list("") if entry.is_dir])

    async def aclose(self) -> None:
        """End the threads of the plugin's objects."""
        await anyio.to_thread.run_sync(self._repositories.end)


def _delete(repository: Any, path: str) -> None:
    method = getattr(type(repository), "delete_artifacts", None)
    if method is None or getattr(method, "__module__", "") == BASE:
        # MLflow's base class has one that does nothing and says nothing.
        raise UnsupportedError(f"{type(repository).__name__} cannot delete")
    repository.delete_artifacts(path)


def _entry(entry: Any) -> FileInfo:
    size = entry.file_size
    is_dir = bool(entry.is_dir)
    return FileInfo(entry.path.rstrip("/"), is_dir, None if is_dir or size is None else int(size))
