"""Datasets, and what runs read and make."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import DatasetInput, DatasetSummary, LoggedModelInput, LoggedModelOutput
from asyncstore.metadata import validation
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.dataset_inputs import write_dataset_inputs
from asyncstore.metadata.sql.runs import check_active
from asyncstore.metadata.sql.statements import among, insert_missing

__all__ = ["SqlInputs"]

MAX_DATASET_SUMMARIES_RESULTS = 1000
DATASET_CONTEXT_TAG = "mlflow.data.context"


class SqlInputs(SqlStore):
    """The methods of a store that concern datasets, and what runs read and make."""

    @override
    async def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        validation.run_id(run_id)
        for each in datasets or ():
            validation.dataset_input(each)
        edges = [
            self._edge("RUN_INPUT", run_id, "MODEL_INPUT", model.model_id) for model in models or ()
        ]

        async def log(connection: AsyncConnection) -> None:
            experiment_id = await check_active(connection, self._tables, run_id)
            if datasets:
                await write_dataset_inputs(
                    connection, self._tables, run_id, experiment_id, datasets
                )
            if edges:
                await connection.execute(insert_missing(self._dialect, self._tables.inputs), edges)

        await self._database.write(f"logging inputs of run {run_id}", log, repeatable=True)

    @override
    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        edges = [
            self._edge("RUN_OUTPUT", run_id, "MODEL_OUTPUT", model.model_id, model.step)
            for model in models
        ]

        async def log(connection: AsyncConnection) -> None:
            await check_active(connection, self._tables, run_id)
            if edges:
                await connection.execute(insert_missing(self._dialect, self._tables.inputs), edges)

        await self._database.write(f"logging outputs of run {run_id}", log, repeatable=True)

    def _edge(
        self, source_type: str, source_id: str, kind: str, model_id: str, step: int = 0
    ) -> dict[str, Any]:
        _ = self._tables.logged_models  # an MLflow without models has no place for them
        return {
            "input_uuid": uuid.uuid4().hex,
            "source_type": source_type,
            "source_id": source_id,
            "destination_type": kind,
            "destination_id": model_id,
            "step": step,
        }

    @override
    async def search_datasets(self, experiment_ids: Sequence[str]) -> list[DatasetSummary]:
        numbers = [validation.experiment_id_number(each) for each in experiment_ids]
        datasets, inputs = self._tables.datasets, self._tables.inputs
        tags = self._tables.input_tags
        query = (
            select(datasets.c.experiment_id, datasets.c.name, datasets.c.digest, tags.c.value)
            .distinct()
            .join(inputs, inputs.c.source_id == datasets.c.dataset_uuid)
            .outerjoin(
                tags,
                and_(tags.c.input_uuid == inputs.c.input_uuid, tags.c.name == DATASET_CONTEXT_TAG),
            )
            .where(among(self._dialect, datasets.c.experiment_id, numbers))
            .order_by(datasets.c.experiment_id, datasets.c.name, datasets.c.digest, tags.c.value)
            .limit(MAX_DATASET_SUMMARIES_RESULTS)
        )

        async def search(connection: AsyncConnection) -> list[DatasetSummary]:
            return [
                DatasetSummary(str(row.experiment_id), row.name, row.digest, row.value)
                for row in await connection.execute(query)
            ]

        return await self._database.read("searching datasets", search)
