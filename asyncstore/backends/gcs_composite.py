"""Large files to Google Cloud Storage in parts: components that are composed to one object."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

import anyio

from asyncstore.backends.gcs_body import Body, crc32c, encoded, media_type
from asyncstore.concurrency import task_group
from asyncstore.errors import IntegrityError, PermissionDeniedError
from asyncstore.files.reading import ContentType
from asyncstore.files.writing import STAGED_SUFFIX
from asyncstore.multipart import Part

if TYPE_CHECKING:
    from asyncstore.backends.gcs import GcsBackend

__all__ = ["COMPOSED_AT_ONCE", "CompositeUpload"]

# https://cloud.google.com/storage/docs/composite-objects
COMPOSED_AT_ONCE = 32
COMPOSING = 8
LOOK_AGAIN_AFTER = (0.05, 0.2)


class _Component(NamedTuple):
    """A temporary object."""

    name: str
    generation: str


class CompositeUpload:
    """Parts as temporary objects beside the destination, composed to one and deleted.

    Args:
        backend: Where to.
        path: What for.
        key: Its name in the bucket.
        content_type: Of the whole.
    """

    def __init__(self, backend: GcsBackend, path: str, key: str, content_type: ContentType) -> None:
        self._backend = backend
        self._path = path
        self._key = key
        self._type = media_type(content_type)
        directory, slash, _ = key.rpartition("/")
        self._prefix = f"{directory}{slash}.{uuid.uuid4().hex}-"
        self._parts: dict[int, _Component] = {}
        self._composed: dict[str, _Component] = {}
        self._size = 0
        self._done = False
        # Names that may be on the storage, and those of them whose request was cut off.
        self._made: set[str] = set()
        self._in_doubt: dict[str, Body] = {}

    def _name(self, number: int, level: int = 0) -> str:
        return f"{self._prefix}{level}-{number:05d}{STAGED_SUFFIX}"

    async def upload_part(self, part: Part, data: bytes | memoryview) -> None:
        """Store a component.

        Raises:
            IntegrityError: It did not arrive as it was sent.
        """
        name = self._name(part.number)
        checksum = await crc32c(data)
        body = Body(data)
        self._made.add(name)
        self._in_doubt[name] = body
        resource = await self._backend.client.json(
            f"upload part {part.number} of {self._backend.shown(self._path)}",
            "POST",
            self._backend.client.objects(self._backend.bucket, upload=True),
            query={"uploadType": "media", "name": name, "fields": "crc32c,generation,size"},
            headers={
                "Content-Type": "application/octet-stream",
                "X-Goog-Hash": f"crc32c={checksum}",
            },
            body=body,
        )
        del self._in_doubt[name]
        if resource.get("crc32c") != checksum:
            raise IntegrityError(
                f"part {part.number} of {self._backend.shown(self._path)} did not arrive as it was "
                "sent; send the file again"
            )
        self._parts[part.number] = _Component(name, str(resource["generation"]))
        self._size += part.size

    async def complete(self) -> None:
        """Compose the components, 32 at a time, to one object, and delete them.

        Repeated, it goes on where it was.

        Raises:
            PermissionDeniedError: The object is there, and its components may not be deleted.
        """
        if not self._done:
            sources = [self._parts[number] for number in sorted(self._parts)]
            level = 1
            while len(sources) > COMPOSED_AT_ONCE:
                sources = await self._level(sources, level)
                level += 1
            await self._compose(self._key, sources, self._size)
            self._done = True
        try:
            await self._remove()
        except PermissionDeniedError as error:
            raise PermissionDeniedError(
                f"{self._backend.shown(self._path)} is stored, but what it was composed of, "
                f"{self._prefix}*, may not be deleted; allow storage.objects.delete, or raise "
                f"MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE so that files go without parts: {error}"
            ) from error

    async def _level(self, sources: Sequence[_Component], level: int) -> list[_Component]:
        groups = {
            self._name(number, level): sources[first : first + COMPOSED_AT_ONCE]
            for number, first in enumerate(range(0, len(sources), COMPOSED_AT_ONCE), 1)
        }
        slots = anyio.Semaphore(COMPOSING)

        async def compose(name: str, group: Sequence[_Component]) -> None:
            async with slots:
                self._made.add(name)
                self._composed[name] = await self._compose(name, group)

        async with task_group() as tasks:
            for name, group in groups.items():
                if name not in self._composed:
                    tasks.start_soon(compose, name, group)
        return [self._composed[name] for name in groups]

    async def _compose(
        self, name: str, sources: Sequence[_Component], size: int | None = None
    ) -> _Component:
        resource = await self._backend.client.json(
            f"compose {self._backend.shown(self._path)}",
            "POST",
            f"{self._backend.client.objects(self._backend.bucket, name)}/compose",
            query={"fields": "generation,size"},
            headers={"Content-Type": "application/json"},
            body=encoded(
                {
                    "destination": {"contentType": self._type},
                    "sourceObjects": [
                        {
                            "name": source.name,
                            "generation": source.generation,
                            "objectPreconditions": {"ifGenerationMatch": source.generation},
                        }
                        for source in sources
                    ],
                }
            ),
        )
        if size is not None and int(resource["size"]) != size:
            raise IntegrityError(
                f"{self._backend.shown(self._path)} was composed to {resource['size']} bytes "
                f"instead of {size}; send the file again"
            )
        return _Component(name, str(resource["generation"]))

    async def _remove(self) -> None:
        await self._backend.delete_keys(sorted(self._made))
        self._made.clear()

    async def abort(self) -> None:
        """Delete the components.

        A request that was cut off after its last byte may still be carried out: it is looked for
        again, for a moment.
        """
        await self._remove()
        for wait in LOOK_AGAIN_AFTER:
            if not any(body.sent for body in self._in_doubt.values()):
                break
            await anyio.sleep(wait)
            async with aclosing(self._backend.pages(self._prefix)) as pages:
                async for page in pages:
                    await self._backend.delete_keys([entry["name"] for entry in page["items"]])
        self._in_doubt.clear()
