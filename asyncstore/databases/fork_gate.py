"""A fork waits until no thread is inside SQLite, and no transaction is open.

SQLite has locks for the whole process. A fork copies them as they are, and one that another thread
or a transaction holds in that moment stays locked in the child for ever, which hangs at its first
statement.
"""

from __future__ import annotations

import asyncio
import os
import threading
from types import TracebackType

__all__ = ["inside_sqlite"]

#: Seconds that a fork waits for statements and transactions, which take milliseconds.
WAIT_WITHIN = 5.0
#: The same in a thread with an event loop, whose own transactions cannot end meanwhile.
WAIT_WITHIN_ON_LOOP = 0.2


class ForkGate:
    """A context manager for threads that call SQLite; closed while the process forks."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Open, with nobody inside; for a child, which has none of its parent's other threads."""
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        self.enter()

    def enter(self) -> None:
        """Wait while the process forks; `leave` must follow, from whichever thread."""
        with self._changed:
            while self._closed:
                self._changed.wait()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Undo `enter`."""
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in, and wait until those inside have left."""
        with self._changed:
            while self._closed:
                self._changed.wait()
            self._closed = True
            self._changed.notify_all()
            within = WAIT_WITHIN_ON_LOOP if _has_loop() else WAIT_WITHIN
            self._changed.wait_for(lambda: not self._inside, within)

    def open(self) -> None:
        """Let everybody in again."""
        with self._changed:
            self._closed = False
            self._changed.notify_all()


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


inside_sqlite = ForkGate()


os.register_at_fork(
    before=inside_sqlite.close,
    after_in_parent=inside_sqlite.open,
    after_in_child=inside_sqlite.reset,
)
