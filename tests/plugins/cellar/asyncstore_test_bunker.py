"""An artifact plugin on MLflow's own base class."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository


class BunkerRepository(ArtifactRepository):  # type: ignore[misc]  # not checked here
    """Keeps what it has in a directory; it cannot delete."""

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(artifact_uri, *args, **kwargs)
        self.root = Path(artifact_uri.partition("://")[2])

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        directory = self.root / (artifact_path or "")
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(local_file, directory)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        shutil.copytree(local_dir, self.root / (artifact_path or ""))

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
        ]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        shutil.copy(self.root / remote_file_path, local_path)
