"""What asyncstore creates is what MLflow creates, table by table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.schema import tables

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))
import snapshot_schema

pytestmark = pytest.mark.anyio


def described(uri: str) -> dict[str, Any]:
    engine = sqlalchemy.create_engine(uri)
    try:
        return snapshot_schema.describe(engine)
    finally:
        engine.dispose()


def of_dialect(value: Any, dialect: str) -> Any:
    """A value of the snapshot as one dialect has it."""
    if isinstance(value, dict):
        if f"${dialect}" in value:
            return of_dialect(value[f"${dialect}"], dialect)
        return {key: of_dialect(item, dialect) for key, item in value.items()}
    if isinstance(value, list):
        return [of_dialect(item, dialect) for item in value]
    return value


async def test_ours_is_mlflows(shared_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(shared_uri, str(tmp_path)):
        pass
    ours = described(shared_uri)
    dialect = "sqlite" if shared_uri.startswith("sqlite") else "postgresql"
    assert ours["tables"].keys() == tables.METADATA.tables.keys()
    for name, table in tables.SNAPSHOT["tables"].items():
        assert ours["tables"][name] == of_dialect(table, dialect), name
    assert ours["statements"] == tables.STATEMENTS[dialect]
    assert ours["rows"] == tables.ROWS


async def test_the_snapshot_is_what_mlflow_creates(shared_uri: str, tmp_path: Path) -> None:
    SqlAlchemyStore(shared_uri, str(tmp_path))
    theirs = described(shared_uri)
    dialect = "sqlite" if shared_uri.startswith("sqlite") else "postgresql"
    for name, table in tables.SNAPSHOT["tables"].items():
        assert theirs["tables"][name] == of_dialect(table, dialect), name
    assert theirs["statements"] == tables.STATEMENTS[dialect]
    assert theirs["rows"] == tables.ROWS
    assert snapshot_schema._head() == tables.REVISION
    assert set(snapshot_schema._earlier_revisions()) == tables.EARLIER_REVISIONS
