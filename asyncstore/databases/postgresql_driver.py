"""psycopg, as SQLAlchemy is to use it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from asyncstore.errors import InvalidParameterError
from asyncstore.uris import redact

__all__ = ["BinaryCursor", "connect", "read_parameters"]

connect = psycopg.AsyncConnection.connect


class BinaryCursor(psycopg.AsyncCursor[Any]):
    """A cursor whose rows come as PostgreSQL has them, and bytes not as a text of twice the size.

    Args:
        connection: The connection.
        **options: As for any cursor.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], **options: Any) -> None:
        super().__init__(connection, **options)
        self.format = psycopg.pq.Format.BINARY


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
