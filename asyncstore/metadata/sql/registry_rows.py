"""Rows of the model registry: read with what belongs to them, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, Table, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.entities import ModelVersion, RegisteredModel
from asyncstore.errors import NotFoundError
from asyncstore.metadata.sql.base import now_ms
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, chunks

__all__ = [
    "DELETED",
    "check_version",
    "missing_model",
    "missing_version",
    "read_models",
    "read_versions",
    "touch_model",
]

# MLflow's mark of a version that is deleted: its number is not used again.
DELETED = "Deleted_Internal"
NAMES_AT_ONCE = 250


def missing_model(name: str) -> NotFoundError:
    """The error for a registered model that does not exist."""
    return NotFoundError(f"there is no registered model {name!r}")


def missing_version(name: str, version: int) -> NotFoundError:
    """The error for a version that does not exist."""
    return NotFoundError(f"registered model {name!r} has no version {version}")


async def touch_model(
    connection: AsyncConnection, tables: Tables, model_name: str, **values: Any
) -> None:
    """Change a model, at least its time, and hold its row until the transaction ends.

    Raises:
        NotFoundError: There is none.
    """
    models = tables.registered_models
    changed = await connection.execute(
        update(models)
        .where(tables.in_workspace(models), models.c.name == model_name)
        .values(last_updated_time=now_ms(), **values)
    )
    if not changed.rowcount:
        raise missing_model(model_name)


async def check_version(
    connection: AsyncConnection, tables: Tables, name: str, version: int
) -> None:
    """Refuse a version that does not exist or is deleted."""
    versions = tables.model_versions
    query = select(versions.c.version).where(
        tables.in_workspace(versions),
        versions.c.name == name,
        versions.c.version == version,
        versions.c.current_stage != DELETED,
    )
    if (await connection.execute(query)).first() is None:
        raise missing_version(name, version)


async def read_models(
    connection: AsyncConnection, tables: Tables, query: Select[Any]
) -> list[RegisteredModel]:
    """The models of a query with tags, aliases and latest versions, a statement for each table.

    Args:
        connection: A transaction.
        tables: The tables of its schema.
        query: Selects rows of the table of registered models.

    Returns:
        The models in the query's order.
    """
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    found: list[RegisteredModel] = []
    for some in chunks(rows, NAMES_AT_ONCE):
        names = [row.name for row in some]
        tags: dict[str, dict[str, str]] = {name: {} for name in names}
        for row in await _of(connection, tables, tables.registered_model_tags, names, "key"):
            tags[row.name][row.key] = row.value
        aliases = await _aliases(connection, tables, names)
        latest: dict[str, list[ModelVersion]] = {name: [] for name in names}
        for version in await _latest(connection, tables, names):
            latest[version.name].append(version)
        found += [
            RegisteredModel(
                row.name,
                row.creation_time,
                row.last_updated_time,
                row.description,
                tuple(latest[row.name]),
                tags[row.name],
                aliases[row.name],
            )
            for row in some
        ]
    return found


async def _of(
    connection: AsyncConnection, tables: Tables, table: Table, names: Sequence[str], order: str
) -> Sequence[Row[Any]]:
    query = (
        select(table)
        .where(tables.in_workspace(table), among(connection.dialect.name, table.c.name, names))
        .order_by(table.c[order])
    )
    return (await connection.execute(query)).all()


async def _aliases(
    connection: AsyncConnection, tables: Tables, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in await _of(connection, tables, tables.registered_model_aliases, names, "alias"):
        found[row.name][row.alias] = row.version
    return found


async def _latest(
    connection: AsyncConnection, tables: Tables, names: Sequence[str]
) -> list[ModelVersion]:
    versions = tables.model_versions
    newest = (
        select(
            versions.c.name,
            versions.c.current_stage,
            func.max(versions.c.version).label("version"),
            func.min(versions.c.version).label("oldest"),
        )
        .where(
            tables.in_workspace(versions),
            among(connection.dialect.name, versions.c.name, names),
            versions.c.current_stage != DELETED,
        )
        .group_by(versions.c.name, versions.c.current_stage)
        .subquery()
    )
    query = (
        select(versions)
        .join(
            newest,
            and_(versions.c.name == newest.c.name, versions.c.version == newest.c.version),
        )
        .where(tables.in_workspace(versions))
        # As MLflow has them: the stage that was reached first comes first.
        .order_by(versions.c.name, newest.c.oldest)
    )
    return await read_versions(connection, tables, query)


async def read_versions(
    connection: AsyncConnection, tables: Tables, query: Select[Any]
) -> list[ModelVersion]:
    """The versions of a query with their tags and aliases, a statement for each table.

    Args:
        connection: A transaction.
        tables: The tables of its schema.
        query: Selects rows of the table of versions.

    Returns:
        The versions in the query's order.
    """
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    found: list[ModelVersion] = []
    dialect = connection.dialect.name
    for some in chunks(rows, NAMES_AT_ONCE):
        names = sorted({row.name for row in some})
        numbers = sorted({row.version for row in some})
        aliases: dict[tuple[str, int], list[str]] = {}
        for name, of_model in (await _aliases(connection, tables, names)).items():
            for alias, version in of_model.items():
                aliases.setdefault((name, version), []).append(alias)
        table = tables.model_version_tags
        tags: dict[tuple[str, int], dict[str, str]] = {}
        tag_query = select(table).where(
            tables.in_workspace(table),
            among(dialect, table.c.name, names),
            among(dialect, table.c.version, numbers),
        )
        for row in await connection.execute(tag_query.order_by(table.c.key)):
            tags.setdefault((row.name, row.version), {})[row.key] = row.value
        found += [
            ModelVersion(
                name=row.name,
                version=row.version,
                creation_timestamp=row.creation_time,
                last_updated_timestamp=row.last_updated_time,
                description=row.description,
                user_id=row.user_id,
                current_stage=row.current_stage,
                source=row.source,
                run_id=row.run_id,
                status=row.status,
                status_message=row.status_message,
                tags=tags.get((row.name, row.version), {}),
                run_link=row.run_link,
                aliases=tuple(aliases.get((row.name, row.version), ())),
            )
            for row in some
        ]
    return found
