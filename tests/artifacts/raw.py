"""Storages past asyncstore, to prepare and to check with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.servers.s3 import S3Server


class RawDirectory:
    """A directory of this machine.

    Args:
        root: The directory.
        staged: What the names of files contain that a server is still receiving, or about to throw
            away; such are not counted. None counts all.
    """

    def __init__(self, root: Path, staged: str | None = None) -> None:
        self._root = root
        self._staged = staged

    def put(self, path: str, data: bytes) -> None:
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).write_bytes(data)

    def get(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def paths(self) -> list[str]:
        return sorted(
            path.relative_to(self._root).as_posix()
            for path in self._root.rglob("*")
            if path.is_file() or path.is_symlink()
            if self._staged is None or self._staged not in path.name
        )


class RawMemory:
    """fsspec's dictionary of files."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self._root = root

    def put(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self._root}/{path}", data)

    def get(self, path: str) -> bytes:
        data: bytes = self._fs.cat_file(f"{self._root}/{path}")
        return data

    def paths(self) -> list[str]:
        prefix = f"{self._root}/"
        return sorted(
            name.removeprefix(prefix) for name in self._fs.store if name.startswith(prefix)
        )


class RawS3:
    """A prefix of a bucket, by botocore's own client."""

    def __init__(self, server: S3Server, bucket: str, prefix: str) -> None:
        self._server = server
        self._bucket = bucket
        self._prefix = prefix

    def put(self, path: str, data: bytes) -> None:
        self._server.client.put_object(Bucket=self._bucket, Key=self._prefix + path, Body=data)

    def get(self, path: str) -> bytes:
        answer = self._server.client.get_object(Bucket=self._bucket, Key=self._prefix + path)
        data: bytes = answer["Body"].read()
        return data

    def paths(self) -> list[str]:
        keys = self._server.keys(self._bucket, self._prefix)
        return sorted(key.removeprefix(self._prefix) for key in keys)
