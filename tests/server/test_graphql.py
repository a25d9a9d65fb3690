"""The queries of MLflow's UI, and what no query may cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

import asyncstore
from asyncstore.entities import Metric
from tests.server.http import call
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


def ask(server: AsyncstoreServer, query: str, **variables: Any) -> Any:
    content = {"query": query, "variables": variables}
    answer = call(server.port, "POST", "/graphql", content)
    assert answer.status == 200, answer
    assert set(answer.json) == {"data", "errors"}
    return answer.json


def refused(server: AsyncstoreServer, query: str, **variables: Any) -> str:
    answer = ask(server, query, **variables)
    assert not any((answer["data"] or {}).values())
    message: str = answer["errors"][0]["message"]
    return message


RUN = """fragment Run on MlflowRunExtension {
    info { runId runName status startTime endTime lifecycleStage }
    experiment { experimentId name }
    modelVersions { name version status }
    data { metrics { key value step timestamp } params { key value } tags { key } }
    inputs { datasetInputs { dataset { name } } }
}
"""
GET_RUN = (
    """query GetRun($data: MlflowGetRunInput!) @component(name: "MLflow.ExperimentRunTracking") {
    mlflowGetRun(input: $data) { apiError { code message } run { ...Run } } }"""
    + RUN
)
SEARCH_RUNS = (
    """query SearchRuns($data: MlflowSearchRunsInput!) {
    mlflowSearchRuns(input: $data) { runs { ...Run } nextPageToken apiError { code } } }"""
    + RUN
)
HISTORY = """query History($data: MlflowGetMetricHistoryBulkIntervalInput!) {
    mlflowGetMetricHistoryBulkInterval(input: $data) {
        __typename metrics { runId key value step timestamp } apiError { code } } }"""
EXPERIMENT = """query Experiment($input: MlflowGetExperimentInput!) {
    mlflowGetExperiment(input: $input) {
        experiment { experimentId name creationTime tags { key value } } apiError { code } } }"""
ARTIFACTS = """query Artifacts($data: MlflowListArtifactsInput!) {
    mlflowListArtifacts(input: $data) { rootUri files { path isDir fileSize } } }"""
VERSIONS = """query Versions($data: MlflowSearchModelVersionsInput!) {
    mlflowSearchModelVersions(input: $data) { modelVersions { name version runId } } }"""


async def test_what_the_ui_asks_for(server: AsyncstoreServer) -> None:
    run_ids = []
    async with asyncstore.Client(f"sqlite:///{server.directory}/mlflow.db") as client:
        experiment = await client.create_experiment("graphql")
        for number in range(2):
            run_id = (await client.create_run(experiment, run_name=f"run {number}")).info.run_id
            run_ids.append(run_id)
            losses = [Metric("loss", 0.5 ** (step + number), 1000 + step, step) for step in (0, 1)]
            await client.log_batch(run_id, [*losses, Metric("odd", math.nan, 1, 0)])
            await client.log_param(run_id, "lr", number)
        await client.create_registered_model("tree")
        await client.create_model_version("tree", f"mlflow-artifacts:/x/{run_ids[1]}", run_ids[1])
    run = ask(server, GET_RUN, data={"runId": run_ids[1]})["data"]["mlflowGetRun"]["run"]
    assert run["info"]["runName"] == "run 1"
    assert run["info"]["status"] == "RUNNING"
    assert int(run["info"]["startTime"]) > 0
    assert run["experiment"] == {"experimentId": experiment, "name": "graphql"}
    assert run["modelVersions"] == [{"name": "tree", "version": "1", "status": "READY"}]
    assert run["data"]["params"] == [{"key": "lr", "value": "1"}]
    assert {"key": "loss", "value": 0.25, "step": "1", "timestamp": "1001"} in run["data"][
        "metrics"
    ]
    # GraphQL has no such number.
    assert {"key": "odd", "value": None, "step": "0", "timestamp": "1"} in run["data"]["metrics"]

    search = {"experimentIds": [experiment], "filter": "params.lr = '1'", "maxResults": 5}
    found = ask(server, SEARCH_RUNS, data=search)["data"]["mlflowSearchRuns"]
    assert [each["info"]["runId"] for each in found["runs"]] == [run_ids[1]]
    search = {"experimentIds": [experiment], "orderBy": ["params.lr ASC"]}
    found = ask(server, SEARCH_RUNS, data=search)["data"]["mlflowSearchRuns"]
    assert [len(each["modelVersions"]) for each in found["runs"]] == [0, 1]

    data = {"runIds": run_ids, "metricKey": "loss", "maxResults": 10}
    history = ask(server, HISTORY, data=data)["data"]["mlflowGetMetricHistoryBulkInterval"]
    assert [(each["runId"], each["value"]) for each in history["metrics"]] == [
        *((run_ids[0], 1.0), (run_ids[0], 0.5)),
        *((run_ids[1], 0.5), (run_ids[1], 0.25)),
    ]
    answer = ask(server, EXPERIMENT, input={"experimentId": experiment})["data"]
    assert answer["mlflowGetExperiment"]["experiment"]["name"] == "graphql"
    answer = ask(server, ARTIFACTS, data={"runId": run_ids[0]})["data"]
    assert answer["mlflowListArtifacts"]["files"] == []
    answer = ask(server, VERSIONS, data={"filter": "name = 'tree'", "maxResults": "5"})["data"]
    assert answer["mlflowSearchModelVersions"]["modelVersions"] == [
        {"name": "tree", "version": "1", "runId": run_ids[1]}
    ]


def test_what_is_not_there_or_wrong_is_an_error_of_the_api(server: AsyncstoreServer) -> None:
    for query, name, code, variables in (
        (GET_RUN, "mlflowGetRun", "RESOURCE_DOES_NOT_EXIST", {"data": {"runId": "0" * 32}}),
        (GET_RUN, "mlflowGetRun", "INVALID_PARAMETER_VALUE", {"data": {}}),
        (
            SEARCH_RUNS,
            "mlflowSearchRuns",
            "INVALID_PARAMETER_VALUE",
            {"data": {"experimentIds": ["0"], "filter": "nonsense ="}},
        ),
        (
            HISTORY,
            "mlflowGetMetricHistoryBulkInterval",
            "INVALID_PARAMETER_VALUE",
            {"data": {"runIds": ["x"] * 101, "metricKey": "loss"}},
        ),
        (
            EXPERIMENT,
            "mlflowGetExperiment",
            "RESOURCE_DOES_NOT_EXIST",
            {"input": {"experimentId": "12345"}},
        ),
    ):
        answer = ask(server, query, **variables)
        assert answer["errors"] is None
        assert answer["data"][name]["apiError"]["code"] == code


def test_queries_that_cost_too_much(server: AsyncstoreServer) -> None:
    field = 'mlflowGetRun(input: {runId: "x"}) { run { info { runId } } }'
    roots = " ".join(f"a{number}: {field}" for number in range(11))
    assert "root fields" in refused(server, f"{{ {roots} }}")
    aliases = " ".join(f"a{number}: runId" for number in range(11))
    many = f'{{ mlflowGetRun(input: {{runId: "x"}}) {{ run {{ info {{ {aliases} }} }} }} }}'
    assert "aliases" in refused(server, many)
    deep = "{ mlflowGetRun " + "{ run " * 12 + "x" + " }" * 12 + " }"
    assert "levels" in refused(server, deep)
    # Twice as many fields with each fragment.
    bomb = "{ ...F0 } fragment F30 on Query { __typename } " + " ".join(
        f"fragment F{number} on Query {{ ...F{number + 1} ...F{number + 1} }}"
        for number in range(30)
    )
    assert "fields" in refused(server, bomb)
    circle = "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"
    assert "fragment" in refused(server, circle)
    assert refused(server, "{ " + "a " * 20_000 + "}")
    assert refused(server, "{" * 30_000)
    assert "characters" in refused(server, "#" * 100_000)


def test_queries_that_are_wrong(server: AsyncstoreServer) -> None:
    for query in ("", "{", "{ nothing }", "{ mlflowGetRun }", "mutation { x }", "\ud83d\ude00"):
        assert refused(server, query)
    wrong: list[Any] = [None, 5, [], {"runId": 5}, {"runId": {"a": 1}}, {"other": "x"}]
    for data in wrong:
        assert refused(server, GET_RUN, data=data)
    for count in ("x", 2**40, 1.5, True):
        search = {"experimentIds": ["0"], "maxResults": count}
        assert refused(server, SEARCH_RUNS, data=search)
    for content in ({}, {"query": 5}, {"query": "{x}", "variables": []}):
        assert call(server.port, "POST", "/graphql", content).status == 400
    assert call(server.port, "GET", "/graphql").status == 405
