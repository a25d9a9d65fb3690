"""Runs: create, read, change, search."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import (
    DatasetInput,
    LifecycleStage,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunStatus,
)
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata import validation
from asyncstore.metadata.names import random_run_name
from asyncstore.metadata.sql import locations
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.dataset_inputs import read_dataset_inputs
from asyncstore.metadata.sql.deletion import delete_assessments_of_runs
from asyncstore.metadata.sql.experiments import DEFAULT_EXPERIMENT_ID, inactive_experiment
from asyncstore.metadata.sql.log_batch import (
    RUN_NAME_TAG,
    inactive_run,
    missing_run,
    upsert_tags,
)
from asyncstore.metadata.sql.run_details import RunDetails, read_details
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import chunks

__all__ = ["SqlRuns", "read_runs"]

# Whose rows are fetched at once: what the driver and SQLAlchemy do with a result, they do without a
# pause.
RUNS_AT_ONCE = 100


class SqlRuns(SqlStore):
    """The methods of a store that concern runs, without what they log."""

    @override
    async def create_run(
        self,
        experiment_id: str,
        user_id: str | None = None,
        start_time: int | None = None,
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
    ) -> Run:
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)
        wanted = validation.texts(tags or {})
        tagged_name = wanted.get(RUN_NAME_TAG)
        if run_name and tagged_name and run_name != tagged_name:
            raise InvalidParameterError(
                f"run_name is {run_name!r} and the tag {RUN_NAME_TAG} is {tagged_name!r}; "
                "give one of them"
            )
        name = run_name or tagged_name or random_run_name()
        if not tagged_name:
            wanted[RUN_NAME_TAG] = name
        run_id = uuid.uuid4().hex

        async def create(connection: AsyncConnection) -> RunInfo:
            query = select(
                self._tables.experiments.c.artifact_location,
                self._tables.experiments.c.lifecycle_stage,
            )
            found = await connection.execute(
                query.where(self._tables.experiments.c.experiment_id == number)
            )
            experiment = found.one_or_none()
            if experiment is None:
                raise NotFoundError(f"there is no experiment with the id {number}")
            if experiment.lifecycle_stage != "active":
                raise inactive_experiment(number, experiment.lifecycle_stage)
            info = RunInfo(
                run_id=run_id,
                run_name=name,
                experiment_id=str(number),
                user_id="unknown" if user_id is None else user_id,
                status="RUNNING",
                start_time=now_ms() if start_time is None else start_time,
                end_time=None,
                lifecycle_stage="active",
                artifact_uri=locations.append(experiment.artifact_location, run_id, "artifacts"),
            )
            await connection.execute(insert(self._tables.runs), _row(info))
            await upsert_tags(
                connection, self._tables, {(run_id, key): wanted[key] for key in wanted}
            )
            return info

        info = await self._database.write(f"creating a run in experiment {number}", create)
        return Run(info, RunData(tags=wanted))

    @override
    async def get_run(self, run_id: str) -> Run:
        query = select(self._tables.runs).where(self._tables.runs.c.run_uuid == run_id)

        async def get(connection: AsyncConnection) -> list[Run]:
            return await read_runs(connection, self._tables, query)

        found = await self._database.read(f"getting run {run_id}", get)
        if not found:
            raise missing_run(run_id)
        return found[0]

    @override
    async def update_run_info(
        self,
        run_id: str,
        run_status: RunStatus | None = None,
        end_time: int | None = None,
        run_name: str | None = None,
    ) -> RunInfo:
        changes: dict[str, Any] = {}
        if run_status is not None:
            changes["status"] = validation.run_status(run_status)
        if end_time is not None:
            changes["end_time"] = end_time
        if run_name:
            changes["name"] = run_name

        async def change(connection: AsyncConnection) -> RunInfo:
            await check_active(connection, self._tables, run_id)
            if changes:
                await connection.execute(
                    update(self._tables.runs)
                    .where(self._tables.runs.c.run_uuid == run_id)
                    .values(**changes)
                )
            if run_name:
                await upsert_tags(connection, self._tables, {(run_id, RUN_NAME_TAG): run_name})
            row = (
                await connection.execute(
                    select(self._tables.runs).where(self._tables.runs.c.run_uuid == run_id)
                )
            ).one()
            return _info(row, {})

        return await self._database.write(f"updating run {run_id}", change, repeatable=True)

    @override
    async def delete_run(self, run_id: str) -> None:
        await self._move_run(run_id, "deleted", now_ms())

    @override
    async def restore_run(self, run_id: str) -> None:
        await self._move_run(run_id, "active", None)

    async def _move_run(self, run_id: str, stage: LifecycleStage, deleted_time: int | None) -> None:
        async def change(connection: AsyncConnection) -> None:
            if stage == "deleted":
                await delete_assessments_of_runs(connection, self._tables, [run_id])
            changed = await connection.execute(
                update(self._tables.runs)
                .where(self._tables.runs.c.run_uuid == run_id)
                .values(lifecycle_stage=stage, deleted_time=deleted_time)
            )
            if not changed.rowcount:
                raise missing_run(run_id)

        await self._database.write(f"changing run {run_id} to {stage}", change, repeatable=True)

    @override
    async def delete_tag(self, run_id: str, key: str) -> None:
        table = self._tables.tags

        async def delete_tag(connection: AsyncConnection) -> None:
            await check_active(connection, self._tables, run_id)
            gone = await connection.execute(
                delete(table).where(table.c.run_uuid == run_id, table.c.key == key)
            )
            if not gone.rowcount:
                raise NotFoundError(f"run {run_id} has no tag {key!r}")

        await self._database.write(f"deleting tag {key!r} of run {run_id}", delete_tag)


async def check_active(connection: AsyncConnection, tables: Tables, run_id: str) -> int:
    """Refuse a run that does not exist or is deleted; the experiment of one that is active."""
    runs = tables.runs.c
    query = select(runs.lifecycle_stage, runs.experiment_id).where(runs.run_uuid == run_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise missing_run(run_id)
    if row.lifecycle_stage != "active":
        raise inactive_run(run_id, row.lifecycle_stage)
    return int(row.experiment_id)


async def read_runs(connection: AsyncConnection, tables: Tables, query: Select[Any]) -> list[Run]:
    """The runs of a query with all that belongs to them, in a few statements for 100 of them.

    Args:
        connection: A transaction.
        tables: The tables of its schema.
        query: Selects rows of the table of runs.

    Returns:
        The runs in the query's order.
    """
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    found: list[Run] = []
    for some in chunks(rows, RUNS_AT_ONCE):
        details = await read_details(connection, tables, [row.run_uuid for row in some])
        readers = [run_id for run_id, of_run in details.items() if of_run.reads_datasets]
        datasets = await read_dataset_inputs(connection, tables, readers) if readers else {}
        found += [_run(row, details[row.run_uuid], datasets) for row in some]
    return found


def _run(row: Row[Any], details: RunDetails, datasets: Mapping[str, Sequence[DatasetInput]]) -> Run:
    return Run(
        _info(row, details.tags),
        RunData(
            metrics={metric.key: metric.value for metric in details.metrics},
            params=details.params,
            tags=details.tags,
            latest_metrics=tuple(details.metrics),
        ),
        RunInputs(tuple(datasets.get(row.run_uuid, ())), tuple(details.model_inputs)),
        RunOutputs(tuple(details.model_outputs)),
    )


def _info(row: Row[Any], tags: Mapping[str, str]) -> RunInfo:
    return RunInfo(
        run_id=row.run_uuid,
        # Runs of MLflow 1 have their name in the tag only.
        run_name=row.name or tags.get(RUN_NAME_TAG, ""),
        experiment_id=str(row.experiment_id),
        user_id=row.user_id or "",
        status=row.status,
        start_time=row.start_time,
        end_time=row.end_time,
        lifecycle_stage=row.lifecycle_stage,
        artifact_uri=row.artifact_uri,
    )


def _row(info: RunInfo) -> dict[str, Any]:
    """A row of the table of runs, the columns that MLflow no longer uses filled as it does."""
    return {
        "run_uuid": info.run_id,
        "name": info.run_name,
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": info.user_id,
        "status": info.status,
        "start_time": info.start_time,
        "end_time": None,
        "deleted_time": None,
        "lifecycle_stage": info.lifecycle_stage,
        "artifact_uri": info.artifact_uri,
        "experiment_id": int(info.experiment_id),
    }
