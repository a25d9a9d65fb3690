"""The model registry through MLflow and through asyncstore, on one database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

from asyncstore.metadata import MetadataStore
from tests.mlflow.error_codes import different_codes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

Both = tuple[MetadataStore, SqlAlchemyStore]


@pytest.fixture
async def both(shared_uri: str, tmp_path: Path) -> AsyncIterator[Both]:
    TrackingStore(shared_uri, str(tmp_path))
    theirs = SqlAlchemyStore(shared_uri)
    async with await MetadataStore.open(shared_uri) as ours:
        yield ours, theirs


def model_as_dict(model: Any) -> dict[str, Any]:
    return {
        "name": model.name,
        "created": model.creation_timestamp,
        "updated": model.last_updated_timestamp,
        "description": model.description or None,
        "tags": dict(getattr(model, "_tags", None) or model.tags),
        "aliases": {alias: int(version) for alias, version in model.aliases.items()},
        "latest": sorted((each.current_stage, each.version) for each in model.latest_versions),
    }


def version_as_dict(version: Any) -> dict[str, Any]:
    names = (
        *("name", "version", "creation_timestamp", "last_updated_timestamp", "description"),
        *("user_id", "current_stage", "source", "run_id", "status", "status_message", "run_link"),
    )
    return {**{name: getattr(version, name) for name in names}, "tags": dict(version.tags)}


async def fill(ours: MetadataStore, theirs: SqlAlchemyStore) -> None:
    """Models and versions by both in turn."""
    theirs.create_registered_model("their tree", [RegisteredModelTag("team", "a")], "text")
    await ours.create_registered_model("Our tree", {"team": "A"})
    await ours.create_registered_model("bare")
    theirs.create_prompt("their prompt", tags={"team": "a"})
    await ours.create_prompt("our prompt")
    for name in ("their tree", "Our tree"):
        theirs.create_model_version(name, "/1", "r1", [ModelVersionTag("t", "v")], "link", "one")
        await ours.create_model_version(name, "/2", "r2", {"t": "w"}, description="two")
        theirs.create_model_version(name, "/3", "r3")
        await ours.create_model_version(name, "/4")
    theirs.transition_model_version_stage("their tree", 1, "Production", False)
    await ours.transition_model_version_stage("their tree", 2, "Production", True)
    await ours.set_registered_model_alias("their tree", "ours", 2)
    theirs.set_registered_model_alias("their tree", "theirs", 3)
    theirs.delete_model_version("Our tree", 3)
    await ours.delete_model_version("Our tree", 4)
    await ours.rename_registered_model("Our tree", "our tree")
    await ours.create_prompt_version("our prompt", "Hello", tags={"x": "y"})
    theirs.create_prompt_version("their prompt", [{"role": "user", "content": "Hello"}])


async def test_each_reads_what_the_other_wrote(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    for name in ("their tree", "our tree", "bare", "their prompt"):
        assert model_as_dict(await ours.get_registered_model(name)) == model_as_dict(
            theirs.get_registered_model(name)
        )
    for name, version in (("their tree", 1), ("their tree", 2), ("their tree", 3), ("our tree", 2)):
        our_version = await ours.get_model_version(name, version)
        their_version = theirs.get_model_version(name, version)
        assert version_as_dict(our_version) == version_as_dict(their_version)
        assert sorted(our_version.aliases) == sorted(their_version.aliases)
    for alias in ("ours", "theirs", "latest"):
        assert version_as_dict(
            await ours.get_model_version_by_alias("their tree", alias)
        ) == version_as_dict(theirs.get_model_version_by_alias("their tree", alias))
    for name in ("our prompt", "their prompt"):
        mine, other = await ours.get_prompt_version(name, 1), theirs.get_prompt_version(name, 1)
        assert (mine.template, mine.version) == (other.template, other.version)


MODEL_SEARCHES = [
    ("", []),
    ("name LIKE '%tree'", ["name DESC"]),
    ("name ILIKE 'OUR%'", []),
    ("name IN ('bare', 'our tree')", ["name"]),
    ("name != 'bare'", []),
    ("tags.team = 'a'", []),
    ("tag.team ILIKE 'A' AND name LIKE 't%'", []),
    ("tags.team != 'b'", ["timestamp ASC"]),
    ("tags.`mlflow.prompt.is_prompt` = 'true'", []),
    ("tags.`mlflow.prompt.is_prompt` != 'true'", []),
    ("tags.`mlflow.prompt.is_prompt` = 'true' AND tags.team = 'a'", []),
    ("", ["last_updated_timestamp DESC", "name DESC"]),
]
VERSION_SEARCHES = [
    ("", None),
    ("name = 'their tree'", ["version_number"]),
    ("name LIKE '%tree' AND version_number > 1", ["version_number DESC", "name ASC"]),
    ("run_id = 'r2'", []),
    ("run_id IN ('r1', 'r2')", ["name DESC"]),
    ("name NOT IN ('their tree')", []),
    ("source_path LIKE '/%'", ["creation_timestamp DESC"]),
    ("tags.t = 'v'", ["last_updated_timestamp ASC"]),
    ("tags.t != 'v' AND version_number != 7", []),
    ("tags.`mlflow.prompt.is_prompt` = 'true'", []),
]


async def test_searches_find_the_same(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    for text, order in MODEL_SEARCHES:
        mine = await ours.search_registered_models(text, 2, order)
        other = theirs.search_registered_models(text, 2, order)
        while True:
            assert [model_as_dict(each) for each in mine] == [
                model_as_dict(each) for each in other
            ], (text, order)
            assert (mine.token is None) == (other.token is None or other.token == "")
            if mine.token is None:
                break
            mine = await ours.search_registered_models(text, 2, order, mine.token)
            other = theirs.search_registered_models(text, 2, order, other.token)
    for text, versions_order in VERSION_SEARCHES:
        found = await ours.search_model_versions(text, order_by=versions_order)
        expected = theirs.search_model_versions(text, order_by=versions_order)
        assert [version_as_dict(each) for each in found] == [
            version_as_dict(each) for each in expected
        ], (text, versions_order)


async def test_bad_calls_get_the_same_error_codes(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    calls: list[tuple[Any, Any]] = []
    for name in ("", "a/b", "a:b", "nothing"):
        calls += [
            (
                lambda n=name: ours.get_registered_model(n),
                lambda n=name: theirs.get_registered_model(n),
            ),
            (
                lambda n=name: ours.delete_registered_model(n),
                lambda n=name: theirs.delete_registered_model(n),
            ),
            (
                lambda n=name: ours.create_model_version(n, "/x"),
                lambda n=name: theirs.create_model_version(n, "/x"),
            ),
            (
                lambda n=name: ours.get_model_version(n, 1),
                lambda n=name: theirs.get_model_version(n, 1),
            ),
        ]
    for version in (9, "x"):
        calls += [
            (
                lambda v=version: ours.get_model_version("their tree", v),
                lambda v=version: theirs.get_model_version("their tree", v),
            ),
            (
                lambda v=version: ours.delete_model_version("their tree", v),
                lambda v=version: theirs.delete_model_version("their tree", v),
            ),
            (
                lambda v=version: ours.set_registered_model_alias("their tree", "a", v),
                lambda v=version: theirs.set_registered_model_alias("their tree", "a", v),
            ),
        ]
    for alias in ("", "latest", "v1", "a b"):
        calls.append(
            (
                lambda a=alias: ours.set_registered_model_alias("their tree", a, 1),
                lambda a=alias: theirs.set_registered_model_alias("their tree", a, 1),
            )
        )
    for text in (
        "nothing = 'x'",
        "name > 'x'",
        "tags.t IN ('x')",
        "name = x",
        "(",
        "metrics.m > 1",
    ):
        calls += [
            (
                lambda t=text: ours.search_registered_models(t),
                lambda t=text: theirs.search_registered_models(t),
            ),
            (
                lambda t=text: ours.search_model_versions(t),
                lambda t=text: theirs.search_model_versions(t),
            ),
        ]
    calls += [
        (
            lambda: ours.create_registered_model("bare"),
            lambda: theirs.create_registered_model("bare"),
        ),
        (
            lambda: ours.rename_registered_model("bare", "their tree"),
            lambda: theirs.rename_registered_model("bare", "their tree"),
        ),
        (
            lambda: ours.transition_model_version_stage("their tree", 1, "Testing", False),
            lambda: theirs.transition_model_version_stage("their tree", 1, "Testing", False),
        ),
        (
            lambda: ours.transition_model_version_stage("their tree", 1, "None", True),
            lambda: theirs.transition_model_version_stage("their tree", 1, "None", True),
        ),
        (
            lambda: ours.get_model_version_by_alias("their tree", "nothing"),
            lambda: theirs.get_model_version_by_alias("their tree", "nothing"),
        ),
        (
            lambda: ours.search_registered_models(max_results=1001),
            lambda: theirs.search_registered_models(max_results=1001),
        ),
        (
            lambda: ours.search_model_versions(max_results=0),
            lambda: theirs.search_model_versions(max_results=0),
        ),
        (
            lambda: ours.delete_registered_model_tag("bare", "x"),
            lambda: theirs.delete_registered_model_tag("bare", "x"),
        ),
    ]
    assert await different_codes(calls) == []
