"""A filesystem of fsspec that asyncstore does not know: a directory, with the least it needs.

What it opens for writing is at its path from the first byte on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem


class AtticFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    protocol = "attic"
    root_marker = "/"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("attic://").rstrip("/") or "/"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return self._entry(self._strip_protocol(path))

    def _entry(self, path: str) -> dict[str, Any]:
        local = Path(path)
        is_dir = local.is_dir()
        size = 0 if is_dir else local.stat().st_size
        return {"name": path, "type": "directory" if is_dir else "file", "size": size}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if Path(path).is_dir():
            entries = [self._entry(f"{path}/{child.name}") for child in Path(path).iterdir()]
        else:
            entries = [self._entry(path)]
        return entries if detail else [entry["name"] for entry in entries]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return Path(path).open(mode)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        Path(path).mkdir(parents=True, exist_ok=exist_ok)

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        Path(path1).replace(path2)

    def rm_file(self, path: str) -> None:
        Path(path).unlink()

    def rmdir(self, path: str) -> None:
        Path(path).rmdir()
