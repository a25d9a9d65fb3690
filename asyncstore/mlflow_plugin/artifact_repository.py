"""MLflow's `ArtifactRepository` on asyncstore's."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio.to_thread
from fsspec.callbacks import Callback
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact import artifact_repo
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.file_utils import ArtifactProgressBar

from asyncstore import uris
from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import AsyncStoreError
from asyncstore.mlflow_plugin import artifact_policy
from asyncstore.mlflow_plugin.artifact_calls import StreamedUpload, call
from asyncstore.mlflow_plugin.async_artifacts import async_artifacts
from asyncstore.mlflow_plugin.errors import translated
from asyncstore.mlflow_plugin.portal import get_portal

__all__ = ["AsyncStoreRepository", "LocalAsyncStoreRepository", "repository_of"]

T = TypeVar("T")
READ_SIZE = 1024 * 1024
LOCAL = ("", "file", "local")
PRESIGNING = ("s3", "s3a", "r2", "b2", "gs", "gcs", "wasb", "wasbs", "abfs", "abfss", "az")


def mixin(name: str) -> Any:
    """A mixin of MLflow's `artifact_repo` module, or an empty class before it had that one."""
    return getattr(artifact_repo, name, None) or type(name, (), {})


class AsyncStoreRepository(artifact_repo.ArtifactRepository, mixin("StreamUploadMixin")):  # type: ignore[misc]  # MLflow has no types here
    """Artifacts below one URI, on asyncstore's event loop.

    Its methods may be called from any thread and after a fork. Connections are shared by all
    repositories of the process that see the same variables.

    Args:
        artifact_uri: The root, with or without `asyncstore+`.
        tracking_uri: Kept for who asks.
        registry_uri: Kept for who asks.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        # Before MLflow 3 the base class takes the URI alone.
        super().__init__(artifact_uri)
        self.tracking_uri = tracking_uri
        self.registry_uri = registry_uri

    def __repr__(self) -> str:
        return f"{type(self).__name__}(artifact_uri={uris.redact(self.artifact_uri)!r})"

    def _call(self, action: Callable[[ArtifactRepository], Awaitable[T]]) -> T:
        try:
            return call(self.artifact_uri, action)
        except AsyncStoreError as error:
            raise translated(error) from error

    def log_artifact(
        self, local_file: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Upload one file, under its own name; see `asyncstore.ArtifactRepository.log_artifact`.

        Args:
            local_file: The file.
            artifact_path: The directory to put it in; None for the root.

        Raises:
            MlflowException: With the code of asyncstore's error, here and in every method.
        """
        self._call(lambda repository: repository.log_artifact(local_file, artifact_path))

    def log_artifacts(
        self, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Upload what is in a directory, many files at once.

        Args:
            local_dir: The directory.
            artifact_path: The directory to put the contents in; None for the root.
        """
        self._call(lambda repository: repository.log_artifacts(local_dir, artifact_path))

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a directory.

        Args:
            path: The directory; None for the root.

        Returns:
            Its entries with paths relative to the root, sorted; nothing for a file, or where there
            is nothing.
        """
        found = self._call(lambda repository: repository.list_artifacts(path))
        return [FileInfo(entry.path, entry.is_dir, entry.file_size) for entry in found]

    def _is_directory(self, artifact_path: str | None) -> bool:
        return len(self.list_artifacts(artifact_path)) > 0

    def download_artifacts(
        self, artifact_path: str | None, dst_path: str | os.PathLike[str] | None = None
    ) -> str:
        """Download a file or a directory, many files at once.

        Args:
            artifact_path: The file or directory; None or an empty string for everything.
            dst_path: An existing directory to put it in; None makes a temporary one, which is the
                caller's to remove.

        Returns:
            The absolute local path of what was asked for.
        """
        destination = _destination(dst_path)

        async def download(repository: ArtifactRepository) -> str:
            if not artifact_path and destination and not await repository.list_artifacts():
                # A run without artifacts may have no directory yet.
                return destination
            return await repository.download_artifacts(
                artifact_path, destination, callback=progress
            )

        with _Progress() as progress:
            return self._call(download)

    def _download_file(self, remote_file_path: str, local_path: str | os.PathLike[str]) -> None:
        self._call(lambda repository: repository.download_file(remote_file_path, local_path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or a whole directory; what does not exist is no error.

        Args:
            artifact_path: The file or directory; None for everything below the root.
        """
        self._call(lambda repository: repository.delete_artifacts(artifact_path))

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Upload what a stream holds, in constant memory and without a file.

        Args:
            stream: Read in a worker thread to its end.
            artifact_file_name: The file; what counts is its name.
            artifact_path: The directory to put it in; None for the root.
        """
        path = _joined(artifact_path, artifact_file_name)

        async def pieces() -> AsyncGenerator[bytes]:
            while data := await anyio.to_thread.run_sync(stream.read, READ_SIZE):
                yield data

        self._call(lambda repository: repository.write_stream(path, pieces()))

    def _log_artifact_async(
        self, filename: str, artifact_path: str | None = None, artifact: Any = None
    ) -> RunOperations:
        """Queue a picture on asyncstore's loop, which makes a file of it and uploads that.

        Args:
            filename: The file, whose ending says the format.
            artifact_path: The directory to put it in; None for the root.
            artifact: A picture of Pillow.

        Returns:
            MLflow's handle, to wait for the outcome.
        """
        from PIL import Image

        path = _joined(artifact_path, filename)
        # Here, since it imports: a fork in that moment would leave the module locked in the child.
        kind = Image.registered_extensions().get(Path(filename).suffix.lower())

        async def log(repository: ArtifactRepository) -> None:
            data = await anyio.to_thread.run_sync(_encoded, artifact, kind)
            await repository.write_bytes(path, data)

        if get_portal().closed:
            self._call(log)
            return RunOperations([])
        try:
            return async_artifacts.log(self.artifact_uri, path, log)
        except AsyncStoreError as error:
            raise translated(error) from error

    def flush_async_logging(self) -> None:
        """Wait until all that was queued, for any root, is logged, or has failed."""
        async_artifacts.flush()

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        """Upload what comes in on the caller's event loop, in constant memory.

        Args:
            chunks: The content.
            artifact_file_name: The file; what counts is its name.
            artifact_path: The directory to put it in; None for the root.

        A cancellation, and what `chunks` raises, leaves nothing on the storage.
        """
        path = _joined(artifact_path, artifact_file_name)
        try:
            await StreamedUpload(self.artifact_uri, path).send(chunks)
        except AsyncStoreError as error:
            raise translated(error) from error


class LocalAsyncStoreRepository(AsyncStoreRepository):
    """Artifacts in a local directory, which need not be downloaded to be read."""

    def get_local_path(self, artifact_path: str) -> str:
        """Where an artifact is.

        Args:
            artifact_path: The file or directory; an empty string for the root.

        Raises:
            MlflowException: It does not exist, or is not inside the root.
        """
        try:
            name = uris.artifact_path(artifact_path)
            root = Path(uris.local_path(uris.without_prefix(self.artifact_uri)))
        except AsyncStoreError as error:
            raise translated(error) from error
        path = root / name
        if not path.exists():
            raise MlflowException(f"No such artifact: {name!r}", RESOURCE_DOES_NOT_EXIST)
        if not path.resolve().is_relative_to(root.resolve()):
            raise MlflowException(
                f"{name!r} is a link that leads out of the repository", INVALID_PARAMETER_VALUE
            )
        return str(path)

    def download_artifacts(
        self, artifact_path: str | None, dst_path: str | os.PathLike[str] | None = None
    ) -> str:
        """The artifact itself where no `dst_path` is given, as MLflow has it; otherwise a copy.

        Args:
            artifact_path: The file or directory; None or an empty string for everything.
            dst_path: An existing directory to copy it to; None copies nothing.

        Returns:
            The absolute local path of what was asked for.
        """
        if dst_path:
            return super().download_artifacts(artifact_path, dst_path)
        return self.get_local_path(artifact_path or "")


class _Progress(Callback):  # type: ignore[misc]  # fsspec ships no types
    """Bytes on MLflow's progress bar, which its variable turns off."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = ArtifactProgressBar(
            "Downloading artifacts",
            total=0,
            step=1,
            unit="iB",
            unit_scale=True,
            unit_divisor=1024,
            miniters=1,
        )
        self._bar.set_pbar()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def set_size(self, size: int | None) -> None:
        """Bytes in all, as far as they are known; None for unknown."""
        super().set_size(size)
        if self._bar.pbar is not None:
            self._bar.pbar.total = size

    def relative_update(self, inc: int = 1) -> None:
        """Bytes that arrived."""
        super().relative_update(inc)
        if self._bar.pbar is not None:
            self._bar.pbar.update(inc)


def _destination(dst_path: str | os.PathLike[str] | None) -> str | None:
    if not dst_path:
        return None
    destination = Path(dst_path).absolute()
    if not destination.exists():
        raise MlflowException(
            f"the destination of a download must exist: {destination}", RESOURCE_DOES_NOT_EXIST
        )
    if not destination.is_dir():
        raise MlflowException(
            f"the destination of a download must be a directory: {destination}",
            INVALID_PARAMETER_VALUE,
        )
    return str(destination)


def _encoded(picture: Any, kind: str | None) -> bytes:
    content = io.BytesIO()
    picture.save(content, format=kind)
    return content.getvalue()


def _joined(artifact_path: str | None, file_name: str) -> str:
    name = file_name.rpartition("/")[2]
    return f"{artifact_path.rstrip('/')}/{name}" if artifact_path else name


def repository_of(
    artifact_uri: str, tracking_uri: str | None, registry_uri: str | None
) -> AsyncStoreRepository:
    """The repository of a URI, of the class that has what its storage can.

    Raises:
        MlflowException: The URI is not acceptable, or an MLflow server must not open it.
    """
    try:
        scheme = uris.scheme_of(uris.without_prefix(artifact_uri))
        artifact_policy.check(artifact_uri)
    except AsyncStoreError as error:
        raise translated(error) from error
    kind: type[AsyncStoreRepository] = AsyncStoreRepository
    if scheme in LOCAL:
        kind = LocalAsyncStoreRepository
    elif scheme in PRESIGNING:
        from asyncstore.mlflow_plugin.artifact_presigned import PresigningAsyncStoreRepository

        kind = PresigningAsyncStoreRepository
    return kind(artifact_uri, tracking_uri, registry_uri)
