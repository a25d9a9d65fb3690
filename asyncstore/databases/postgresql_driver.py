"""psycopg, as SQLAlchemy is to use it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from asyncstore.errors import InvalidParameterError
from asyncstore.uris import redact

__all__ = ["connect", "read_parameters"]

connect = psycopg.AsyncConnection.connect


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
