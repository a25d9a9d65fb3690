"""The client's methods for models, datasets, traces and the registry, each of them once."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

import asyncstore
from asyncstore.entities import (
    Dataset,
    DatasetInput,
    Expectation,
    Feedback,
    LoggedModelInput,
    LoggedModelOutput,
    Span,
    TraceInfo,
)
from asyncstore.errors import InvalidParameterError, NotFoundError

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(tmp_path: Path) -> asyncstore.Client:
    return asyncstore.Client(f"sqlite:///{tmp_path}/c.db", artifact_location=str(tmp_path / "a"))


async def test_models_and_datasets(client: asyncstore.Client) -> None:
    async with client, client.start_run() as run:
        model = await client.create_logged_model(
            "0", "tree", run.run_id, tags={"depth": 3}, params={"leaves": 8}
        )
        assert (model.tags, model.params) == ({"depth": "3"}, {"leaves": "8"})
        await run.log_inputs([DatasetInput(Dataset("d", "1", "local", "{}"))])
        await run.log_inputs(models=[LoggedModelInput(model.model_id)])
        await run.log_outputs([LoggedModelOutput(model.model_id, 2)])
        await client.log_metric(run.run_id, "acc", 0.9, model_id=model.model_id)
        await client.log_model_params(model.model_id, {"more": 1})
        await client.set_logged_model_tags(model.model_id, {"t": 1})
        await client.delete_logged_model_tag(model.model_id, "t")
        ready = await client.finalize_logged_model(model.model_id, "READY")
        assert [metric.value for metric in ready.metrics] == [0.9]
        found = await client.search_logged_models(["0"], "metrics.acc > 0.5")
        assert [each.model_id for each in found] == [model.model_id]
        assert (await client.get_logged_model(model.model_id)).params["more"] == "1"
        await client.delete_logged_model(model.model_id)
        with pytest.raises(NotFoundError):
            await client.get_logged_model(model.model_id)
        logged = await client.get_run(run.run_id)
        assert logged.inputs.dataset_inputs[0].dataset.name == "d"
        assert logged.outputs.model_outputs[0].step == 2


async def test_the_registry(client: asyncstore.Client) -> None:
    async with client:
        await client.create_registered_model("tree", {"n": 1}, "text")
        await client.update_registered_model("tree", "other")
        await client.set_registered_model_tag("tree", "m", 2)
        await client.delete_registered_model_tag("tree", "n")
        version = await client.create_model_version("tree", "/models/1", tags={"t": 1})
        await client.update_model_version("tree", 1, "better")
        await client.set_model_version_tag("tree", 1, "u", 2)
        await client.delete_model_version_tag("tree", 1, "t")
        await client.set_registered_model_alias("tree", "best", version.version)
        await client.transition_model_version_stage("tree", 1, "Staging")
        assert await client.get_model_version_download_uri("tree", 1) == "/models/1"
        found = await client.get_model_version_by_alias("tree", "best")
        assert (found.description, found.tags, found.current_stage) == (
            "better",
            {"u": "2"},
            "Staging",
        )
        assert await client.get_model_version("tree", 1) == found
        assert await client.get_latest_versions("tree", ["Staging"]) == [found]
        assert await client.search_model_versions("name = 'tree'") == [found]
        for uri in ("models:/tree@best", "models:/tree/1", "models:/tree/staging"):
            copy = await client.copy_model_version(uri, "copy")
            assert copy.source == "models:/tree/1"
        with pytest.raises(InvalidParameterError, match="logged model"):
            await client.copy_model_version("models:/m-1", "copy")
        await client.rename_registered_model("copy", "oak")
        await client.delete_registered_model_alias("tree", "best")
        await client.delete_model_version("tree", 1)
        models = await client.search_registered_models("name LIKE '%e'")
        assert [(model.name, model.tags, model.aliases) for model in models] == [
            ("tree", {"m": "2"}, {})
        ]
        oak = await client.get_registered_model("oak")
        assert [each.source for each in oak.latest_versions] == [copy.source]
        await client.delete_registered_model("oak")


async def test_prompts(client: asyncstore.Client) -> None:
    async with client:
        run = await client.create_run("0")
        model = await client.create_logged_model("0")
        await client.create_prompt("ask", tags={"n": 1})
        await client.create_prompt_version("ask", "Hello {{ name }}", tags={"v": 1})
        await client.set_prompt_alias("ask", "best", 1)
        assert (await client.get_prompt_version("ask", "best")).tags == {"v": "1"}
        assert (await client.get_prompt_version_by_alias("ask", "best")).version == 1
        await client.set_prompt_tag("ask", "m", 2)
        await client.delete_prompt_tag("ask", "n")
        await client.set_prompt_version_tag("ask", 1, "w", 2)
        await client.delete_prompt_version_tag("ask", 1, "v")
        await client.link_prompt_version_to_run("ask", 1, run.info.run_id)
        await client.link_prompt_version_to_model("ask", 1, model.model_id)
        found = await client.search_prompts("name = 'ask'", 10, None, ["name"])
        assert [each.tags for each in found] == [{"m": "2"}]
        assert [each.tags for each in await client.search_prompt_versions("ask")] == [{"w": "2"}]
        await client.delete_prompt_alias("ask", "best")
        await client.delete_prompt_version("ask", 1)
        await client.delete_prompt("ask")
        assert await client.get_prompt("ask") is None


async def test_traces(client: asyncstore.Client) -> None:
    async with client:
        run = await client.create_run("0")
        trace_id = f"tr-{uuid.uuid4().hex}"
        await client.start_trace(TraceInfo(trace_id, "0", 1, "OK"))
        await client.log_spans("0", [Span(trace_id, "1" * 16, "predict", 1, 2)])
        await client.set_trace_tag(trace_id, "n", 1)
        await client.link_traces_to_run([trace_id], run.info.run_id)
        good = await client.log_assessment(trace_id, Feedback(name="good", value=True))
        assert good.assessment_id is not None
        await client.update_assessment(trace_id, good.assessment_id, rationale="why")
        assert (await client.get_assessment(trace_id, good.assessment_id)).rationale == "why"
        expected = await client.log_assessment(trace_id, Expectation(name="e", value=1))
        assert expected.assessment_id is not None
        await client.delete_assessment(trace_id, expected.assessment_id)
        (trace,) = await client.search_traces(["0"], f"run_id = '{run.info.run_id}'")
        assert trace == await client.get_trace(trace_id)
        for options in ({"run_id": run.info.run_id}, {"filter_string": "tags.n = '1'"}):
            assert len(await client.search_traces(["0"], **options)) == 1  # type: ignore[arg-type]  # texts
        assert await client.search_traces(["0"], "tags.n = '1'", run_id="it's no run") == []
        assert await client.search_traces(["0"], model_id="m-1") == []
        await client.create_prompt("ask")
        version = await client.create_prompt_version("ask", "hello")
        await client.link_prompt_versions_to_trace([version], trace_id)
        (info,) = await client.search_traces(["0"], "prompt = 'ask/1'", include_spans=False)
        assert isinstance(info, TraceInfo)
        assert info.tags["n"] == "1"
        await client.delete_trace_tag(trace_id, "n")
        assert await client.delete_traces("0", trace_ids=[trace_id]) == 1
