"""Datasets that runs read: written once for an experiment, read with their tags."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.entities import Dataset, DatasetInput
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.sql.statements import among, insert_missing

__all__ = ["read_dataset_inputs", "write_dataset_inputs"]


async def read_dataset_inputs(
    connection: AsyncConnection, tables: Tables, run_ids: Sequence[str]
) -> dict[str, list[DatasetInput]]:
    """The datasets that some runs read, by run id."""
    inputs, datasets, tags = tables.inputs, tables.datasets, tables.input_tags
    query = (
        select(
            inputs.c.destination_id,
            inputs.c.input_uuid,
            datasets,
            tags.c.name.label("tag"),
            tags.c.value,
        )
        .join(datasets, datasets.c.dataset_uuid == inputs.c.source_id)
        .outerjoin(tags, tags.c.input_uuid == inputs.c.input_uuid)
        .where(
            inputs.c.destination_type == "RUN",
            among(connection.dialect.name, inputs.c.destination_id, run_ids),
        )
        .order_by(datasets.c.name, datasets.c.digest, tags.c.name)
    )
    found: dict[str, dict[str, DatasetInput]] = {}
    for row in await connection.execute(query):
        of_run = found.setdefault(row.destination_id, {})
        tags_of_input: dict[str, str] = {}
        one = of_run.setdefault(row.input_uuid, DatasetInput(_dataset(row), tags_of_input))
        if row.tag is not None and isinstance(one.tags, dict):
            one.tags[row.tag] = row.value
    return {run_id: list(of_run.values()) for run_id, of_run in found.items()}


def _dataset(row: Row[Any]) -> Dataset:
    return Dataset(
        row.name,
        row.digest,
        row.dataset_source_type,
        row.dataset_source,
        row.dataset_schema,
        row.dataset_profile,
    )


async def write_dataset_inputs(
    connection: AsyncConnection,
    tables: Tables,
    run_id: str,
    experiment_id: int,
    wanted: Sequence[DatasetInput],
) -> None:
    """Record that a run read datasets; one that is recorded already stays as it is, with its tags.

    Args:
        connection: A transaction that writes.
        tables: The tables of its schema.
        run_id: The run.
        experiment_id: Its experiment, whose datasets are known by name and digest.
        wanted: The datasets; of several with one name and digest the first counts.
    """
    dialect = connection.dialect.name
    by_key: dict[tuple[str, str], DatasetInput] = {}
    for each in wanted:
        by_key.setdefault((each.dataset.name, each.dataset.digest), each)
    rows = [_dataset_row(experiment_id, by_key[key].dataset) for key in sorted(by_key)]
    await connection.execute(insert_missing(dialect, tables.datasets), rows)
    ids = await _dataset_ids(connection, tables, experiment_id, by_key)
    edges = {
        dataset_id: {
            "input_uuid": uuid.uuid4().hex,
            "source_type": "DATASET",
            "source_id": dataset_id,
            "destination_type": "RUN",
            "destination_id": run_id,
        }
        for dataset_id in ids
    }
    await connection.execute(
        insert_missing(dialect, tables.inputs), [edges[key] for key in sorted(edges)]
    )
    inputs = tables.inputs.c
    known = await connection.execute(
        select(inputs.source_id, inputs.input_uuid).where(
            inputs.destination_type == "RUN",
            inputs.destination_id == run_id,
            inputs.source_type == "DATASET",
        )
    )
    input_ids = {row.source_id: row.input_uuid for row in known}
    tags = [
        {"input_uuid": edges[dataset_id]["input_uuid"], "name": name, "value": value}
        for dataset_id, key in ids.items()
        if input_ids[dataset_id] == edges[dataset_id]["input_uuid"]
        for name, value in by_key[key].tags.items()
    ]
    if tags:
        await connection.execute(insert_missing(dialect, tables.input_tags), tags)


def _dataset_row(experiment_id: int, dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset_uuid": uuid.uuid4().hex,
        "experiment_id": experiment_id,
        "name": dataset.name,
        "digest": dataset.digest,
        "dataset_source_type": dataset.source_type,
        "dataset_source": dataset.source,
        "dataset_schema": dataset.schema,
        "dataset_profile": dataset.profile,
    }


async def _dataset_ids(
    connection: AsyncConnection,
    tables: Tables,
    experiment_id: int,
    wanted: Mapping[tuple[str, str], object],
) -> dict[str, tuple[str, str]]:
    """Name and digest by id, of the datasets that are wanted."""
    datasets, dialect = tables.datasets.c, connection.dialect.name
    query = select(datasets.dataset_uuid, datasets.name, datasets.digest).where(
        and_(
            datasets.experiment_id == experiment_id,
            among(dialect, datasets.name, sorted({name for name, _ in wanted})),
            among(dialect, datasets.digest, sorted({digest for _, digest in wanted})),
        )
    )
    return {
        row.dataset_uuid: (row.name, row.digest)
        for row in await connection.execute(query)
        if (row.name, row.digest) in wanted
    }
