"""What `asyncstore db` does: look at a database's schema, create it, have MLflow upgrade it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import anyio.to_thread
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.concurrency import shielded
from asyncstore.errors import (
    AlreadyExistsError,
    AsyncStoreError,
    MissingDependencyError,
    SchemaMismatchError,
)
from asyncstore.metadata.sql.database import CLOSE_WITHIN, Database
from asyncstore.metadata.sql.schema.create import (
    create_schema,
    find_revisions,
    find_schema,
    is_older,
)
from asyncstore.metadata.sql.schema.installed import (
    newest_for_installed,
    of_version,
    revisions_of_installed,
)
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS, Tables
from asyncstore.uris import redact

__all__ = [
    "SchemaStatus",
    "create_database",
    "database_status",
    "is_missing_file",
    "upgrade_database",
]

_EMPTY = "the database is empty; asyncstore db create makes it"
# The line of a traceback that says what happened, which SQLAlchemy writes more behind.
_ERROR = re.compile(r"(?:[\w.]+\.)?\w*(?:Error|Exception)\b.*")


@dataclass(frozen=True)
class SchemaStatus:
    """What a database's schema is.

    Args:
        revision: The revision in `alembic_version`; None when the database is empty.
        mlflow_version: The version of MLflow whose schema this is, where it is known.
        tables: How many tables that schema has; None when it is not known.
        advice: What stands in the way of opening the database, and what to do; empty for nothing.
    """

    revision: str | None
    mlflow_version: str | None = None
    tables: int | None = None
    advice: str = ""


async def database_status(uri: str) -> SchemaStatus:
    """Look at a database. Writes nothing, and makes no file.

    Args:
        uri: The database, as MLflow names it.

    Returns:
        What it is at.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    if await is_missing_file(uri):
        return SchemaStatus(None, advice=_EMPTY)

    async def look(connection: AsyncConnection) -> SchemaStatus:
        revisions = await connection.run_sync(find_revisions)
        revision = ", ".join(revisions) or None
        try:
            found = await connection.run_sync(find_schema, uri)
        except AsyncStoreError as error:
            return SchemaStatus(revision, advice=str(error))
        if found is None:
            return SchemaStatus(None, advice=_EMPTY)
        return SchemaStatus(found.revision, found.mlflow_version, len(found.names))

    async with _connected(uri) as database:
        return await database.read("looking at the schema", look)


async def create_database(uri: str, for_mlflow: str | None = None) -> SchemaStatus:
    """Create MLflow's tables in an empty database.

    Args:
        uri: The database, as MLflow names it.
        for_mlflow: The version that is to open it, such as `3.6`. None takes the MLflow that is
            installed beside asyncstore, or the newest that is known.

    Returns:
        What it is at now.

    Raises:
        InvalidParameterError: The schema of that version is not known.
        AlreadyExistsError: The database has MLflow's tables already.
        SchemaMismatchError: It holds something else.

    On MySQL, where tables cannot be created in a transaction, a call that was killed is completed
    by the next one.
    """
    choose = newest_for_installed if for_mlflow is None else partial(of_version, for_mlflow)
    wanted = await anyio.to_thread.run_sync(choose)

    async def find(connection: AsyncConnection) -> Tables | None:
        return await connection.run_sync(find_schema, uri)

    async def create(connection: AsyncConnection) -> Tables:
        return await connection.run_sync(create_schema, uri, wanted)

    async with _connected(uri) as database:
        if (found := await database.read("looking at the schema", find)) is not None:
            raise AlreadyExistsError(
                f"{redact(uri)} has the tables of MLflow {found.mlflow_version} already; "
                "asyncstore db upgrade brings a database to a newer MLflow"
            )
        created = await database.write("creating the schema", create)
    return SchemaStatus(created.revision, created.mlflow_version, len(created.names))


async def upgrade_database(uri: str) -> SchemaStatus:
    """Have the MLflow that is installed beside asyncstore run its migrations.

    Looks first: nothing is written to a database that they cannot bring to a schema that is known.

    Args:
        uri: The database, as MLflow names it. Take a backup first.

    Returns:
        What it is at now.

    Raises:
        MissingDependencyError: No MLflow is installed here; the message says what to run instead.
        SchemaMismatchError: The database is empty, holds something else, or is at a revision that
            asyncstore or the installed MLflow does not know.
        UnavailableError: The database cannot be reached.
        AsyncStoreError: MLflow failed; with what it said.

    A cancellation waits for MLflow: migrations that are cut off may leave a database half changed.
    """
    if await anyio.to_thread.run_sync(find_spec, "mlflow") is None:
        raise MissingDependencyError(
            "MLflow's migrations are MLflow's, and none is installed here; where it is, run: "
            f"pip install 'mlflow=={SNAPSHOTS[-1]}' && mlflow db upgrade '{redact(uri)}'"
        )
    await _check_upgradable(uri)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    with anyio.CancelScope(shield=True):
        done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
    if done.returncode:
        words = _telling_line(done.stdout.decode(errors="replace"))
        raise AsyncStoreError(f"mlflow db upgrade {redact(uri)}: {redact(words)}")
    return await database_status(uri)


async def _check_upgradable(uri: str) -> None:
    if await is_missing_file(uri):
        raise SchemaMismatchError(f"{redact(uri)}: {_EMPTY}")

    async def look(connection: AsyncConnection) -> list[str]:
        revisions = await connection.run_sync(find_revisions)
        # MLflow would take the tables of a storage of artifacts for its own.
        if not is_older(revisions) and await connection.run_sync(find_schema, uri) is None:
            raise SchemaMismatchError(f"{redact(uri)}: {_EMPTY}")
        return revisions

    async with _connected(uri) as database:
        revisions = await database.read("looking at the schema", look)
    if not set(revisions) <= await anyio.to_thread.run_sync(revisions_of_installed):
        raise SchemaMismatchError(
            f"{redact(uri)} is at schema revision {', '.join(revisions)}, which the installed "
            "MLflow does not know; run: pip install --upgrade mlflow"
        )


def _telling_line(output: str) -> str:
    lines = output.strip().splitlines() or ["no words"]
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1])


async def is_missing_file(uri: str) -> bool:
    """Whether a URI names a file of SQLite that is not there, and that opening would make."""
    if not uri.startswith("sqlite"):
        return False
    path = make_url(uri).database
    # SQLite would make the file by looking at it.
    return not path or not await anyio.to_thread.run_sync(Path(path).exists)


@asynccontextmanager
async def _connected(uri: str) -> AsyncGenerator[Database]:
    database = Database(uri)
    await database.connect()
    try:
        yield database
    finally:
        await shielded(database.aclose, within=CLOSE_WITHIN)
