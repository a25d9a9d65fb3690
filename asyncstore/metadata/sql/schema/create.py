"""A new database gets MLflow's schema; any other must already have exactly one that is known."""

from __future__ import annotations

from sqlalchemy import Connection, Inspector, MetaData, String, Table, insert, inspect, select, text
from sqlalchemy.schema import Column

from asyncstore.errors import SchemaMismatchError, UnsupportedError
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS, Tables, load
from asyncstore.metadata.sql.statements import insert_missing
from asyncstore.uris import redact

__all__ = ["create_schema", "find_revisions", "find_schema", "is_older"]

# Any number that nobody else takes for a PostgreSQL advisory lock of this database.
_CREATION_LOCK = 0x6D6C666C6F77
# Seconds that MySQL waits for its lock.
_LOCK_WITHIN = 60
# `filesystems/sql_tables.py` has them; which of the two rooms comes first is the person's affair.
ARTIFACT_TABLES = "asyncstore_artifact"
# The same in every revision, and needed before one is known.
_ALEMBIC_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32)))


def find_revisions(connection: Connection) -> list[str]:
    """What a database says of its revision: one, none when it is empty."""
    if not inspect(connection).has_table(_ALEMBIC_VERSION.name):
        return []
    return list(connection.execute(select(_ALEMBIC_VERSION.c.version_num)).scalars())


def find_schema(connection: Connection, uri: str) -> Tables | None:
    """The schema that a database is at; writes nothing.

    Args:
        connection: A transaction.
        uri: The database, for the error.

    Returns:
        The tables of its revision; None when the database is empty.

    Raises:
        SchemaMismatchError: It has another revision of the schema, a part of it, or other tables.
    """
    # A database may be a storage of artifacts as well, and have been that first.
    inspector: Inspector = inspect(connection)
    found = {name for name in inspector.get_table_names() if not name.startswith(ARTIFACT_TABLES)}
    revisions: list[str] = []
    if _ALEMBIC_VERSION.name in found:
        revisions = find_revisions(connection)
    if not revisions and _is_free(connection, found):
        return None
    shown = redact(uri)
    if not revisions:
        raise SchemaMismatchError(
            f"{shown} holds other tables ({', '.join(sorted(found)[:5])}) and not MLflow's; "
            "use a database of its own, which may be empty"
        )
    tables = _at(revisions, shown)
    if missing := sorted(tables.names - found):
        raise SchemaMismatchError(
            f"{shown} says that it is at MLflow {tables.mlflow_version}'s revision "
            f"{tables.revision}, but has no table {', '.join(missing[:5])}; restore it from a "
            "backup, or use a new database"
        )
    return tables


def _is_free(connection: Connection, found: set[str]) -> bool:
    if found <= {_ALEMBIC_VERSION.name}:
        return True
    # MySQL commits each table by itself: this is what a creation that was killed leaves.
    return (
        connection.dialect.name == "mysql"
        and _ALEMBIC_VERSION.name in found
        and any(found <= load(version).names for version in SNAPSHOTS)
    )


def _at(revisions: list[str], shown: str) -> Tables:
    for version in reversed(SNAPSHOTS):
        tables = load(version)
        if revisions == [tables.revision]:
            return tables
    listed = ", ".join(revisions)
    for version in SNAPSHOTS:
        if is_older(revisions, version):
            raise SchemaMismatchError(
                f"{shown} is at schema revision {listed}, which is older than MLflow {version}'s. "
                f"Take a backup, then run: asyncstore db upgrade '{shown}'"
            )
    raise SchemaMismatchError(
        f"{shown} is at schema revision {listed}, which this version of asyncstore does not know; "
        f"it knows those of MLflow {', '.join(SNAPSHOTS)}. If a newer MLflow made the database, "
        "run: pip install --upgrade asyncstore"
    )


def is_older(revisions: list[str], version: str = SNAPSHOTS[-1]) -> bool:
    """Whether MLflow's migrations lead from these revisions to that version, and none is known."""
    known = {load(each).revision for each in SNAPSHOTS}
    return bool(revisions) and set(revisions) <= {*load(version).earlier_revisions} - known


def create_schema(connection: Connection, uri: str, tables: Tables) -> Tables:
    """Create every table of MLflow and say so in `alembic_version`, unless it was done meanwhile.

    Args:
        connection: A transaction that writes; on SQLite it must hold the write lock.
        uri: The database, for errors.
        tables: What to create.

    Returns:
        The tables that are there now.

    Raises:
        SchemaMismatchError: As for `find_schema`.
        UnsupportedError: On SQL Server, where MLflow creates its tables itself.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
    if dialect == "mysql":
        lock = {"name": f"asyncstore-{_CREATION_LOCK}", "within": _LOCK_WITHIN}
        connection.execute(text("SELECT get_lock(:name, :within)"), lock)
    try:
        found = find_schema(connection, uri)
        if found is None:
            _create(connection, uri, tables)
            found = tables
    finally:
        if dialect == "mysql":
            connection.execute(text("SELECT release_lock(:name)"), {"name": lock["name"]})
    return found


def _create(connection: Connection, uri: str, tables: Tables) -> None:
    dialect = connection.dialect.name
    if dialect == "mssql":
        raise UnsupportedError(
            f"{redact(uri)} is empty; on SQL Server MLflow creates its tables, with: "
            f"mlflow db upgrade '{redact(uri)}'"
        )
    if dialect == "mysql":
        _create_on_mysql(connection, tables)
    else:
        tables.metadata.create_all(connection, checkfirst=True)
        for statement in tables.statements[dialect]:
            connection.exec_driver_sql(statement)
        for table, rows in tables.rows.items():
            connection.execute(insert(tables.metadata.tables[table]), rows)
    connection.execute(insert(_ALEMBIC_VERSION), {"version_num": tables.revision})


def _create_on_mysql(connection: Connection, tables: Tables) -> None:
    # Each statement commits; where a creation was killed, this one goes on.
    first = "CREATE TABLE `alembic_version`"
    connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
    try:
        for statement in sorted(
            tables.statements["mysql"], key=lambda each: not each.startswith(first)
        ):
            _create_one_on_mysql(connection, statement.replace("%", "%%"))
    finally:
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 1")
    for table, rows in tables.rows.items():
        connection.execute(insert_missing("mysql", tables.metadata.tables[table]), rows)


def _create_one_on_mysql(connection: Connection, statement: str) -> None:
    if statement.startswith("CREATE TRIGGER"):
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {statement.split()[2]}")
    else:
        statement = statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
    connection.exec_driver_sql(statement)
