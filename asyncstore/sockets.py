"""The sockets of an HTTP client, so that closing the client closes them."""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from weakref import WeakSet

import anyio

__all__ = ["Sockets"]

HANG_UP_WITHIN = 2.0


class Sockets:
    """The sockets of a client, so that closing it can hang up.

    aiohttp closes the connection of a request that was cancelled when what it had buffered is sent,
    which may be never.
    """

    def __init__(self) -> None:
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: Any) -> socket.socket:
        """The factory that aiohttp asks for a socket."""
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._made.add(made)
        return made

    async def hang_up(self) -> None:
        """Break what is still connected, and wait a moment until the event loop has closed it."""
        for made in self._open():
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
        with anyio.move_on_after(HANG_UP_WITHIN):
            while self._open():  # noqa: ASYNC110  a socket tells nobody when it is closed
                await anyio.sleep(0.001)

    def _open(self) -> list[socket.socket]:
        return [made for made in self._made if made.fileno() != -1]
