"""uvicorn's protocol, with an end to clients that keep a connection and do nothing with it.

uvicorn bounds only the time between two requests.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from asyncstore import settings

__all__ = ["BoundedProtocol"]


class BoundedProtocol(AutoHTTPProtocol):  # type: ignore[valid-type,misc]  # uvicorn chooses its class when it is imported
    """Closes a connection whose request line and headers, or whose reading, take too long.

    ASYNCSTORE_SERVER_CLIENT_TIMEOUT says how long that is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_due: asyncio.TimerHandle | None = None
        self._reading_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """As asyncio says."""
        super().connection_made(transport)
        self._headers_due = self._later()

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_headers_timer()
        elif self._headers_due is None:
            self._headers_due = self._later()

    def pause_writing(self) -> None:
        """As asyncio says."""
        super().pause_writing()
        self._reading_due = self._later()

    def resume_writing(self) -> None:
        """As asyncio says."""
        super().resume_writing()
        self._stop_reading_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio says."""
        self._stop_headers_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def _stop_headers_timer(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _stop_reading_timer(self) -> None:
        if self._reading_due is not None:
            self._reading_due.cancel()
            self._reading_due = None

    def _later(self) -> asyncio.TimerHandle | None:
        seconds = _timeout()
        # Abort, since close would wait until the client has read what is on its way.
        return None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


@cache
def _timeout() -> int | None:
    return settings.ASYNCSTORE_SERVER_CLIENT_TIMEOUT.get()
