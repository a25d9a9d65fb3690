"""Every statement in SQL Server's own words; there is no server to run them on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.dialects import mssql
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from asyncstore.entities import (
    Dataset,
    DatasetInput,
    Feedback,
    LoggedModelInput,
    Metric,
    Param,
    Span,
    TraceInfo,
)
from asyncstore.errors import NotFoundError, UnsupportedError
from asyncstore.metadata import MetadataStore, page_tokens
from asyncstore.metadata.sql.merge import Merge
from asyncstore.metadata.sql.migrate import migrate
from asyncstore.metadata.sql.schema.management import create_database
from asyncstore.metadata.sql.schema.tables import load
from asyncstore.metadata.sql.statements import insert_missing, upsert
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


# SQLite answers what SQL Server would be asked, so that calls go on to their last statement. What
# asyncstore words for SQL Server alone is put in SQLite's words here.


class openjson(GenericFunction[Any]):  # noqa: N801  the function's name
    """How SQL Server takes a list."""

    inherit_cache = True


@compiles(openjson, "sqlite")
def _json_each(function: openjson, compiler: Any, **options: Any) -> str:
    return f"json_each{compiler.process(function.clause_expr, **options)}"


def _for_sqlite(statement: Any) -> Any:
    if not isinstance(statement, Merge):
        return statement
    if not statement.update:
        return insert_missing("sqlite", statement.table)
    return upsert("sqlite", statement.table, statement.update, statement.newer)


class Connection:
    """Compiles what it is given for SQL Server, and has SQLite answer it."""

    dialect = SimpleNamespace(name="mssql")

    def __init__(self, answering: AsyncConnection, compiled: list[str]) -> None:
        self._answering = answering
        self._compiled = compiled

    def _compile(self, statement: Any, rows: Any) -> None:
        keys = list(rows[0] if isinstance(rows, list) else rows) if rows else None
        compiled = statement.compile(dialect=mssql.dialect(), column_keys=keys)  # type: ignore[no-untyped-call]  # untyped there
        self._compiled.append(str(compiled))

    async def execute(self, statement: Any, rows: Any = None) -> Any:
        self._compile(statement, rows)
        return await self._answering.execute(_for_sqlite(statement), rows)

    async def stream(self, statement: Any) -> Any:
        self._compile(statement, None)
        return await self._answering.stream(statement)


class Database:
    """An open database of SQLite that takes itself for one of SQL Server."""

    dialect = "mssql"

    def __init__(self, answering: Any) -> None:
        self._answering = answering
        self.compiled: list[str] = []

    def check_usable(self) -> None:
        self._answering.check_usable()

    async def read(self, doing: str, body: Any, **options: Any) -> Any:
        return await self._answering.read(doing, self._wrapped(body), **options)

    async def write(self, doing: str, body: Any, **options: Any) -> Any:
        return await self._answering.write(doing, self._wrapped(body), **options)

    def _wrapped(self, body: Any) -> Any:
        async def wrapped(connection: AsyncConnection) -> Any:
            raw = await connection.get_raw_connection()
            file: Any = raw.driver_connection
            file._conn.create_collation("Japanese_BIN2", lambda a, b: (a > b) - (a < b))
            return await body(Connection(connection, self.compiled))

        return wrapped


@dataclass(frozen=True)
class World:
    """What there is before a call."""

    store: SqlMetadataStore
    experiment_id: str
    run_id: str
    model_id: str


TRACE_ID = "tr-" + "a" * 32
SPAN = Span(
    TRACE_ID, "0" * 15 + "a", "n", 1, 2, attributes={"mlflow.chat.tokenUsage": {"input_tokens": 1}}
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A run, a logged model, a registered one with a version, and a trace."""
    uri = f"sqlite:///{tmp_path}/x.db"
    await create_database(uri, "3.18")
    async with await MetadataStore.open(uri, "/artifacts") as real:
        assert isinstance(real, SqlMetadataStore)
        experiment_id = await real.create_experiment("trees", tags={"a": "b"})
        run_id = (await real.create_run(experiment_id, tags={"a": "b"})).info.run_id
        dataset = Dataset("digits", "d", "local", "{}")
        await real.log_inputs(run_id, [DatasetInput(dataset, {"mlflow.data.context": "train"})])
        await real.log_batch(
            run_id, [Metric("m", n, n, n) for n in range(9)], [Param("p", "v")], {"t": "bb"}
        )
        model = await real.create_logged_model(experiment_id, "model", run_id, {"a": "b"})
        await real.create_registered_model("tree", {"a": "b"})
        await real.create_model_version("tree", "/x", run_id, tags={"a": "b"})
        await real.start_trace(
            TraceInfo(TRACE_ID, experiment_id, 1, tags={"a": "b"}, trace_metadata={"c": "dd"})
        )
        await real.log_spans(experiment_id, [SPAN])
        await real.create_assessment(Feedback(name="f", value=2.0, trace_id=TRACE_ID))
        database: Any = Database(real._database)
        store = SqlMetadataStore(database, real._tables, "/artifacts")
        yield World(store, experiment_id, run_id, model.model_id)


FILTER = (
    "attributes.status = 'RUNNING' AND tags.t LIKE 'b%' AND metrics.m > 1 AND params.p ILIKE 'V'"
)
TRACE_FILTER = (
    "status IN ('OK', 'STATE_UNSPECIFIED', 'IN_PROGRESS') AND tags.a = 'b' AND metadata.c LIKE 'd%'"
    " AND span.name = 'n' AND feedback.f > 1"
)
# What is called, and the fewest statements that it takes.
CALLS: dict[str, tuple[Callable[[World], Awaitable[Any]], int]] = {
    "create_experiment": (lambda w: w.store.create_experiment("e", tags={"a": "b"}), 2),
    "search_experiments": (
        lambda w: w.store.search_experiments(filter_string="tags.a = 'b'"),
        2,
    ),
    "rename_experiment": (lambda w: w.store.rename_experiment(w.experiment_id, "n"), 2),
    "set_experiment_tag": (lambda w: w.store.set_experiment_tag(w.experiment_id, "a", "c"), 2),
    "delete_experiment": (lambda w: w.store.delete_experiment(w.experiment_id), 3),
    "create_run": (lambda w: w.store.create_run(w.experiment_id, tags={"a": "b"}), 3),
    "update_run_info": (lambda w: w.store.update_run_info(w.run_id, "FINISHED", 1, "n"), 3),
    "log_batch": (
        lambda w: w.store.log_batch(
            w.run_id, [Metric("m", 1.0, 99, 99)], [Param("q", "v")], {"t": "u"}
        ),
        6,
    ),
    "get_run": (lambda w: w.store.get_run(w.run_id), 2),
    "delete_tag": (lambda w: w.store.delete_tag(w.run_id, "a"), 2),
    "delete_run": (lambda w: w.store.delete_run(w.run_id), 2),
    "search_runs": (
        lambda w: w.store.search_runs(["0", w.experiment_id], FILTER, order_by=["metrics.m"]),
        2,
    ),
    "search_runs_by_dataset": (
        lambda w: w.store.search_runs(
            [w.experiment_id], "dataset.name = 'digits' AND dataset.context = 'train'"
        ),
        3,
    ),
    "get_metric_history": (
        lambda w: w.store.get_metric_history(
            w.run_id, "m", 5, page_tokens.write_metric((1, 1, 1.0, False))
        ),
        1,
    ),
    "sampled": (lambda w: w.store.get_metric_history_bulk_interval([w.run_id], "m", 5), 1),
    "of_steps": (
        lambda w: w.store.get_metric_history_bulk_interval_from_steps(w.run_id, "m", [1, 2], 5),
        1,
    ),
    "get_metric_history_bulk": (
        lambda w: w.store.get_metric_history_bulk([w.run_id, "s"], "m", 5),
        1,
    ),
    "log_inputs": (
        lambda w: w.store.log_inputs(w.run_id, models=[LoggedModelInput(w.model_id)]),
        2,
    ),
    "search_datasets": (lambda w: w.store.search_datasets([w.experiment_id]), 1),
    "create_logged_model": (
        lambda w: w.store.create_logged_model(w.experiment_id, "m", w.run_id, {"a": "b"}),
        3,
    ),
    "set_logged_model_tags": (lambda w: w.store.set_logged_model_tags(w.model_id, {"a": "b"}), 2),
    "search_logged_models": (
        lambda w: w.store.search_logged_models(
            [w.experiment_id], "tags.a = 'b'", order_by=[{"field_name": "metrics.m"}]
        ),
        2,
    ),
    "create_registered_model": (lambda w: w.store.create_registered_model("n", {"a": "b"}), 2),
    "rename_registered_model": (lambda w: w.store.rename_registered_model("tree", "n"), 3),
    "search_registered_models": (lambda w: w.store.search_registered_models("tags.a = 'b'"), 2),
    "create_model_version": (
        lambda w: w.store.create_model_version("tree", "/x", tags={"a": "b"}),
        4,
    ),
    "transition_model_version_stage": (
        lambda w: w.store.transition_model_version_stage("tree", 1, "Production", True),
        3,
    ),
    "set_registered_model_alias": (
        lambda w: w.store.set_registered_model_alias("tree", "a", 1),
        2,
    ),
    "search_model_versions": (lambda w: w.store.search_model_versions("version_number > 0"), 2),
    "delete_registered_model": (lambda w: w.store.delete_registered_model("tree"), 6),
    "start_trace": (
        lambda w: w.store.start_trace(TraceInfo("tr-2", w.experiment_id, 1, tags={"a": "b"})),
        5,
    ),
    "log_spans": (
        lambda w: w.store.log_spans(w.experiment_id, [replace(SPAN, span_id="0" * 15 + "b")]),
        5,
    ),
    "search_traces": (
        lambda w: w.store.search_traces([w.experiment_id], TRACE_FILTER, order_by=["name"]),
        2,
    ),
    "link_traces_to_run": (lambda w: w.store.link_traces_to_run([TRACE_ID], w.run_id), 2),
    "create_assessment": (
        lambda w: w.store.create_assessment(Feedback(name="g", value=1, trace_id=TRACE_ID)),
        2,
    ),
    "delete_traces": (
        lambda w: w.store.delete_traces(w.experiment_id, max_timestamp_millis=5, max_traces=2),
        2,
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_every_kind_of_call(world: World, name: str) -> None:
    call, least = CALLS[name]
    found = await call(world)
    if name.startswith("search_") or "history" in name or name in ("sampled", "of_steps"):
        assert found
    database: Any = world.store._database
    compiled: list[str] = database.compiled
    refuse_other_dialects(compiled)
    assert len(compiled) >= least
    text = "\n".join(compiled)
    if name.startswith("search_") and name != "search_datasets":
        # How SQLAlchemy pages for every version of SQL Server.
        assert "mssql_rn" in text
    if name in ("set_registered_model_alias", "set_logged_model_tags") or name in (
        *("set_experiment_tag", "log_batch", "log_spans"),
        *("start_trace", "log_inputs"),
    ):
        assert "WITH (HOLDLOCK) AS old" in text
    if name in ("search_runs", "get_metric_history_bulk"):
        assert "openjson" in text
    if name == "get_metric_history":
        # There is no comparison of rows.
        assert "metrics.timestamp > " in text
        assert "metrics.step > " in text


async def test_regular_expressions_are_refused(world: World) -> None:
    with pytest.raises(UnsupportedError, match="SQL Server has no RLIKE"):
        await world.store.search_traces([world.experiment_id], "name RLIKE 'a'")


def test_the_latest_metric_is_the_greatest() -> None:
    statement: Any = upsert(
        "mssql",
        load("3.18.0").latest_metrics,
        ["is_nan", "value", "timestamp", "step"],
        ["step", "timestamp", "value"],
    )
    keys = ["run_uuid", "key", "value", "step"]
    merged = str(statement.compile(dialect=mssql.dialect(), column_keys=keys))  # type: ignore[no-untyped-call]  # untyped there
    assert merged.startswith("MERGE INTO latest_metrics WITH (HOLDLOCK) AS old USING (VALUES (")
    assert (
        "WHEN MATCHED AND (new.step > old.step OR new.step = old.step AND (new.timestamp > "
        "old.timestamp OR new.timestamp = old.timestamp AND new.value > old.value)) THEN UPDATE"
        in merged.replace("[", "").replace("]", "")
    )
    assert merged.endswith(";")
