"""`asyncstore db`, as a person and as a shell script run it; upgrades are in `tests/mlflow`."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

import asyncstore
from asyncstore.metadata.sql.schema import management
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS, load
from tests.command_line import Cli

pytestmark = pytest.mark.usefixtures("in_tmp_path")

URI = "sqlite:///x.db"
NEWEST = load(SNAPSHOTS[-1])


def change(*statements: str) -> None:
    with closing(sqlite3.connect("x.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture
def mlflow_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows the newest schema, and is never run."""
    revisions = {*NEWEST.earlier_revisions, NEWEST.revision}
    monkeypatch.setattr(management, "find_spec", lambda _: True)
    monkeypatch.setattr(management, "revisions_of_installed", lambda: revisions)
    monkeypatch.setattr(sys, "executable", "/no/such/python")


class TestStatus:
    @pytest.mark.parametrize("version", SNAPSHOTS)
    def test_of_each_schema(self, cli: Cli, version: str) -> None:
        tables = load(version)
        assert cli("db", "create", URI, "--for-mlflow", version)[0] == 0
        status, out, err = cli("db", "status", URI)
        said = f"MLflow {version}: revision {tables.revision}, {len(tables.names)} tables\n"
        assert (status, out, err) == (0, said, "")
        status, out, _ = cli("db", "status", URI, "--json")
        assert status == 0
        assert json.loads(out) == {
            "revision": tables.revision,
            "mlflow_version": version,
            "tables": len(tables.names),
            "advice": "",
        }

    def test_of_a_file_that_is_missing(self, cli: Cli, tmp_path: Path) -> None:
        status, out, _ = cli("db", "status", URI)
        assert status == 1
        assert out == "revision none: the database is empty; asyncstore db create makes it\n"
        assert list(tmp_path.iterdir()) == []

    def test_of_another_program(self, cli: Cli) -> None:
        change("CREATE TABLE customers (name TEXT)")
        status, out, _ = cli("db", "status", URI)
        assert status == 1
        assert out.startswith(f"revision none: {URI} holds other tables (customers)")

    def test_of_another_revision(self, cli: Cli) -> None:
        cli("db", "create", URI)
        change("UPDATE alembic_version SET version_num = 'abc'")
        status, out, _ = cli("db", "status", URI, "--json")
        assert status == 1
        found = json.loads(out)
        assert (found["revision"], found["mlflow_version"], found["tables"]) == ("abc", None, None)
        assert "pip install --upgrade asyncstore" in found["advice"]

    def test_of_a_server_that_is_away(self, cli: Cli) -> None:
        status, out, err = cli("db", "status", "postgresql://u:open-sesame@127.0.0.1:1/x")
        assert (status, out) == (1, "")
        assert err.startswith("Error: TEMPORARILY_UNAVAILABLE: ")
        assert "open-sesame" not in err


class TestCreate:
    def test_what_it_says(self, cli: Cli) -> None:
        old = load("3.6.0")
        status, out, err = cli("db", "create", URI, "--for-mlflow", "3.6")
        said = f"MLflow 3.6.0: revision {old.revision}, {len(old.names)} tables\n"
        assert (status, out, err) == (0, said, "")

        async def use() -> None:
            async with asyncstore.Client(URI) as client:
                await client.create_experiment("e")

        anyio.run(use)

    def test_as_json(self, cli: Cli) -> None:
        status, out, _ = cli("db", "create", URI, "--for-mlflow", "2", "--json")
        assert status == 0
        assert json.loads(out)["revision"] == load("2.22.5").revision

    def test_a_version_that_is_not_known(self, cli: Cli, tmp_path: Path) -> None:
        status, _, err = cli("db", "create", URI, "--for-mlflow", "3.1")
        assert status == 1
        assert "INVALID_PARAMETER_VALUE: no schema of MLflow 3.1 is known" in err
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_already(self, cli: Cli, tmp_path: Path) -> None:
        cli("db", "create", URI)
        before = (tmp_path / "x.db").read_bytes()
        status, out, err = cli("db", "create", URI, "--for-mlflow", "3.6")
        assert (status, out) == (1, "")
        assert "RESOURCE_ALREADY_EXISTS" in err
        assert "asyncstore db upgrade" in err
        assert (tmp_path / "x.db").read_bytes() == before

    def test_a_database_of_another_program(self, cli: Cli, tmp_path: Path) -> None:
        change("CREATE TABLE customers (name TEXT)")
        before = (tmp_path / "x.db").read_bytes()
        status, _, err = cli("db", "create", URI)
        assert status == 1
        assert "INVALID_STATE" in err
        assert "holds other tables (customers)" in err
        assert (tmp_path / "x.db").read_bytes() == before


@pytest.mark.usefixtures("mlflow_is_installed")
class TestWhatUpgradeRefuses:
    """Before MLflow runs, and so before anything is written."""

    def refused(self, cli: Cli, words: str) -> None:
        before = Path("x.db").read_bytes() if Path("x.db").exists() else None
        status, out, err = cli("db", "upgrade", URI)
        assert (status, out) == (1, "")
        assert err.startswith("Error: INVALID_STATE: ")
        assert words in err
        assert (Path("x.db").read_bytes() if Path("x.db").exists() else None) == before

    def test_a_file_that_is_missing(self, cli: Cli) -> None:
        self.refused(cli, "the database is empty; asyncstore db create makes it")

    @pytest.mark.parametrize("table", ["alembic_version", "asyncstore_artifact_file"])
    def test_an_empty_database(self, cli: Cli, table: str) -> None:
        """Also one that is a storage of artifacts."""
        change(f"CREATE TABLE {table} (version_num VARCHAR(32))")
        self.refused(cli, "the database is empty; asyncstore db create makes it")

    def test_a_database_of_another_program(self, cli: Cli) -> None:
        change("CREATE TABLE customers (name TEXT)")
        self.refused(cli, "holds other tables (customers) and not MLflow's")

    def test_a_revision_that_asyncstore_does_not_know(self, cli: Cli) -> None:
        cli("db", "create", URI)
        change("UPDATE alembic_version SET version_num = 'abc'")
        self.refused(cli, "pip install --upgrade asyncstore")

    def test_a_revision_that_mlflow_does_not_know(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = load("3.6.0")
        monkeypatch.setattr(management, "revisions_of_installed", lambda: {old.revision})
        cli("db", "create", URI, "--for-mlflow", SNAPSHOTS[-1])
        self.refused(cli, "pip install --upgrade mlflow")

    def test_a_part_of_the_tables(self, cli: Cli) -> None:
        cli("db", "create", URI)
        change("DROP TABLE webhook_events")
        self.refused(cli, "has no table webhook_events")

    @pytest.mark.parametrize("revision", [load("3.6.0").revision, "75868b020152"])
    def test_not_what_mlflow_can_upgrade(self, cli: Cli, revision: str) -> None:
        """Also a revision between the known ones; what fails here is that there is no MLflow."""
        cli("db", "create", URI, "--for-mlflow", "3.6")
        change(f"UPDATE alembic_version SET version_num = '{revision}'")
        status, _, err = cli("db", "upgrade", URI)
        assert status == 1
        assert "/no/such/python" in err


def test_upgrading_without_mlflow(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "find_spec", lambda _: None)
    status, _, err = cli("db", "upgrade", URI)
    assert status == 1
    assert err.startswith("Error: NOT_IMPLEMENTED: MLflow's migrations are MLflow's, and none")
    assert f"mlflow db upgrade '{URI}'" in err


@pytest.mark.parametrize("command", ["status", "create", "upgrade"])
def test_without_a_database(cli: Cli, command: str) -> None:
    status, _, err = cli("db", command)
    assert status == 2
    assert "Missing argument 'URI'" in err
