"""A new database gets MLflow's schema; any other must already have exactly that."""

from __future__ import annotations

from sqlalchemy import Connection, insert, inspect, select, text

from asyncstore.errors import SchemaMismatchError
from asyncstore.metadata.sql.schema.tables import (
    EARLIER_REVISIONS,
    METADATA,
    MLFLOW_VERSION,
    REVISION,
    ROWS,
    STATEMENTS,
    alembic_version,
)
from asyncstore.uris import redact

__all__ = ["create_schema", "schema_exists"]

# Any number that nobody else takes for a PostgreSQL advisory lock of this database.
_CREATION_LOCK = 0x6D6C666C6F77
# `filesystems/sql_tables.py` has them; which of the two rooms comes first is the person's affair.
ARTIFACT_TABLES = "asyncstore_artifact"


def schema_exists(connection: Connection, uri: str) -> bool:
    """Whether the database has the schema; writes nothing.

    Args:
        connection: A transaction.
        uri: The database, for the error.

    Returns:
        True when it has, False when the database is empty.

    Raises:
        SchemaMismatchError: It has another revision of the schema, a part of it, or other tables.
    """
    # A database may be a storage of artifacts as well, and have been that first.
    found = {
        name
        for name in inspect(connection).get_table_names()
        if not name.startswith(ARTIFACT_TABLES)
    }
    shown = redact(uri)
    revisions: list[str] = []
    if alembic_version.name in found:
        revisions = list(connection.execute(select(alembic_version.c.version_num)).scalars())
    if not revisions and found <= {alembic_version.name}:
        return False
    missing = sorted(METADATA.tables.keys() - found)
    if revisions == [REVISION]:
        if not missing:
            return True
        raise SchemaMismatchError(
            f"{shown} says that it is at MLflow {MLFLOW_VERSION}'s revision {REVISION}, but has no "
            f"table {', '.join(missing[:5])}; restore it from a backup, or use a new database"
        )
    if not revisions:
        raise SchemaMismatchError(
            f"{shown} holds other tables ({', '.join(sorted(found)[:5])}) and not MLflow's; "
            "use a database of its own, which may be empty"
        )
    if set(revisions) <= EARLIER_REVISIONS:
        raise SchemaMismatchError(
            f"{shown} is at schema revision {', '.join(revisions)}; asyncstore needs {REVISION}, "
            f"which is MLflow {MLFLOW_VERSION}'s. Take a backup, then run, with MLflow "
            f"{MLFLOW_VERSION} installed: mlflow db upgrade '{shown}'"
        )
    raise SchemaMismatchError(
        f"{shown} is at schema revision {', '.join(revisions)}, which this version of asyncstore "
        f"does not know; it knows {REVISION} of MLflow {MLFLOW_VERSION}. If a newer MLflow made "
        "the database, run: pip install --upgrade asyncstore"
    )


def create_schema(connection: Connection, uri: str) -> None:
    """Create every table of MLflow and say so in `alembic_version`, unless it was done meanwhile.

    Args:
        connection: A transaction that writes; on SQLite it must hold the write lock.
        uri: The database, for errors.

    Raises:
        SchemaMismatchError: As for `schema_exists`.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
    if schema_exists(connection, uri):
        return
    METADATA.create_all(connection, checkfirst=True)
    for statement in STATEMENTS[dialect]:
        connection.exec_driver_sql(statement)
    for table, rows in ROWS.items():
        connection.execute(insert(METADATA.tables[table]), rows)
    connection.execute(insert(alembic_version), {"version_num": REVISION})
