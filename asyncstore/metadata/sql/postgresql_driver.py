"""psycopg connections that are closed when whoever asked for one is cancelled."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import psycopg
from psycopg.conninfo import conninfo_to_dict

from asyncstore.concurrency import task_group
from asyncstore.errors import InvalidParameterError
from asyncstore.uris import redact

__all__ = ["connect", "read_parameters"]

# How long a cancelled connect may go on: a connection that is dropped half made stays open on the
# server until Python collects it.
GRACE_SECONDS = 2.0


def read_parameters(conninfo: str) -> dict[str, Any]:
    """The parameters of a URI of libpq.

    Raises:
        InvalidParameterError: libpq does not take it.
    """
    try:
        return conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        raise InvalidParameterError(
            f"{redact(conninfo)} is not a URI of PostgreSQL: {redact(str(error))}"
        ) from error


async def connect(conninfo: str, **parameters: Any) -> psycopg.AsyncConnection:
    """Connect, for SQLAlchemy's `async_creator`.

    Args:
        conninfo: A URI of libpq.
        **parameters: Further parameters of libpq.

    Returns:
        A connection.

    A cancellation comes out when the connection is made and closed again, or after two seconds.
    """
    connecting = anyio.CancelScope(shield=True)
    async with task_group() as tasks:
        tasks.start_soon(_limit_when_cancelled, connecting)
        with connecting:
            connection = await psycopg.AsyncConnection.connect(
                conninfo, context=None, autocommit=False, **parameters
            )
        tasks.cancel_scope.cancel()
    try:
        await anyio.lowlevel.checkpoint_if_cancelled()
    except BaseException:
        await _close(connection)
        raise
    return connection


async def _limit_when_cancelled(scope: anyio.CancelScope) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = anyio.current_time() + GRACE_SECONDS


async def _close(connection: psycopg.AsyncConnection) -> None:
    with anyio.move_on_after(GRACE_SECONDS, shield=True):
        await connection.close()
