"""An artifact plugin as MLflow wants it, but for the base class, so that MLflow is not needed."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


class FileInfo(NamedTuple):
    path: str
    is_dir: bool
    file_size: int | None


class MlflowException(Exception):
    def __init__(self, message: str, error_code: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class OldCellarRepository:
    """From before MLflow passed more than the URI."""

    def __init__(self, artifact_uri: str) -> None:
        self.artifact_uri = artifact_uri
        location = artifact_uri.partition("://")[2]
        if not location.startswith("/"):
            raise MlflowException(f"{artifact_uri}: no path", "INVALID_PARAMETER_VALUE")
        self.root = Path(location)
        # As MLflow's base class does.
        self.thread_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="cellar")
        self.thread_pool.submit(int).result()

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        directory = self.root / (artifact_path or "")
        directory.mkdir(parents=True, exist_ok=True)
        name = Path(local_file).name
        staged = directory / f".{os.urandom(8).hex()}.staged"
        shutil.copyfile(local_file, staged)
        staged.replace(directory / name)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        raise AssertionError("asyncstore sends file by file, many at once")

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        directory = self.root / (path or "")
        if not directory.is_dir():
            return []
        return [
            FileInfo(
                child.relative_to(self.root).as_posix(),
                child.is_dir(),
                None if child.is_dir() else child.stat().st_size,
            )
            for child in directory.iterdir()
            if not child.name.endswith(".staged")
        ]

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        assert dst_path is not None
        source, target = self.root / artifact_path, Path(dst_path, artifact_path)
        try:
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        except OSError as error:
            # MLflow says no more than that.
            raise MlflowException(f"download failed: {error}", "INTERNAL_ERROR") from error
        return str(target)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        target = self.root / (artifact_path or "")
        if not target.exists():
            raise MlflowException(f"{target} is not there", "RESOURCE_DOES_NOT_EXIST")
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()


class CellarRepository(OldCellarRepository):
    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri)
        self.tracking_uri = tracking_uri
        self.registry_uri = registry_uri
