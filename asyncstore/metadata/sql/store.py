"""The store over a SQL database, put together from its parts, and how it opens."""

from __future__ import annotations

import anyio.to_thread
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.concurrency import opened_in_own_task, shielded
from asyncstore.errors import InvalidStateError
from asyncstore.metadata.sql import locations
from asyncstore.metadata.sql.assessments import SqlAssessments
from asyncstore.metadata.sql.base import now_ms
from asyncstore.metadata.sql.database import CLOSE_WITHIN, Database
from asyncstore.metadata.sql.deletion import SqlDeletion
from asyncstore.metadata.sql.experiments import SqlExperiments
from asyncstore.metadata.sql.inputs import SqlInputs
from asyncstore.metadata.sql.logged import SqlLogged
from asyncstore.metadata.sql.logged_models import SqlLoggedModels
from asyncstore.metadata.sql.metric_history import SqlMetricHistory
from asyncstore.metadata.sql.model_versions import SqlModelVersions
from asyncstore.metadata.sql.prompts import SqlPrompts
from asyncstore.metadata.sql.runs import SqlRuns
from asyncstore.metadata.sql.schema.create import create_schema, find_schema
from asyncstore.metadata.sql.schema.installed import newest_for_installed
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.search import SqlSearch
from asyncstore.metadata.sql.search_logged_models import SqlSearchLoggedModels
from asyncstore.metadata.sql.search_traces import SqlSearchTraces
from asyncstore.metadata.sql.spans import SqlSpans
from asyncstore.metadata.sql.statements import insert_missing
from asyncstore.metadata.sql.traces import SqlTraces

__all__ = ["SqlMetadataStore", "open_store", "prepare"]


class SqlMetadataStore(
    SqlExperiments,
    SqlRuns,
    SqlLogged,
    SqlSearch,
    SqlInputs,
    SqlMetricHistory,
    SqlLoggedModels,
    SqlSearchLoggedModels,
    SqlTraces,
    SqlSpans,
    SqlSearchTraces,
    SqlAssessments,
    SqlModelVersions,
    SqlPrompts,
    SqlDeletion,
):
    """MLflow's metadata in SQLite or PostgreSQL; opened by `MetadataStore.open`."""


async def open_store(uri: str, artifact_location: str) -> SqlMetadataStore:
    """Open a database; see `MetadataStore.open`."""
    root = await anyio.to_thread.run_sync(locations.absolute, artifact_location)

    async def open_() -> SqlMetadataStore:
        database = Database(uri)
        await database.connect()
        try:
            tables = await prepare(database, root)
        except BaseException:
            await shielded(database.aclose, within=CLOSE_WITHIN)
            raise
        return SqlMetadataStore(database, tables, root)

    return await opened_in_own_task(open_, close_within=CLOSE_WITHIN)


async def prepare(database: Database, root: str) -> Tables:
    """Create what a new database needs; leave one that another program owns as it is."""

    async def find(connection: AsyncConnection) -> Tables | None:
        return await connection.run_sync(find_schema, database.uri)

    doing = "opening the metadata store"
    found = await database.read(doing, find)
    if found is None:
        newest = await anyio.to_thread.run_sync(newest_for_installed)

        async def create(connection: AsyncConnection) -> Tables:
            return await connection.run_sync(create_schema, database.uri, newest)

        found = await database.write(doing, create)
    tables = found
    if database.dialect == "sqlite":
        await _use_wal(database)

    async def is_ready(connection: AsyncConnection) -> bool:
        return await _is_ready(connection, tables)

    async def create_default(connection: AsyncConnection) -> None:
        await _create_default(connection, tables, root)

    if not await database.read(doing, is_ready):
        await database.write(doing, create_default)
    return tables


async def _use_wal(database: Database) -> None:
    # Readers and the writer do not wait for each other. A file system that cannot share memory
    # between processes leaves the journal as it is, which works too.
    async def use(connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    await database.outside_transactions("switching to WAL", use)


async def _is_ready(connection: AsyncConnection, tables: Tables) -> bool:
    """Whether the default experiment is there; refuses databases with several workspaces."""
    experiments = tables.experiments
    elsewhere = select(experiments.c.experiment_id).where(~tables.in_workspace(experiments))
    if (await connection.execute(elsewhere.limit(1))).first() is not None:
        raise InvalidStateError(
            "the database holds experiments of several MLflow workspaces, which asyncstore does "
            "not know"
        )
    default = select(experiments.c.experiment_id).where(experiments.c.experiment_id == 0)
    return (await connection.execute(default)).first() is not None


async def _create_default(connection: AsyncConnection, tables: Tables, root: str) -> None:
    now = now_ms()
    dialect = connection.dialect.name
    if dialect == "mysql":
        # Otherwise MySQL takes 0 for the next number of the column.
        await connection.exec_driver_sql(
            "SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"
        )
    if dialect == "mssql":
        await connection.exec_driver_sql("SET IDENTITY_INSERT experiments ON")
    row = {
        "experiment_id": 0,
        "name": "Default",
        "artifact_location": locations.append(root, "0"),
        "lifecycle_stage": "active",
        "creation_time": now,
        "last_update_time": now,
    }
    await connection.execute(insert_missing(dialect, tables.experiments), [row])
    if dialect == "mssql":
        await connection.exec_driver_sql("SET IDENTITY_INSERT experiments OFF")
