"""What asyncstore creates for the installed MLflow is what that MLflow creates, table by table."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.schema.installed import newest_for_installed, of_version
from asyncstore.metadata.sql.schema.management import (
    create_database,
    database_status,
    upgrade_database,
)
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS, load
from tests.command_line import Cli

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))
import snapshot_schema

pytestmark = pytest.mark.anyio

INSTALLED = of_version(version("mlflow"))
OLDER = [each for each in SNAPSHOTS if load(each).revision in INSTALLED.earlier_revisions]


def described(uri: str) -> dict[str, Any]:
    engine = sqlalchemy.create_engine(uri)
    try:
        found: dict[str, Any] = snapshot_schema.describe(engine)
        return found
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


def unordered(statements: list[str]) -> list[list[str]]:
    """Statements without the order that MLflow's migrations give to tables and keys by chance."""
    return sorted(
        sorted(line.strip().rstrip(",") for line in statement.splitlines())
        for statement in statements
    )


def dialect_of(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


async def test_ours_is_mlflows(shared_uri: str, another_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(shared_uri, str(tmp_path)):
        pass
    SqlAlchemyStore(another_uri, str(tmp_path))
    ours, theirs = described(shared_uri), described(another_uri)
    assert ours["tables"].keys() == theirs["tables"].keys()
    for name, table in theirs["tables"].items():
        assert ours["tables"][name] == table, name
    assert unordered(ours["statements"]) == unordered(theirs["statements"])
    assert ours["rows"] == theirs["rows"]


async def test_the_snapshot_is_what_mlflow_creates(shared_uri: str, tmp_path: Path) -> None:
    SqlAlchemyStore(shared_uri, str(tmp_path))
    theirs = described(shared_uri)
    dialect = dialect_of(shared_uri)
    assert theirs["tables"].keys() == INSTALLED.names
    if dialect != "mysql":  # whose tables are among the statements
        for name, table in INSTALLED.snapshot["tables"].items():
            assert theirs["tables"][name] == of_dialect(table, dialect), name
    assert unordered(theirs["statements"]) == unordered(INSTALLED.statements[dialect])
    assert theirs["rows"] == INSTALLED.rows
    assert snapshot_schema._head() == INSTALLED.revision
    assert snapshot_schema._earlier_revisions() == INSTALLED.earlier_revisions


def test_the_installed_mlflow_is_found() -> None:
    assert newest_for_installed() is INSTALLED


@pytest.mark.parametrize("older", OLDER)
async def test_mlflow_upgrades_what_we_created(shared_uri: str, tmp_path: Path, older: str) -> None:
    await create_database(shared_uri, older)
    async with await MetadataStore.open(shared_uri, str(tmp_path)) as store:
        run_id = (await store.create_run("0", run_name="before")).info.run_id
    upgraded = await upgrade_database(shared_uri)
    assert upgraded == await database_status(shared_uri)
    assert upgraded.mlflow_version == INSTALLED.mlflow_version
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path))
    assert theirs.get_run(run_id).info.run_name == "before"


@pytest.mark.parametrize("older", OLDER[:1])
def test_upgrading_on_the_command_line(cli: Cli, tmp_path: Path, older: str) -> None:
    uri = f"sqlite:///{tmp_path}/x.db"
    assert cli("db", "create", uri, "--for-mlflow", older)[0] == 0
    status, out, err = cli("db", "upgrade", uri)
    said = f"MLflow {INSTALLED.mlflow_version}: revision {INSTALLED.revision}, "
    assert (status, err) == (0, "")
    assert out == f"{said}{len(INSTALLED.names)} tables\n"
    status, out, _ = cli("db", "upgrade", uri, "--json")
    assert status == 0
    assert json.loads(out)["revision"] == INSTALLED.revision


@pytest.mark.parametrize("older", OLDER[:1])
def test_what_mlflow_said_when_it_failed(cli: Cli, tmp_path: Path, older: str) -> None:
    uri = f"sqlite:///{tmp_path}/x.db"
    cli("db", "create", uri, "--for-mlflow", older)
    # What the next migration makes.
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE logged_models (theirs TEXT)")
    status, out, err = cli("db", "upgrade", uri)
    assert (status, out) == (1, "")
    assert "OperationalError) table logged_models already exists" in err
