"""Every statement in SQL Server's own words; there is no server to run them on."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from sqlalchemy.dialects import mssql

from asyncstore.entities import Feedback, LoggedModelInput, Metric, Param, Span, TraceInfo
from asyncstore.errors import AsyncStoreError, NotFoundError
from asyncstore.metadata import page_tokens
from asyncstore.metadata.sql.log_batch import LogBatch
from asyncstore.metadata.sql.migrate import migrate
from asyncstore.metadata.sql.schema.tables import load
from asyncstore.metadata.sql.statements import upsert
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


class Row:
    """A row that has every column."""

    _values: ClassVar[dict[str, Any]] = {
        "lifecycle_stage": "active",
        "experiment_id": 7,
        "version": 1,
        "status": "IN_PROGRESS",
        "timestamp_ms": 1,
        "execution_time_ms": None,
        "db_payload_generation": 0,
        "value": "1",
        "assessment_type": "feedback",
        "error": None,
        "assessment_metadata": None,
    }
    _mapping: ClassVar[dict[str, Any]] = _values

    def __getattr__(self, name: str) -> Any:
        return self._values.get(name, "x")

    def __iter__(self) -> Any:
        return iter(())


class Found(Result):
    """One row where one is asked for, and none where many are."""

    rowcount = 1

    def __init__(self) -> None:
        super().__init__(None)

    def one_or_none(self) -> Row:
        return Row()

    one = one_or_none

    def first(self) -> Any:
        return Row()

    def scalar(self) -> int:
        return 1

    def scalar_one_or_none(self) -> Any:
        return 7

    def partitions(self, _size: int) -> Any:
        return iter(())


class Connection:
    """Compiles what it is given."""

    dialect = SimpleNamespace(name="mssql")

    def __init__(self) -> None:
        self.compiled: list[str] = []

    async def execute(self, statement: Any, rows: Any = None) -> Found:
        keys = list(rows[0] if isinstance(rows, list) else rows) if rows else None
        compiled = statement.compile(dialect=mssql.dialect(), column_keys=keys)  # type: ignore[no-untyped-call]  # untyped there
        self.compiled.append(str(compiled))
        return Found()

    async def stream(self, statement: Any) -> Any:
        await self.execute(statement)
        return self

    async def partitions(self, _size: int) -> Any:
        return
        yield


class Database:
    """A database whose transactions compile what they are given."""

    dialect = "mssql"
    uri = "mssql://nowhere"

    def __init__(self) -> None:
        self.connection = Connection()

    def check_usable(self) -> None:
        pass

    async def read(self, doing: str, body: Any, **_: Any) -> Any:
        return await body(self.connection)

    write = read


FILTER = "attributes.status = 'x' AND tags.a LIKE 'b%' AND metrics.m > 1 AND params.p ILIKE 'v'"
TRACE_FILTER = (
    "status IN ('OK', 'ERROR') AND tags.a = 'b' AND metadata.c LIKE 'd%' AND span.name = 'e' "
    "AND feedback.f > 1 AND run_id = 'r' AND end_time > 5"
)
SPAN = Span("tr-00", "0a", "n", 1, 2, attributes={"mlflow.chat.tokenUsage": {"input_tokens": 1}})
CALLS: dict[str, Callable[[SqlMetadataStore], Awaitable[Any]]] = {
    "create_experiment": lambda store: store.create_experiment("e", tags={"a": "b"}),
    "search_experiments": lambda store: store.search_experiments(filter_string="tags.a = 'b'"),
    "rename_experiment": lambda store: store.rename_experiment("7", "n"),
    "set_experiment_tag": lambda store: store.set_experiment_tag("7", "a", "b"),
    "create_run": lambda store: store.create_run("7", tags={"a": "b"}),
    "update_run_info": lambda store: store.update_run_info("r", "FINISHED", 1, "n"),
    "delete_run": lambda store: store.delete_run("r"),
    "search_runs": lambda store: store.search_runs(["7", "8"], FILTER, order_by=["metrics.m"]),
    "get_metric_history": lambda store: store.get_metric_history(
        "r", "m", 5, page_tokens.write_metric((1, 2, 3.0, False))
    ),
    "sampled": lambda store: store.get_metric_history_bulk_interval([], "m", 5),
    "get_metric_history_bulk": lambda store: store.get_metric_history_bulk(["r", "s"], "m", 5),
    "log_inputs": lambda store: store.log_inputs("r", models=[LoggedModelInput("m")]),
    "search_datasets": lambda store: store.search_datasets(["7"]),
    "create_logged_model": lambda store: store.create_logged_model("7", "m", "r", {"a": "b"}),
    "set_logged_model_tags": lambda store: store.set_logged_model_tags("m", {"a": "b"}),
    "search_logged_models": lambda store: store.search_logged_models(
        ["7"], "metrics.m > 1 AND tags.a = 'b'", order_by=[{"field_name": "metrics.m"}]
    ),
    "create_registered_model": lambda store: store.create_registered_model("m", {"a": "b"}),
    "search_registered_models": lambda store: store.search_registered_models("tags.a = 'b'"),
    "create_model_version": lambda store: store.create_model_version("m", "/x", tags={"a": "b"}),
    "set_registered_model_alias": lambda store: store.set_registered_model_alias("m", "a", 1),
    "search_model_versions": lambda store: store.search_model_versions("version_number > 1"),
    "start_trace": lambda store: store.start_trace(TraceInfo("tr-00", "7", 1, tags={"a": "b"})),
    "log_spans": lambda store: store.log_spans("7", [SPAN]),
    "search_traces": lambda store: store.search_traces(["7"], TRACE_FILTER, order_by=["name"]),
    "link_traces_to_run": lambda store: store.link_traces_to_run(["t"], "r"),
    "create_assessment": lambda store: store.create_assessment(
        Feedback(name="f", value=1, trace_id="tr-00")
    ),
    "delete_traces": lambda store: store.delete_traces("7", max_timestamp_millis=5, max_traces=2),
}


@pytest.mark.parametrize("name", CALLS)
async def test_every_kind_of_call(name: str) -> None:
    database = Database()
    store = SqlMetadataStore(database, load("3.18.0"), "/artifacts")  # type: ignore[arg-type]  # a stand-in
    # What comes back is no real row; that the statements were made is what counts.
    with contextlib.suppress(AsyncStoreError, IndexError):
        await CALLS[name](store)
    compiled = database.connection.compiled
    refuse_other_dialects(compiled)
    text = "\n".join(compiled)
    if name.startswith("search_") and name != "search_datasets":
        # How SQLAlchemy pages for every version of SQL Server.
        assert "mssql_rn" in text
    if name in ("set_registered_model_alias", "set_logged_model_tags") or name in (
        "log_spans",
        "start_trace",
        "log_inputs",
    ):
        assert "WITH (HOLDLOCK) AS old" in text
    if name in ("search_runs", "get_metric_history_bulk"):
        assert "openjson" in text
    if name == "get_metric_history":
        # There is no comparison of rows.
        assert "metrics.timestamp > " in text
        assert "metrics.step > " in text


async def test_the_latest_metric_is_the_greatest() -> None:
    connection = Connection()
    batch = LogBatch("r", [Metric("m", 1.0, 2, 3)], [Param("p", "v")], {"t": "u"})
    tables = load("3.18.0")
    with contextlib.suppress(AsyncStoreError):
        await connection.execute(
            upsert(
                "mssql",
                tables.latest_metrics,
                ["is_nan", "value", "timestamp", "step"],
                ["step", "timestamp", "value"],
            ),
            [{"run_uuid": batch.run_id, "key": "m", "value": 1.0, "step": 3}],
        )
    (merged,) = connection.compiled
    assert merged.startswith("MERGE INTO latest_metrics WITH (HOLDLOCK) AS old USING (VALUES (")
    assert (
        "WHEN MATCHED AND (new.step > old.step OR new.step = old.step AND (new.timestamp > "
        "old.timestamp OR new.timestamp = old.timestamp AND new.value > old.value)) THEN UPDATE"
        in merged.replace("[", "").replace("]", "")
    )
    assert merged.endswith(";")
