"""The two tables that hold files in a database, and how they are made.

    asyncstore_artifacts          a row for each file and directory, and for each version that is
                                  being written or is to be removed
    asyncstore_artifact_chunks    the content of each version, in chunks

A file's content is written under a new version id, and becomes the file when its row names that
version. So a reader sees the old content or the new, and a writer that is killed has changed
nothing.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import (
    NVARCHAR,
    VARBINARY,
    BigInteger,
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import TypeEngine

__all__ = ["artifacts", "chunks", "create_tables", "key_of", "tables_exist"]

# Any number that nobody else takes for a PostgreSQL advisory lock of this database.
_CREATION_LOCK = 0x6173796E6373

_METADATA = MetaData()


def _binary(length: int) -> TypeEngine[bytes]:
    # Compared byte by byte on every database; texts would follow a collation.
    exact: TypeEngine[bytes] = VARBINARY(length)
    return LargeBinary(length).with_variant(exact, "mysql").with_variant(exact, "mssql")


# Never compared, and of any length: for people, and for listings.
_PATH = (
    Text()
    .with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
    .with_variant(NVARCHAR(None), "mssql")
)
_DATA = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql").with_variant(VARBINARY(), "mssql")

artifacts = Table(
    "asyncstore_artifacts",
    _METADATA,
    # SHA-256 of the path, or of the version where that is not, or not any more, a file.
    Column("id", _binary(32), primary_key=True),
    # SHA-256 of the directory's path, of an empty one for the root; NULL where it is no file.
    Column("parent", _binary(32)),
    Column("path", _PATH, nullable=False),
    # NULL for a directory.
    Column("version", _binary(16)),
    Column("size", BigInteger),
    # Milliseconds since the epoch; 0 says that the version is to be removed.
    Column("written", BigInteger, nullable=False),
    # Always unique: it is the index of listings, made with the table.
    UniqueConstraint("parent", "id", name="asyncstore_artifacts_parent"),
    mysql_engine="InnoDB",
)
chunks = Table(
    "asyncstore_artifact_chunks",
    _METADATA,
    Column("version", _binary(16), primary_key=True),
    # The first byte of the chunk in the file.
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("data", _DATA, nullable=False),
    mysql_engine="InnoDB",
)


def key_of(path: str) -> bytes:
    """The id of a file or directory."""
    return hashlib.sha256(path.encode()).digest()


def tables_exist(connection: Connection) -> bool:
    """Whether both are there; the second is made last."""
    return inspect(connection).has_table(artifacts.name)


def create_tables(connection: Connection) -> None:
    """Make what is missing, whoever else does the same at this moment.

    Args:
        connection: A transaction that writes; on SQLite it must hold the write lock.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
    elif dialect == "mssql":
        connection.execute(
            text(
                "EXEC sp_getapplock @Resource = 'asyncstore_artifacts', @LockMode = 'Exclusive', "
                "@LockOwner = 'Transaction'"
            )
        )
    for table in (chunks, artifacts):
        if not inspect(connection).has_table(table.name):
            # MySQL has no transactions for tables, but takes one of two who make the same.
            connection.execute(CreateTable(table, if_not_exists=dialect != "mssql"))
