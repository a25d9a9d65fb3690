"""From MLflow's database URI to an engine, and from a driver's error to asyncstore's."""

from __future__ import annotations

import asyncio
import math
import sys
import types
from typing import TYPE_CHECKING, Any

import anyio
import pymysql
import pytest
import trustme
from sqlalchemy import exc, text

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.databases.engines import connections_of, create_engine
from asyncstore.databases.errors import is_rolled_back, translate
from asyncstore.databases.mysql_driver import connect
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    MissingDependencyError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.metadata import MetadataStore
from asyncstore.retry import RetryPolicy
from asyncstore.testing.fault_proxy import FaultProxy
from tests.servers.base import HOST
from tests.servers.mariadb import MariaDB, ServerTls
from tests.servers.running import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

SQL_SERVER = "mssql+pyodbc://u:open-sesame@h:1433/db?driver=ODBC+Driver+17+for+SQL+Server"


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "mysql+mysqldb", "mariadb"])
def test_mysql_uris(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "2")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "1")
    engine = create_engine(f"{scheme}://u:open-sesame@h:3307/db")
    assert engine.url.drivername == "mysql+aiomysql"
    assert (engine.url.host, engine.url.port, engine.url.database) == ("h", 3307, "db")
    assert connections_of(engine) == 3


def test_sqlite_has_few_connections_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/x.db"
    for name in ("POOL_SIZE", "MAX_OVERFLOW"):
        monkeypatch.delenv(f"MLFLOW_SQLALCHEMYSTORE_{name}", raising=False)
    assert connections_of(create_engine(uri)) == 3
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "7")
    assert connections_of(create_engine(uri)) == 17


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("QueuePool", 3),
        ("FallbackAsyncAdaptedQueuePool", 3),
        ("StaticPool", 1),
        ("AssertionPool", 1),
        ("NullPool", math.inf),
    ],
)
@pytest.mark.parametrize(
    "uri", ["sqlite:///{}/x.db", "mysql://u@h/db", "postgresql+psycopg2://u@h/db"]
)
def test_pool_classes(
    kind: str, count: float, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "2")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "1")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", kind)
    assert connections_of(create_engine(uri.format(tmp_path))) == count
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "SwimmingPool")
    with pytest.raises(InvalidParameterError, match=r"POOLCLASS.*SwimmingPool.*NullPool"):
        create_engine(uri.format(tmp_path))


@pytest.mark.parametrize("driver", ["pyodbc", "pymssql", "aioodbc"])
def test_sql_server_uris(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server here: this is as far as it is shown."""
    monkeypatch.setitem(sys.modules, "pyodbc", _Odbc("pyodbc"))
    monkeypatch.setitem(sys.modules, "aioodbc", _Odbc("aioodbc"))
    engine = create_engine(SQL_SERVER.replace("pyodbc", driver, 1))
    assert engine.url.drivername == "mssql+aioodbc"
    assert engine.dialect.create_connect_args(engine.url)[1]["dsn"] == (
        "DRIVER={ODBC Driver 17 for SQL Server};Server=h,1433;Database=db;UID=u;PWD=open-sesame"
    )
    with pytest.raises(InvalidParameterError, match="driver=") as caught:
        create_engine(SQL_SERVER.partition("?")[0])
    assert "open-sesame" not in str(caught.value)


class _Odbc(types.ModuleType):
    """pyodbc needs a library of the system, which is not everywhere."""

    paramstyle = "qmark"
    version = "5.2.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Exception


@pytest.mark.parametrize(
    ("uri", "module", "words"),
    [
        ("mysql://u:open-sesame@h/db", "aiomysql", r"asyncstore\[mysql\]"),
        (SQL_SERVER, "aioodbc", r"asyncstore\[mssql\]"),
        ("postgresql://u:open-sesame@h/db", "psycopg", r"asyncstore\[postgresql\]"),
    ],
)
def test_missing_drivers(
    uri: str, module: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for loaded in ("mysql_driver", "postgresql_driver"):
        monkeypatch.delitem(sys.modules, f"asyncstore.databases.{loaded}", raising=False)
    with pytest.raises(MissingDependencyError, match=words) as caught:
        create_engine(uri)
    assert "open-sesame" not in str(caught.value)


def test_certificates_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no certificate")
    for name in ("missing", "text"):
        with pytest.raises(InvalidParameterError, match="MLFLOW_MYSQL_SSL_CA"):
            create_engine(f"mysql://u@h/db?ssl_ca={tmp_path}/{name}")
    monkeypatch.setenv("MLFLOW_MYSQL_SSL_CA", str(tmp_path / "missing"))
    with pytest.raises(InvalidParameterError, match="missing"):
        create_engine("mysql://u@h/db")


async def test_mysql_with_client_certificates(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(MariaDB())
    ours, theirs = trustme.CA(), trustme.CA()
    place = tmp_path_factory.mktemp("certificates")
    # The server runs as somebody else.
    for directory in (place, *place.parents[:2]):
        directory.chmod(0o755)
    server_certificate = ours.issue_cert("a.name.that.is.not.this.host")
    client_certificate = ours.issue_cert("client@example.org")
    for name, blob in (
        ("ca.pem", ours.cert_pem),
        ("other-ca.pem", theirs.cert_pem),
        ("server.pem", server_certificate.cert_chain_pems[0]),
        ("server.key", server_certificate.private_key_pem),
        ("client.pem", client_certificate.cert_chain_pems[0]),
        ("client.key", client_certificate.private_key_pem),
    ):
        blob.write_to_path(place / name)
        (place / name).chmod(0o644)
    tls = ServerTls(place / "ca.pem", place / "server.pem", place / "server.key")
    with MariaDB(tls) as server:
        uri = server.create_database()

        async def try_it(query: str = "") -> None:
            options = TransferOptions(retry=RetryPolicy(attempts=1))
            async with ArtifactRepository(f"{uri}/x{query}", transfer=options) as repository:
                await repository.write_bytes("f", b"x" * 300_000)
                assert await repository.read_bytes("f") == b"x" * 300_000
                async with repository.fs.connections.engine.connect() as connection:
                    status = await connection.execute(text("SHOW STATUS LIKE 'Ssl_version'"))
                    assert status.one()[1].startswith("TLS")

        with pytest.raises(UnauthenticatedError):
            await try_it()
        monkeypatch.setenv("MLFLOW_MYSQL_SSL_CA", str(place / "other-ca.pem"))
        monkeypatch.setenv("MLFLOW_MYSQL_SSL_CERT", str(place / "client.pem"))
        monkeypatch.setenv("MLFLOW_MYSQL_SSL_KEY", str(place / "client.key"))
        with pytest.raises(AsyncStoreError, match="certificate verify failed"):
            await try_it()
        monkeypatch.setenv("MLFLOW_MYSQL_SSL_CA", str(place / "ca.pem"))
        await try_it()
        async with await MetadataStore.open(server.create_database(), "/nowhere") as store:
            run_id = (await store.create_run("0")).info.run_id
            # Interrupting a read takes a second connection, with the same certificates.
            reading = asyncio.ensure_future(store.search_runs(["0"]))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            assert (await store.get_run(run_id)).info.run_id == run_id
        with pytest.raises(AsyncStoreError, match="certificate"):
            await try_it("?ssl_check_hostname=true")
        for name in ("CA", "CERT", "KEY"):
            monkeypatch.delenv(f"MLFLOW_MYSQL_SSL_{name}")
        await try_it(
            f"?ssl_ca={place}/ca.pem&ssl_cert={place}/client.pem&ssl_key={place}/client.key"
        )
        while server.connection_count(uri):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("error", "kind", "rolled_back"),
    [
        (pymysql.err.OperationalError(1045, "Access denied"), UnauthenticatedError, False),
        (pymysql.err.OperationalError(1044, "Access denied"), PermissionDeniedError, False),
        (pymysql.err.OperationalError(1049, "Unknown database"), NotFoundError, False),
        (pymysql.err.OperationalError(1213, "Deadlock found"), UnavailableError, True),
        (pymysql.err.OperationalError(1205, "Lock wait timeout"), UnavailableError, True),
        (pymysql.err.OperationalError(2006, "has gone away"), UnavailableError, False),
        (pymysql.err.DataError(1406, "Data too long"), InvalidParameterError, False),
        (pymysql.err.ProgrammingError(1064, "syntax"), AsyncStoreError, False),
        (Exception("28000", "[28000] Login failed for user"), UnauthenticatedError, False),
        (Exception("08S01", "[08S01] link failure"), UnavailableError, False),
        (Exception("HYT00", "[HYT00] Login timeout expired"), UnavailableError, False),
        (Exception("40001", "[40001] deadlock victim"), UnavailableError, True),
        (Exception("42S02", "[42S02] Invalid object name"), AsyncStoreError, False),
    ],
)
def test_driver_errors(error: Exception, kind: type[Exception], rolled_back: bool) -> None:
    wrapped = exc.DBAPIError("INSERT open-sesame", {"x": "open-sesame"}, error)
    known = translate(wrapped, "writing 'f'", "mysql://u:open-sesame@h/db")
    assert type(known) is kind
    assert str(known).startswith("writing 'f' in mysql://u:***@h/db: ")
    assert str(error.args[1]) in str(known)
    assert "open-sesame" not in str(known)
    assert is_rolled_back(wrapped) is rolled_back


def test_the_password_is_not_shown() -> None:
    for uri in ("mysql://u:open-sesame@h/db", "postgresql://u:open-sesame@h/db"):
        assert "open-sesame" not in repr(create_engine(uri))
        assert "open-sesame" not in str(create_engine(uri).url)


async def test_a_mysql_connection_is_closed_though_the_server_reset_it() -> None:
    require(MariaDB())
    with MariaDB() as server:
        options: dict[str, Any] = {
            "host": HOST,
            "port": server.port,
            "user": "tester",
            "password": "open-sesame",
        }
        with FaultProxy(server.host, http=False) as proxy:
            options["port"] = int(proxy.address.rpartition(":")[2])
            connection = await connect(**options)
            closed = connection._writer.transport

            async def reset() -> None:
                raise ConnectionResetError

            connection._writer.drain = reset
            await connection.ensure_closed()
            assert closed.is_closing()
            # Cut off while it logs in, it leaves nothing either.
            proxy.latency = 5.0
            task = asyncio.ensure_future(connect(**options))
            while proxy.connections_opened < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            proxy.latency = 0.0
            with anyio.fail_after(20):
                while proxy.connections:
                    await asyncio.sleep(0.01)
