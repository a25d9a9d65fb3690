"""Deletion for good, and what goes with a run that is marked as deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import ArtifactOwner, ArtifactOwnerKind
from asyncstore.errors import InvalidStateError, NotFoundError
from asyncstore.metadata import validation
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.log_batch import missing_run
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, chunks

__all__ = ["SqlDeletion", "delete_assessments_of_runs"]

# Runs, models and traces that one transaction removes, and values of metrics: a transaction has a
# minute.
RUNS_AT_ONCE = 100
TRACES_AT_ONCE = 500
POINTS_AT_ONCE = 100_000
SOURCE_RUN_KEY = "mlflow.assessment.sourceRunId"
ARTIFACT_LOCATION_TAG = "mlflow.artifactLocation"
# Children of each, by the column that names it. What the database has a cascade for is here too:
# MLflow's older schemas do not have all of them.
OF_RUNS = {
    "metrics": "run_uuid",
    "latest_metrics": "run_uuid",
    "params": "run_uuid",
    "tags": "run_uuid",
    "logged_model_metrics": "run_id",
}
OF_LOGGED_MODELS = {
    "logged_model_metrics": "model_id",
    "logged_model_params": "model_id",
    "logged_model_tags": "model_id",
}
OF_TRACES = {
    "span_metrics": "trace_id",
    "spans": "trace_id",
    "trace_metrics": "request_id",
    "trace_tags": "request_id",
    "trace_request_metadata": "request_id",
    "assessments": "trace_id",
}


class SqlDeletion(SqlStore):
    """The methods of a store that concern deletion for good."""

    @override
    async def get_deleted_runs(self, older_than: int = 0) -> list[str]:
        table = self._tables.runs
        query = select(table.c.run_uuid).where(
            table.c.lifecycle_stage == "deleted", _is_older(table.c.deleted_time, older_than)
        )
        return await self._ids("getting deleted runs", query)

    @override
    async def get_deleted_experiments(self, older_than: int = 0) -> list[str]:
        table = self._tables.experiments
        query = select(table.c.experiment_id).where(
            table.c.lifecycle_stage == "deleted",
            _is_older(table.c.last_update_time, older_than),
            self._tables.in_workspace(table),
        )
        return await self._ids("getting deleted experiments", query)

    @override
    async def get_deleted_logged_models(self, older_than: int = 0) -> list[str]:
        if "logged_models" not in self._tables:
            return []
        table = self._tables.logged_models
        query = select(table.c.model_id).where(
            table.c.lifecycle_stage == "deleted",
            _is_older(table.c.last_updated_timestamp_ms, older_than),
        )
        return await self._ids("getting deleted logged models", query)

    async def _ids(self, doing: str, query: Select[Any]) -> list[str]:
        async def get(connection: AsyncConnection) -> list[str]:
            return [str(found) for found in (await connection.execute(query)).scalars()]

        return await self._database.read(doing, get)

    @override
    async def get_artifact_owners(
        self,
        kind: ArtifactOwnerKind,
        ids: Sequence[str] | None = None,
        experiment_id: str | None = None,
        after: str = "",
        max_results: int = 1000,
    ) -> list[ArtifactOwner]:
        if kind == "logged_model" and "logged_models" not in self._tables:
            return []
        number = None if experiment_id is None else validation.experiment_id_number(experiment_id)
        key, experiment, query = self._owners(kind)
        query = query.where(key > after).order_by(key).limit(max_results)
        if number is not None:
            query = query.where(experiment == number)
        if ids is not None:
            query = query.where(among(self._dialect, key, list(ids)))

        async def get(connection: AsyncConnection) -> list[ArtifactOwner]:
            return [
                ArtifactOwner(kind, str(row[0]), row[1], row[2], row[3] or None)
                for row in await connection.execute(query)
            ]

        return await self._database.read(f"getting the artifact URIs of {kind}s", get)

    def _owners(
        self, kind: ArtifactOwnerKind
    ) -> tuple[ColumnElement[str], ColumnElement[int], Select[Any]]:
        """The column of ids, that of experiments, and a query of id, stage, time and URI."""
        if kind == "run":
            run = self._tables.runs.c
            query = select(run.run_uuid, run.lifecycle_stage, run.deleted_time, run.artifact_uri)
            return run.run_uuid, run.experiment_id, query
        if kind == "logged_model":
            model = self._tables.logged_models.c
            changed = model.last_updated_timestamp_ms
            query = select(model.model_id, model.lifecycle_stage, changed, model.artifact_location)
            return model.model_id, model.experiment_id, query
        trace, tag = self._tables.trace_info, self._tables.trace_tags
        located = and_(tag.c.request_id == trace.c.request_id, tag.c.key == ARTIFACT_LOCATION_TAG)
        query = select(trace.c.request_id, literal("active"), null(), tag.c.value)
        query = query.select_from(trace.outerjoin(tag, located))
        return trace.c.request_id, trace.c.experiment_id, query

    @override
    async def hard_delete_run(self, run_id: str) -> None:
        if not await self.get_artifact_owners("run", [run_id]):
            raise missing_run(run_id)
        await self.hard_delete_runs([run_id])

    @override
    async def hard_delete_runs(self, run_ids: Sequence[str]) -> None:
        for some in chunks(sorted(set(run_ids)), RUNS_AT_ONCE):
            await self._hard_delete_runs(list(some))

    async def _hard_delete_runs(self, run_ids: list[str]) -> None:
        tables = self._tables
        doing = f"deleting {run_ids[0] if len(run_ids) == 1 else f'{len(run_ids)} runs'} for good"

        query = select(tables.runs.c.run_uuid, tables.runs.c.lifecycle_stage).where(
            among(self._dialect, tables.runs.c.run_uuid, run_ids)
        )

        async def check(connection: AsyncConnection, query: Select[Any] = query) -> None:
            for row in await connection.execute(query):
                if row.lifecycle_stage != "deleted":
                    raise _not_deleted(f"run {row.run_uuid}")

        async def delete_all(connection: AsyncConnection) -> None:
            # Locked, so that nobody restores a run while it is removed.
            await check(connection, query.with_for_update())
            await self._delete_children(connection, OF_RUNS, run_ids)
            await self._delete_links(connection, "run", run_ids)
            await self._delete_among(connection, "runs", "run_uuid", run_ids)

        await self._database.read(doing, check)
        await self._delete_points(doing, run_ids)
        await self._database.write(doing, delete_all, repeatable=True)

    async def _delete_points(self, doing: str, run_ids: list[str]) -> None:
        """Delete values of metrics until few enough are left for one transaction."""
        table = self._tables.metrics
        counted = (
            select(table.c.run_uuid, table.c.key, func.count())
            .where(among(self._dialect, table.c.run_uuid, run_ids))
            .group_by(table.c.run_uuid, table.c.key)
        )

        async def count(connection: AsyncConnection) -> list[tuple[int, str, str]]:
            return [(row[2], row[0], row[1]) for row in await connection.execute(counted)]

        found = await self._database.read(doing, count)
        left = sum(points for points, _, _ in found)
        for points, run_id, key in sorted(found, reverse=True):
            if left <= POINTS_AT_ONCE:
                return
            left -= points
            of_key = and_(table.c.run_uuid == run_id, table.c.key == key)
            boundary = (
                select(table.c.step)
                .where(of_key)
                .order_by(table.c.step)
                .offset(POINTS_AT_ONCE)
                .limit(1)
            )

            async def delete_some(
                connection: AsyncConnection,
                of_key: ColumnElement[bool] = of_key,
                boundary: Select[Any] = boundary,
            ) -> bool:
                step = (await connection.execute(boundary)).scalar_one_or_none()
                up_to = of_key if step is None else and_(of_key, table.c.step <= step)
                await connection.execute(delete(table).where(up_to))
                return step is not None

            while await self._database.write(doing, delete_some, repeatable=True):
                pass

    @override
    async def hard_delete_experiment(self, experiment_id: str) -> None:
        tables = self._tables
        number = validation.experiment_id_number(experiment_id)
        doing = f"deleting experiment {number} for good"

        query = select(tables.experiments.c.lifecycle_stage).where(
            tables.experiments.c.experiment_id == number
        )

        async def check(connection: AsyncConnection, query: Select[Any] = query) -> None:
            found = (await connection.execute(query)).scalar_one_or_none()
            if found != "deleted":
                raise NotFoundError(f"there is no deleted experiment with the id {number}")
            active = select(tables.runs.c.run_uuid).where(
                tables.runs.c.experiment_id == number, tables.runs.c.lifecycle_stage != "deleted"
            )
            run_id = (await connection.execute(active.limit(1))).scalar_one_or_none()
            if run_id is not None:
                raise _not_deleted(f"run {run_id} of experiment {number}")

        await self._database.read(doing, check)
        while found := await self.get_artifact_owners(
            "run", experiment_id=experiment_id, max_results=RUNS_AT_ONCE
        ):
            await self._hard_delete_runs([owner.id for owner in found])
        while found := await self.get_artifact_owners(
            "trace", experiment_id=experiment_id, max_results=TRACES_AT_ONCE
        ):
            await self._hard_delete_traces(doing, [owner.id for owner in found])
        while found := await self.get_artifact_owners(
            "logged_model", experiment_id=experiment_id, max_results=RUNS_AT_ONCE
        ):
            await self._hard_delete_models(doing, [owner.id for owner in found])

        async def delete_rest(connection: AsyncConnection) -> None:
            await check(connection, query.with_for_update())
            await self._delete_links(connection, "experiment", [str(number)])
            for table in reversed(tables.metadata.sorted_tables):
                column = table.c.get("experiment_id")
                # An endpoint outlives its experiment.
                if column is not None and not any(
                    key.ondelete == "SET NULL" for key in column.foreign_keys
                ):
                    await connection.execute(delete(table).where(column == number))

        await self._database.write(doing, delete_rest, repeatable=True)

    async def _hard_delete_traces(self, doing: str, trace_ids: list[str]) -> None:
        async def delete_traces(connection: AsyncConnection) -> None:
            await self._delete_children(connection, OF_TRACES, trace_ids)
            await self._delete_links(connection, "trace", trace_ids)
            await self._delete_among(connection, "trace_info", "request_id", trace_ids)

        await self._database.write(doing, delete_traces, repeatable=True)

    @override
    async def hard_delete_logged_model(self, model_id: str) -> None:
        found = await self.get_artifact_owners("logged_model", [model_id])
        if not found:
            raise NotFoundError(f"there is no logged model with the id {model_id}")
        if found[0].lifecycle_stage != "deleted":
            raise _not_deleted(f"logged model {model_id}")
        await self._hard_delete_models(f"deleting logged model {model_id} for good", [model_id])

    async def _hard_delete_models(self, doing: str, model_ids: list[str]) -> None:
        async def delete_models(connection: AsyncConnection) -> None:
            await self._delete_children(connection, OF_LOGGED_MODELS, model_ids)
            await self._delete_links(connection, "model", model_ids)
            await self._delete_among(connection, "logged_models", "model_id", model_ids)

        await self._database.write(doing, delete_models, repeatable=True)

    async def _delete_children(
        self, connection: AsyncConnection, columns: dict[str, str], ids: list[str]
    ) -> None:
        for name, column in columns.items():
            await self._delete_among(connection, name, column, ids)

    async def _delete_among(
        self, connection: AsyncConnection, name: str, column: str, ids: list[str]
    ) -> None:
        if name in self._tables:
            table = getattr(self._tables, name)
            await connection.execute(
                delete(table).where(among(self._dialect, table.c[column], ids))
            )

    async def _delete_links(self, connection: AsyncConnection, kind: str, ids: list[str]) -> None:
        """Delete what links others to a run, a model, a trace or an experiment.

        Inputs and outputs name their ends in capitals: RUN, RUN_INPUT, RUN_OUTPUT, MODEL_INPUT.
        """
        inputs, tags = self._tables.inputs, self._tables.input_tags
        names = [kind.upper(), f"{kind.upper()}_INPUT", f"{kind.upper()}_OUTPUT"]
        # One statement for each end, since there is one index for each.
        for end in ("source", "destination"):
            is_end = self._is_end(inputs, end, names, ids)
            query = select(inputs.c.input_uuid).where(is_end)
            found = list((await connection.execute(query)).scalars())
            if found:
                await connection.execute(
                    delete(tags).where(among(self._dialect, tags.c.input_uuid, found))
                )
                await connection.execute(delete(inputs).where(is_end))
            if "entity_associations" in self._tables:
                table = self._tables.entity_associations
                await connection.execute(delete(table).where(self._is_end(table, end, [kind], ids)))

    def _is_end(self, table: Table, end: str, types: list[str], ids: list[str]) -> Any:
        return and_(
            among(self._dialect, table.c[f"{end}_type"], types),
            among(self._dialect, table.c[f"{end}_id"], ids),
        )


async def delete_assessments_of_runs(
    connection: AsyncConnection, tables: Tables, run_ids: Sequence[str]
) -> None:
    """Delete the assessments that runs made, as MLflow does when the runs are marked as deleted.

    Args:
        connection: A transaction that writes.
        tables: The tables of its schema.
        run_ids: The runs. Their ids are in the assessments' metadata, which has no index, so that
            many of them cost one look at the table.
    """
    if "assessments" not in tables or not run_ids:
        return
    table = tables.assessments
    pattern = json.dumps({SOURCE_RUN_KEY: run_ids[0]})[1:-1]
    if len(run_ids) > 1:
        pattern = json.dumps({SOURCE_RUN_KEY: ""})[1:-2]
    query = select(table.c.assessment_id, table.c.assessment_metadata).where(
        table.c.assessment_metadata.contains(pattern, autoescape=True)
    )
    wanted = set(run_ids)
    found = [
        row.assessment_id
        for row in await connection.execute(query)
        if _source_run(row.assessment_metadata) in wanted
    ]
    for some in chunks(found, TRACES_AT_ONCE):
        column = table.c.assessment_id
        await connection.execute(
            delete(table).where(among(connection.dialect.name, column, list(some)))
        )


def _source_run(metadata: str) -> str | None:
    try:
        found = json.loads(metadata)
    except ValueError:
        return None
    return found.get(SOURCE_RUN_KEY) if isinstance(found, dict) else None


def _is_older(column: ColumnElement[int], age: int) -> ColumnElement[bool]:
    if not age:
        return true()
    # MLflow did not always write the time.
    return or_(column.is_(None), column <= now_ms() - age)


def _not_deleted(what: str) -> InvalidStateError:
    return InvalidStateError(
        f"{what} is not deleted; delete it first, which can be undone",
        error_code="INVALID_PARAMETER_VALUE",
    )
