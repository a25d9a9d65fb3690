"""Experiments and their tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import Experiment, LifecycleStage
from asyncstore.errors import AlreadyExistsError, InvalidStateError, NotFoundError
from asyncstore.metadata import validation
from asyncstore.metadata.sql import locations
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.deletion import delete_assessments_of_runs
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, upsert

__all__ = ["SqlExperiments", "inactive_experiment", "read_experiments"]

DEFAULT_EXPERIMENT_ID = "0"


class SqlExperiments(SqlStore):
    """The methods of a store that concern experiments."""

    @override
    async def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        validation.experiment_name(name)
        if artifact_location:
            artifact_location = locations.absolute(artifact_location)
            validation.artifact_location_length(artifact_location)
        for key, value in (tags or {}).items():
            validation.experiment_tag(key, value)
        table = self._tables.experiments

        async def create(connection: AsyncConnection) -> str:
            now = now_ms()
            row = {
                "name": name,
                "artifact_location": artifact_location or None,
                "lifecycle_stage": "active",
                "creation_time": now,
                "last_update_time": now,
            }
            try:
                inserted = await connection.execute(insert(table).values(row))
            except IntegrityError as error:
                raise AlreadyExistsError(
                    f"experiment {name!r} exists already, active or deleted; choose another name, "
                    "or get_or_create_experiment"
                ) from error
            experiment_id = inserted.inserted_primary_key[0]  # type: ignore[index]  # there is one
            if not artifact_location:
                location = locations.append(self._artifact_root, str(experiment_id))
                await connection.execute(
                    update(table)
                    .where(table.c.experiment_id == experiment_id)
                    .values(artifact_location=location)
                )
            if tags:
                await connection.execute(
                    insert(self._tables.experiment_tags),
                    [
                        {"experiment_id": experiment_id, "key": key, "value": value}
                        for key, value in tags.items()
                    ],
                )
            return str(experiment_id)

        return await self._database.write(f"creating experiment {name!r}", create)

    @override
    async def get_or_create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        # Whoever loses the race to create it finds it in the second round.
        while (found := await self.get_experiment_by_name(name)) is None:
            with suppress(AlreadyExistsError):
                await self.create_experiment(name, artifact_location, tags)
        return found

    @override
    async def get_experiment(self, experiment_id: str) -> Experiment:
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)
        query = select(self._tables.experiments).where(
            self._tables.experiments.c.experiment_id == number
        )
        found = await self._get(query, f"getting experiment {number}")
        if found is None:
            raise _missing(number)
        return found

    @override
    async def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        table = self._tables.experiments
        query = select(table).where(
            self._tables.in_workspace(table), table.c.name == experiment_name
        )
        return await self._get(query, f"getting experiment {experiment_name!r}")

    async def _get(self, query: Select[Any], doing: str) -> Experiment | None:
        async def get(connection: AsyncConnection) -> list[Experiment]:
            return await read_experiments(connection, self._tables, query)

        found = await self._database.read(doing, get)
        return found[0] if found else None

    @override
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        validation.experiment_name(new_name)
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)

        async def rename(connection: AsyncConnection) -> None:
            if await _stage(connection, self._tables, number) != "active":
                raise InvalidStateError(
                    f"experiment {number} is deleted and cannot be renamed; restore it first"
                )
            try:
                await _update(connection, self._tables, number, name=new_name)
            except IntegrityError as error:
                # MLflow lets the database's refusal through, which its code shows.
                raise AlreadyExistsError(
                    f"experiment {number} cannot be renamed: {new_name!r} exists already",
                    error_code="BAD_REQUEST",
                ) from error

        await self._database.write(f"renaming experiment {number}", rename)

    @override
    async def delete_experiment(self, experiment_id: str) -> None:
        await self._move_experiment(experiment_id, "active", "deleted", now_ms())

    @override
    async def restore_experiment(self, experiment_id: str) -> None:
        await self._move_experiment(experiment_id, "deleted", "active", None)

    async def _move_experiment(
        self,
        experiment_id: str,
        before: LifecycleStage,
        after: LifecycleStage,
        deleted_time: int | None,
    ) -> None:
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)

        async def change(connection: AsyncConnection) -> None:
            if await _stage(connection, self._tables, number) != before:
                raise _missing(number, f"no {before} experiment")
            await _update(connection, self._tables, number, lifecycle_stage=after)
            if after == "deleted":
                runs = self._tables.runs.c
                query = select(runs.run_uuid).where(runs.experiment_id == number)
                run_ids = list((await connection.execute(query)).scalars())
                await delete_assessments_of_runs(connection, self._tables, run_ids)
            await connection.execute(
                update(self._tables.runs)
                .where(self._tables.runs.c.experiment_id == number)
                .values(lifecycle_stage=after, deleted_time=deleted_time)
            )

        await self._database.write(f"changing experiment {number} to {after}", change)

    @override
    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        validation.experiment_tag(key, value)
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)

        async def set_tag(connection: AsyncConnection) -> None:
            await _check_active(connection, self._tables, number)
            await connection.execute(
                upsert(self._dialect, self._tables.experiment_tags, ["value"]),
                [{"experiment_id": number, "key": key, "value": value}],
            )

        await self._database.write(
            f"setting tag {key!r} of experiment {number}", set_tag, repeatable=True
        )

    @override
    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)

        async def delete_tag(connection: AsyncConnection) -> None:
            await _check_active(connection, self._tables, number)
            gone = await connection.execute(
                delete(self._tables.experiment_tags).where(
                    self._tables.experiment_tags.c.experiment_id == number,
                    self._tables.experiment_tags.c.key == key,
                )
            )
            if not gone.rowcount:
                raise NotFoundError(f"experiment {number} has no tag {key!r}")

        await self._database.write(f"deleting tag {key!r} of experiment {number}", delete_tag)


async def read_experiments(
    connection: AsyncConnection, tables: Tables, query: Select[Any]
) -> list[Experiment]:
    """The experiments of a query with their tags, in two statements.

    Args:
        connection: A transaction.
        tables: The tables of its schema.
        query: Selects rows of the table of experiments.

    Returns:
        The experiments in the query's order.
    """
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    tags: dict[int, dict[str, str]] = {row.experiment_id: {} for row in rows}
    if rows:
        found = await connection.execute(
            select(tables.experiment_tags)
            .where(
                among(connection.dialect.name, tables.experiment_tags.c.experiment_id, list(tags))
            )
            .order_by(tables.experiment_tags.c.key)
        )
        for tag in found:
            tags[tag.experiment_id][tag.key] = tag.value
    return [
        Experiment(
            experiment_id=str(row.experiment_id),
            name=row.name,
            artifact_location=row.artifact_location,
            lifecycle_stage=row.lifecycle_stage,
            tags=tags[row.experiment_id],
            creation_time=row.creation_time,
            last_update_time=row.last_update_time,
        )
        for row in rows
    ]


def _missing(number: int, what: str = "no experiment") -> NotFoundError:
    return NotFoundError(f"there is {what} with the id {number}")


async def _stage(connection: AsyncConnection, tables: Tables, number: int) -> str:
    query = select(tables.experiments.c.lifecycle_stage).where(
        tables.experiments.c.experiment_id == number
    )
    stage: str | None = (await connection.execute(query)).scalar_one_or_none()
    if stage is None:
        raise _missing(number)
    return stage


async def _check_active(connection: AsyncConnection, tables: Tables, number: int) -> None:
    if (stage := await _stage(connection, tables, number)) != "active":
        raise inactive_experiment(number, stage)


def inactive_experiment(number: int, stage: str) -> InvalidStateError:
    """The error for an experiment that is deleted, with MLflow's code."""
    return InvalidStateError(
        f"experiment {number} is {stage}; restore it first", error_code="INVALID_PARAMETER_VALUE"
    )


async def _update(connection: AsyncConnection, tables: Tables, number: int, **values: Any) -> None:
    await connection.execute(
        update(tables.experiments)
        .where(tables.experiments.c.experiment_id == number)
        .values(last_update_time=now_ms(), **values)
    )
