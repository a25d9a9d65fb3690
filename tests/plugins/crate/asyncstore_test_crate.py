"""A storage of another package: a directory, with a suffix on the name of each artifact.

`crate:///directory`; `a` and `a/b` can both be files, as in an object store.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncstore.backends import Backend, Capabilities
from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError
from asyncstore.files.reading import ContentType
from asyncstore.multipart import Part

SUFFIX = ".item"


async def open_backend(uri: str, storage_options: Mapping[str, Any]) -> Backend:
    return CrateBackend(_directory(uri))


def _directory(uri: str) -> str:
    directory = uri.partition("://")[2]
    if not directory.startswith("/"):
        raise InvalidParameterError(f"{uri}: write crate:///directory")
    return directory.rstrip("/")


class CrateBackend(Backend):
    def __init__(self, root: str) -> None:
        super().__init__(None, root, Capabilities())

    def at(self, uri: str) -> Backend | None:
        return CrateBackend(_directory(uri)) if uri.startswith("crate:") else None

    def _file(self, path: str) -> Path:
        return Path(self.root, path + SUFFIX)

    def _paths(self, path: str = "") -> list[tuple[str, Path]]:
        root = Path(self.root)
        return [
            (file.relative_to(root).as_posix().removesuffix(SUFFIX), file)
            for file in (root / path).rglob("*")
            if file.name.endswith(SUFFIX)
        ]

    async def info(self, path: str) -> FileInfo:
        def size() -> int | None:
            return self._file(path).stat().st_size if self._file(path).is_file() else None

        if path and (found := await anyio.to_thread.run_sync(size)) is not None:
            return FileInfo(path, False, found)
        if path and not [entry async for entry in self.list(path)]:
            raise self.missing(path)
        return FileInfo(path, True, None)

    async def list(self, path: str) -> AsyncGenerator[FileInfo]:
        def children() -> dict[str, FileInfo]:
            prefix = f"{path}/" if path else ""
            found: dict[str, FileInfo] = {}
            for name, file in self._paths(path):
                child, slash, _ = name.removeprefix(prefix).partition("/")
                size = None if slash else file.stat().st_size
                found[prefix + child] = FileInfo(prefix + child, bool(slash), size)
            return found

        for entry in (await anyio.to_thread.run_sync(children)).values():
            yield entry

    async def read(
        self, path: str, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> AsyncGenerator[bytes]:
        try:
            data = await anyio.to_thread.run_sync(self._file(path).read_bytes)
        except FileNotFoundError as error:
            raise self.missing(path) from error
        data = data[start:end]
        for first in range(0, len(data), 1024 * 1024):
            yield data[first : first + 1024 * 1024]

    async def write(self, path: str, data: bytes | memoryview, content_type: ContentType) -> None:
        await anyio.to_thread.run_sync(partial(self._write, path, [bytes(data)]))

    def _write(self, path: str, pieces: Sequence[bytes]) -> None:
        file = self._file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_name(uuid.uuid4().hex)
        staged.write_bytes(b"".join(pieces))
        staged.replace(file)

    async def start_upload(self, path: str, content_type: ContentType) -> CrateUpload:
        return CrateUpload(self, path)

    async def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._file(path).unlink(missing_ok=True)

    async def delete_directory(self, path: str) -> None:
        pass

    async def aclose(self) -> None:
        pass


class CrateUpload:
    def __init__(self, backend: CrateBackend, path: str) -> None:
        self._backend = backend
        self._path = path
        self._parts: dict[int, bytes] = {}

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        self._parts[part.number] = bytes(data)

    async def complete(self) -> None:
        pieces = [self._parts[number] for number in sorted(self._parts)]
        await anyio.to_thread.run_sync(self._backend._write, self._path, pieces)

    async def abort(self) -> None:
        self._parts.clear()
