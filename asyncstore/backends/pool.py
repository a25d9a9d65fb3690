"""A bounded pool of connections, for storages whose connections serve few transfers at once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from asyncstore.concurrency import shielded
from asyncstore.errors import AsyncStoreError, InvalidStateError, UnavailableError

__all__ = ["Pool"]

C = TypeVar("C")
DISCONNECT_WITHIN = 5.0
KNOCKING = 4


@dataclass
class _Member(Generic[C]):
    connection: C
    users: int = 0
    broken: bool = False
    used_at: float = 0.0


class Pool(Generic[C]):
    """Connections that are made when needed, used again, and dropped when they break.

    Args:
        connect: Makes a connection; raises asyncstore's errors.
        disconnect: Ends one; must not fail when it is broken already.
        size: Most connections at once.
        sharing: Most users of one connection at once.
        max_idle: Seconds after which an idle connection is not used again: servers close those.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        disconnect: Callable[[C], Awaitable[None]],
        *,
        size: int,
        sharing: int = 1,
        max_idle: float = 60.0,
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._size = size
        self._sharing = sharing
        self._max_idle = max_idle
        self._users = anyio.Semaphore(size * sharing)
        # A few at a time: servers drop those that knock together (OpenSSH: MaxStartups).
        self._knocking = anyio.Semaphore(KNOCKING)
        self._making = 0
        self._room = size
        self._changed = anyio.Event()
        self._members: list[_Member[C]] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._members)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[C]:
        """A connection for the block.

        When the block ends with `UnavailableError`, a cancellation or anything that is no error of
        asyncstore, nobody knows the connection's state, and it is not used again.

        Raises:
            InvalidStateError: The pool is closed.
            UnavailableError: The server cannot be reached.
        """
        async with self._users:
            member = await self._take()
            try:
                yield member.connection
            except BaseException as error:
                if isinstance(error, UnavailableError) or not isinstance(error, AsyncStoreError):
                    member.broken = True
                if isinstance(error, UnavailableError):
                    # The server is gone, and with it those that nobody uses just now.
                    for other in self._members:
                        other.broken = True
                raise
            finally:
                member.users -= 1
                member.used_at = time.monotonic()
                await self._drop_broken()
                self._notify()

    async def _take(self) -> _Member[C]:
        while True:
            await self._drop_broken()
            if self._closed:
                raise InvalidStateError("the connections are closed")
            if not self._members:
                self._room = self._size
            full = len(self._members) + self._making >= self._room
            member = self._free()
            if member and (full or not member.users):
                member.users += 1
                return member
            if full:
                await self._changed.wait()
                continue
            try:
                return await self._make()
            except UnavailableError:
                # Servers limit the connections of a user: those that there are have to do.
                if not self._members:
                    raise
                self._room = len(self._members)

    async def _make(self) -> _Member[C]:
        self._making += 1
        try:
            async with self._knocking:
                member = _Member(await self._connect(), users=1)
            self._members.append(member)
            return member
        finally:
            self._making -= 1
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _free(self) -> _Member[C] | None:
        """The least used connection that has room, the latest used one first."""
        free = [m for m in self._members if not m.broken and m.users < self._sharing]
        return min(free, key=lambda m: (m.users, -m.used_at), default=None)

    async def _drop_broken(self) -> None:
        now = time.monotonic()
        unused = [
            m
            for m in self._members
            if not m.users and (m.broken or self._closed or now - m.used_at > self._max_idle)
        ]
        self._members = [m for m in self._members if m not in unused]
        for member in unused:
            await self._end(member)

    async def _end(self, member: _Member[C]) -> None:
        try:
            await shielded(lambda: self._disconnect(member.connection), within=DISCONNECT_WITHIN)
        except UnavailableError:
            return

    async def aclose(self) -> None:
        """End every connection that is idle, and the others when their users are done."""
        self._closed = True
        await self._drop_broken()
