"""SQL Server's own words for deletion and migration; there is no server to run them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import mssql

from asyncstore.errors import NotFoundError
from asyncstore.metadata.sql.migrate import migrate
from asyncstore.metadata.sql.schema.tables import load
from asyncstore.metadata.sql.store import SqlMetadataStore
from tests.metadata import mlruns

pytestmark = pytest.mark.anyio


class Result:
    """No rows, but for the stage of an experiment, and the key of a new row."""

    inserted_primary_key = (8,)
    rowcount = 0

    def __init__(self, stage: str | None) -> None:
        self._stage = stage

    def scalar_one_or_none(self) -> str | None:
        return self._stage

    def scalars(self) -> Result:
        return self

    def first(self) -> None:
        return None

    def all(self) -> list[Any]:
        return []

    def __iter__(self) -> Any:
        return iter(())


class Compiler:
    """A database that compiles what it is given and does nothing."""

    dialect = "mssql"
    uri = "mssql://nowhere"

    def __init__(self) -> None:
        self.compiled: list[str] = []

    async def read(self, doing: str, body: Any, **_: Any) -> Any:
        return await body(self)

    write = read

    async def execute(self, statement: Any, rows: Any = None) -> Result:
        keys = list(rows[0] if isinstance(rows, list) else rows) if rows else None
        compiled = str(statement.compile(dialect=mssql.dialect(), column_keys=keys))  # type: ignore[no-untyped-call]  # untyped there
        self.compiled.append(compiled)
        of_stage = compiled.startswith("SELECT experiments.lifecycle_stage")
        return Result("deleted" if of_stage else None)


@pytest.fixture
def database() -> Compiler:
    return Compiler()


@pytest.fixture
def store(database: Compiler) -> SqlMetadataStore:
    return SqlMetadataStore(database, load("3.18.0"), "/artifacts")  # type: ignore[arg-type]  # a stand-in


def refuse_other_dialects(compiled: list[str]) -> None:
    assert compiled
    for statement in compiled:
        for word in ("LIMIT ", "RETURNING", "ON CONFLICT", "json_each", "FOR UPDATE"):
            assert word not in statement


async def test_deletion(store: SqlMetadataStore, database: Compiler) -> None:
    await store.hard_delete_runs(["a", "b"])
    assert any(each.startswith("DELETE FROM runs WHERE") for each in database.compiled)
    await store.hard_delete_experiment("7")
    assert any(each.startswith("DELETE FROM experiments WHERE") for each in database.compiled)
    await store._hard_delete_models("deleting", ["m"])
    await store._hard_delete_traces("deleting", ["t"])
    for find in (
        store.get_deleted_runs,
        store.get_deleted_experiments,
        store.get_deleted_logged_models,
    ):
        assert await find(1000) == []
    kinds: Any = ("run", "logged_model", "trace")
    for kind in kinds:
        assert await store.get_artifact_owners(kind, ["a"], "7", "b") == []
    with pytest.raises(NotFoundError):
        await store.hard_delete_logged_model("m")
    refuse_other_dialects(database.compiled)


async def test_migration(store: SqlMetadataStore, database: Compiler, tmp_path: Path) -> None:
    root = tmp_path / "mlruns"
    first = mlruns.experiment(root, 7, "first")
    mlruns.write(first / "tags" / "team", "a")
    mlruns.run(first, "a" * 32)
    mlruns.model(root, "model")
    done = await migrate(root, store)
    assert done.found["runs"] == done.found["registered_models"] == 1
    refuse_other_dialects(database.compiled)
    merged = "\n".join(each for each in database.compiled if each.startswith("MERGE INTO"))
    for table in ("runs", "params", "tags", "metrics", "latest_metrics", "model_versions"):
        assert f"MERGE INTO {table} WITH (HOLDLOCK)" in merged
