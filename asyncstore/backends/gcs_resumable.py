"""Large files to Google Cloud Storage without parts: one resumable upload, in chunks."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from asyncstore.backends.gcs_body import StreamedBody, encoded, file_crc32c, media_type
from asyncstore.backends.gcs_client import Answer
from asyncstore.backends.gcs_errors import parsed
from asyncstore.concurrency import shielded, task_group
from asyncstore.errors import AsyncStoreError, IntegrityError, NotFoundError, UnavailableError
from asyncstore.files.reading import LocalFile, OpenFile
from asyncstore.files.threads import run_in_thread
from asyncstore.multipart import Part

if TYPE_CHECKING:
    from asyncstore.backends.gcs import GcsBackend

__all__ = ["ResumableUpload"]

MIB = 1024 * 1024
# https://cloud.google.com/storage/docs/performing-resumable-uploads: what is stored of an upload
# is a multiple of this, and what is sent again is ignored.
GRAIN = 256 * 1024
CANCELLED = 499
DELETE_WITHIN = 30.0
START_WITHIN = 90.0


class ResumableUpload:
    """One upload in chunks, each after the other, that goes on where the server says it is.

    Args:
        backend: Where to.
        file: What.
        source: The same, open.
        chunk_size: Bytes of a chunk, a multiple of 256 KiB.
    """

    def __init__(
        self, backend: GcsBackend, file: LocalFile, source: OpenFile, chunk_size: int
    ) -> None:
        self._backend = backend
        self._file = file
        self._source = source
        self._chunk_size = chunk_size
        self._action = f"upload {backend.shown(file.artifact_path)}"
        self._checksum = ""
        # Its address lets anybody write to it: it must not be shown.
        self._session: str | None = None
        self._offset = 0
        self._in_doubt = False
        self._done = False

    async def send(self) -> None:
        """Send the file; each request is bounded and repeated by itself.

        Raises:
            IntegrityError: The file changed while it was being sent; nothing is stored.

        A cancellation deletes the upload.
        """
        self._checksum = await file_crc32c(self._source, self._file.size)
        try:
            while not self._done:
                await self._backend.repeated(self._step)
        except BaseException as error:
            await self._abandon(error)
            raise

    async def _step(self) -> None:
        if self._session is None:
            # Not to be interrupted: the storage would have an upload that nobody knows.
            self._session = await shielded(self._start, within=START_WITHIN)
            self._offset, self._in_doubt = 0, False
        if self._in_doubt:
            known = self._take(await self._ask(self._session))
        else:
            self._in_doubt = True
            before = self._offset
            known = self._take(await self._put(self._session))
            if known and not self._done and self._offset <= before:
                raise UnavailableError(f"{self._action}: the server kept nothing of a chunk")
        if not known and not await self._is_there():
            raise UnavailableError(f"{self._action}: the server lost the upload; it starts again")

    async def _start(self) -> str:
        client = self._backend.client
        kind = media_type(self._file.content_type)
        answer = await client.call(
            self._action,
            "POST",
            client.objects(self._backend.bucket, upload=True),
            query={
                "uploadType": "resumable",
                "name": self._backend.key(self._file.artifact_path),
                "fields": "crc32c,generation,size",
            },
            headers={
                "Content-Type": "application/json; charset=UTF-8",
                "X-Upload-Content-Type": kind,
                "X-Upload-Content-Length": str(self._file.size),
            },
            body=encoded({"contentType": kind, "crc32c": self._checksum}),
        )
        location = urlsplit(answer.headers.get("Location", ""))
        if "upload_id=" not in location.query:
            raise UnavailableError(f"{self._action}: the server started no upload")
        # Whatever host it names: the requests, and the token, go where all others go.
        return f"{client.endpoint}{location.path}?{location.query}"

    async def _ask(self, session: str) -> Answer:
        return await self._request(session, f"bytes */{self._file.size}", b"")

    async def _put(self, session: str) -> Answer:
        """Send a chunk, read while it goes out."""
        start = self._offset
        end = min(start + self._chunk_size, self._file.size)
        put, get = anyio.create_memory_object_stream[memoryview](1)
        with get:
            async with task_group() as tasks:
                tasks.start_soon(self._feed, put, start, end)
                answer = await self._request(
                    session,
                    f"bytes {start}-{end - 1}/{self._file.size}",
                    StreamedBody(get, end - start),
                )
                tasks.cancel_scope.cancel()
        return answer

    async def _feed(self, put: MemoryObjectSendStream[memoryview], start: int, end: int) -> None:
        with put:
            for offset in range(start, end, MIB):
                piece = Part(1, offset, min(MIB, end - offset))
                data = await run_in_thread(partial(self._read, piece))
                await put.send(data)

    def _read(self, piece: Part) -> memoryview:
        data = self._source.read(piece)
        if piece.offset + piece.size == self._file.size:
            # Without its last bytes the server stores nothing.
            self._source.check_unchanged()
        return data

    async def _request(
        self, session: str, content_range: str, body: bytes | StreamedBody
    ) -> Answer:
        return await self._backend.client.call(
            self._action,
            "PUT",
            session,
            headers={"Content-Range": content_range},
            body=body,
            accept=(308, 404, 410, CANCELLED),
        )

    def _take(self, answer: Answer) -> bool:
        """Go on from what the server says that it has; False when it knows no such upload."""
        self._in_doubt = False
        if answer.status == 308:
            kept = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("Range", ""))
            self._offset = (int(kept[1]) + 1) // GRAIN * GRAIN if kept else 0
        elif answer.status < 300:
            resource = parsed(self._action, *answer)
            if resource.get("crc32c", self._checksum) != self._checksum:
                raise IntegrityError(f"{self._action}: it did not arrive as it was sent")
            self._session, self._done = None, True
        else:
            self._session = None
        return self._done or self._session is not None

    async def _is_there(self) -> bool:
        """Whether the upload is gone because it is complete, and only the answer was lost."""
        try:
            resource = await self._backend.resource(self._file.artifact_path, "crc32c,size")
        except NotFoundError:
            return False
        self._done = resource.get("crc32c") == self._checksum
        return self._done

    async def _abandon(self, reason: BaseException) -> None:
        """Delete the upload; a trouble with that does not hide the reason for it."""
        if self._session is None:
            return
        session = self._session

        async def delete() -> None:
            await self._backend.client.call(
                f"cancel the {self._action}", "DELETE", session, accept=(404, 410, CANCELLED)
            )

        try:
            await shielded(lambda: self._backend.retry.run(delete), within=DELETE_WITHIN)
        except AsyncStoreError as error:
            reason.add_note(f"what was sent before could not be removed: {error}")
