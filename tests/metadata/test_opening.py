"""How a store opens, what it refuses, and how it closes."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest

from asyncstore.entities import Metric
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    PermissionDeniedError,
    SchemaMismatchError,
)
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio


async def execute(uri: str, *statements: str) -> None:
    """Change a database behind the store's back."""
    if uri.startswith("sqlite"):
        connection = sqlite3.connect(uri.removeprefix("sqlite:///"))
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        return
    if uri.startswith("mysql"):
        url = urlsplit(uri)
        theirs = pymysql.connect(
            host=url.hostname,
            port=url.port or 0,
            user=url.username,
            password=url.password or "",
            database=url.path[1:],
        )
        with theirs, theirs.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            theirs.commit()
        return
    with psycopg.connect(uri) as psycopg_connection:
        for statement in statements:
            psycopg_connection.execute(statement.encode())


def file_of(uri: str) -> bytes | None:
    return Path(uri.removeprefix("sqlite:///")).read_bytes() if uri.startswith("sqlite") else None


async def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with await MetadataStore.open() as store:
        assert (tmp_path / "mlflow.db").exists()
        default = await store.get_experiment("0")
        assert default.artifact_location == f"{tmp_path}/mlartifacts/0"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/deep/down/other.db")
    async with await MetadataStore.open(artifact_location="s3://bucket/root") as store:
        assert (tmp_path / "deep" / "down" / "other.db").exists()
        assert (await store.get_experiment("0")).artifact_location == "s3://bucket/root/0"


async def test_drivers_in_the_uri_are_ignored(postgresql_uri: str, tmp_path: Path) -> None:
    for scheme in ("postgresql+psycopg2", "postgres", "postgresql+asyncpg"):
        uri = postgresql_uri.replace("postgresql", scheme, 1)
        async with await MetadataStore.open(uri, str(tmp_path)) as store:
            assert (await store.get_experiment("0")).name == "Default"
    async with await MetadataStore.open(f"sqlite+pysqlite:///{tmp_path}/x.db") as store:
        assert (await store.get_experiment("0")).name == "Default"


async def test_a_database_in_memory() -> None:
    async with await MetadataStore.open("sqlite://") as store:
        run_id = (await store.create_run("0")).info.run_id
        await asyncio.gather(
            *(store.log_metric(run_id, Metric("m", 1.0, step)) for step in range(20)),
            *(store.get_run(run_id) for _ in range(20)),
        )
        assert len(await store.get_metric_history(run_id, "m")) == 20


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("ftp://user:open-sesame@localhost", InvalidParameterError),
        ("./no-such-directory", NotFoundError),
        ("sqlite:/one-slash.db", InvalidParameterError),
    ],
)
async def test_other_uris(uri: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        await MetadataStore.open(uri)
    assert "open-sesame" not in str(caught.value)


@pytest.mark.parametrize("uri", ["http://user:open-sesame@localhost:5000", "databricks"])
async def test_a_server_is_not_asked_when_it_is_opened(uri: str) -> None:
    async with await MetadataStore.open(uri) as store:
        pass
    with pytest.raises(InvalidStateError, match="closed"):
        await store.get_experiment("0")
    with pytest.raises(InvalidParameterError, match="artifact_location") as caught:
        await MetadataStore.open(uri, "/somewhere")
    assert "open-sesame" not in str(caught.value)


async def test_opening_again_changes_nothing(metadata_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        before = await store.search_experiments()
    async with await MetadataStore.open(metadata_uri, "/elsewhere") as store:
        assert await store.search_experiments() == before


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("75868b020152", "asyncstore db upgrade '"),
        ("451aebb31d03", "asyncstore db upgrade '"),
        ("000000000000", "pip install --upgrade asyncstore"),
    ],
)
async def test_another_revision_is_refused(
    metadata_uri: str, tmp_path: Path, revision: str, words: str
) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)):
        pass
    await execute(metadata_uri, f"UPDATE alembic_version SET version_num = '{revision}'")
    before = file_of(metadata_uri)
    with pytest.raises(SchemaMismatchError) as caught:
        await MetadataStore.open(metadata_uri)
    assert revision in str(caught.value)
    assert words in str(caught.value)
    assert "open-sesame" not in str(caught.value)
    assert file_of(metadata_uri) == before


async def test_a_database_of_another_program_is_refused(metadata_uri: str) -> None:
    await execute(metadata_uri, "CREATE TABLE customers (name VARCHAR(10))")
    before = file_of(metadata_uri)
    with pytest.raises(SchemaMismatchError, match="customers"):
        await MetadataStore.open(metadata_uri)
    assert file_of(metadata_uri) == before


async def test_a_database_with_a_part_of_the_tables_is_refused(
    metadata_uri: str, tmp_path: Path
) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)):
        pass
    await execute(metadata_uri, "DROP TABLE webhook_events")
    with pytest.raises(SchemaMismatchError, match="webhook_events"):
        await MetadataStore.open(metadata_uri)


async def test_tables_beside_mlflows_do_not_matter(metadata_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)):
        pass
    await execute(metadata_uri, "CREATE TABLE customers (name VARCHAR(10))")
    async with await MetadataStore.open(metadata_uri) as store:
        assert (await store.get_experiment("0")).name == "Default"


async def test_several_workspaces_are_refused(metadata_uri: str, tmp_path: Path) -> None:
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        await store.create_experiment("elsewhere")
    await execute(metadata_uri, "UPDATE experiments SET workspace = 'b' WHERE name = 'elsewhere'")
    with pytest.raises(InvalidStateError, match="workspace"):
        await MetadataStore.open(metadata_uri)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and it is long enough to say so" * 50)
    with pytest.raises(InvalidParameterError, match="not a database"):
        await MetadataStore.open(f"sqlite:///{tmp_path}/text")
    with pytest.raises(PermissionDeniedError, match="directory"):
        await MetadataStore.open(f"sqlite:///{tmp_path}")


async def test_sqlite_is_set_up_for_many_writers(tmp_path: Path) -> None:
    async with await MetadataStore.open(f"sqlite:///{tmp_path}/x.db") as store:
        engine = store._database.engine  # type: ignore[attr-defined]  # looks behind the store
        async with engine.connect() as connection:
            settings = {
                name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 20_000,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


async def test_pool_settings(
    postgresql_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "2")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "0")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "60")
    async with await MetadataStore.open(postgresql_uri, str(tmp_path)) as store:
        pool = store._database.engine.pool  # type: ignore[attr-defined]  # looks behind the store
        assert (pool.size(), pool._max_overflow, pool._recycle) == (2, 0, 60)
        await asyncio.gather(*(store.get_experiment("0") for _ in range(50)))
        assert pool.checkedin() == 2


@pytest.mark.parametrize("echo", [None, "true"])
async def test_statements_are_logged_on_request(
    metadata_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    echo: str | None,
) -> None:
    if echo is not None:
        monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_ECHO", echo)
    async with await MetadataStore.open(metadata_uri, str(tmp_path)) as store:
        await store.create_experiment("told")
    logged = [each for each in caplog.messages if each.startswith("INSERT INTO experiments")]
    assert bool(logged) == (echo is not None)


async def test_a_closed_store_is_refused(metadata_uri: str, tmp_path: Path) -> None:
    store = await MetadataStore.open(metadata_uri, str(tmp_path))
    run_id = (await store.create_run("0")).info.run_id
    under_way = asyncio.gather(
        *(store.log_metric(run_id, Metric("m", 1.0, step)) for step in range(10)),
        store.get_run(run_id),
    )
    await asyncio.sleep(0.001)
    await store.aclose()
    await store.aclose()
    await under_way
    for call in (store.get_run(run_id), store.log_metric(run_id, Metric("m", 1.0, 1))):
        with pytest.raises(InvalidStateError, match="closed"):
            await call


async def test_another_event_loop_is_refused(store: MetadataStore) -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        for call in (store.get_experiment("0"), store.log_metric("r", Metric("m", 1.0, 1))):
            try:
                asyncio.run(call)
            except InvalidStateError as error:
                errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(errors) == 2
    assert all("event loop" in str(error) for error in errors)


def test_importing_the_interface_imports_no_database() -> None:
    code = (
        "import sys, asyncstore.metadata; print('sqlalchemy' in sys.modules, 'lark' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
