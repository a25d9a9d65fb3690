"""Models that runs log."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import LoggedModel, LoggedModelStatus, Metric
from asyncstore.errors import AlreadyExistsError, InvalidParameterError, NotFoundError
from asyncstore.metadata import validation
from asyncstore.metadata.names import random_run_name
from asyncstore.metadata.sql import locations
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.experiments import DEFAULT_EXPERIMENT_ID, inactive_experiment
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, chunks, upsert

__all__ = ["STATUS_NUMBERS", "SqlLoggedModels", "missing_model", "read_logged_models"]

# As MLflow stores them.
STATUS_NUMBERS: Final[dict[str, int]] = {
    status: number for number, status in enumerate(get_args(LoggedModelStatus))
}
_STATUSES = get_args(LoggedModelStatus)
MODELS_AT_ONCE = 100


class SqlLoggedModels(SqlStore):
    """The methods of a store that concern models that runs log, without the search."""

    @override
    async def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        validation.logged_model_name(name)
        number = validation.experiment_id_number(experiment_id or DEFAULT_EXPERIMENT_ID)
        wanted_tags, wanted_params = validation.texts(tags or {}), validation.texts(params or {})
        model_id = f"m-{uuid.uuid4().hex}"
        tables = self._tables

        async def create(connection: AsyncConnection) -> LoggedModel:
            experiments = tables.experiments.c
            query = select(experiments.artifact_location, experiments.lifecycle_stage)
            found = await connection.execute(query.where(experiments.experiment_id == number))
            experiment = found.one_or_none()
            if experiment is None:
                raise NotFoundError(f"there is no experiment with the id {number}")
            if experiment.lifecycle_stage != "active":
                raise inactive_experiment(number, experiment.lifecycle_stage)
            now = now_ms()
            model = LoggedModel(
                experiment_id=str(number),
                model_id=model_id,
                name=name or random_run_name(),
                artifact_location=locations.append(
                    experiment.artifact_location, "models", model_id, "artifacts"
                ),
                creation_timestamp=now,
                last_updated_timestamp=now,
                model_type=model_type,
                source_run_id=source_run_id,
                status="PENDING",
                tags=wanted_tags,
                params=wanted_params,
            )
            await connection.execute(insert(tables.logged_models), _row(model))
            if wanted_params:
                await connection.execute(
                    insert(tables.logged_model_params), _params(model_id, number, wanted_params)
                )
            if wanted_tags:
                await connection.execute(
                    insert(tables.logged_model_tags), _tags(model_id, number, wanted_tags)
                )
            return model

        return await self._database.write(f"creating a model in experiment {number}", create)

    @override
    async def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        models = self._tables.logged_models
        query = select(models).where(models.c.model_id == model_id)
        if not allow_deleted:
            query = query.where(models.c.lifecycle_stage != "deleted")

        async def get(connection: AsyncConnection) -> list[LoggedModel]:
            return await read_logged_models(connection, self._tables, query)

        found = await self._database.read(f"getting logged model {model_id}", get)
        if not found:
            raise missing_model(model_id)
        return found[0]

    @override
    async def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        if status not in STATUS_NUMBERS:
            raise InvalidParameterError(
                f"{status!r} is not a status of a model; there are {', '.join(_STATUSES)}"
            )
        changes = {"status": STATUS_NUMBERS[status], "last_updated_timestamp_ms": now_ms()}
        await self._change(model_id, changes, f"finalizing logged model {model_id}")
        return await self.get_logged_model(model_id, allow_deleted=True)

    @override
    async def delete_logged_model(self, model_id: str) -> None:
        changes = {"lifecycle_stage": "deleted", "last_updated_timestamp_ms": now_ms()}
        await self._change(model_id, changes, f"deleting logged model {model_id}")

    async def _change(self, model_id: str, changes: Mapping[str, Any], doing: str) -> None:
        models = self._tables.logged_models

        async def change(connection: AsyncConnection) -> None:
            changed = await connection.execute(
                update(models).where(models.c.model_id == model_id).values(**changes)
            )
            if not changed.rowcount:
                raise missing_model(model_id)

        await self._database.write(doing, change, repeatable=True)

    @override
    async def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        wanted = validation.texts(params)

        async def log(connection: AsyncConnection) -> None:
            number = await self._experiment_of(connection, model_id)
            if not wanted:
                return
            rows = _params(model_id, number, wanted)
            try:
                await connection.execute(insert(self._tables.logged_model_params), rows)
            except IntegrityError as error:
                # MLflow lets the database's refusal through, which its code shows.
                raise AlreadyExistsError(
                    f"logged model {model_id} has one of these params already, and a param cannot "
                    f"be changed: {', '.join(wanted)}",
                    error_code="BAD_REQUEST",
                ) from error

        await self._database.write(f"logging params of logged model {model_id}", log)

    @override
    async def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        wanted = validation.texts(tags)

        async def set_tags(connection: AsyncConnection) -> None:
            number = await self._experiment_of(connection, model_id)
            if wanted:
                await connection.execute(
                    upsert(self._dialect, self._tables.logged_model_tags, ["tag_value"]),
                    _tags(model_id, number, wanted),
                )

        doing = f"setting tags of logged model {model_id}"
        await self._database.write(doing, set_tags, repeatable=True)

    @override
    async def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        tags = self._tables.logged_model_tags

        async def delete_tag(connection: AsyncConnection) -> None:
            await self._experiment_of(connection, model_id)
            gone = await connection.execute(
                delete(tags).where(tags.c.model_id == model_id, tags.c.tag_key == key)
            )
            if not gone.rowcount:
                raise NotFoundError(f"logged model {model_id} has no tag {key!r}")

        await self._database.write(f"deleting tag {key!r} of logged model {model_id}", delete_tag)

    async def _experiment_of(self, connection: AsyncConnection, model_id: str) -> int:
        models = self._tables.logged_models.c
        query = select(models.experiment_id).where(models.model_id == model_id)
        number: int | None = (await connection.execute(query)).scalar_one_or_none()
        if number is None:
            raise missing_model(model_id)
        return number


async def read_logged_models(
    connection: AsyncConnection, tables: Tables, query: Select[Any]
) -> list[LoggedModel]:
    """The models of a query with their tags, params and metrics, a statement for each table.

    Args:
        connection: A transaction.
        tables: The tables of its schema.
        query: Selects rows of the table of logged models.

    Returns:
        The models in the query's order.
    """
    rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
    found: list[LoggedModel] = []
    for some in chunks(rows, MODELS_AT_ONCE):
        model_ids = [row.model_id for row in some]
        tags = tables.logged_model_tags.c
        tags_of = await _texts_of(
            connection, model_ids, tags.model_id, tags.tag_key, tags.tag_value
        )
        params = tables.logged_model_params.c
        params_of = await _texts_of(
            connection, model_ids, params.model_id, params.param_key, params.param_value
        )
        metrics_of = await _metrics_of(connection, tables, model_ids)
        found += [
            LoggedModel(
                experiment_id=str(row.experiment_id),
                model_id=row.model_id,
                name=row.name,
                artifact_location=row.artifact_location,
                creation_timestamp=row.creation_timestamp_ms,
                last_updated_timestamp=row.last_updated_timestamp_ms,
                model_type=row.model_type,
                source_run_id=row.source_run_id,
                status=_STATUSES[row.status],
                status_message=row.status_message,
                tags=tags_of.get(row.model_id, {}),
                params=params_of.get(row.model_id, {}),
                metrics=tuple(metrics_of.get(row.model_id, ())),
            )
            for row in some
        ]
    return found


async def _texts_of(
    connection: AsyncConnection, model_ids: Sequence[str], model_id: Any, key: Any, value: Any
) -> dict[str, dict[str, str]]:
    """Params or tags, by model and key."""
    query = select(model_id, key, value).where(among(connection.dialect.name, model_id, model_ids))
    found: dict[str, dict[str, str]] = {}
    for of, name, text in await connection.execute(query.order_by(key)):
        found.setdefault(of, {})[name] = text
    return found


async def _metrics_of(
    connection: AsyncConnection, tables: Tables, model_ids: Sequence[str]
) -> dict[str, list[Metric]]:
    metrics = tables.logged_model_metrics
    query = (
        select(metrics)
        .where(among(connection.dialect.name, metrics.c.model_id, model_ids))
        .order_by(metrics.c.metric_name, metrics.c.metric_timestamp_ms, metrics.c.metric_step)
    )
    found: dict[str, list[Metric]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.model_id, []).append(
            Metric(
                row.metric_name,
                row.metric_value,
                row.metric_timestamp_ms,
                row.metric_step,
                row.model_id,
                row.dataset_name,
                row.dataset_digest,
                row.run_id,
            )
        )
    return found


def _row(model: LoggedModel) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "experiment_id": int(model.experiment_id),
        "name": model.name,
        "artifact_location": model.artifact_location,
        "creation_timestamp_ms": model.creation_timestamp,
        "last_updated_timestamp_ms": model.last_updated_timestamp,
        "status": STATUS_NUMBERS[model.status],
        "lifecycle_stage": "active",
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
        "status_message": None,
    }


def _params(model_id: str, number: int, params: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"model_id": model_id, "experiment_id": number, "param_key": key, "param_value": value}
        for key, value in params.items()
    ]


def _tags(model_id: str, number: int, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"model_id": model_id, "experiment_id": number, "tag_key": key, "tag_value": value}
        for key, value in sorted(tags.items())
    ]


def missing_model(model_id: str) -> NotFoundError:
    """The error for a logged model that does not exist."""
    return NotFoundError(f"logged model {model_id} does not exist")
