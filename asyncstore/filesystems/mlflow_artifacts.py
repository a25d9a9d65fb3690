"""A filesystem over the artifacts that a tracking server passes on to its storage.

The routes are those of `mlflow/protos/mlflow_artifacts.proto` in MLflow 3.17.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import anyio
import anyio.to_thread
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK

from asyncstore import settings
from asyncstore.backends.http_body import body
from asyncstore.errors import (
    AlreadyExistsError,
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.files.reading import LocalFile, OpenFile, content_type_of, find
from asyncstore.filesystems.mlflow_artifacts_direct import (
    DirectDownloads,
    Storage,
    plain,
    quoted,
    send_parts,
)
from asyncstore.multipart import Part
from asyncstore.rest.connection import Connection
from asyncstore.rest.transport import UNREACHED
from asyncstore.retry import RetryPolicy
from asyncstore.uris import parent

__all__ = ["ROUTE", "MlflowArtifactsFileSystem"]

logger = logging.getLogger("asyncstore.filesystems.mlflow_artifacts")

ROUTE = "/api/2.0/mlflow-artifacts"
MIB = 1024 * 1024
READ_SIZE = 256 * 1024
OCTETS = "application/octet-stream"
_RANGE = re.compile(r"bytes (\d+)-")


class MlflowArtifactsFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """The artifacts below a tracking server's destination, on one event loop.

    Nothing is opened before the first request; `aclose` closes it. Each request is sent once:
    whoever asks repeats what raises UnavailableError. Directories come and go with their files.

    Args:
        server: As for `asyncstore.rest.connection.Connection`.
    """

    protocol: ClassVar[tuple[str, ...]] = ("mlflow-artifacts",)
    cachable = False
    root_marker = ""

    def __init__(self, server: str) -> None:
        super().__init__(asynchronous=True, skip_instance_cache=True)
        self.connection = Connection(server, repeats=False)
        self._learning = anyio.Lock()
        self._said: Mapping[str, Any] | None = None
        self._storage = Storage()
        self._downloads = DirectDownloads(self.connection, self._storage, ROUTE)
        self._parts_work = True
        #: How requests are repeated of which one call takes several.
        self.retry = RetryPolicy(attempts=1)
        #: Bytes of a part that goes to the storage itself.
        self.part_size: int = settings.MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE.get() or 8 * MIB

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("mlflow-artifacts:").strip("/")

    async def aclose(self) -> None:
        """Close every connection."""
        try:
            await self._storage.aclose()
        finally:
            await self.connection.aclose()

    # What the server can do

    async def ranges(self) -> bool:
        """Whether stretches of a file can be had from the storage itself."""
        return self._downloads.work and await self._may(
            settings.MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD, "multipart_downloads_enabled"
        )

    async def _parts(self) -> bool:
        return self._parts_work and await self._may(
            settings.MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD, "multipart_uploads_enabled"
        )

    async def _may(self, variable: settings.Setting[bool | None], name: str) -> bool:
        wanted = variable.get()
        if wanted is not None:
            return wanted
        if self._said is None:
            async with self._learning:
                if self._said is None:
                    self._said = await self.retry.run(self._ask)
        return self._said.get(name) is True

    async def _ask(self) -> Mapping[str, Any]:
        try:
            return await self.connection.call("GET", "/api/3.0/mlflow/server-info")
        except UnavailableError:
            raise
        except AsyncStoreError:
            # Servers before MLflow 3.6, and those of artifacts only, do not say.
            return {}

    # Looking

    async def entries(self, path: str) -> list[dict[str, Any]]:
        """The children of a directory as `info` describes them; none where there is none."""
        found = [await self._sized(each) for each in await self._listed(path)]
        name = path.rpartition("/")[2]
        if path and [(each["name"], each["type"]) for each in found] == [
            (f"{path}/{name}", "file")
        ]:
            # Some storages list a file as if it were in a directory of its name.
            above = await self._listed(parent(path))
            if {"name": path, "type": "directory"}.items() <= self._of(above, path).items():
                return found
            return []
        return found

    async def _listed(self, path: str) -> list[dict[str, Any]]:
        params = {"path": plain(path)} if path else None
        try:
            answer = await self.connection.call("GET", f"{ROUTE}/artifacts", params=params)
        except NotFoundError as error:
            if error.error_code == "ENDPOINT_NOT_FOUND":
                raise
            return []
        return [_entry(path, each) for each in answer.get("files", [])]

    async def _sized(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The entry with its size; MLflow leaves it out when it is 0, and when it is not known."""
        if entry["size"] is not None:
            return entry
        url = self._url(entry["name"])
        try:
            async with self.connection.request("GET", url) as response:
                if await response.content.read(1):
                    return entry | {"size": response.content_length}
        except (NotFoundError, InvalidParameterError):
            # Gone since it was listed, or of a name that cannot be asked for.
            return entry
        return entry | {"size": 0}

    @staticmethod
    def _of(entries: list[dict[str, Any]], path: str) -> dict[str, Any]:
        return next((each for each in entries if each["name"] == path), {})

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        if not name:
            return {"name": "", "type": "directory", "size": 0}
        found = self._of(await self._listed(parent(name)), name)
        if not found:
            raise NotFoundError(f"there is no artifact {name!r}")
        self._downloads.forget(name)
        return await self._sized(found)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        name = self._strip_protocol(path)
        info = await self._info(name)
        found = [info] if info["type"] == "file" else await self.entries(name)
        return found if detail else [entry["name"] for entry in found]

    # Reading

    async def pieces(
        self, path: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes]:
        """The bytes of a file from `start` up to `end`; a stretch from its storage, if that can be.

        Raises:
            NotFoundError: There is no such file.
            InvalidParameterError: It is a directory.
            IntegrityError: The storage sent stretches of another content before.
        """
        if start == end:
            return
        if (start or end is not None) and await self.ranges():
            async with aclosing(self._downloads.pieces(path, start, end)) as pieces:
                try:
                    async for piece in pieces:
                        start += len(piece)
                        yield piece
                except (UnsupportedError, UnavailableError) as error:
                    if not self._give_up(error, settings.MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD):
                        raise
                    self._downloads.work = False
                else:
                    return
        try:
            async with aclosing(self._through_server(path, start, end)) as pieces:
                async for piece in pieces:
                    yield piece
        except UnavailableError as error:
            # What MLflow's storages say of a missing file is an internal error to its server.
            if error.error_code == "INTERNAL_ERROR":
                await self._info(path)
            raise

    def _give_up(self, error: AsyncStoreError, variable: settings.Setting[bool | None]) -> bool:
        """Whether to go through the server from now on, as its storage cannot be reached."""
        unreached = isinstance(error.__cause__, UNREACHED) and variable.get() is None
        if unreached:
            logger.warning(
                "%s; artifacts go through the tracking server instead. %s=false does not try",
                error,
                variable.name,
            )
        return unreached or isinstance(error, UnsupportedError)

    async def _through_server(
        self, path: str, start: int, end: int | None
    ) -> AsyncGenerator[bytes]:
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        left = None if end is None else end - start
        async with self.connection.request(
            "GET", self._url(path), headers=headers, accept=(416,)
        ) as response:
            if response.status == 416:
                return
            skip = start - _first_byte(response)
            if skip < 0:
                raise AsyncStoreError(f"{path!r}: the server sent another range than the one asked")
            empty = True
            while left != 0 and (piece := await response.content.read(READ_SIZE)):
                empty = False
                piece, skip = piece[skip:], max(0, skip - len(piece))
                if left is not None:
                    piece = piece[:left]
                    left -= len(piece)
                if piece:
                    yield piece
        # MLflow's server sends an empty file for a directory on some storages.
        if empty and (await self._info(path))["type"] == "directory":
            raise InvalidParameterError(f"{path!r} is a directory")

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        name = self._strip_protocol(path)
        if (start or 0) < 0 or (end or 0) < 0:
            size = (await self._info(name))["size"]
            start, end, _step = slice(start, end).indices(size)
        async with aclosing(self.pieces(name, start or 0, end)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _get_file(
        self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any
    ) -> None:
        name = self._strip_protocol(rpath)
        info = await self._info(name)
        local = Path(lpath)
        if info["type"] == "directory":
            await anyio.to_thread.run_sync(partial(local.mkdir, parents=True, exist_ok=True))
            return
        callback.set_size(info["size"])
        async with (
            await anyio.open_file(local, "wb") as file,
            aclosing(self.pieces(name)) as pieces,
        ):
            async for piece in pieces:
                await file.write(piece)
                callback.relative_update(len(piece))

    # Writing

    async def _pipe_file(
        self, path: str, value: bytes | memoryview, mode: str = "overwrite", **_: Any
    ) -> None:
        name = await self._to_write(path, mode)
        await self._store(name, body(value), len(value))

    async def _put_file(
        self,
        lpath: str,
        rpath: str,
        mode: str = "overwrite",
        callback: Any = DEFAULT_CALLBACK,
        **_: Any,
    ) -> None:
        if await anyio.Path(lpath).is_dir():
            return
        name = await self._to_write(rpath, mode)
        file = await anyio.to_thread.run_sync(find, Path(lpath), name)
        callback.set_size(file.size)
        source = await anyio.to_thread.run_sync(OpenFile, file, callback.relative_update)
        try:
            await self.send(name, file, source)
        finally:
            source.close()

    async def _to_write(self, path: str, mode: str) -> str:
        name = self._strip_protocol(path)
        if not name:
            raise InvalidParameterError("a file needs a name")
        if mode == "create" and await self._exists(name):
            raise AlreadyExistsError(f"{name!r} exists")
        return name

    async def send(self, path: str, file: LocalFile, source: OpenFile) -> None:
        """Store a local file in constant memory: in parts to the storage itself, or as one stream.

        Args:
            path: Where to.
            file: What.
            source: The same, open; told what was sent.

        Raises:
            IntegrityError: The file changed meanwhile; nothing was stored.

        A cancellation leaves the file that was there, unless the server keeps what breaks off.
        """
        # The routes of parts want a directory.
        if parent(path) and file.size and await self._parts():
            if await self._sent_in_parts(path, file, source):
                return
            self._parts_work = False
        await self.retry.run(lambda: self._stream(path, file.size, source))

    async def _sent_in_parts(self, path: str, file: LocalFile, source: OpenFile) -> bool:
        try:
            await send_parts(
                *(self.connection, self._storage, ROUTE, path),
                *(file, source, self.part_size, self.retry),
            )
        except (UnsupportedError, NotFoundError, UnavailableError) as error:
            # A server that is older has no such route.
            if error.error_code != "ENDPOINT_NOT_FOUND" and not self._give_up(
                error, settings.MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD
            ):
                raise
            return False
        return True

    async def _stream(self, path: str, size: int, source: OpenFile) -> None:
        trouble: list[BaseException] = []

        async def content() -> AsyncIterator[bytes]:
            try:
                for offset in range(0, size, MIB):
                    part = Part(0, offset, min(MIB, size - offset))
                    data = await anyio.to_thread.run_sync(source.read, part)
                    if offset + part.size == size:
                        # Before the last bytes: without them nothing is stored.
                        await anyio.to_thread.run_sync(source.check_unchanged)
                    yield bytes(data)
                    source.recycle(data)
                    source.sent(offset + part.size)
            except AsyncStoreError as error:
                trouble.append(error)
                raise

        try:
            await self._store(path, content() if size else b"", size)
        except AsyncStoreError as error:
            # aiohttp takes it for a trouble with the connection.
            raise (trouble[0] if trouble else error) from error.__cause__

    async def _store(self, path: str, content: Any, size: int) -> None:
        headers = {
            "Content-Type": content_type_of(path).type or OCTETS,
            "Content-Length": str(size),
        }
        async with self.connection.request(
            "PUT", self._url(path), headers=headers, body=content
        ) as response:
            await response.read()

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing: directories come with their files."""

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing: directories come with their files."""

    # Removing

    async def remove(self, path: str) -> None:
        """Remove a file or a directory with all that is in it; what is missing is no error."""
        try:
            if path:
                await self.connection.call("DELETE", self._url(path))
                return
        except NotFoundError as error:
            if error.error_code == "ENDPOINT_NOT_FOUND":
                raise
            return
        for entry in await self.entries(""):
            await self.remove(entry["name"])

    async def _rm_file(self, path: str, **_: Any) -> None:
        name = self._strip_protocol(path)
        if (await self._info(name))["type"] == "directory":
            raise InvalidParameterError(f"{name!r} is a directory")
        await self.remove(name)

    async def _rm(self, path: Any, recursive: bool = False, **_: Any) -> None:
        for each in [path] if isinstance(path, str) else path:
            name = self._strip_protocol(each)
            if recursive:
                await self._info(name)
                await self.remove(name)
            else:
                await self._rm_file(name)

    @staticmethod
    def _url(path: str) -> str:
        return f"{ROUTE}/artifacts/{quoted(path)}"


def _entry(directory: str, said: Mapping[str, Any]) -> dict[str, Any]:
    name = str(said.get("path", ""))
    path = f"{directory}/{name}" if directory else name
    if said.get("is_dir"):
        return {"name": path, "type": "directory", "size": 0}
    size = said.get("file_size")
    return {"name": path, "type": "file", "size": None if size is None else int(size)}


def _first_byte(response: aiohttp.ClientResponse) -> int:
    if response.status != 206:
        return 0
    found = _RANGE.match(response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1
