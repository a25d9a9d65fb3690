"""The tests of the SQL store, on a store over HTTP to each tracking server."""

from __future__ import annotations

import contextlib
import inspect
import sqlite3
import uuid
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from asyncstore.entities import Expectation, Feedback, Metric, Param, Span, SpanEvent, TraceInfo
from asyncstore.errors import NotFoundError, UnsupportedError
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.rest import RestStore
from tests.metadata import (
    test_experiments,
    test_logged_models,
    test_registry,
    test_runs,
    test_search_runs,
    test_traces,
)
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.mlflow_server import MlflowServer
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


pytestmark = pytest.mark.anyio


def mlflow(uri: str, artifacts: str) -> MlflowServer:
    options = ["--backend-store-uri", uri, "--default-artifact-root", artifacts]
    return MlflowServer(*options, environment={})


def asyncstore(uri: str, artifacts: str) -> AsyncstoreServer:
    return AsyncstoreServer(
        *("--backend-store-uri", uri, "--default-artifact-root", artifacts),
        # The tests speak of buckets and directories that nobody opens.
        environment={"MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES": "s3,file"},
    )


#: What starts each server, from the URI of a SQLite database and a root of artifacts.
SERVERS: dict[str, Callable[[str, str], MlflowServer | AsyncstoreServer]] = {
    "mlflow_server": mlflow,
    "asyncstore_server": asyncstore,
}
MODULES = (
    test_experiments,
    test_runs,
    test_search_runs,
    test_logged_models,
    test_registry,
    test_traces,
)
# What servers do otherwise than the SQL store. For MLflow's other tests compare the two on one
# database; here it would say nothing of the way.
DIFFERS: dict[str, dict[str, str]] = {}
DIFFERS["mlflow_server"] = {
    "test_a_query_that_leads_out_is_refused": "refuses every query",
    "test_metric_history_in_pages": "pages shift when something is logged meanwhile",
    "test_order__search_runs": "a wrong order is an internal error",
    "test_filters__search_runs": "has no quotes in quotes",
    "test_datasets_logged_at_once_are_one": "one of those who log a dataset at once fails",
    "test_inputs_and_outputs__logged_models": "an output that is logged again is an error",
    "test_metrics_of_a_model": "a model that does not exist is a foreign key's error",
    "test_search__logged_models": "finds nothing by status",
    "test_sources__registry": "a source must be in the run or the model that is named",
    "test_assessments__traces": "deletes an assessment of a trace that does not exist",
    "test_search__traces": "spans that come later change a trace's time",
    "test_spans_are_refused__traces": "takes spans of a deleted experiment",
    "test_spans_logged_at_once": "counts tokens that nobody spoke of",
    "test_spans_make_a_trace": "previews are JSON",
    "test_bad_page_tokens": "some are internal errors",
    "test_bad_searches_of": "says it in other words",
    "test_a_model_from_its_beginning_to_its_end__registry": "latest versions lack their aliases",
    "test_a_trace_from_its_beginning_to_its_end": "a tag needs a trace by a foreign key",
    "test_prompts_linked_to_a_trace": "sets no tag",
}
DIFFERS["asyncstore_server"] = {
    "test_a_query_that_leads_out_is_refused": "refuses it for experiments already",
    "test_a_model_from_its_beginning_to_its_end__registry": "looks for the run that is named",
    "test_search_versions__registry": "looks for the run that is named",
    "test_spans_are_refused__traces": "keeps a trace's location to itself",
    "test_search__traces": "the API has no search of all experiments",
}
if version("mlflow").startswith(("2.", "3.6.")):
    DIFFERS["mlflow_server"] |= {
        "test_search__experiments": "has no IS NOT NULL",
        "test_the_same_metric_twice": "refuses it",
        "test_bad_arguments__search_runs": "knows no wrong experiment ids",
        "test_a_model_from_its_beginning_to_its_end__logged_models": "finds no deleted models",
        "test_history_of_many_runs": "samples otherwise",
        "test_search_models": "has no IN for names",
        "test_versions__registry": "keeps the alias of a version that is gone",
        "test_a_trace_that_is_not_whole": "gives no part of a trace",
        "test_search_by_what_was_said_of_a_session": "searches no sessions",
    }
if version("mlflow").startswith("2."):
    no_models, no_traces = "has no logged models", "has no traces of version 3"
    DIFFERS["mlflow_server"] |= {
        "test_tags__experiments": "deletes no tags of experiments",
        "test_models_are_refused": no_models,
        "test_prompts": no_models,
        "test_deletion_by_age": no_traces,
        "test_a_trace_with": no_traces,
        "test_spans_of_many_traces_at_once": no_traces,
        "test_a_long_history": "has no pages of a history",
    }
NOT_OVER_HTTP = {
    # The server's working directory is its own.
    "test_a_relative_location_becomes_absolute",
    # It counts statements.
    "test_spans_of_many_traces_are_a_handful_of_statements",
    # The API has no request that adds a link, so two at once may lose one.
    "test_prompts_linked_at_once",
    # Prompts are searched as models, which have no experiment; the words are the server's.
    "test_search_prompts",
    "test_what_is_no_argument",
}


def _tests() -> Iterator[tuple[str, Callable[..., object]]]:
    for module in MODULES:
        entity = module.__name__.rpartition(".")[2].removeprefix("test_")
        for name, test in inspect.getmembers(module, inspect.isfunction):
            takes_store = "store" in inspect.signature(test).parameters
            if name.startswith("test_") and takes_store and name not in NOT_OVER_HTTP:
                yield f"{name}__{entity}", test


globals().update(_tests())


@pytest.fixture(scope="session", params=SERVERS)
def tracking_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The URL of a server, and its database."""
    directory = tmp_path_factory.mktemp(request.param)
    database = directory / "server.db"
    server = SERVERS[request.param](f"sqlite:///{database}", str(directory / "artifacts"))
    for started in running(server):
        yield started.url, database


@pytest.fixture
async def store(
    tracking_server: tuple[str, Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[MetadataStore]:
    """A store over HTTP to a server whose database is as new."""
    # A server that fails is not asked for minutes.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url, database = tracking_server
    server = database.parent.name.rstrip("0123456789")
    for name, why in DIFFERS[server].items():
        if request.node.originalname.startswith(name):
            pytest.skip(f"{server}: {why}")
    _empty(database)
    async with await MetadataStore.open(url) as opened:
        yield opened


def _empty(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in rows.fetchall():
            if table == "experiments":
                connection.execute("DELETE FROM experiments WHERE experiment_id <> 0")
                connection.execute(
                    "UPDATE experiments SET name = 'Default', lifecycle_stage = 'active'"
                )
            elif table != "alembic_version":
                connection.execute(f"DELETE FROM {table}")


@pytest.fixture
def tmp_path(tracking_server: tuple[str, Path]) -> Path:
    """Where the server has its root of artifacts, for tests that look at locations."""
    return tracking_server[1].parent


@pytest.fixture
async def run_id(store: MetadataStore) -> str:
    return (await store.create_run("0", start_time=1)).info.run_id


async def test_a_long_history_comes_in_pages(store: MetadataStore, run_id: str) -> None:
    metrics = [Metric("m", step / 2, step, step) for step in range(50)]
    await store.log_batch(run_id, metrics)
    pages, token = [], None
    while True:
        page = await store.get_metric_history(run_id, "m", 20, token)
        pages.append(list(page))
        if (token := page.token) is None:
            break
    assert [len(page) for page in pages] == [20, 20, 10]
    assert [metric for page in pages for metric in page] == metrics
    assert await store.get_metric_history(run_id, "m") == metrics


async def test_runs_are_searched(store: MetadataStore) -> None:
    made = [await store.create_run("0", "me", number, {"n": str(number)}) for number in range(4)]
    await store.log_batch(made[1].info.run_id, [Metric("loss", 0.1, 1)], [Param("lr", "1")])
    found = await store.search_runs(["0"], "metrics.loss < 1 AND params.lr = '1'")
    assert [run.data.tags["n"] for run in found] == ["1"]
    assert found[0].data.metrics == {"loss": 0.1}
    everything = await store.search_runs(["0"], max_results=None, order_by=["start_time ASC"])
    assert [run.info.start_time for run in everything] == [0, 1, 2, 3]


async def test_a_trace_with_spans(store: MetadataStore) -> None:
    trace_id = f"tr-{uuid.uuid4().hex}"
    now = 1_800_000_000_000_000_000
    root = Span(
        trace_id,
        "0a" * 8,
        "root",
        now,
        now + 9,
        inputs={"q": [1, None]},
        outputs="fine",
        attributes={"f": 0.5, "n": 7, "d": {"k": ["v"]}},
        status="OK",
        events=(SpanEvent("e", now, {"a": True}),),
    )
    child = Span(trace_id, "0b" * 8, "child", now + 1, now + 2, root.span_id, span_type="LLM")
    assert await store.log_spans("0", [root, child]) == [root, child]
    assert (await store.get_trace(trace_id)).data.spans == (root, child)
    (again,) = await store.batch_get_traces([trace_id, f"tr-{'0' * 32}"])
    assert again.data.spans == (root, child)
    (found,) = await store.search_traces(["0"], "trace.status = 'OK'")
    assert found.trace_id == trace_id
    await store.set_trace_tag(trace_id, "team/a", "b")
    assert (await store.get_trace_info(trace_id)).tags["team/a"] == "b"
    await store.delete_trace_tag(trace_id, "team/a")
    (info,) = await store.batch_get_trace_infos([trace_id])
    assert "team/a" not in info.tags
    feedback = Feedback(name="score", value=0.5, trace_id=trace_id, rationale="so")
    made = await store.create_assessment(feedback)
    changed = await store.update_assessment(
        trace_id, str(made.assessment_id), name="other", feedback=Feedback(name="x", value=[1])
    )
    assert (changed.name, changed.value, changed.rationale) == ("other", [1], "so")
    assert await store.get_assessment(trace_id, str(made.assessment_id)) == changed
    await store.delete_assessment(trace_id, str(made.assessment_id))
    with pytest.raises(NotFoundError):
        await store.get_assessment(trace_id, str(made.assessment_id))


async def test_a_trace_without_spans(store: MetadataStore, run_id: str) -> None:
    given = TraceInfo(
        f"tr-{uuid.uuid4().hex}",
        "0",
        1_700_000_000_123,
        "ERROR",
        "what?",
        execution_duration=1500,
        trace_metadata={"user": "me"},
        assessments=(Expectation(name="e", value={"a": 1}),),
    )
    assert (await store.start_trace(given)).trace_id == given.trace_id
    found = await store.get_trace_info(given.trace_id)
    assert (found.request_time, found.state, found.execution_duration) == (
        given.request_time,
        "ERROR",
        1500,
    )
    assert [each.value for each in found.assessments] == [{"a": 1}]
    await store.link_traces_to_run([given.trace_id], run_id)
    (linked,) = await store.search_traces(["0"], f"run_id = '{run_id}'")
    assert linked.trace_id == given.trace_id
    with pytest.raises(UnsupportedError, match="artifacts"):
        await store.get_trace(given.trace_id)
    assert await store.delete_traces("0", trace_ids=[given.trace_id]) == 1
    with pytest.raises(NotFoundError):
        await store.get_trace_info(given.trace_id)


async def test_a_registered_model(store: MetadataStore) -> None:
    await store.create_registered_model("tree", {"team": "a"}, "a tree")
    made = await store.create_model_version("tree", "s3://models/1", None, {"t": "v"}, "link", "d")
    await store.set_registered_model_alias("tree", "best", made.version)
    renamed = await store.rename_registered_model("tree", "oak")
    assert (renamed.name, renamed.tags, renamed.aliases) == ("oak", {"team": "a"}, {"best": 1})
    found = await store.get_model_version_by_alias("oak", "best")
    assert (found.source, found.tags, found.aliases) == ("s3://models/1", {"t": "v"}, ("best",))
    copy = await store.copy_model_version(found, "copy")
    assert (copy.name, copy.version, copy.tags) == ("copy", 1, {"t": "v"})
    assert await store.get_model_version_download_uri("copy", 1) == "s3://models/1"
    await store.delete_registered_model_alias("oak", "best")
    await store.delete_registered_model("oak")
    with pytest.raises(NotFoundError):
        await store.get_registered_model("oak")


async def test_nothing_is_removed_for_good(store: MetadataStore, run_id: str) -> None:
    with pytest.raises(UnsupportedError, match="asyncstore gc"):
        await store.hard_delete_run(run_id)


async def test_a_route_that_the_server_has_not(store: MetadataStore) -> None:
    assert isinstance(store, RestStore)
    with pytest.raises(UnsupportedError, match="has no GET") as caught:
        await store._get("/api/2.0/mlflow/nothing")
    assert caught.value.error_code == "ENDPOINT_NOT_FOUND"
