"""The file store moved into a database: everything, once, and again."""

from __future__ import annotations

import math
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml
from sqlalchemy import func, select

from asyncstore.entities import Metric
from asyncstore.errors import InvalidParameterError, NotFoundError, UnsupportedError
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql import migrate as migration
from asyncstore.metadata.sql.migrate import Migration, migrate
from asyncstore.metadata.sql.schema.management import create_database
from asyncstore.metadata.sql.store import SqlMetadataStore
from tests.metadata import mlruns

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

RUN, OTHER = "a" * 32, "b" * 32
LONG_ID = 845797093269006275


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two experiments, of which one is deleted, with three runs, and a model of two versions."""
    root = tmp_path / "mlruns"
    mlruns.experiment(root, 0, "Default")
    first = mlruns.experiment(root, 7, "first")
    mlruns.write(first / "tags" / "team", "a")
    mlruns.run(first, RUN)
    mlruns.run(first, OTHER, lifecycle_stage="deleted", deleted_time=30)
    gone = mlruns.experiment(root, LONG_ID, "gone", deleted=True)
    mlruns.run(gone, "c" * 32, lifecycle_stage="deleted", deleted_time=40)
    mlruns.model(root, "model", versions=2)
    logged = {
        "model_id": "m-1",
        "experiment_id": "7",
        "name": "logged",
        "artifact_location": "s3://bucket/m-1",
        "creation_timestamp": 1,
        "last_updated_timestamp": 2,
        "status": 2,
        "model_type": None,
        "source_run_id": RUN,
        "status_message": None,
    }
    mlruns.write(first / "models" / "m-1" / "meta.yaml", yaml.safe_dump(logged))
    mlruns.write(first / "models" / "m-1" / "metrics" / "acc", f"1 0.5 2 {RUN}\n1 0.5 2 gone\n")
    dataset = {"name": "iris", "digest": "d", "source_type": "local", "source": "s"}
    mlruns.write(first / "datasets" / "x1" / "meta.yaml", yaml.safe_dump(dataset))
    for run in (RUN, OTHER):
        values = {"source_type": "DATASET", "source_id": "x1", "tags": {"context": run}}
        mlruns.write(first / run / "inputs" / "i1" / "meta.yaml", yaml.safe_dump(values))
    info = {"trace_id": "tr-1", "request_time": "2026-01-31T10:00:00.123Z", "state": "OK"}
    trace = first / "traces" / "tr-1"
    mlruns.write(trace / "trace_info.yaml", yaml.safe_dump(info))
    mlruns.write(trace / "tags" / "mlflow.traceName", "predict")
    mlruns.write(trace / "request_metadata" / "user", "me")
    return root


async def move(root: Path, store: MetadataStore, **options: Any) -> tuple[Migration, list[str]]:
    warnings: list[str] = []
    done = await migrate(root, store, warn=warnings.append, **options)
    return done, warnings


async def rows(store: MetadataStore) -> dict[str, list[Any]]:
    """Every row of every table, without the times at which the store itself made the default."""
    assert isinstance(store, SqlMetadataStore)
    tables = store._tables

    async def read(connection: Any) -> dict[str, list[Any]]:
        found = {
            table.name: sorted(map(repr, (await connection.execute(select(table))).all()))
            for table in tables.metadata.sorted_tables
        }
        return {name: each for name, each in found.items() if each}

    return await store._database.read("reading everything", read)


async def count(store: MetadataStore, name: str) -> int:
    assert isinstance(store, SqlMetadataStore)
    query = select(func.count()).select_from(getattr(store._tables, name))
    found: int = await store._database.read(
        "counting",
        lambda connection: connection.scalar(query),  # type: ignore[arg-type,return-value]
    )
    return found


async def test_everything_arrives(store: MetadataStore, root: Path) -> None:
    done, warnings = await move(root, store)
    assert [warning for warning in warnings if "no run gone" not in warning] == []
    assert done.new == {
        "experiments": 2,
        "runs": 3,
        "logged_models": 1,
        "trace_info": 1,
        "registered_models": 1,
        "model_versions": 2,
    }
    first = await store.get_experiment("7")
    assert (first.name, first.tags) == ("first", {"team": "a"})
    assert (first.creation_time, first.last_update_time) == (1007, 2007)
    assert first.artifact_location == f"{root.as_uri()}/7"
    run = await store.get_run(RUN)
    assert run.info.experiment_id == "7"
    assert run.info.run_name == f"name of {RUN}"
    assert (run.info.status, run.info.user_id) == ("FINISHED", "me")
    assert (run.info.start_time, run.info.end_time) == (10, 20)
    assert run.info.artifact_uri == f"{root.as_uri()}/7/{RUN}/artifacts"
    assert run.data.params == {"solver": "adam"}
    assert run.data.tags["deep/er"] == "tag\nof two lines"
    assert run.data.metrics["loss"] == 0.125
    assert math.isnan(run.data.metrics["val/acc"])
    assert await store.get_metric_history(RUN, "loss") == [
        Metric("loss", 0.5, 11, 0),
        Metric("loss", 0.25, 12, 1),
        Metric("loss", 0.125, 13, 2),
    ]
    assert set(await store.get_deleted_runs()) == {OTHER, "c" * 32}
    gone = await store.get_experiment_by_name("gone")
    assert gone is not None
    assert gone.lifecycle_stage == "deleted"
    (deleted,) = await store.search_runs([gone.experiment_id], run_view_type="ALL")
    assert deleted.info.artifact_uri == f"{root.as_uri()}/.trash/{LONG_ID}/{'c' * 32}/artifacts"
    found = {name: len(each) for name, each in (await rows(store)).items()}
    expected = {
        "tags": 6,
        "metrics": 12,
        "latest_metrics": 6,
        "datasets": 1,
        "inputs": 2,
        "input_tags": 2,
        "logged_model_metrics": 1,
        "registered_model_aliases": 1,
        "registered_model_tags": 1,
        "model_version_tags": 2,
        "trace_request_metadata": 1,
    }
    assert {name: found[name] for name in expected} == expected


async def test_again_changes_nothing(store: MetadataStore, root: Path) -> None:
    await move(root, store)
    before = await rows(store)
    done, _ = await move(root, store)
    assert not any(done.new.values())
    assert await rows(store) == before


async def test_a_dry_run_writes_nothing(store: MetadataStore, root: Path) -> None:
    before = await rows(store)
    dry, _ = await move(root, store, dry_run=True)
    assert await rows(store) == before
    done, _ = await move(root, store)
    assert dry.new == done.new
    assert dry.found == done.found


async def test_what_is_there_stays_and_what_is_missing_comes(
    store: MetadataStore, root: Path
) -> None:
    await move(root, store)
    await store.set_tag(RUN, "deep/er", "changed here")
    await store.delete_tag(RUN, "mlflow.runName")
    await store.log_metric(RUN, Metric("loss", 9.0, 14, 3))
    await store.restore_run(OTHER)
    await store.set_experiment_tag("7", "team", "changed here")
    run = root / "7" / RUN
    mlruns.write(run / "metrics" / "loss", (run / "metrics" / "loss").read_text() + "15 7.0 2\n")
    mlruns.write(run / "metrics" / "new", "1 1.0 1\n")
    mlruns.write(run / "params" / "new", "1")
    mlruns.run(root / "7", "d" * 32)
    done, _ = await move(root, store)
    assert done.new["runs"] == 1
    found = await store.get_run(RUN)
    assert found.data.tags["deep/er"] == "changed here"
    assert found.data.tags["mlflow.runName"] == f"name of {RUN}"
    assert found.data.params == {"solver": "adam", "new": "1"}
    assert found.data.metrics["loss"] == 9.0
    assert found.data.metrics["new"] == 1.0
    assert len(await store.get_metric_history(RUN, "loss")) == 5
    assert (await store.get_run(OTHER)).info.lifecycle_stage == "active"
    assert (await store.get_experiment("7")).tags == {"team": "changed here"}
    assert (await store.get_run("d" * 32)).data.params == {"solver": "adam"}


async def test_half_way(store: MetadataStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "POINTS_AT_ONCE", 2)
    monkeypatch.setattr(migration, "ENTRIES_AT_ONCE", 1)
    assert isinstance(store, SqlMetadataStore)
    write = store._database.write
    stop = writes = 0

    async def until(doing: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal writes
        writes += 1
        if writes > stop:
            raise RuntimeError("killed")
        return await write(doing, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(store._database, "write", until)
        while writes >= stop:
            stop, writes = stop + 1, 0
            with suppress(RuntimeError):
                await move(root, store)
    assert stop > 10
    await move(root, store)
    half = await rows(store)
    run = await store.get_run(RUN)
    assert run.data.metrics["loss"] == 0.125
    assert len(half["metrics"]) == 12
    await move(root, store)
    assert await rows(store) == half


async def test_ids_that_are_taken(store: MetadataStore, root: Path) -> None:
    """An experiment of the same name is the same; one of the same id is not."""
    ids: list[str] = []
    while "7" not in ids:
        ids.append(await store.create_experiment(f"here {len(ids)}"))
    same = await store.create_experiment("gone")
    done, _ = await move(root, store)
    first = await store.get_experiment_by_name("first")
    assert first is not None
    assert first.experiment_id not in (*ids, same)
    assert done.mapped == {7: int(first.experiment_id), LONG_ID: int(same)}
    assert done.new["experiments"] == 1
    assert (await store.get_run(RUN)).info.experiment_id == first.experiment_id
    assert (await store.get_run("c" * 32)).info.experiment_id == same
    assert (await store.get_experiment(same)).lifecycle_stage == "active"
    assert len(await store.search_runs([first.experiment_id])) == 1
    again, _ = await move(root, store)
    assert again.mapped == done.mapped
    assert not any(again.new.values())


async def test_ids_of_experiments_that_come_later(store: MetadataStore, root: Path) -> None:
    """The database counts on behind the ids that were brought along."""
    await move(root, store)
    ids = [int(await store.create_experiment(f"later {number}")) for number in range(8)]
    assert 7 not in ids
    assert len(set(ids)) == 8


async def test_two_at_once(store: MetadataStore, metadata_uri: str, root: Path) -> None:
    for number in range(20):
        mlruns.run(mlruns.experiment(root, 20 + number, f"more {number}"), f"{number:032}")
    async with (
        await MetadataStore.open(metadata_uri, str(root.parent)) as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(move, root, store)
        tasks.start_soon(move, root, other)
    before = await rows(store)
    assert len(before["experiments"]) == 23
    assert len(before["runs"]) == 23
    done, _ = await move(root, store)
    assert not any(done.new.values())
    assert await rows(store) == before


async def test_another_version_of_the_same_number(store: MetadataStore, root: Path) -> None:
    await move(root, store)
    meta = root / "models" / "model" / "version-2" / "meta.yaml"
    meta.write_text(meta.read_text().replace("creation_timestamp: 102", "creation_timestamp: 999"))
    mlruns.write(root / "models" / "model" / "version-2" / "tags" / "not", "mine")
    _, warnings = await move(root, store)
    assert any("version 2 of model 'model'" in warning for warning in warnings)
    assert await count(store, "model_version_tags") == 2


async def test_what_does_not_fit(store: MetadataStore, root: Path) -> None:
    run = root / "7" / RUN
    mlruns.write(run / "tags" / "long", "x" * 9000)
    mlruns.write(run / "tags" / "nul", "a\0b")
    mlruns.write(run / "metrics" / ("k" * 251), "1 1.0 1\n")
    mlruns.run(root / "7", "e" * 40)
    assert isinstance(store, SqlMetadataStore)
    done, warnings = await move(root, store)
    tags = (await store.get_run(RUN)).data.tags
    assert "nul" not in tags
    assert any("'nul' is not text; left out" in warning for warning in warnings)
    if store._dialect == "sqlite":
        assert tags["long"] == "x" * 9000
        assert (await store.get_run("e" * 40)).data.params == {"solver": "adam"}
        return
    assert len(tags["long"]) in (5000, 8000)
    assert any("'long' has 9000 characters" in warning for warning in warnings)
    assert any("e" * 40 in warning and "left out" in warning for warning in warnings)
    assert any("k" * 100 in warning and "left out" in warning for warning in warnings)
    assert done.left_out == len(warnings)
    with pytest.raises(NotFoundError):
        await store.get_run("e" * 40)


async def test_a_broken_run_does_not_stop_the_rest(store: MetadataStore, root: Path) -> None:
    (root / "7" / RUN / "meta.yaml").write_text("run_id: 'cut o")
    done, warnings = await move(root, store)
    assert done.found["runs"] == 2
    assert any(RUN in warning for warning in warnings)
    with pytest.raises(NotFoundError):
        await store.get_run(RUN)


async def test_progress(store: MetadataStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "ENTRIES_AT_ONCE", 1)
    seen: list[Sequence[int]] = []
    await move(root, store, progress=lambda *progress: seen.append(progress))
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """A metric of 200,000 values, 5 MB on disk and ten times that as rows, needs little of it."""
    root = tmp_path / "mlruns"
    run = mlruns.run(mlruns.experiment(root, 7, "first"), RUN)
    lines = "".join(f"{1700000000000 + step} {step / 7} {step}\n" for step in range(200_000))
    mlruns.write(run / "metrics" / "long", lines)
    uri = f"sqlite:///{tmp_path}/metadata.db"
    async with await MetadataStore.open(uri, str(tmp_path / "artifacts")) as store:
        tracemalloc.start()
        try:
            await move(root, store)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert await count(store, "metrics") == 200_004
        assert (await store.get_run(RUN)).data.latest_metrics[0].step in (2, 199_999)
    assert peak < 25_000_000


async def test_only_into_a_database(root: Path) -> None:
    with pytest.raises(UnsupportedError):
        await migrate(root, object())  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("version", ["2.22.5", "3.6.0", "3.17.2"])
async def test_into_older_schemas(metadata_uri: str, root: Path, version: str) -> None:
    """What an older MLflow has no tables for is left out, with a warning; the rest comes."""
    await create_database(metadata_uri, version)
    async with await MetadataStore.open(metadata_uri, str(root.parent)) as store:
        done, warnings = await move(root, store)
        again, _ = await move(root, store)
        assert (await store.get_run(RUN)).data.metrics["loss"] == 0.125
        assert await count(store, "trace_info") == 1
    assert done.new["runs"] == 3
    assert not any(again.new.values())
    assert any("logged_models" in warning for warning in warnings) == (version == "2.22.5")


async def test_the_id_that_an_experiment_had(store: MetadataStore, root: Path) -> None:
    """Asked for by an id of 18 digits, a database says that there is none, or none that long."""
    await move(root, store)
    assert isinstance(store, SqlMetadataStore)
    if store._dialect == "sqlite":
        assert (await store.get_experiment(str(LONG_ID))).name == "gone"
        return
    with pytest.raises((NotFoundError, InvalidParameterError)):
        await store.get_experiment(str(LONG_ID))
    with pytest.raises((NotFoundError, InvalidParameterError)):
        await store.create_run(str(LONG_ID))
