"""How a read that is cancelled has the database end its statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import anyio

__all__ = ["Interruption"]

Interrupt = Callable[[], Awaitable[None]]

END_WITHIN = 30.0
# The moment may fall between two statements.
EVERY = 0.1


class Interruption:
    """One read, and the way to stop it.

    Drivers whose future is cancelled lose the connection (asyncpg, psycopg, aiomysql) or do not
    notice (aiosqlite), and the statement goes on. So the read runs shielded, and whoever awaits it
    asks the database to end it.
    """

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.asked = False
        self._interrupt: Interrupt | None = None

    @contextmanager
    def through(self, interrupt: Interrupt | None) -> Iterator[None]:
        """Statements run, which `interrupt` ends; None when nothing can."""
        self._interrupt = interrupt
        try:
            with anyio.CancelScope(shield=True):
                yield
        finally:
            self._interrupt = None

    async def end(self) -> None:
        """Ask the database until the read is done, but not for ever."""
        self.asked = True
        with anyio.move_on_after(END_WITHIN, shield=True):
            while not self.done.is_set():
                if self._interrupt is not None:
                    with suppress(Exception):  # the statement has an error of its own then
                        await self._interrupt()
                with anyio.move_on_after(EVERY):
                    await self.done.wait()
