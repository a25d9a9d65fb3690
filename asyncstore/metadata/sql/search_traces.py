"""Searches for traces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, not_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import PagedList, TraceInfo
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import page_tokens, validation
from asyncstore.metadata.filters import ORDER, Comparison, Ordering, parse_order_by
from asyncstore.metadata.filters.traces import TRACES
from asyncstore.metadata.interface.traces import SEARCH_TRACES_DEFAULT_MAX_RESULTS
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.search import compare, page, parsed
from asyncstore.metadata.sql.statements import among, compare_exactly, matches
from asyncstore.metadata.sql.trace_columns import NAME_TAG, SESSION_KEY
from asyncstore.metadata.sql.trace_rows import read_trace_infos

__all__ = ["SqlSearchTraces"]

SOURCE_RUN_KEY = "mlflow.sourceRun"
MODEL_KEY = "mlflow.modelId"
_SPAN_COLUMNS = ("name", "type", "status", "content")
# What attributes of a trace are kept as.
_AS_TAG = {"name": NAME_TAG}
_AS_METADATA = {"run_id": SOURCE_RUN_KEY}
# And what newer schemas keep in columns.
_AS_COLUMN = {NAME_TAG: "trace_name", SESSION_KEY: "session_id"}


class SqlSearchTraces(SqlStore):
    """The search of a store for traces."""

    @override
    async def search_traces(
        self,
        experiment_ids: Sequence[str] | None = None,
        filter_string: str | None = None,
        max_results: int = SEARCH_TRACES_DEFAULT_MAX_RESULTS,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
        model_id: str | None = None,
        locations: Sequence[str] | None = None,
    ) -> PagedList[TraceInfo]:
        if locations is not None and experiment_ids is not None:
            raise InvalidParameterError("give experiment_ids or locations, and not both")
        if max_results is None:
            raise InvalidParameterError("max_results must be a number, not None")
        validation.max_results(max_results)
        offset = page_tokens.read_offset(page_token)
        where = locations if locations is not None else experiment_ids
        numbers = None if where is None else list(map(validation.experiment_id_number, where))
        comparisons = [_resolved(each) for each in await parsed(filter_string, TRACES)]
        if model_id is not None:
            comparisons.append(Comparison("metadata", MODEL_KEY, "=", model_id))
        traces = self._tables.trace_info
        query = select(traces).where(
            self._in(traces.c.experiment_id, numbers),
            *(
                self._trace_condition(each, numbers)
                for each in comparisons
                if each.entity != "span"
            ),
            *self._of_one_span([each for each in comparisons if each.entity == "span"]),
        )
        query = self._traces_ordered(
            query, [parse_order_by(text, TRACES) for text in order_by or ()]
        )
        query = query.offset(offset).limit(max_results + 1)

        async def search(connection: AsyncConnection) -> list[TraceInfo]:
            return await read_trace_infos(connection, self._tables, query)

        found = await self._database.read("searching traces", search)
        return page(found, offset, max_results)

    def _in(
        self, column: ColumnElement[Any], experiments: Sequence[int] | None
    ) -> ColumnElement[bool]:
        return true() if experiments is None else among(self._dialect, column, experiments)

    def _trace_condition(
        self, comparison: Comparison, experiments: Sequence[int] | None
    ) -> ColumnElement[bool]:
        key = comparison.key
        match comparison.entity:
            case "tag" | "metadata":
                return self._text_condition(comparison)
            case "feedback" | "expectation" | "issue":
                return self._assessment_condition(comparison, experiments)
        if key == "prompt":
            version = str(comparison.value)
            if version.count("/") != 1:
                raise InvalidParameterError(
                    f"filter_string: prompt takes name and version as 'name/1', not {version!r}"
                )
            return self._linked("prompt_version", version)
        return self._compare(self._trace_column(key), comparison)

    def _trace_column(self, key: str) -> ColumnElement[Any]:
        traces = self._tables.trace_info.c
        if key == "end_time_ms":
            return traces.timestamp_ms + func.coalesce(traces.execution_time_ms, 0)
        if key not in traces:
            # An older schema has no such column, and so no trace has such a value.
            return literal(None, traces.status.type)
        return traces[key]

    def _compare(self, column: ColumnElement[Any], comparison: Comparison) -> ColumnElement[bool]:
        match comparison.operator:
            case "IS NULL":
                return column.is_(None)
            case "IS NOT NULL":
                return column.is_not(None)
            case "RLIKE":
                return matches(self._dialect, column, str(comparison.value))
        return compare(column, comparison, self._dialect)

    def _text_condition(self, comparison: Comparison) -> ColumnElement[bool]:
        traces = self._tables.trace_info.c
        key, operator = comparison.key, comparison.operator
        column = _AS_COLUMN.get(key)
        if column is not None and column in traces:
            return self._compare(traces[column], comparison)
        is_tag = comparison.entity == "tag"
        table = self._tables.trace_tags if is_tag else self._tables.trace_request_metadata
        row = select(table.c.key).where(table.c.request_id == traces.request_id, table.c.key == key)
        if operator == "IS NULL":
            return ~row.exists()
        if operator != "IS NOT NULL":
            row = row.where(self._compare(table.c.value, comparison))
        if key == SOURCE_RUN_KEY and operator == "=":
            return or_(row.exists(), self._linked("run", str(comparison.value)))
        return row.exists()

    def _linked(self, kind: str, destination_id: str) -> ColumnElement[bool]:
        """Whether a trace is linked to a run or to a version of a prompt."""
        links = self._tables.entity_associations.c
        row = select(links.source_id).where(
            links.source_type == "trace",
            links.source_id == self._tables.trace_info.c.request_id,
            links.destination_type == kind,
            links.destination_id == destination_id,
        )
        return row.exists()

    def _of_one_span(self, comparisons: Sequence[Comparison]) -> list[ColumnElement[bool]]:
        if not comparisons:
            return []
        spans = self._tables.spans
        row = select(spans.c.span_id).where(
            spans.c.trace_id == self._tables.trace_info.c.request_id,
            *(self._span_condition(each) for each in comparisons),
        )
        return [row.exists()]

    def _span_condition(self, comparison: Comparison) -> ColumnElement[bool]:
        spans, key = self._tables.spans.c, comparison.key
        prefix, _, attribute = key.partition(".")
        if prefix == "attributes" and attribute:
            return self._span_attribute(attribute.strip("`"), comparison)
        if key not in _SPAN_COLUMNS:
            raise InvalidParameterError(
                f"filter_string: a span has no {key!r}; it has {', '.join(_SPAN_COLUMNS)} and "
                "attributes.<name>"
            )
        return self._compare(spans[key], comparison)

    def _span_attribute(self, attribute: str, comparison: Comparison) -> ColumnElement[bool]:
        content, operator = self._tables.spans.c.content, comparison.operator
        if operator == "=":
            # A value is JSON in JSON.
            said = json.dumps(json.dumps(comparison.value, ensure_ascii=False), ensure_ascii=False)
            return content.contains(f'"{attribute}": {said}', autoescape=True)
        if operator not in ("LIKE", "ILIKE"):
            raise InvalidParameterError(
                f"filter_string: span.attributes.{attribute} does not allow {operator}; it allows "
                "=, LIKE and ILIKE"
            )
        pattern = Comparison("span", "content", operator, f'%"{attribute}"{comparison.value}%')
        return compare(content, pattern, self._dialect)

    def _assessment_condition(
        self, comparison: Comparison, experiments: Sequence[int] | None
    ) -> ColumnElement[bool]:
        table, traces = self._tables.assessments, self._tables.trace_info.c
        if comparison.entity == "issue":
            of_issue = select(table.c.trace_id).where(
                table.c.trace_id == traces.request_id,
                table.c.assessment_type == "issue",
                table.c.name == comparison.value,
            )
            return of_issue.exists()
        conditions = [
            table.c.assessment_type == comparison.entity,
            table.c.name == comparison.key,
            table.c.valid == true(),
        ]
        if comparison.operator not in ("IS NULL", "IS NOT NULL"):
            conditions.append(self._value_condition(comparison))
        found = select(table.c.trace_id).where(table.c.trace_id == traces.request_id, *conditions)
        said = or_(found.exists(), *self._said_of_session(conditions, experiments))
        return not_(said) if comparison.operator == "IS NULL" else said

    def _said_of_session(
        self, conditions: Sequence[ColumnElement[bool]], experiments: Sequence[int] | None
    ) -> list[ColumnElement[bool]]:
        """Whether a trace is of a session that was assessed as a whole."""
        traces, table = self._tables.trace_info, self._tables.assessments
        if "session_id" not in traces.c:
            return []
        # No word of the trace outside, so that databases look the sessions up once.
        assessed = traces.alias()
        sessions = (
            select(assessed.c.session_id)
            .join(table, table.c.trace_id == assessed.c.request_id)
            .where(
                assessed.c.session_id.is_not(None),
                self._in(assessed.c.experiment_id, experiments),
                table.c.assessment_metadata.contains(f'"{SESSION_KEY}":', autoescape=True),
                *conditions,
            )
        )
        # Without a session it is false and not NULL, so that IS NULL can turn it round.
        return [and_(traces.c.session_id.is_not(None), traces.c.session_id.in_(sessions))]

    def _value_condition(self, comparison: Comparison) -> ColumnElement[bool]:
        table, value = self._tables.assessments, comparison.value
        operator = comparison.operator
        if operator in ORDER:
            if "aggregate_value" not in table.c:
                raise InvalidParameterError(
                    f"filter_string: {comparison.entity}.{comparison.key} {operator} needs a "
                    "database of MLflow 3.17 or newer"
                )
            return and_(
                table.c.is_numeric_value == true(),
                compare(table.c.aggregate_value, comparison, self._dialect),
            )
        text = str(value)
        # Values are JSON: texts have quotes there, numbers and truth values have none.
        if operator in ("=", "!="):
            spelled = (json.dumps(text), text)
            same = or_(
                *(compare_exactly(self._dialect, table.c.value, "=", each) for each in spelled)
            )
            return same if operator == "=" else not_(same)
        if operator == "RLIKE":
            return matches(self._dialect, table.c.value, text)
        patterns = [f'"{text}"', text]
        return or_(
            *(
                compare(
                    table.c.value,
                    Comparison(comparison.entity, comparison.key, operator, pattern),
                    self._dialect,
                )
                for pattern in patterns
            )
        )

    def _traces_ordered(self, query: Select[Any], orderings: Sequence[Ordering]) -> Select[Any]:
        traces = self._tables.trace_info
        seen: set[tuple[str, str]] = set()
        clauses: list[ColumnElement[Any]] = []
        for ordering in orderings:
            name = (ordering.entity, ordering.key)
            if name in seen:
                raise InvalidParameterError(f"order_by names {ordering.key!r} twice")
            seen.add(name)
            query, value = self._traces_ordered_by(query, ordering)
            directed = value.asc() if ordering.ascending else value.desc()
            clauses += [case((value.is_(None), 1), else_=0), directed]
        if ("attribute", "timestamp_ms") not in seen:
            clauses.append(traces.c.timestamp_ms.desc())
        if ("attribute", "request_id") not in seen:
            clauses.append(traces.c.request_id.asc())
        return query.order_by(*clauses)

    def _traces_ordered_by(
        self, query: Select[Any], ordering: Ordering
    ) -> tuple[Select[Any], ColumnElement[Any]]:
        traces, tables = self._tables.trace_info, self._tables
        resolved = _resolved(Comparison(ordering.entity, ordering.key, "=", ""))
        entity, key = resolved.entity, resolved.key
        if entity == "attribute":
            return query, self._trace_column(key)
        column = _AS_COLUMN.get(key)
        if column is not None and column in traces.c:
            return query, traces.c[column]
        table = (tables.trace_tags if entity == "tag" else tables.trace_request_metadata).alias()
        query = query.outerjoin(
            table, and_(table.c.request_id == traces.c.request_id, table.c.key == key)
        )
        return query, table.c.value


def _resolved(comparison: Comparison) -> Comparison:
    """A comparison of an attribute that is kept as a tag, as metadata or in spans, as that."""
    entity, key = comparison.entity, comparison.key
    if entity == "attribute":
        if key in _AS_TAG:
            entity, key = "tag", _AS_TAG[key]
        elif key in _AS_METADATA:
            entity, key = "metadata", _AS_METADATA[key]
        elif key == "text":
            entity, key = "span", "content"
    return Comparison(entity, key, comparison.operator, comparison.value)
