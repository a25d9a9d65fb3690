"""From MLflow's database URI to an async SQLAlchemy engine."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from asyncstore import settings
from asyncstore.errors import InvalidParameterError, MissingDependencyError
from asyncstore.uris import redact

__all__ = ["connections_of", "create_engine"]

# MLflow's own busy timeout.
SQLITE_BUSY_SECONDS = 20.0
CONNECT_SECONDS = 30
POOL_SECONDS = 60.0
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0, "pool_timeout": POOL_SECONDS}
# Each has a thread, and more of them take the interpreter from each other: a search by 32 clients
# at once takes a third longer with 5, and connections above pool_size are made anew each time.
SQLITE_CONNECTIONS = {"pool_size": 3, "max_overflow": 0, "pool_timeout": POOL_SECONDS}


def create_engine(uri: str, *, for_content: bool = False, autocommit: bool = False) -> AsyncEngine:
    """Make the engine. Imports the driver, so call it in a worker thread.

    Args:
        uri: `sqlite:`, `postgresql:`, `mysql:`, `mariadb:` or `mssql:`, with any driver.
        for_content: Whether rows with many bytes are to be fetched.
        autocommit: Whether a statement is a transaction of its own unless one was begun in words;
            always so on SQLite, and not on SQL Server.

    Returns:
        An engine without a connection yet.

    Raises:
        InvalidParameterError: The URI cannot be parsed, or a certificate cannot be read.
        MissingDependencyError: The driver is not installed.
    """
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError) as error:
        raise InvalidParameterError(f"{redact(uri)} is not a database URI") from error
    match url.get_backend_name():
        case "sqlite":
            return _sqlite(url, for_content=for_content)
        case "mysql" | "mariadb":
            return _mysql(url, autocommit=autocommit)
        case "mssql":
            return _mssql(url)
    return _postgresql(uri, for_content=for_content, autocommit=autocommit)


def _sqlite(url: URL, *, for_content: bool) -> AsyncEngine:
    path = url.database or ":memory:"
    in_memory = path == ":memory:" or "mode=memory" in path
    if not in_memory and not path.startswith("file:"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    # A database in memory is its connection: there can only be one.
    few = None if for_content else SQLITE_CONNECTIONS
    pool = ONE_CONNECTION if in_memory else _pool(few)
    url = url.set(drivername="sqlite+aiosqlite")
    arguments, options = url.get_dialect()().create_connect_args(url)
    options["timeout"] = SQLITE_BUSY_SECONDS
    # asyncstore begins transactions itself, and interrupts from another thread.
    options.update(isolation_level=None, check_same_thread=False)
    driver = import_module("asyncstore.databases.sqlite_driver")
    return create_async_engine(
        url,
        async_creator=partial(driver.connect, *arguments, **options),
        # Every transaction ends by itself, and a second rollback is one more trip to the thread.
        pool_reset_on_return=None,
        **{"poolclass": AsyncAdaptedQueuePool, **pool},
    )


def _postgresql(uri: str, *, for_content: bool, autocommit: bool) -> AsyncEngine:
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
    missing: dict[str, Any] = {key: v for key, v in defaults.items() if key not in given}
    if for_content:
        missing["cursor_factory"] = driver.BinaryCursor
    return create_async_engine(
        "postgresql+psycopg://",
        async_creator=partial(driver.connect, conninfo, autocommit=autocommit, **missing),
        **_pool(),
    )


def _mysql(url: URL, *, autocommit: bool) -> AsyncEngine:
    try:
        driver = import_module("asyncstore.databases.mysql_driver")
    except ImportError as error:
        raise MissingDependencyError(
            f"{_shown(url)}: MySQL needs aiomysql; run: pip install 'asyncstore[mysql]'"
        ) from error
    url = url.set(drivername="mysql+aiomysql")
    dialect: Any = url.get_dialect()
    _, options = dialect(dbapi=dialect.import_dbapi()).create_connect_args(url)
    options = {"charset": "utf8mb4", "connect_timeout": CONNECT_SECONDS, **options}
    if unknown := options.keys() - driver.OPTIONS:
        raise InvalidParameterError(
            f"{_shown(url)}: aiomysql has no option {', '.join(sorted(unknown))}"
        )
    options["ssl"] = _mysql_tls(options.get("ssl") or {})
    return create_async_engine(
        url,
        async_creator=partial(driver.connect, autocommit=autocommit, **options),
        # PostgreSQL's default. MySQL's own locks gaps between rows, and writers that do nothing to
        # each other meet in deadlocks.
        isolation_level="READ COMMITTED",
        **_pool(),
    )


def _mysql_tls(given: Mapping[str, Any]) -> ssl.SSLContext | None:
    """The TLS of MLflow's variables, above that of the URI (`?ssl_ca=...`); None for none.

    As with MLflow's driver, the certificate is checked, and the host's name in it only on
    `?ssl_check_hostname=true`: the certificates that MySQL makes for itself have no name.
    """
    variables = {
        "ca": settings.MLFLOW_MYSQL_SSL_CA.get(),
        "cert": settings.MLFLOW_MYSQL_SSL_CERT.get(),
        "key": settings.MLFLOW_MYSQL_SSL_KEY.get(),
    }
    wanted = {**given, **{name: path for name, path in variables.items() if path}}
    if not wanted:
        return None
    try:
        context = ssl.create_default_context(cafile=wanted.get("ca"), capath=wanted.get("capath"))
        context.check_hostname = str(wanted.get("check_hostname")).lower() in ("true", "1")
        if wanted.get("cert"):
            context.load_cert_chain(wanted["cert"], wanted.get("key"))
        if wanted.get("cipher"):
            context.set_ciphers(wanted["cipher"])
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(
            f"{name}={wanted[name]}" for name in ("ca", "cert", "key") if name in wanted
        )
        raise InvalidParameterError(
            f"MLFLOW_MYSQL_SSL_CA, _CERT, _KEY or the ssl_ part of the URI ({files}): {error}"
        ) from error
    return context


def _mssql(url: URL) -> AsyncEngine:
    try:
        import_module("aioodbc")
    except ImportError as error:
        raise MissingDependencyError(
            f"{_shown(url)}: SQL Server needs aioodbc and the system's unixODBC ({error}); run: "
            "pip install 'asyncstore[mssql]'"
        ) from error
    if not {"driver", "odbc_connect", "dsn"} & url.query.keys() and url.database:
        raise InvalidParameterError(
            f"{_shown(url)} names no ODBC driver; add ?driver=ODBC+Driver+18+for+SQL+Server, or "
            "whichever is installed"
        )
    return create_async_engine(
        url.set(drivername="mssql+aioodbc"),
        connect_args={"timeout": CONNECT_SECONDS},
        **_pool(),
    )


def _shown(url: URL) -> str:
    # What an ODBC URI has behind the question mark may hold a password of its own.
    return url.set(query={}).render_as_string(hide_password=True)


def connections_of(engine: AsyncEngine) -> float:
    """How many connections the engine's pool may have at once; infinity for no limit."""
    pool: Any = engine.pool
    if isinstance(pool, NullPool):
        return math.inf
    overflow: int = pool._max_overflow  # noqa: SLF001  there is no other way to ask
    return math.inf if overflow < 0 else pool.size() + overflow


def _pool(connections: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Pool arguments from MLflow's variables.

    Args:
        connections: How many when no variable says it; None for SQLAlchemy's defaults.
    """
    kind = settings.MLFLOW_SQLALCHEMYSTORE_POOLCLASS.get() or "QueuePool"
    found: dict[str, Any] = {
        "pool_recycle": settings.MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE.get(),
        "echo": settings.MLFLOW_SQLALCHEMYSTORE_ECHO.get(),
    }
    if kind == "NullPool":
        found["poolclass"] = NullPool
    elif kind in ("SingletonThreadPool", "StaticPool", "AssertionPool"):
        found |= ONE_CONNECTION
    else:
        size = settings.MLFLOW_SQLALCHEMYSTORE_POOL_SIZE.get() or None
        overflow = settings.MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW.get()
        if connections is not None and size is None and overflow is None:
            found |= connections
        else:
            found |= {"pool_size": size, "max_overflow": overflow, "pool_timeout": POOL_SECONDS}
    return {key: value for key, value in found.items() if value is not None}
