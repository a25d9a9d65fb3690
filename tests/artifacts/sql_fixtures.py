"""Databases for the tests of artifacts in them."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from asyncstore.testing.fault_proxy import FaultProxy
from tests.servers.mariadb import MariaDB
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
BINARY = {"sqlite": "BLOB", "postgresql": "BYTEA", "mysql": "VARBINARY(32)"}
CONTENT = {"sqlite": "BLOB", "postgresql": "BYTEA", "mysql": "LONGBLOB"}
TEXT = {"sqlite": "TEXT", "postgresql": "TEXT", "mysql": "LONGTEXT COLLATE utf8mb4_bin"}


class RawDatabase:
    """The tables past asyncstore, by SQL of our own: what is on the disk is a promise."""

    def __init__(self, uri: str, prefix: str = "") -> None:
        scheme, _, rest = uri.partition(":")
        self.kind = scheme
        self._prefix = f"{prefix}/" if prefix else ""
        self._engine = sa.create_engine(f"{DRIVERS[scheme]}:{rest}", poolclass=sa.NullPool)

    def make_tables(self) -> None:
        binary, content, text = BINARY[self.kind], CONTENT[self.kind], TEXT[self.kind]
        self.execute(
            f"CREATE TABLE IF NOT EXISTS asyncstore_artifact_chunks (version {binary} NOT NULL, "
            f"start BIGINT NOT NULL, data {content} NOT NULL, PRIMARY KEY (version, start))"
        )
        self.execute(
            f"CREATE TABLE IF NOT EXISTS asyncstore_artifacts (id {binary} PRIMARY KEY, "
            f"parent {binary}, path {text} NOT NULL, version {binary}, size BIGINT, "
            "written BIGINT NOT NULL, UNIQUE (parent, id))"
        )

    def execute(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.execute(sa.text(statement), values).all())

    def tables(self) -> list[str]:
        return sa.inspect(self._engine).get_table_names()

    def put(self, path: str, data: bytes) -> None:
        self.make_tables()
        full = self._prefix + path
        version = secrets.token_bytes(16)
        names = full.split("/")
        above = ["/".join(names[:count]) for count in range(1, len(names))]
        for directory in above:
            if not self.rows(
                "SELECT 1 FROM asyncstore_artifacts WHERE id = :id", id=_id(directory)
            ):
                self._insert(directory, None, None)
        self._insert(full, version, len(data))
        # Chunks of any size are fine.
        for start in range(0, len(data), 100_001):
            self.execute(
                "INSERT INTO asyncstore_artifact_chunks VALUES (:version, :start, :data)",
                version=version,
                start=start,
                data=data[start : start + 100_001],
            )

    def _insert(self, path: str, version: bytes | None, size: int | None) -> None:
        self.execute(
            "INSERT INTO asyncstore_artifacts (id, parent, path, version, size, written) "
            "VALUES (:id, :parent, :path, :version, :size, 1)",
            id=_id(path),
            parent=_id(path.rpartition("/")[0]),
            path=path,
            version=version,
            size=size,
        )

    def get(self, path: str) -> bytes:
        found = self.rows(
            "SELECT data FROM asyncstore_artifact_chunks WHERE version = "
            "(SELECT version FROM asyncstore_artifacts WHERE id = :id) ORDER BY start",
            id=_id(self._prefix + path),
        )
        return b"".join(bytes(row.data) for row in found)

    def paths(self) -> list[str]:
        if "asyncstore_artifacts" not in self.tables():
            return []
        found = self.rows(
            "SELECT path FROM asyncstore_artifacts WHERE parent IS NOT NULL AND version IS NOT NULL"
        )
        assert all(row.path.startswith(self._prefix) for row in found)
        return sorted(row.path.removeprefix(self._prefix) for row in found)

    def left_over(self) -> tuple[int, int]:
        """Rows of versions in progress, and chunks of versions that are no file's."""
        if "asyncstore_artifacts" not in self.tables():
            return 0, 0
        pending = self.rows("SELECT count(*) FROM asyncstore_artifacts WHERE parent IS NULL")
        orphans = self.rows(
            "SELECT count(*) FROM asyncstore_artifact_chunks WHERE version NOT IN (SELECT version "
            "FROM asyncstore_artifacts WHERE parent IS NOT NULL AND version IS NOT NULL)"
        )
        return pending[0][0], orphans[0][0]


def _id(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    yield from running(MariaDB())


@pytest.fixture
def mysql_uri(mariadb: MariaDB) -> Iterator[str]:
    """An empty database: `mysql://user:password@127.0.0.1:port/name`."""
    uri = mariadb.create_database()
    yield uri
    mariadb.drop_database(uri)


@pytest.fixture
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/artifacts.db"


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database_uri(request: pytest.FixtureRequest) -> str:
    """An empty database, on each of the three."""
    uri: str = request.getfixturevalue(f"{request.param}_uri")
    return uri


def proxied(uri: str, proxy: FaultProxy) -> str:
    """The same database through a proxy."""
    host = uri.rpartition("@")[2].partition("/")[0]
    return uri.replace(host, proxy.address)
