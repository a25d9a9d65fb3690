"""Registered models, their versions and prompts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asyncstore.entities import TraceInfo
from asyncstore.errors import (
    AlreadyExistsError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.model_uris import ModelUri, parse_model_uri

pytestmark = pytest.mark.anyio


async def test_a_model_from_its_beginning_to_its_end(store: MetadataStore) -> None:
    model = await store.create_registered_model("tree", {"team": "a"}, "text")
    assert await store.get_registered_model("tree") == model
    assert (model.description, model.tags, model.latest_versions) == ("text", {"team": "a"}, ())
    with pytest.raises(AlreadyExistsError, match="tree"):
        await store.create_registered_model("tree")
    await store.set_registered_model_tag("tree", "team", "b")
    await store.set_registered_model_tag("tree", "more", "c")
    await store.delete_registered_model_tag("tree", "more")
    await store.delete_registered_model_tag("tree", "more")
    assert (await store.update_registered_model("tree", None)).description is None
    version = await store.create_model_version(
        "tree", "s3://models/1", "run", {"t": "v"}, "link", "d"
    )
    assert (version.version, version.current_stage, version.status) == (1, "None", "READY")
    await store.set_registered_model_alias("tree", "best", 1)
    renamed = await store.rename_registered_model("tree", "oak")
    assert (renamed.name, renamed.tags, renamed.aliases) == ("oak", {"team": "b"}, {"best": 1})
    (latest,) = renamed.latest_versions
    assert (latest.name, latest.tags, latest.aliases) == ("oak", {"t": "v"}, ("best",))
    with pytest.raises(NotFoundError, match="tree"):
        await store.get_registered_model("tree")
    await store.create_registered_model("tree")
    with pytest.raises(AlreadyExistsError, match="oak"):
        await store.rename_registered_model("tree", "oak")
    await store.delete_registered_model("oak")
    assert [each.name for each in await store.search_registered_models()] == ["tree"]
    assert await store.search_model_versions() == []


async def test_versions(store: MetadataStore) -> None:
    await store.create_registered_model("tree")
    for number in range(1, 5):
        version = await store.create_model_version("tree", f"s3://models/{number}")
        assert version.version == number
    await store.set_registered_model_alias("tree", "best", "2")
    await store.set_registered_model_alias("tree", "best", 3)
    assert (await store.get_model_version_by_alias("tree", "best")).version == 3
    assert (await store.get_model_version_by_alias("tree", "Latest")).version == 4
    with pytest.raises(InvalidParameterError, match="worst"):
        await store.get_model_version_by_alias("tree", "worst")
    await store.transition_model_version_stage("tree", 1, "production")
    moved = await store.transition_model_version_stage("tree", 2, "Production", True)
    assert moved.current_stage == "Production"
    stages = [(await store.get_model_version("tree", n)).current_stage for n in range(1, 5)]
    assert stages == ["Archived", "Production", "None", "None"]
    latest = await store.get_latest_versions("tree")
    assert {(each.current_stage, each.version) for each in latest} == {
        ("Archived", 1),
        ("Production", 2),
        ("None", 4),
    }
    assert [each.version for each in await store.get_latest_versions("tree", ["NONE"])] == [4]
    changed = await store.update_model_version("tree", 3, "better")
    assert (changed.description, changed.aliases) == ("better", ("best",))
    await store.set_model_version_tag("tree", 3, "t", "v")
    await store.set_model_version_tag("tree", 3, "t", "w")
    assert (await store.get_model_version("tree", "3")).tags == {"t": "w"}
    await store.delete_model_version_tag("tree", 3, "t")
    await store.delete_model_version("tree", 3)
    for call in (
        store.get_model_version("tree", 3),
        store.delete_model_version("tree", 3),
        store.set_model_version_tag("tree", 3, "t", "v"),
        store.set_registered_model_alias("tree", "x", 3),
        store.get_model_version_download_uri("tree", 3),
        store.transition_model_version_stage("tree", 3, "Staging"),
    ):
        with pytest.raises(NotFoundError, match=r"version.*3"):
            await call
    assert (await store.get_registered_model("tree")).aliases == {}
    # The number of the last version is not used again.
    await store.delete_model_version("tree", 4)
    assert (await store.create_model_version("tree", "s3://models/5")).version == 5


async def test_versions_created_at_once(store: MetadataStore) -> None:
    await store.create_registered_model("tree")
    versions = await asyncio.gather(
        *(store.create_model_version("tree", f"s3://models/{number}") for number in range(24))
    )
    assert sorted(each.version for each in versions) == list(range(1, 25))
    for each in versions:
        assert (await store.get_model_version("tree", each.version)).source == each.source


async def test_sources(store: MetadataStore, run_id: str) -> None:
    model = await store.create_logged_model("0", "m", run_id)
    await store.create_registered_model("tree")
    first = await store.create_model_version("tree", model.model_uri)
    assert (first.source, first.run_id) == (model.model_uri, run_id)
    location = await store.get_model_version_download_uri("tree", 1)
    assert location == model.artifact_location
    copy = await store.copy_model_version(first, "copy")
    assert (copy.name, copy.version, copy.source) == ("copy", 1, "models:/tree/1")
    again = await store.copy_model_version(first, "copy")
    assert again.version == 2
    assert await store.get_model_version_download_uri("copy", 2) == location
    await store.set_registered_model_alias("tree", "best", 1)
    await store.transition_model_version_stage("tree", 1, "Staging")
    for source in ("models:/tree@best", "models:/tree/Staging"):
        version = await store.create_model_version("copy", source)
        assert await store.get_model_version_download_uri("copy", version.version) == location
    third = await store.create_model_version("copy", "s3://elsewhere", model_id=model.model_id)
    assert third.run_id == run_id
    for source in ("models:/nothing/1", "models:/m-nothing", "models:/tree/9"):
        with pytest.raises(NotFoundError):
            await store.create_model_version("copy", source)
    with pytest.raises(InvalidParameterError, match="models:/name/version"):
        await store.create_model_version("copy", "models:/a/b/c")
    with pytest.raises(NotFoundError, match="missing"):
        await store.create_model_version("missing", "s3://models/1")


def test_model_uris() -> None:
    assert parse_model_uri("models:/m-1") == ModelUri(model_id="m-1")
    assert parse_model_uri("models:/a%20b/12") == ModelUri(name="a b", version=12)
    assert parse_model_uri("models:/a/Production") == ModelUri(name="a", stage="Production")
    assert parse_model_uri("models:/a@b") == ModelUri(name="a", alias="b")


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "..", "x" * 257])
async def test_bad_names(store: MetadataStore, name: str) -> None:
    for call in (
        store.create_registered_model(name),
        store.get_registered_model(name),
        store.create_model_version(name, "s3://x/y"),
        store.create_prompt(name),
    ):
        with pytest.raises(InvalidParameterError, match="registered model"):
            await call


async def test_bad_aliases_and_stages(store: MetadataStore) -> None:
    await store.create_registered_model("tree")
    await store.create_model_version("tree", "s3://x/y")
    for alias in ("", "latest", "LATEST", "v1", "V22", "a b", "a.b", "x" * 256):
        with pytest.raises(InvalidParameterError, match="alias"):
            await store.set_registered_model_alias("tree", alias, 1)
    with pytest.raises(InvalidParameterError, match="Testing"):
        await store.transition_model_version_stage("tree", 1, "Testing")
    with pytest.raises(InvalidParameterError, match="archived"):
        await store.transition_model_version_stage("tree", 1, "None", True)
    for version in ("x", -1, 2**40, None):
        with pytest.raises(InvalidParameterError, match="version"):
            await store.get_model_version("tree", version)  # type: ignore[arg-type]  # the test
    with pytest.raises(InvalidParameterError, match="100000"):
        await store.set_model_version_tag("tree", 1, "t", "x" * 100_001)


async def test_search_models(store: MetadataStore) -> None:
    for name, team in (("vision-1", "a"), ("Vision-2", "A"), ("text", "b")):
        await store.create_registered_model(name, {"team": team})
    await store.create_registered_model("bare")
    await store.create_prompt("prompt", tags={"team": "a"})

    async def names(filter_string: str | None = None, **options: Any) -> list[str]:
        options.setdefault("order_by", ["name"])
        found = await store.search_registered_models(filter_string, **options)
        return [model.name for model in found]

    assert set(await names()) == {"vision-1", "Vision-2", "text", "bare"}
    assert await names("name LIKE 'vision%'") == ["vision-1"]
    assert set(await names("name ILIKE 'vision%'")) == {"vision-1", "Vision-2"}
    assert await names("name IN ('text', 'bare') AND tags.team = 'b'") == ["text"]
    assert await names("tag.team = 'a' AND name != 'x'") == ["vision-1"]
    assert await names("tags.`mlflow.prompt.is_prompt` = 'true'") == ["prompt"]
    assert await names("tags.`mlflow.prompt.is_prompt` = 'true' AND tags.team = 'b'") == []
    assert "prompt" not in await names("tags.`mlflow.prompt.is_prompt` != 'true'")
    assert (await names(order_by=["last_updated_timestamp DESC"]))[0] == "bare"
    first = await store.search_registered_models(max_results=3)
    second = await store.search_registered_models(max_results=3, page_token=first.token)
    assert (len(first), len(second), second.token) == (3, 1, None)


async def test_bad_searches_of_models(store: MetadataStore) -> None:
    for bad, words in (
        ("name > 'x'", "name does not allow >"),
        ("tags.team IN ('a')", "does not allow IN"),
        ("timestamp > 5", "column 1"),
        ("run_id = 'x'", "column 1"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            await store.search_registered_models(bad)
    with pytest.raises(InvalidParameterError, match="twice"):
        await store.search_registered_models(order_by=["name", "name DESC"])
    for count in (0, 1001, None):
        with pytest.raises(InvalidParameterError, match="max_results"):
            await store.search_registered_models(max_results=count)  # type: ignore[arg-type]  # the test


async def test_search_versions(store: MetadataStore) -> None:
    for name in ("a", "b"):
        await store.create_registered_model(name)
        for number in range(1, 4):
            await store.create_model_version(
                name, f"s3://{name}/{number}", f"run{number}", {"n": str(number)}
            )
    await store.delete_model_version("b", 3)

    async def found(filter_string: str | None = None, **options: Any) -> list[tuple[str, int]]:
        options.setdefault("order_by", ["name", "version_number"])
        return [
            (each.name, each.version)
            for each in await store.search_model_versions(filter_string, **options)
        ]

    assert await found() == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]
    assert await found("name = 'a' AND version_number >= 2") == [("a", 2), ("a", 3)]
    assert await found("run_id IN ('run1', 'run3') AND name = 'b'") == [("b", 1)]
    assert await found("source_path LIKE 's3://a/%' AND tags.n != '2'") == [("a", 1), ("a", 3)]
    assert await found(order_by=["version_number DESC"]) == [
        ("a", 3),
        ("a", 2),
        ("b", 2),
        ("a", 1),
        ("b", 1),
    ]
    assert (await found(order_by=None))[0] == ("b", 2)


async def test_bad_searches_of_versions(store: MetadataStore) -> None:
    for bad, words in (
        ("source_path IN ('x')", "does not allow IN"),
        ("version_number = '1'", "number"),
        ("version_number = 1.5", "whole number"),
        ("creation_timestamp = '1'", "does not allow"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            await store.search_model_versions(bad)
    with pytest.raises(InvalidParameterError, match="max_results"):
        await store.search_model_versions(max_results=200_001)


async def test_prompts(store: MetadataStore, run_id: str) -> None:
    assert await store.get_prompt("ask") is None
    prompt = await store.create_prompt("ask", "text", {"team": "a"})
    assert await store.get_prompt("ask") == prompt
    first = await store.create_prompt_version("ask", "Hello {{ name }}", "first", {"t": "v"})
    assert (first.version, first.template, first.tags) == (1, "Hello {{ name }}", {"t": "v"})
    chat = [{"role": "user", "content": "{{ question }}"}]
    second = await store.create_prompt_version(
        "ask", chat, response_format={"type": "object"}, model_config={"temperature": 0.1}
    )
    assert await store.get_prompt_version("ask", 2) == second
    assert second.template == chat
    assert second.response_format == {"type": "object"}
    assert second.model_config == {"temperature": 0.1}
    await store.set_prompt_alias("ask", "best", 1)
    assert (await store.get_prompt_version_by_alias("ask", "best")).aliases == ("best",)
    assert [each.version for each in await store.search_prompt_versions("ask")] == [2, 1]
    assert [each.name for each in await store.search_prompts("tags.team = 'a'")] == ["ask"]
    await store.set_prompt_tag("ask", "team", "b")
    await store.set_prompt_version_tag("ask", 1, "t", "w")
    await store.delete_prompt_version_tag("ask", 1, "t")
    assert (await store.get_prompt_version("ask", "1")).tags == {}
    for _ in range(2):
        await store.link_prompt_version_to_run("ask", "best", run_id)
    tags = (await store.get_run(run_id)).data.tags
    assert tags["mlflow.linkedPrompts"] == '[{"name": "ask", "version": "1"}]'
    model = await store.create_logged_model("0")
    await store.link_prompt_version_to_model("ask", 2, model.model_id)
    assert '"2"' in (await store.get_logged_model(model.model_id)).tags["mlflow.linkedPrompts"]
    await store.delete_prompt_alias("ask", "best")
    await store.delete_prompt_version("ask", 2)
    with pytest.raises(NotFoundError):
        await store.get_prompt_version("ask", 2)
    await store.create_registered_model("tree")
    assert await store.get_prompt("tree") is None
    for call in (
        store.create_prompt_version("tree", "x"),
        store.get_prompt_version("tree", 1),
        store.search_prompt_versions("tree"),
    ):
        with pytest.raises(InvalidParameterError, match="not a prompt"):
            await call
    with pytest.raises(AlreadyExistsError):
        await store.create_prompt("tree")
    await store.delete_prompt("ask")
    assert await store.search_prompts() == []


async def test_prompts_linked_to_a_trace(store: MetadataStore) -> None:
    await store.start_trace(TraceInfo("t", "0", 1))
    versions = []
    for name in ("ask", "tell"):
        await store.create_prompt(name)
        versions.append(await store.create_prompt_version(name, "hello"))
    await asyncio.gather(*(store.link_prompts_to_trace("t", [each]) for each in versions))
    await store.link_prompts_to_trace("t", versions)
    await store.link_prompts_to_trace("nothing", [])
    for text in ("prompt = 'ask/1'", "prompt = 'tell/1'"):
        assert [each.trace_id for each in await store.search_traces(["0"], text)] == ["t"]
    linked = json.loads((await store.get_trace_info("t")).tags["mlflow.linkedPrompts"])
    assert sorted(each["name"] for each in linked) == ["ask", "tell"]
    with pytest.raises(NotFoundError, match="nothing"):
        await store.link_prompts_to_trace("nothing", versions)


async def test_there_are_no_deployment_jobs(store: MetadataStore) -> None:
    with pytest.raises(UnsupportedError, match="deployment_job_id"):
        await store.create_registered_model("tree", deployment_job_id="1")
    await store.create_registered_model("tree", None, "text", None)
    with pytest.raises(UnsupportedError, match="deployment_job_id"):
        await store.update_registered_model("tree", None, "1")
    assert (await store.get_registered_model("tree")).description == "text"


async def test_what_is_no_argument(store: MetadataStore, run_id: str) -> None:
    anything: Any = store
    await store.create_prompt("ask")
    await store.create_prompt_version("ask", "hello")
    for call, words in (
        (anything.search_registered_models(5), "filter_string must be text"),
        (anything.search_logged_models(["0"], max_results="5"), "max_results"),
        (anything.search_experiments(max_results=2.5), "max_results"),
        (anything.get_prompt_version("ask", None), "neither a version nor an alias"),
        (anything.log_batch(run_id, None), "metrics must be a list"),
        (anything.log_batch(run_id, params=5), "params must be a list"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            await call
    # A version from nowhere is none of MLflow's errors.
    await store.create_registered_model("tree")
    assert (await store.create_model_version("tree", None)).source is None
    assert (await store.get_model_version("tree", 1)).source is None


async def test_a_model_that_is_missing_is_missed_before_its_text_is_too_long(
    store: MetadataStore,
) -> None:
    with pytest.raises(NotFoundError):
        await store.update_registered_model("nowhere", "t" * 6001)


async def test_latest_versions_have_the_order_of_their_stages(store: MetadataStore) -> None:
    await store.create_registered_model("tree")
    for number in range(1, 5):
        await store.create_model_version("tree", f"s3://models/{number}")
    await store.transition_model_version_stage("tree", 2, "Production")
    await store.transition_model_version_stage("tree", 3, "Staging")
    latest = await store.get_latest_versions("tree")
    assert [each.version for each in latest] == [4, 2, 3]


async def test_search_prompts(store: MetadataStore) -> None:
    await store.create_registered_model("model")
    for name, tags in (("ask", {"_mlflow_experiment_ids": ",1,12,"}), ("tell", {"team": "a"})):
        await store.create_prompt(name, tags=tags)
    for filter_string, expected in (
        (None, ["ask", "tell"]),
        ("experiment_id = '1'", ["ask"]),
        ("name LIKE '%' AND experiment_id = '12'", ["ask"]),
        ("experiment_id = '2'", []),
        ("tags.team = 'a'", ["tell"]),
    ):
        found = await store.search_prompts(filter_string)
        assert [each.name for each in found] == expected, filter_string
    for filter_string, complaint in (
        ("nothing = 'x'", "column 1: "),
        ("name = 'a' AND name >", "column 22: "),
        ("experiment_id != '1'", "column 1: "),
        ("experiment_id = 'one'", "'one' is not an experiment id"),
    ):
        with pytest.raises(InvalidParameterError, match=complaint):
            await store.search_prompts(filter_string)
    with pytest.raises(InvalidParameterError, match="experiment_id"):
        await store.search_registered_models("experiment_id = '1'")


async def test_prompts_linked_at_once(store: MetadataStore, run_id: str) -> None:
    model_id = (await store.create_logged_model("0")).model_id
    linked = [{"name": f"ask{number}", "version": "1"} for number in range(10)]
    for each in linked:
        await store.create_prompt(each["name"])
        await store.create_prompt_version(each["name"], "hello")
    await asyncio.gather(
        *(store.link_prompt_version_to_run(each["name"], 1, run_id) for each in linked),
        *(store.link_prompt_version_to_model(each["name"], 1, model_id) for each in linked),
    )
    for tags in (
        (await store.get_run(run_id)).data.tags,
        (await store.get_logged_model(model_id)).tags,
    ):
        found = json.loads(tags["mlflow.linkedPrompts"])
        assert sorted(found, key=lambda each: each["name"]) == linked
    await store.delete_run(run_id)
    with pytest.raises(InvalidStateError, match="restore"):
        await store.link_prompt_version_to_run("ask1", 1, run_id)
    await store.delete_logged_model(model_id)
    for missing in (
        store.link_prompt_version_to_model("ask1", 1, model_id),
        store.link_prompt_version_to_run("ask1", 1, "nothing"),
        store.link_prompt_version_to_run("ask1", 2, run_id),
    ):
        with pytest.raises(NotFoundError):
            await missing
