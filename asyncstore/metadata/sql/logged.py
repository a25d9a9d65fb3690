"""Metrics, params and tags of runs: logged in groups, read as history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import anyio.lowlevel
from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import Metric, PagedList, Param
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import page_tokens, validation
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.database import Database
from asyncstore.metadata.sql.group_commit import Entry, GroupCommit
from asyncstore.metadata.sql.log_batch import LogBatch, write_group
from asyncstore.metadata.sql.run_details import ROWS_AT_ONCE
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import greater

__all__ = ["SqlLogged"]


class SqlLogged(SqlStore):
    """The methods of a store that concern what runs log."""

    def __init__(self, database: Database, tables: Tables, artifact_root: str) -> None:
        super().__init__(database, tables, artifact_root)
        self._group_commit: GroupCommit[LogBatch] = GroupCommit(self._write)

    async def _write(self, group: list[Entry[LogBatch]]) -> None:
        async def write(connection: AsyncConnection) -> None:
            await write_group(connection, self._tables, group)

        one = group[0].write.run_id
        doing = f"logging to run {one}" if len(group) == 1 else f"logging to {len(group)} runs"
        await self._database.write(doing, write, repeatable=True, in_this_task=True)

    async def _log(self, batch: LogBatch) -> None:
        self._database.check_usable()
        await self._group_commit.submit(batch, batch.weight)

    @override
    async def log_metric(self, run_id: str, metric: Metric) -> None:
        await self._log(LogBatch(run_id, metrics=(validation.clean_metric(metric),)))

    @override
    async def log_param(self, run_id: str, param: Param) -> None:
        await self._log(LogBatch(run_id, params=(validation.clean_param(param),)))

    @override
    async def set_tag(self, run_id: str, key: str, value: str) -> None:
        await self._log(LogBatch(run_id, tags=validation.clean_tags({key: value})))

    @override
    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        validation.run_id(run_id)
        tags = tags or {}
        validation.batch_limits(metrics, params, list(tags))
        batch = LogBatch(
            run_id,
            [validation.clean_metric(metric) for metric in metrics],
            [validation.clean_param(param) for param in params],
            validation.clean_tags(tags),
        )
        await self._log(batch)

    @override
    async def get_metric_history(
        self,
        run_id: str,
        metric_key: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Metric]:
        if max_results is not None and max_results < 1:
            raise InvalidParameterError(f"max_results must be 1 or more, not {max_results}")
        column = self._tables.metrics.c
        order = (column.timestamp, column.step, column.value, column.is_nan)
        query = select(column.value, column.timestamp, column.step, column.is_nan).where(
            column.run_uuid == run_id, column.key == metric_key
        )
        if page_token:
            # A page begins behind the last row of the one before, whatever was logged meanwhile.
            position = zip(page_tokens.read_metric(page_token), order, strict=True)
            after = [literal(value, ordered.type) for value, ordered in position]
            query = query.where(greater(self._dialect, order, after))
        query = query.order_by(*order)
        if max_results is not None:
            query = query.limit(max_results + 1)

        def metrics(rows: Sequence[Any]) -> list[Metric]:
            return [
                Metric(metric_key, nan if is_nan else value, timestamp, step)
                for value, timestamp, step, is_nan in rows
            ]

        async def read_few(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(query.limit(ROWS_AT_ONCE + 1))).all()

        async def read(connection: AsyncConnection) -> PagedList[Metric]:
            found: PagedList[Metric] = PagedList()
            result = await connection.stream(query)
            before: Any = None
            async for rows in result.partitions(ROWS_AT_ONCE):
                found += metrics(rows)
                last = rows[-1]
                if max_results is not None and len(found) > max_results:
                    # Of the row that was read too many, nothing is shown.
                    found.pop()
                    last = rows[-2] if len(rows) > 1 else before
                    position = (last.timestamp, last.step, last.value, bool(last.is_nan))
                    found.token = page_tokens.write_metric(position)
                before = last
                await anyio.lowlevel.checkpoint()
            return found

        doing = f"reading metric {metric_key!r} of run {run_id}"
        if max_results is None:
            # A stream costs a transaction and a cursor, which take longer than a few rows.
            few = await self._database.read(doing, read_few)
            if len(few) <= ROWS_AT_ONCE:
                return PagedList(metrics(few))
        return await self._database.read(doing, read, in_transaction=True)
