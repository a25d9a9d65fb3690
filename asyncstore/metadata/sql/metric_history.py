"""The history of metrics of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import MetricWithRunId
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.run_details import metric_from_row
from asyncstore.metadata.sql.statements import among

__all__ = ["SqlMetricHistory"]


class SqlMetricHistory(SqlStore):
    """The methods of a store that concern the history of metrics of many runs."""

    @override
    async def get_metric_history_bulk(
        self, run_ids: Sequence[str], metric_key: str, max_results: int
    ) -> list[MetricWithRunId]:
        column = self._tables.metrics.c
        query = (
            self._of(metric_key, among(self._dialect, column.run_uuid, list(run_ids)))
            .order_by(column.run_uuid, column.timestamp, column.step, column.value)
            .limit(max_results)
        )

        async def read(connection: AsyncConnection) -> list[MetricWithRunId]:
            return _with_run_ids(await connection.execute(query))

        return await self._database.read(f"reading metric {metric_key!r} of runs", read)

    @override
    async def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: Sequence[int], max_results: int
    ) -> list[MetricWithRunId]:
        column = self._tables.metrics.c
        query = (
            self._of(
                metric_key,
                column.run_uuid == run_id,
                among(self._dialect, column.step, list(steps)),
            )
            .order_by(column.step, column.timestamp, column.value)
            .limit(max_results)
        )

        async def read(connection: AsyncConnection) -> list[MetricWithRunId]:
            return _with_run_ids(await connection.execute(query))

        return await self._database.read(f"reading metric {metric_key!r} of run {run_id}", read)

    @override
    async def get_metric_history_bulk_interval(
        self,
        run_ids: Sequence[str],
        metric_key: str,
        max_results: int,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> list[MetricWithRunId]:
        conditions: list[ColumnElement[bool]] = []
        if start_step is not None and end_step is not None:
            step = self._tables.metrics.c.step
            conditions = [step >= start_step, step <= end_step]
        elif (start_step, end_step) != (None, None):
            raise InvalidParameterError("start_step and end_step: give both of them, or none")
        query = self._sampled(
            self._of(
                metric_key,
                among(self._dialect, self._tables.metrics.c.run_uuid, list(run_ids)),
                *conditions,
            ),
            max(1, max_results),
        )

        async def read(connection: AsyncConnection) -> list[MetricWithRunId]:
            found: dict[str, list[MetricWithRunId]] = {run_id: [] for run_id in run_ids}
            for each in _with_run_ids(await connection.execute(query)):
                found[each.run_id].append(each)
            return [each for run_id in found for each in found[run_id]]

        return await self._database.read(f"sampling metric {metric_key!r} of runs", read)

    def _of(self, metric_key: str, *conditions: ColumnElement[bool]) -> Select[Any]:
        column = self._tables.metrics.c
        return select(
            column.run_uuid,
            column.key,
            column.value,
            column.timestamp,
            column.step,
            column.is_nan,
        ).where(column.key == metric_key, *conditions)

    def _sampled(self, query: Select[Any], count: int) -> Select[Any]:
        """The first row of each of `count` even buckets of a run, the last bucket's last row."""
        rows = query.subquery()
        of_run: dict[str, Any] = {
            "partition_by": rows.c.run_uuid,
            "order_by": [rows.c.step, rows.c.timestamp, rows.c.value, rows.c.is_nan],
        }
        placed = select(
            *rows.c,
            func.row_number().over(**of_run).label("place"),
            func.ntile(count).over(**of_run).label("bucket"),
            func.count().over(partition_by=rows.c.run_uuid).label("total"),
        ).subquery()
        bucketed = select(
            *placed.c,
            func.min(placed.c.place)
            .over(partition_by=[placed.c.run_uuid, placed.c.bucket])
            .label("first"),
        ).subquery()
        is_last = bucketed.c.place == bucketed.c.total
        # The last row takes the place of the first one of its bucket.
        is_sampled = (bucketed.c.place == bucketed.c.first) & (
            (bucketed.c.bucket < count) | (bucketed.c.total <= count)
        )
        return (
            select(*(bucketed.c[column.name] for column in rows.c))
            .where(is_sampled | is_last)
            .order_by(
                bucketed.c.run_uuid,
                bucketed.c.step,
                bucketed.c.timestamp,
                bucketed.c.value,
                bucketed.c.is_nan,
            )
        )


def _with_run_ids(rows: Any) -> list[MetricWithRunId]:
    found = ((run_id, metric_from_row(*metric)) for run_id, *metric in rows)
    return [
        MetricWithRunId(each.key, each.value, each.timestamp, each.step, run_id=run_id)
        for run_id, each in found
    ]
