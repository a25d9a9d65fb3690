"""Searches: from comparisons and orderings to SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import anyio.to_thread
from sqlalchemy import ColumnElement, Float, Select, and_, case, false, literal, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import Experiment, PagedList, Run, ViewType
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import page_tokens, validation
from asyncstore.metadata.filters import (
    EXPERIMENTS,
    RUNS,
    Comparison,
    Ordering,
    Vocabulary,
    parse_filter,
    parse_order_by,
)
from asyncstore.metadata.interface.runs import SEARCH_MAX_RESULTS_DEFAULT
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.experiments import read_experiments
from asyncstore.metadata.sql.log_batch import RUN_NAME_TAG
from asyncstore.metadata.sql.runs import read_runs
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, compare_exactly

__all__ = ["SqlSearch", "compare", "directed", "page", "parsed"]

T = TypeVar("T")

# Longer filters, such as those with thousands of run ids, are parsed beside the event loop.
LONG_FILTER = 500
DATASET_CONTEXT_TAG = "mlflow.data.context"
_RUN_COLUMNS = {"run_id": "run_uuid", "run_name": "name"}
_KEYED = {"param": "params", "tag": "tags", "metric": "latest_metrics"}


class SqlSearch(SqlStore):
    """The methods of a store that search."""

    @override
    async def search_experiments(
        self,
        view_type: ViewType = "ACTIVE_ONLY",
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        if max_results is None:
            raise InvalidParameterError("max_results must be a number, not None")
        validation.max_results(max_results)
        stages = validation.lifecycle_stages(view_type)
        offset = page_tokens.read_offset(page_token)
        comparisons = await parsed(filter_string, EXPERIMENTS)
        query = select(self._tables.experiments).where(
            self._tables.experiments.c.lifecycle_stage.in_(stages),
            *(
                _experiment_condition(comparison, self._tables, self._dialect)
                for comparison in comparisons
            ),
        )
        orderings = [
            parse_order_by(text, EXPERIMENTS)
            for text in order_by or ("creation_time DESC", "experiment_id ASC")
        ]
        if not any(ordering.key == "experiment_id" for ordering in orderings):
            orderings.append(Ordering("attribute", "experiment_id", ascending=False))
        query = query.order_by(
            *(
                directed(self._tables.experiments.c[ordering.key], ordering)
                for ordering in orderings
            )
        )
        query = query.offset(offset).limit(max_results + 1)

        async def search(connection: AsyncConnection) -> list[Experiment]:
            return await read_experiments(connection, self._tables, query)

        found = await self._database.read("searching experiments", search)
        return page(found, offset, max_results)

    @override
    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: ViewType = "ACTIVE_ONLY",
        max_results: int | None = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        if isinstance(experiment_ids, str):
            raise InvalidParameterError(
                f"experiment_ids must be a list such as [{experiment_ids!r}], not a text"
            )
        validation.max_results(max_results)
        stages = validation.lifecycle_stages(run_view_type)
        offset = page_tokens.read_offset(page_token)
        numbers = [validation.experiment_id_number(each) for each in experiment_ids]
        comparisons = await parsed(filter_string, RUNS)
        query = select(self._tables.runs).where(
            among(self._dialect, self._tables.runs.c.experiment_id, numbers),
            self._tables.runs.c.lifecycle_stage.in_(stages),
            *(
                _run_condition(comparison, self._tables, self._dialect)
                for comparison in comparisons
            ),
        )
        query = _ordered_runs(
            query, self._tables, [parse_order_by(text, RUNS) for text in order_by or ()]
        )
        query = query.offset(offset)
        if max_results is not None:
            query = query.limit(max_results + 1)

        async def search(connection: AsyncConnection) -> list[Run]:
            return await read_runs(connection, self._tables, query)

        found = await self._database.read("searching runs", search)
        return page(found, offset, max_results)


async def parsed(text: str | None, vocabulary: Vocabulary) -> list[Comparison]:
    """The comparisons of a filter, without a stall for a long one."""
    if text is not None and not isinstance(text, str):
        raise InvalidParameterError(f"filter_string must be text, not {text!r:.80}")
    if text and len(text) > LONG_FILTER:
        return await anyio.to_thread.run_sync(parse_filter, text, vocabulary)
    return parse_filter(text, vocabulary)


def page(found: list[T], offset: int, max_results: int | None) -> PagedList[T]:
    """A page of what was found with a limit of one more than it holds."""
    if max_results is None or len(found) <= max_results:
        return PagedList(found)
    return PagedList(found[:max_results], page_tokens.write_offset(offset + max_results))


def _run_condition(comparison: Comparison, tables: Tables, dialect: str) -> ColumnElement[bool]:
    entity, key = comparison.entity, comparison.key
    if entity == "dataset":
        return _dataset_condition(comparison, tables, dialect)
    if entity == "attribute":
        if key != "run_name":
            return compare(_run_column(tables, key), comparison, dialect)
        # Runs of MLflow 1 have their name in the tag only.
        comparison = Comparison("tag", RUN_NAME_TAG, comparison.operator, comparison.value)
        entity, key = "tag", RUN_NAME_TAG
    column = getattr(tables, _KEYED[entity]).c
    row = select(column.run_uuid).where(
        column.run_uuid == tables.runs.c.run_uuid, column.key == key
    )
    if comparison.operator == "IS NULL":
        return ~row.exists()
    if comparison.operator == "IS NOT NULL":
        return row.exists()
    condition = compare(column.value, comparison, dialect)
    if entity == "metric":
        # NaN is stored as 0 with a mark; it differs from every number and is nothing else to it.
        if comparison.operator == "!=":
            condition = or_(condition, column.is_nan == true())
        else:
            condition = and_(condition, column.is_nan == false())
    return row.where(condition).exists()


def _dataset_condition(comparison: Comparison, tables: Tables, dialect: str) -> ColumnElement[bool]:
    inputs, datasets = tables.inputs, tables.datasets
    # No word of the run in here, so that databases look this up once and not for each run.
    of_runs = (
        select(inputs.c.destination_id)
        .join(datasets, inputs.c.source_id == datasets.c.dataset_uuid)
        .where(inputs.c.source_type == "DATASET", inputs.c.destination_type == "RUN")
    )
    column: ColumnElement[Any]
    if comparison.key == "context":
        input_tags = tables.input_tags
        column = input_tags.c.value
        of_runs = of_runs.join(
            input_tags,
            and_(
                input_tags.c.input_uuid == inputs.c.input_uuid,
                input_tags.c.name == DATASET_CONTEXT_TAG,
            ),
        )
    else:
        column = datasets.c[comparison.key]
    return tables.runs.c.run_uuid.in_(of_runs.where(compare(column, comparison, dialect)))


def _experiment_condition(
    comparison: Comparison, tables: Tables, dialect: str
) -> ColumnElement[bool]:
    key, operator, value = comparison.key, comparison.operator, comparison.value
    if comparison.entity == "attribute":
        column = tables.experiments.c[key]
        if key != "experiment_id":
            return compare(column, comparison, dialect)
        ids = value if isinstance(value, tuple) else (value,)
        numbers = [validation.experiment_id_number(each) for each in ids]
        condition = among(dialect, column, numbers)
        return condition if operator in ("=", "IN") else ~condition
    experiment_tags = tables.experiment_tags
    row = select(experiment_tags.c.key).where(
        experiment_tags.c.experiment_id == tables.experiments.c.experiment_id,
        experiment_tags.c.key == key,
    )
    if operator == "IS NULL":
        return ~row.exists()
    if operator != "IS NOT NULL":
        row = row.where(compare(experiment_tags.c.value, comparison, dialect))
    return row.exists()


def compare(
    column: ColumnElement[Any], comparison: Comparison, dialect: str
) -> ColumnElement[bool]:
    """The condition of a comparison on the column that it is about."""
    value: Any = comparison.value
    match comparison.operator:
        case "ILIKE":
            return column.ilike(value)
        case "IN":
            return among(dialect, column, value)
        case "NOT IN":
            return ~among(dialect, column, value)
    if isinstance(value, str) and comparison.operator in ("=", "!=", "LIKE"):
        return compare_exactly(dialect, column, comparison.operator, value)
    other = literal(value, Float() if isinstance(value, float) else column.type)
    return column.op(comparison.operator, is_comparison=True)(other)


def _run_column(tables: Tables, key: str) -> ColumnElement[Any]:
    return tables.runs.c[_RUN_COLUMNS.get(key, key)]


def _ordered_runs(query: Select[Any], tables: Tables, orderings: Sequence[Ordering]) -> Select[Any]:
    runs = tables.runs
    seen: set[tuple[str, str]] = set()
    clauses: list[ColumnElement[Any]] = []
    for ordering in orderings:
        name = (ordering.entity, ordering.key)
        if name in seen:
            raise InvalidParameterError(f"order_by names {ordering.key!r} twice")
        seen.add(name)
        if ordering.entity == "attribute":
            value = _run_column(tables, ordering.key)
            last: list[Any] = [(value.is_(None), 1)]
        else:
            table = getattr(tables, _KEYED[ordering.entity]).alias()
            value = table.c.value
            query = query.outerjoin(
                table, and_(table.c.run_uuid == runs.c.run_uuid, table.c.key == ordering.key)
            )
            last = [(value.is_(None), 2)]
            if ordering.entity == "metric":
                last.append((table.c.is_nan == true(), 1))
        clauses += [case(*last, else_=0), directed(value, ordering)]
    if ("attribute", "start_time") not in seen:
        clauses.append(runs.c.start_time.desc())
    return query.order_by(*clauses, runs.c.run_uuid)


def directed(column: ColumnElement[Any], ordering: Ordering) -> ColumnElement[Any]:
    """A column in the direction of an ordering."""
    return column.asc() if ordering.ascending else column.desc()
