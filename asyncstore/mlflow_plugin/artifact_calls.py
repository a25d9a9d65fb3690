"""How synchronous methods, and those of other event loops, reach asyncstore's repositories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

import anyio

from asyncstore import settings
from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.mlflow_plugin.portal import Portal, get_portal
from asyncstore.retry import RetryPolicy

__all__ = ["StreamedUpload", "call", "shared"]

T = TypeVar("T")
PIECE = 1024 * 1024


def call(artifact_uri: str, action: Callable[[ArtifactRepository], Awaitable[T]]) -> T:
    """Do something with a repository on the portal and wait for it.

    While the interpreter exits, in functions of `atexit`, the portal is closed: then the calling
    thread does it, with connections of its own. Python 3.12 and later start no threads any more by
    then, which most storages need.

    Args:
        artifact_uri: The root.
        action: What to do with it.

    Raises:
        InvalidStateError: The caller is on the portal's own event loop.
    """
    portal = get_portal()
    if portal.closed:
        return asyncio.run(_alone(artifact_uri, action))
    return portal.call(shared(portal, artifact_uri, action))


async def _alone(artifact_uri: str, action: Callable[[ArtifactRepository], Awaitable[T]]) -> T:
    # A thread that cannot be started looks like a storage that is away, and will not come back.
    transfer = TransferOptions(retry=RetryPolicy(attempts=1))
    async with ArtifactRepository(artifact_uri, transfer=transfer) as repository:
        return await action(repository)


def shared(
    portal: Portal, artifact_uri: str, action: Callable[[ArtifactRepository], Awaitable[T]]
) -> Callable[[], Awaitable[T]]:
    """What to run on the portal to do something with a repository.

    Args:
        portal: Where the repository's connections are.
        artifact_uri: The root.
        action: What to do with it.
    """
    # Variables that change take effect with the next call, as in MLflow.
    environment = settings.storage_environment()

    async def run() -> T:
        async with portal.artifact_client(environment) as client:
            return await action(await client.get_artifact_repository(artifact_uri))
        raise AssertionError("unreachable")

    return run


class StreamedUpload:
    """An upload on the portal whose content comes in on another event loop.

    Args:
        artifact_uri: The root.
        path: Which file.
    """

    def __init__(self, artifact_uri: str, path: str) -> None:
        self._artifact_uri = artifact_uri
        self._path = path
        self._portal = get_portal()
        # Both ends are used on the portal only.
        self._sending, self._receiving = anyio.create_memory_object_stream[bytes](1)

    async def send(self, chunks: AsyncIterable[bytes]) -> None:
        """Upload everything.

        Args:
            chunks: The content.

        A cancellation, and what `chunks` raises, cancels the upload, which cleans up on the portal.
        """
        store = shared(self._portal, self._artifact_uri, self._store)

        async def receive() -> None:
            # Closed whatever happens, so that nobody waits to hand over what nobody takes.
            async with self._sending, self._receiving:
                await store()

        ended = asyncio.wrap_future(self._portal.start(receive))
        try:
            held = bytearray()
            async for chunk in chunks:
                held += chunk
                # A trip to the other loop costs more than a small chunk.
                if len(held) >= PIECE:
                    if not await self._hand(bytes(held)):
                        break
                    held.clear()
            else:
                if held:
                    await self._hand(bytes(held))
                await self._hand(b"")
            await ended
        except BaseException:
            ended.cancel()
            raise

    async def _hand(self, piece: bytes) -> bool:
        """Pass a piece on; an empty one is the end. False when nobody takes it any more."""
        try:
            await asyncio.wrap_future(self._portal.start(lambda: self._sending.send(piece)))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def _store(self, repository: ArtifactRepository) -> None:
        await repository.write_stream(self._path, self._pieces())

    async def _pieces(self) -> AsyncGenerator[bytes]:
        while piece := await self._receiving.receive():
            yield piece
