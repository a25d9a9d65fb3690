"""Every known revision of MLflow's schema: created, used as it is, and looked at."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from asyncstore.entities import Metric, Param
from asyncstore.errors import (
    AlreadyExistsError,
    InvalidParameterError,
    MissingDependencyError,
    SchemaMismatchError,
    UnsupportedError,
)
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.schema import installed, management
from asyncstore.metadata.sql.schema.management import create_database, database_status
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS, load
from tests.metadata.test_opening import execute

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", SNAPSHOTS)
async def test_every_revision_is_usable(metadata_uri: str, tmp_path: Path, version: str) -> None:
    created = await create_database(metadata_uri, version)
    assert (created.mlflow_version, created.revision) == (version, load(version).revision)
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        experiment = await store.create_experiment("e", tags={"a": "b"})
        assert (await store.get_experiment_by_name("e")) is not None
        with pytest.raises(AlreadyExistsError):
            await store.create_experiment("e")
        run = await store.create_run(experiment, run_name="r")
        await asyncio.gather(
            *(store.log_metric(run.info.run_id, Metric("m", step, 1, step)) for step in range(20)),
            store.log_batch(run.info.run_id, params=[Param("p", "v")], tags={"t": "u"}),
        )
        (found,) = await store.search_runs([experiment], "metrics.m = 19 AND params.p = 'v'")
        assert (found.data.tags["t"], found.info.run_name) == ("u", "r")
        await store.delete_experiment(experiment)
        assert [each.name for each in await store.search_experiments()] == ["Default"]
    assert await database_status(metadata_uri) == created


async def test_what_an_old_schema_does_not_have(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/old.db"
    await create_database(uri, "2.22")
    tables = load("2.22.5")
    assert "logged_models" not in tables
    with pytest.raises(UnsupportedError, match=r"MLflow 2\.22\.5.*asyncstore db upgrade"):
        _ = tables.logged_models
    table = tables.experiments
    assert tables.known(table, {"name": "n", "workspace": "w"}) == {"name": "n"}


def test_versions() -> None:
    assert [installed.of_version(text).mlflow_version for text in ("2", "3", "3.17", "3.6.0")] == [
        "2.22.5",
        "3.18.0",
        "3.17.2",
        "3.6.0",
    ]
    with pytest.raises(InvalidParameterError, match=r"3\.1 .* 2\.22\.5"):
        installed.of_version("3.1")


def test_each_snapshot_leads_to_the_next() -> None:
    for version, later in itertools.pairwise(SNAPSHOTS):
        assert load(version).revision in load(later).earlier_revisions


@pytest.mark.parametrize(
    ("revisions", "version"),
    [
        (set(), "3.18.0"),
        ({"0584bdc529eb"}, "2.22.5"),
        # An MLflow between two of the snapshots upgrades the older one.
        ({"0584bdc529eb", "bf29a5ff90ea", "something"}, "3.6.0"),
        ({"something"}, "3.18.0"),
    ],
)
def test_the_installed_mlflow_decides(
    monkeypatch: pytest.MonkeyPatch, revisions: set[str], version: str
) -> None:
    monkeypatch.setattr(installed, "revisions_of_installed", lambda: revisions)
    assert installed.newest_for_installed().mlflow_version == version


async def test_creating_at_once(metadata_uri: str) -> None:
    results = await asyncio.gather(
        *(create_database(metadata_uri, "3.17") for _ in range(4)), return_exceptions=True
    )
    statuses = [result for result in results if not isinstance(result, BaseException)]
    assert statuses
    assert all(
        isinstance(result, AlreadyExistsError)
        for result in results
        if isinstance(result, BaseException)
    )
    assert (await database_status(metadata_uri)).mlflow_version == "3.17.2"


async def test_creating_again_is_refused(metadata_uri: str) -> None:
    await create_database(metadata_uri, "3.6")
    with pytest.raises(AlreadyExistsError, match=r"MLflow 3\.6\.0 already"):
        await create_database(metadata_uri, "3.18")
    assert (await database_status(metadata_uri)).mlflow_version == "3.6.0"


async def test_creation_that_was_killed_on_mysql(mariadb_uri: str) -> None:
    """MySQL commits each table; a creation that stopped in the middle is completed."""
    statements = load("3.6.0").statements["mysql"]
    (stamp,) = [text for text in statements if text.startswith("CREATE TABLE `alembic_version`")]
    await execute(mariadb_uri, stamp, "SET FOREIGN_KEY_CHECKS = 0", *statements[3:9])
    assert (await create_database(mariadb_uri, "3.6")).tables == 34
    assert (await database_status(mariadb_uri)).revision == load("3.6.0").revision


async def test_status(tmp_path: Path, metadata_uri: str) -> None:
    missing = tmp_path / "missing.db"
    assert (await database_status(f"sqlite:///{missing}")).revision is None
    assert not missing.exists()
    assert "asyncstore db create" in (await database_status(metadata_uri)).advice
    await execute(metadata_uri, "CREATE TABLE theirs (id INTEGER)")
    status = await database_status(metadata_uri)
    assert (status.revision, status.mlflow_version) == (None, None)
    assert "theirs" in status.advice
    with pytest.raises(SchemaMismatchError, match="theirs"):
        await create_database(metadata_uri)


async def test_upgrading_without_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "find_spec", lambda _: None)
    uri = f"sqlite:///{tmp_path}/x.db"
    with pytest.raises(MissingDependencyError, match=r"mlflow db upgrade 'sqlite:///.*x\.db'"):
        await management.upgrade_database(uri)
