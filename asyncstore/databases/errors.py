"""What a database driver raises, as asyncstore's errors: the one boundary."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

from sqlalchemy import exc

from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.uris import redact

__all__ = ["DRIVER_ERRORS", "RetrySafely", "is_rolled_back", "translate"]

# What comes without SQLAlchemy in between: aiosqlite's own, and the network's.
DRIVER_ERRORS = (exc.SQLAlchemyError, sqlite3.Error, OSError, TimeoutError)

# PostgreSQL's SQLSTATE, or the first two letters of it: Appendix A of its manual.
_ROLLED_BACK = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock timeout
_UNAVAILABLE = ("08", "53", "57P", *_ROLLED_BACK)
_UNAUTHENTICATED = ("28",)
_DENIED = ("42501", "25006")  # insufficient privilege, read-only transaction
_NO_DATABASE = ("3D000",)
# MySQL's and MariaDB's own numbers, as the SQLSTATE that PostgreSQL has for the same trouble: their
# own is often only "general error", and older drivers do not hand it on.
_STATE_OF_MYSQL = {
    1045: "28000",  # access denied
    1698: "28000",  # access denied, no password was asked for
    1044: "42501",  # access to the database denied
    1142: "42501",  # command denied on a table
    1227: "42501",  # a privilege is missing
    1290: "25006",  # --read-only
    1792: "25006",  # read-only transaction
    1049: "3D000",  # unknown database
    1213: "40P01",  # deadlock
    1205: "55P03",  # lock wait timeout
    1020: "40001",  # record has changed since last read
    1040: "53300",  # too many connections
    1203: "53300",  # too many connections of this user
    1053: "57P01",  # server shutdown in progress
    1077: "57P01",  # normal shutdown
    1317: "57P01",  # query was interrupted
    1927: "57P01",  # connection was killed
    1114: "53100",  # table is full
    2002: "08001",  # cannot connect
    2003: "08001",  # cannot connect
    2006: "08006",  # server has gone away
    2013: "08006",  # lost connection
    2055: "08006",  # lost connection
    1264: "22003",  # out of range
    1366: "22000",  # incorrect value
    1406: "22001",  # data too long
}
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
# ODBC's timeouts, and what says nothing, of ODBC's and of MySQL's.
_STATE_OF_ODBC = {"HYT00": "08001", "HYT01": "08001", "42000": "", "HY000": ""}
_REFUSALS = (
    (
        re.compile(r"FATAL:.*(authentication failed|no pg_hba\.conf entry|role .* does not exist)"),
        "28000",
    ),
    (re.compile(r"no password supplied"), "28000"),
    (re.compile(r"FATAL:.*database .* does not exist"), "3D000"),
    (re.compile(r"FATAL:.*permission denied"), "42501"),
)


class RetrySafely(Exception):
    """Raised inside a transaction that must be rolled back and run again, such as a lost race."""


def translate(error: BaseException, doing: str, uri: str) -> AsyncStoreError:
    """asyncstore's error for a driver's.

    Args:
        error: One of `DRIVER_ERRORS`.
        doing: What was being done, such as `logging to run 1`.
        uri: The database; its password is not shown.

    Returns:
        The error to raise, `from error`.
    """
    where = f"{doing} in {redact(uri)}"
    reason = _reason(error)
    state = _sqlstate(error) or _state_of_refusal(reason)
    if state.startswith(_UNAUTHENTICATED):
        return UnauthenticatedError(f"{where}: {reason}; check the user and password of the URI")
    if state.startswith(_DENIED) or "readonly database" in reason:
        return PermissionDeniedError(f"{where}: {reason}")
    if state.startswith(_NO_DATABASE):
        return NotFoundError(f"{where}: {reason}; create it first, with createdb for instance")
    if "unable to open database file" in reason:
        return PermissionDeniedError(
            f"{where}: {reason}; check that its directory exists and may be written"
        )
    if "file is not a database" in reason:
        return InvalidParameterError(f"{where}: {reason}")
    if _is_unavailable(error, state, reason):
        return UnavailableError(f"{where}: {reason}")
    if state.startswith("22") or _is(error, exc.DataError):
        # MLflow's code for what the database does not take, such as a text that is too long.
        return InvalidParameterError(f"{where}: {reason}", error_code="BAD_REQUEST")
    return AsyncStoreError(f"{where}: {reason}", error_code="BAD_REQUEST")


def is_rolled_back(error: BaseException) -> bool:
    """Whether the database says that it undid the transaction and that a new one may succeed."""
    return isinstance(error, RetrySafely) or _sqlstate(error) in _ROLLED_BACK


def _is_unavailable(error: BaseException, state: str, reason: str) -> bool:
    if state:
        return state.startswith(_UNAVAILABLE)
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    if "locked" in reason or "connection" in reason.lower():
        return True
    return isinstance(error, OSError | TimeoutError | exc.TimeoutError)


def _is(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(link, kind) for link in _chain(error))


def _sqlstate(error: BaseException) -> str:
    for link in _chain(error):
        if isinstance(link, exc.SQLAlchemyError | OSError):
            continue
        number = link.args[0] if len(link.args) > 1 else None
        if isinstance(number, int) and number in _STATE_OF_MYSQL:
            return _STATE_OF_MYSQL[number]
        # PostgreSQL's drivers, MySQL's newer ones; ODBC has it where MySQL has its number.
        state = getattr(link, "sqlstate", None) or number
        if isinstance(state, str) and _SQLSTATE.fullmatch(state):
            return _STATE_OF_ODBC.get(state, state)
    return ""


def _state_of_refusal(reason: str) -> str:
    # libpq has no SQLSTATE for a connection that the server refuses, only the server's words.
    for pattern, state in _REFUSALS:
        if pattern.search(reason):
            return state
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _reason(error: BaseException) -> str:
    # The innermost error is the driver's own words, without SQL and without parameters.
    innermost = [*_chain(error)][-1]
    text = str(innermost).strip()
    if not isinstance(innermost, OSError) and len(innermost.args) > 1:
        # MySQL's drivers and ODBC's: a number, then the words.
        text = str(innermost.args[1]).strip()
    return text.splitlines()[0] if text else type(error).__name__
