"""Searches for logged models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import LoggedModel, PagedList
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import page_tokens, validation
from asyncstore.metadata.filters import Comparison
from asyncstore.metadata.filters.logged_models import LOGGED_MODELS
from asyncstore.metadata.interface.logged_models import SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.logged_models import STATUS_NUMBERS, read_logged_models
from asyncstore.metadata.sql.search import compare, page, parsed
from asyncstore.metadata.sql.statements import among

__all__ = ["SqlSearchLoggedModels"]


class SqlSearchLoggedModels(SqlStore):
    """The search of a store for logged models."""

    @override
    async def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: Sequence[Mapping[str, str]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        if not all(dataset.get("dataset_name") for dataset in datasets or ()):
            raise InvalidParameterError("datasets: each of them needs a dataset_name")
        size = max_results or SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
        validation.max_results(size)
        offset = page_tokens.read_offset(page_token)
        numbers = [validation.experiment_id_number(each) for each in experiment_ids]
        comparisons = await parsed(filter_string, LOGGED_MODELS)
        models = self._tables.logged_models
        on_datasets = self._on_datasets(datasets or ())
        query = select(models).where(
            among(self._dialect, models.c.experiment_id, numbers),
            models.c.lifecycle_stage != "deleted",
            *(self._condition(comparison, on_datasets) for comparison in comparisons),
        )
        if on_datasets and not any(each.entity == "metric" for each in comparisons):
            query = query.where(self._has("logged_model_metrics", *on_datasets))
        query = self._ordered(query, order_by or ()).offset(offset).limit(size + 1)

        async def search(connection: AsyncConnection) -> list[LoggedModel]:
            return await read_logged_models(connection, self._tables, query)

        found = await self._database.read("searching logged models", search)
        return page(found, offset, size)

    def _on_datasets(self, datasets: Sequence[Mapping[str, str]]) -> list[ColumnElement[bool]]:
        if not datasets:
            return []
        metrics = self._tables.logged_model_metrics.c
        one_of = [
            and_(
                metrics.dataset_name == dataset["dataset_name"],
                *(
                    [metrics.dataset_digest == dataset["dataset_digest"]]
                    if "dataset_digest" in dataset
                    else []
                ),
            )
            for dataset in datasets
        ]
        return [or_(*one_of)]

    def _has(self, table: str, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        column = getattr(self._tables, table).c
        row = select(column.model_id).where(
            column.model_id == self._tables.logged_models.c.model_id, *conditions
        )
        return row.exists()

    def _condition(
        self, comparison: Comparison, on_datasets: Sequence[ColumnElement[bool]]
    ) -> ColumnElement[bool]:
        tables, key = self._tables, comparison.key
        match comparison.entity:
            case "metric":
                metrics = tables.logged_model_metrics.c
                value = compare(metrics.metric_value, comparison, self._dialect)
                return self._has(
                    "logged_model_metrics", metrics.metric_name == key, value, *on_datasets
                )
            case "param":
                params = tables.logged_model_params.c
                value = compare(params.param_value, comparison, self._dialect)
                return self._has("logged_model_params", params.param_key == key, value)
            case "tag":
                tags = tables.logged_model_tags.c
                value = compare(tags.tag_value, comparison, self._dialect)
                return self._has("logged_model_tags", tags.tag_key == key, value)
        if key == "status":
            return self._status_condition(comparison)
        if key == "experiment_id":
            # A number, which MLflow's filters compare as text.
            return compare(cast(tables.logged_models.c[key], String()), comparison, self._dialect)
        return compare(tables.logged_models.c[key], comparison, self._dialect)

    def _status_condition(self, comparison: Comparison) -> ColumnElement[bool]:
        # The database has numbers.
        wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
        if comparison.operator in ("LIKE", "ILIKE"):
            raise InvalidParameterError(
                f"filter_string: status does not allow {comparison.operator}"
            )
        numbers = [STATUS_NUMBERS[each] for each in map(str, wanted) if each in STATUS_NUMBERS]
        condition = self._tables.logged_models.c.status.in_(numbers)
        return condition if comparison.operator in ("=", "IN") else ~condition

    def _ordered(self, query: Select[Any], order_by: Sequence[Mapping[str, Any]]) -> Select[Any]:
        models = self._tables.logged_models
        clauses: list[ColumnElement[Any]] = []
        seen: set[str] = set()
        for clause in order_by:
            entity, name = self._field(clause)
            if entity == "attribute":
                seen.add(name)
                value: ColumnElement[Any] = models.c[name]
            else:
                latest = self._latest(name, clause)
                query = query.outerjoin(latest, latest.c.model_id == models.c.model_id)
                value = latest.c.metric_value
            directed = value.asc() if clause.get("ascending", True) else value.desc()
            clauses += [case((value.is_(None), 1), else_=0), directed]
        if "creation_timestamp_ms" not in seen:
            clauses.append(models.c.creation_timestamp_ms.desc())
        if "model_id" not in seen:
            clauses.append(models.c.model_id.asc())
        return query.order_by(*clauses)

    def _field(self, clause: Mapping[str, Any]) -> tuple[str, str]:
        name = clause.get("field_name")
        if not isinstance(name, str):
            raise InvalidParameterError(f"order_by: {dict(clause)!r} has no field_name")
        entity, dot, key = name.partition(".")
        if dot:
            if entity != "metrics":
                raise InvalidParameterError(
                    f"order_by: {name!r}: of what has a dot, only metrics. can be ordered by"
                )
            return "metric", key
        field = LOGGED_MODELS.field("attribute", name)
        column = field.key if field is not None else name
        if column not in self._tables.logged_models.c:
            raise InvalidParameterError(f"order_by: a logged model has no {name!r}")
        return "attribute", column

    def _latest(self, name: str, clause: Mapping[str, Any]) -> Any:
        """The latest value of a metric of each model."""
        metrics = self._tables.logged_model_metrics.c
        conditions = [metrics.metric_name == name]
        conditions += [
            metrics[key] == clause[key]
            for key in ("dataset_name", "dataset_digest")
            if clause.get(key)
        ]
        place = func.row_number().over(
            partition_by=metrics.model_id,
            order_by=[
                metrics.metric_timestamp_ms.desc(),
                metrics.metric_step.desc(),
                metrics.run_id.asc(),
            ],
        )
        placed = (
            select(metrics.model_id, metrics.metric_value, place.label("place"))
            .where(*conditions)
            .subquery()
        )
        return select(placed).where(placed.c.place == 1).subquery()
