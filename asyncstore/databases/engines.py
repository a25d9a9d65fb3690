"""From MLflow's database URI to an async SQLAlchemy engine."""

from __future__ import annotations

import math
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from asyncstore import settings
from asyncstore.errors import InvalidParameterError, MissingDependencyError
from asyncstore.uris import redact

__all__ = ["connections_of", "create_engine"]

# MLflow's own busy timeout.
SQLITE_BUSY_SECONDS = 20.0
CONNECT_SECONDS = 30
POOL_SECONDS = 60.0


def create_engine(uri: str) -> AsyncEngine:
    """Make the engine. Imports the driver, so call it in a worker thread.

    Args:
        uri: `sqlite:` or `postgresql:`, with any driver of MLflow's.

    Returns:
        An engine without a connection yet.

    Raises:
        InvalidParameterError: The URI cannot be parsed.
        MissingDependencyError: The driver is not installed.
    """
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError) as error:
        raise InvalidParameterError(f"{redact(uri)} is not a database URI") from error
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    return _postgresql(uri)


def _sqlite(url: URL) -> AsyncEngine:
    path = url.database or ":memory:"
    in_memory = path == ":memory:" or "mode=memory" in path
    if not in_memory and not path.startswith("file:"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    # A database in memory is its connection: there can only be one.
    pool = {"pool_size": 1, "max_overflow": 0} if in_memory else _pool()
    url = url.set(drivername="sqlite+aiosqlite")
    arguments, options = url.get_dialect()().create_connect_args(url)
    options["timeout"] = SQLITE_BUSY_SECONDS
    # asyncstore begins transactions itself, and interrupts from another thread.
    options.update(isolation_level=None, check_same_thread=False)
    driver = import_module("asyncstore.databases.sqlite_driver")
    return create_async_engine(
        url,
        async_creator=partial(driver.connect, *arguments, **options),
        poolclass=import_module("sqlalchemy.pool").AsyncAdaptedQueuePool,
        # Every transaction ends by itself, and a second rollback is one more trip to the thread.
        pool_reset_on_return=None,
        **pool,
    )


def _postgresql(uri: str) -> AsyncEngine:
    try:
        driver = import_module("asyncstore.databases.postgresql_driver")
    except ImportError as error:
        raise MissingDependencyError(
            f"{redact(uri)}: PostgreSQL needs psycopg; run: pip install 'asyncstore[postgresql]'"
        ) from error
    # libpq reads the rest itself: several hosts, sslmode, sslrootcert, service, passfile.
    conninfo = f"postgresql:{uri.partition(':')[2]}"
    defaults = {"connect_timeout": CONNECT_SECONDS, "application_name": "asyncstore"}
    given = driver.read_parameters(conninfo)
    missing = {key: value for key, value in defaults.items() if key not in given}
    return create_async_engine(
        "postgresql+psycopg://",
        async_creator=partial(driver.connect, conninfo, **missing),
        **_pool(),
    )


def connections_of(engine: AsyncEngine) -> float:
    """How many connections the engine's pool may have at once; infinity for no limit."""
    pool: Any = engine.pool
    overflow: int = pool._max_overflow  # noqa: SLF001  there is no other way to ask
    return math.inf if overflow < 0 else pool.size() + overflow


def _pool() -> dict[str, Any]:
    """Pool arguments from MLflow's variables; an unset one leaves SQLAlchemy's default."""
    found = {
        "pool_size": settings.MLFLOW_SQLALCHEMYSTORE_POOL_SIZE.get() or None,
        "max_overflow": settings.MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW.get(),
        "pool_recycle": settings.MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE.get(),
        "echo": settings.MLFLOW_SQLALCHEMYSTORE_ECHO.get(),
        "pool_timeout": POOL_SECONDS,
    }
    return {key: value for key, value in found.items() if value is not None}
