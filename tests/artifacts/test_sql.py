"""Databases as storages: SQLite, PostgreSQL and MariaDB for real, SQL Server as far as it goes."""

from __future__ import annotations

import asyncio
import logging
import os
import tracemalloc
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

import pytest
from sqlalchemy import event
from sqlalchemy.dialects import mssql
from sqlalchemy.schema import CreateTable

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.backends import open_backend
from asyncstore.backends.sql_uri import parse_root
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.filesystems import sql_rows, sql_tables
from asyncstore.metadata import MetadataStore
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance import (
    MIB,
    ODD_NAMES,
    ArtifactRepositoryTests,
    Place,
    RawStorage,
)
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.sql_fixtures import (
    RawDatabase,
    database_uri,
    mariadb,
    mysql_uri,
    proxied,
    sqlite_uri,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.servers.mariadb import MariaDB
    from tests.servers.postgresql import PostgreSQL

__all__ = ["database_uri", "mariadb", "mysql_uri", "sqlite_uri"]

pytestmark = pytest.mark.anyio

PREFIX = "pre fix+%"
QUICK = TransferOptions(retry=RetryPolicy(attempts=3, backoff=0.01, max_backoff=0.05))


class DatabaseTests(ArtifactRepositoryTests):
    """The suite on a database; nothing may be left over behind any test."""

    directories = True
    large = 5 * MIB + 3
    options = TransferOptions(
        multipart_upload_chunk_size=2 * MIB, multipart_download_chunk_size=MIB
    )
    odd_names: ClassVar[tuple[str, ...]] = (
        *ODD_NAMES,
        "line\nbreak",
        "trailing ",
        "trailing",
        "CASE",
        "case",
        "ss",
        "ß",
        "\x01",
        "like_%",
    )
    many = 1_001

    @pytest.fixture
    def artifact_uri(self, database_uri: str) -> str:
        return f"{database_uri}/pre%20fix+%25"

    @pytest.fixture
    def proxy(self, database_uri: str) -> Iterator[FaultProxy | None]:
        host = database_uri.rpartition("@")[2].partition("/")[0]
        if database_uri.startswith("sqlite"):
            yield None
            return
        with FaultProxy(host, http=False) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, artifact_uri: str, proxy: FaultProxy | None) -> Place | None:
        return Place(proxied(artifact_uri, proxy)) if proxy else None

    @pytest.fixture
    def raw(self, database_uri: str) -> Iterator[RawStorage]:
        raw = RawDatabase(database_uri, PREFIX)
        yield raw
        assert raw.left_over() == (0, 0)


class TestSQLite(DatabaseTests):
    storage = "Database (SQLite)"
    server = "SQLite"

    @pytest.fixture
    def database_uri(self, sqlite_uri: str) -> str:
        return sqlite_uri


class TestPostgreSQL(DatabaseTests):
    storage = "Database (PostgreSQL)"
    server = "PostgreSQL"

    @pytest.fixture
    def database_uri(self, postgresql_uri: str) -> str:
        return postgresql_uri

    @pytest.fixture
    def wrong_credentials(self, artifact_uri: str) -> Place:
        return Place(artifact_uri.replace("open-sesame", "open-barley"))


class TestMariaDB(DatabaseTests):
    storage = "Database (MariaDB)"
    server = "MariaDB"

    @pytest.fixture
    def database_uri(self, mysql_uri: str) -> str:
        return mysql_uri

    @pytest.fixture
    def wrong_credentials(self, artifact_uri: str) -> Place:
        return Place(artifact_uri.replace("open-sesame", "open-barley"))


# Where things are


@pytest.mark.parametrize(
    ("uri", "database", "path"),
    [
        ("sqlite:////abs/file.db", "sqlite:////abs/file.db", ""),
        ("sqlite:////abs/file.db/", "sqlite:////abs/file.db", ""),
        ("sqlite:////abs/file.db/a/b%20c", "sqlite:////abs/file.db", "a/b c"),
        ("sqlite:////abs/a.sqlite3/x.db/y", "sqlite:////abs/a.sqlite3", "x.db/y"),
        ("sqlite:///rel/FILE.SQLITE/a", "sqlite:///rel/FILE.SQLITE", "a"),
        ("sqlite+pysqlite:///x.db/a?timeout=5", "sqlite:///x.db?timeout=5", "a"),
        (
            "sqlite:///file:/d/x.db/a?mode=ro&uri=true",
            "sqlite:///file:/d/x.db?mode=ro&uri=true",
            "a",
        ),
        ("postgresql://u:p@h/db", "postgresql://u:p@h/db", ""),
        ("postgresql+psycopg2://h:5/db/a//b/", "postgresql://h:5/db", "a/b"),
        ("postgresql://h/db/a?sslmode=require", "postgresql://h/db?sslmode=require", "a"),
        ("postgresql://h1:1,h2:2/db/a", "postgresql://h1:1,h2:2/db", "a"),
        ("postgresql:///db/a?host=/run/pg", "postgresql:///db?host=/run/pg", "a"),
        ("mysql+pymysql://u:p%40@h:3306/db/a", "mysql://u:p%40@h:3306/db", "a"),
        ("mysql://u@[::1]:33/db/a", "mysql://u@[::1]:33/db", "a"),
        (
            "mssql+pyodbc://u:p@h:1433/db/a/b?driver=ODBC+Driver+17+for+SQL+Server",
            "mssql://u:p@h:1433/db?driver=ODBC+Driver+17+for+SQL+Server",
            "a/b",
        ),
    ],
)
def test_uris(uri: str, database: str, path: str) -> None:
    root = parse_root(uri)
    assert (root.database, root.path) == (database, path)
    assert "?" not in root.shown


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:x.db", "write sqlite:////"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x.db?mode=memory&uri=true", "in memory"),
        ("sqlite://host/x.db", "names a host"),
        ("sqlite:////no/suffix", "which part"),
        ("sqlite:////x.db/a/../b", r"\.\."),
        ("sqlite:////x.db/%2e%2e/b", r"\.\."),
        ("sqlite:////x.db/a%2fb", "slash"),
        ("sqlite:////x.db/a#b", "'#'"),
        ("postgresql:/db", "write postgresql://"),
        ("postgresql://u:open-sesame@h", "names no database"),
        ("postgresql://u:open-sesame@h//x", "names no database"),
        ("postgresql://u:open-sesame@h:port/db", "port"),
        ("postgresql://u:open-sesame@/db", "no host"),
        ("mysql:///db", "no host"),
        ("mysql://u:open-sesame@h:0/db", "port"),
        ("mysql://u:open-sesame@h/db/..", r"\.\."),
        ("mysql://u:open-sesame@h/db?colour=blue", "no option colour"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Du%3BPWD%3Dopen-sesame", "odbc_connect"),
        ("mssql+pyodbc://u:open-sesame@dsn", "names no database"),
    ],
)
async def test_bad_uris(uri: str, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words) as caught:
        await open_backend(uri)
    assert "open-sesame" not in str(caught.value)


async def test_bad_options(sqlite_uri: str) -> None:
    with pytest.raises(InvalidParameterError, match="colour"):
        await open_backend(sqlite_uri, {"colour": "blue"})


async def test_other_roots(database_uri: str) -> None:
    async with ArtifactRepository(f"{database_uri}/a/b") as repository:
        await repository.write_bytes("c/d", b"x")
        engine = repository.fs.connections.engine
        for uri, path in ((database_uri, "a/b/c/d"), (f"{database_uri}/a/b/c", "d")):
            other = repository.at(uri)
            assert other is not None
            assert other.fs.connections.engine is engine
            assert await other.read_bytes(path) == b"x"
        for uri in (
            f"{database_uri.rpartition('/')[0]}/elsewhere.db/a",
            "s3://bucket",
            "mssql://h/d",
        ):
            assert repository.at(uri) is None
        top = repository.at(database_uri)
        assert top is not None
        assert await top.list_artifacts() == [FileInfo("a", True, None)]
        await top.delete_artifacts()
        assert not await repository.exists("c")
        # The directories of a root come back with what is written.
        await repository.write_bytes("c/d", b"y")
        assert await top.read_bytes("a/b/c/d") == b"y"


async def test_a_file_is_no_directory(database_uri: str) -> None:
    async with ArtifactRepository(database_uri) as repository:
        await repository.write_bytes("file", b"x")
        await repository.write_bytes("directory/file", b"x")
        for path in ("file/below", "file/far/below", "directory"):
            with pytest.raises(InvalidParameterError, match="is a"):
                await repository.write_bytes(path, b"y")
        assert await repository.read_bytes("file") == b"x"
    assert RawDatabase(database_uri).left_over() == (0, 0)


async def test_long_names(database_uri: str) -> None:
    """Longer than any of the databases could index."""
    path = "/".join(("d" * 3000 + "ü", "f" * 3000))
    async with ArtifactRepository(database_uri) as repository:
        await repository.write_bytes(path, b"1")
        await repository.write_bytes(path + "f", b"2")
        assert await repository.read_bytes(path) == b"1"
        found = [entry.path async for entry in repository.walk()]
        assert sorted(found) == [path, path + "f"]


# What goes wrong


async def test_reading_what_is_replaced(database_uri: str) -> None:
    async with ArtifactRepository(database_uri) as repository:
        backend = repository._opened[0]  # type: ignore[index]  # looks behind the repository
        for size in (2 * MIB, 10 * MIB):
            await repository.write_bytes("f", b"1" * size)
            etag = (await repository.info("f")).etag
            for wanted, kind in ((etag, IntegrityError), (None, UnavailableError)):
                async with aclosing(backend.read("f", etag=wanted)) as pieces:
                    got = await anext(pieces)
                    await repository.write_bytes("f", b"2" * size)
                    with pytest.raises(kind, match="replaced"):
                        while True:
                            piece = await anext(pieces)
                            assert set(piece) == {ord("1")}
                    assert set(got) == {ord("1")}
                await repository.write_bytes("f", b"1" * size)
                if wanted:
                    with pytest.raises(IntegrityError):
                        _ = [piece async for piece in backend.read("f", etag=wanted)]
                    etag = None
    assert RawDatabase(database_uri).left_over() == (0, 0)


async def test_wrong_password_and_missing_database(
    postgresql_uri: str, mysql_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    for uri in (postgresql_uri, mysql_uri):
        for other, kind in (
            (uri.replace("open-sesame", "open-barley"), UnauthenticatedError),
            (f"{uri}_that_nobody_made", NotFoundError),
        ):
            async with ArtifactRepository(f"{other}/x", transfer=QUICK) as repository:
                said += [repr(repository), repr(repository.fs)]
                for call in (
                    repository.read_bytes("f"),
                    repository.write_bytes("f", b""),
                    repository.list_artifacts(),
                    repository.exists("f"),
                    repository.delete_artifacts("f"),
                ):
                    with pytest.raises(kind) as caught:
                        await call
                    error: BaseException | None = caught.value
                    while error is not None:
                        said += [str(error), repr(error)]
                        error = error.__cause__
    said += [record.getMessage() for record in caplog.records]
    assert not [text for text in said if "open-sesame" in text or "open-barley" in text]


@pytest.mark.parametrize("server_name", ["postgresql", "mariadb"])
async def test_restarts(server_name: str, request: pytest.FixtureRequest) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(server_name)
    uri = server.create_database()
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        await asyncio.gather(*(repository.write_bytes(f"{n}", b"x" * 300_000) for n in range(10)))
        assert server.connection_count(uri) > 1
        await asyncio.to_thread(server.restart)
        assert await repository.read_bytes("1") == b"x" * 300_000
        await asyncio.to_thread(server.disconnect_clients, uri)
        await repository.write_bytes("1", b"y")
        await asyncio.to_thread(server.kill)
        for call in (
            repository.read_bytes("1"),
            repository.write_bytes("2", b""),
            repository.list_artifacts(),
        ):
            with pytest.raises(UnavailableError):
                await call
        await asyncio.to_thread(server.restart)
        assert await repository.read_bytes("1") == b"y"
        assert repository.fs.connections.engine.pool.checkedout() == 0
    assert server.connection_count(uri) == 0
    server.drop_database(uri)


# How it is stored


async def test_ranges_and_listings_use_an_index(database_uri: str) -> None:
    kind = database_uri.partition(":")[0]
    raw = RawDatabase(database_uri)
    statements: list[tuple[str, Any]] = []
    async with ArtifactRepository(database_uri) as repository:
        (await asyncio.gather(*(repository.write_bytes(f"d/{n}", b"x") for n in range(100))))
        await repository.write_bytes("f", os.urandom(6 * MIB))
        for number in range(20):
            await repository.write_bytes(f"other {number}", os.urandom(2 * MIB))
        for table in (sql_tables.artifacts.name, sql_tables.chunks.name):
            if kind != "sqlite":
                raw.execute(f"ANALYZE {'TABLE ' if kind == 'mysql' else ''}{table}")

        engine = repository.fs.connections.engine.sync_engine
        event.listen(
            engine,
            "before_cursor_execute",
            lambda _c, _k, statement, values, _x, _m: statements.append((statement, values)),
        )
        async with repository.open_read("f", start=5 * MIB + 7, end=5 * MIB + 300_000) as pieces:
            assert len(b"".join([piece async for piece in pieces])) == 300_000 - 7
        await repository.read_bytes("f")
        await repository.list_artifacts("d")
    statements = [each for each in statements if each[0].startswith("SELECT")]
    assert len(statements) >= 8
    explain = "EXPLAIN QUERY PLAN" if kind == "sqlite" else "EXPLAIN"
    with raw._engine.connect() as connection:
        for statement, values in statements:
            rows = connection.exec_driver_sql(f"{explain} {statement}", values).all()
            plan = "\n".join(str(row) for row in rows)
            match kind:
                case "sqlite":
                    assert "SCAN asyncstore" not in plan, plan
                    assert "USING INDEX" in plan or "USING COVERING INDEX" in plan
                case "postgresql":
                    # A table of a few pages is read whole; that of the contents is not small.
                    assert "Seq Scan on asyncstore_artifact_chunks" not in plan, plan
                case "mysql":
                    assert "'ALL'" not in plan, plan


async def test_memory_is_flat(database_uri: str, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        for _ in range(96):
            out.write(os.urandom(MIB))
    options = TransferOptions(max_concurrency=4, max_memory=16 * MIB)
    async with ArtifactRepository(database_uri, transfer=options) as repository:
        await repository.write_bytes("warm", b"x" * MIB)
        tracemalloc.start()
        try:
            await repository.log_artifact(file)
            async with repository.open_read("large") as pieces:
                assert sum([len(piece) async for piece in pieces]) == 96 * MIB
            await repository.download_artifacts("large", tmp_path / "down")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 40 * MIB
    assert (tmp_path / "down" / "large").read_bytes() == file.read_bytes()


async def test_packets_are_small(mysql_uri: str, mariadb: MariaDB) -> None:
    """A server that takes no more than 1 MiB at once takes large files all the same."""
    limit = mariadb.query("SELECT @@global.max_allowed_packet")
    mariadb.query(f"SET GLOBAL max_allowed_packet = {MIB}")
    try:
        async with ArtifactRepository(mysql_uri) as repository:
            content = os.urandom(9 * MIB)
            await repository.write_bytes("f", content)
            await repository.write_bytes("g", content[: 4 * MIB])
            assert await repository.read_bytes("f") == content
            assert await repository.read_bytes("g") == content[: 4 * MIB]
    finally:
        mariadb.query(f"SET GLOBAL max_allowed_packet = {limit}")


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_beside_metadata(name: str, request: pytest.FixtureRequest) -> None:
    database_uri: str = request.getfixturevalue(f"{name}_uri")
    async with (
        await MetadataStore.open(database_uri, f"{database_uri}/artifacts") as store,
        ArtifactRepository(f"{database_uri}/artifacts") as repository,
    ):
        run = await store.create_run("0")
        below = repository.at(run.info.artifact_uri)
        assert below is not None
        await asyncio.gather(
            *(below.write_bytes(f"m/{n}", b"%d" % n) for n in range(20)),
            *(store.set_tag(run.info.run_id, f"t{n}", "v") for n in range(20)),
        )
        assert len(await below.list_artifacts("m")) == 20
    async with await MetadataStore.open(database_uri) as store:
        assert len((await store.get_run(run.info.run_id)).data.tags) >= 20


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_before_metadata(name: str, request: pytest.FixtureRequest) -> None:
    database_uri: str = request.getfixturevalue(f"{name}_uri")
    async with ArtifactRepository(f"{database_uri}/artifacts") as repository:
        await repository.write_bytes("x", b"1")
        async with await MetadataStore.open(database_uri) as store:
            await store.create_run("0")
        assert await repository.read_bytes("x") == b"1"


async def test_nothing_is_made_by_reading(database_uri: str) -> None:
    raw = RawDatabase(database_uri)
    async with ArtifactRepository(f"{database_uri}/a") as repository:
        assert await repository.list_artifacts() == []
        assert [entry async for entry in repository.walk()] == []
        assert not await repository.exists("x")
        with pytest.raises(NotFoundError):
            await repository.read_bytes("x")
        await repository.delete_artifacts()
        assert await repository.fs.clean() == 0
    assert raw.tables() == []


# SQL Server, which no server here can show


def test_tables_of_sql_server() -> None:
    dialect = mssql.dialect()  # type: ignore[no-untyped-call]  # untyped there
    artifacts = " ".join(str(CreateTable(sql_tables.artifacts).compile(dialect=dialect)).split())
    chunks = " ".join(str(CreateTable(sql_tables.chunks).compile(dialect=dialect)).split())
    assert artifacts == (
        "CREATE TABLE asyncstore_artifacts ( id VARBINARY(32) NOT NULL, parent VARBINARY(32) NULL, "
        "path NVARCHAR(max) NOT NULL, version VARBINARY(16) NULL, size BIGINT NULL, "
        "written BIGINT NOT NULL, PRIMARY KEY (id), "
        "CONSTRAINT asyncstore_artifacts_parent UNIQUE (parent, id) )"
    )
    assert chunks == (
        "CREATE TABLE asyncstore_artifact_chunks ( version VARBINARY(16) NOT NULL, "
        "start BIGINT NOT NULL, data VARBINARY(max) NOT NULL, PRIMARY KEY (version, start) )"
    )


def test_statements_of_sql_server() -> None:
    dialect = mssql.dialect()  # type: ignore[no-untyped-call]  # untyped there
    kept, taken, page = (
        " ".join(str(statement.compile(dialect=dialect)).split())
        for statement in (sql_rows._KEPT, sql_rows._TAKEN, sql_rows._CHILDREN)
    )
    assert "FROM asyncstore_artifacts WITH (REPEATABLEREAD, ROWLOCK) WHERE" in kept
    assert "FROM asyncstore_artifacts WITH (UPDLOCK, HOLDLOCK, ROWLOCK) WHERE" in taken
    assert page.startswith("SELECT TOP ")
    for name, statement in vars(sql_rows).items():
        if name.isupper() and hasattr(statement, "compile"):
            text = str(statement.compile(dialect=dialect)).upper()
            assert not {"LIMIT", "CONFLICT", "RETURNING"} & set(text.split())
