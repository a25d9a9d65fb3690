from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from asyncstore.entities import Experiment
from asyncstore.errors import (
    AlreadyExistsError,
    AsyncStoreError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
)
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio


async def test_a_new_database_has_the_default_experiment(
    store: MetadataStore, tmp_path: Path
) -> None:
    default = await store.get_experiment("0")
    assert default.name == "Default"
    assert default.artifact_location == f"{tmp_path}/artifacts/0"
    assert await store.get_experiment_by_name("Default") == default


async def test_create_and_get(store: MetadataStore, tmp_path: Path) -> None:
    created = await store.create_experiment("vision", tags={"team": "a", "empty": ""})
    assert created == "1"
    experiment = await store.get_experiment(created)
    assert experiment == await store.get_experiment_by_name("vision")
    assert experiment.artifact_location == f"{tmp_path}/artifacts/1"
    assert experiment.tags == {"team": "a", "empty": ""}
    assert experiment.lifecycle_stage == "active"
    assert experiment.creation_time == experiment.last_update_time
    assert await store.get_experiment_by_name("nothing") is None
    with pytest.raises(NotFoundError, match="99"):
        await store.get_experiment("99")


@pytest.mark.parametrize(
    ("location", "of_run"),
    [
        ("s3://bucket/root", "s3://bucket/root/{}/artifacts"),
        ("s3://bucket/root/?versionId=1", "s3://bucket/root/{}/artifacts?versionId=1"),
        ("/tmp/somewhere", "/tmp/somewhere/{}/artifacts"),
    ],
)
async def test_artifact_locations(store: MetadataStore, location: str, of_run: str) -> None:
    created = await store.create_experiment("located", location)
    assert (await store.get_experiment(created)).artifact_location == location
    run = await store.create_run(created)
    assert run.info.artifact_uri == of_run.format(run.info.run_id)


async def test_a_relative_location_becomes_absolute(
    store: MetadataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    created = await store.create_experiment("relative", "some/where")
    assert (await store.get_experiment(created)).artifact_location == f"{tmp_path}/some/where"


async def test_a_query_that_leads_out_is_refused(store: MetadataStore) -> None:
    created = await store.create_experiment("odd", "s3://bucket/root?x=%252e%252e/up")
    with pytest.raises(InvalidParameterError, match="query"):
        await store.create_run(created)


async def test_names_are_unique(store: MetadataStore) -> None:
    first = await store.create_experiment("one")
    with pytest.raises(AlreadyExistsError, match="'one'") as caught:
        await store.create_experiment("one")
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    await store.delete_experiment(first)
    with pytest.raises(AlreadyExistsError):
        await store.create_experiment("one")
    second = await store.create_experiment("two")
    with pytest.raises(AlreadyExistsError):
        await store.rename_experiment(second, "one")
    assert (await store.get_experiment(second)).name == "two"


async def test_get_or_create_by_many_at_once(store: MetadataStore) -> None:
    found: list[Experiment] = []

    async def ask() -> None:
        found.append(await store.get_or_create_experiment("shared", tags={"a": "b"}))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert {experiment.experiment_id for experiment in found} == {"1"}
    assert all(experiment.tags == {"a": "b"} for experiment in found)


async def test_rename_delete_restore(store: MetadataStore) -> None:
    created = await store.create_experiment("before")
    run = await store.create_run(created)
    await store.rename_experiment(created, "after")
    assert (await store.get_experiment(created)).name == "after"
    await store.delete_experiment(created)
    assert (await store.get_experiment(created)).lifecycle_stage == "deleted"
    assert (await store.get_run(run.info.run_id)).info.lifecycle_stage == "deleted"
    with pytest.raises(InvalidStateError):
        await store.rename_experiment(created, "again")
    with pytest.raises(NotFoundError):
        await store.delete_experiment(created)
    with pytest.raises(InvalidStateError) as caught:
        await store.create_run(created)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(InvalidStateError):
        await store.set_experiment_tag(created, "key", "value")
    await store.restore_experiment(created)
    assert (await store.get_experiment(created)).lifecycle_stage == "active"
    assert (await store.get_run(run.info.run_id)).info.lifecycle_stage == "active"
    with pytest.raises(NotFoundError):
        await store.restore_experiment(created)


async def test_tags(store: MetadataStore) -> None:
    await store.set_experiment_tag("0", "key", "one")
    await store.set_experiment_tag("0", "key", "two")
    assert (await store.get_experiment("0")).tags == {"key": "two"}
    await store.delete_experiment_tag("0", "key")
    assert (await store.get_experiment("0")).tags == {}
    with pytest.raises(NotFoundError):
        await store.delete_experiment_tag("0", "key")


async def test_search(store: MetadataStore) -> None:
    for name in ("vision-1", "Vision-2", "text"):
        await store.create_experiment(name, tags={"kind": name[:4]})
    await store.delete_experiment("3")

    async def names(filter_string: str | None = None, **options: object) -> list[str]:
        order = options.pop("order_by", ["name ASC"])
        found = await store.search_experiments(
            filter_string=filter_string,
            order_by=order,  # type: ignore[arg-type]  # a list of texts
            **options,  # type: ignore[arg-type]  # of the right types below
        )
        return [experiment.name for experiment in found]

    assert sorted(await names()) == ["Default", "Vision-2", "vision-1"]
    assert await names(view_type="DELETED_ONLY") == ["text"]
    assert await names("name LIKE 'vision%'") == ["vision-1"]
    assert sorted(await names("name ILIKE 'vision%'")) == ["Vision-2", "vision-1"]
    assert await names("tags.kind = 'text'", view_type="ALL") == ["text"]
    assert sorted(await names("tags.kind IS NOT NULL")) == ["Vision-2", "vision-1"]
    assert await names("tags.kind IS NULL") == ["Default"]
    assert await names("experiment_id IN ('1', '2')", order_by=["experiment_id DESC"]) == [
        "Vision-2",
        "vision-1",
    ]
    assert await names("experiment_id NOT IN ('1', '2')") == ["Default"]
    assert await names("creation_time > 0 AND attribute.name != 'Default'") != []
    assert await names("last_update_time < 5") == []


async def test_search_in_pages(store: MetadataStore) -> None:
    for number in range(5):
        await store.create_experiment(f"e{number}")
    seen: list[str] = []
    token = None
    while True:
        page = await store.search_experiments(
            max_results=2, order_by=["experiment_id ASC"], page_token=token
        )
        seen += [experiment.experiment_id for experiment in page]
        token = page.token
        if token is None:
            break
    assert seen == ["0", "1", "2", "3", "4", "5"]


async def test_bad_page_tokens(store: MetadataStore) -> None:
    for bad in ("x", "e30=", "bnVsbA==", "eyJvZmZzZXQiOiAtMX0=", "☃"):
        with pytest.raises(InvalidParameterError, match="page_token"):
            await store.search_experiments(page_token=bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.create_experiment(""),
        lambda store: store.create_experiment("x" * 501),
        lambda store: store.create_experiment("ok", "x" * 3000),
        lambda store: store.create_experiment("ok", tags={"a/../b": "c"}),
        lambda store: store.create_experiment("ok", tags={"a": "c" * 20001}),
        lambda store: store.get_experiment("one"),
        lambda store: store.get_experiment(str(2**70)),
        lambda store: store.search_experiments(max_results=0),
        lambda store: store.search_experiments(max_results=50001),
        lambda store: store.search_experiments(view_type="SOME"),
        lambda store: store.search_experiments(filter_string="metrics.a > 1"),
        lambda store: store.search_experiments(order_by=["tags.a"]),
    ],
)
async def test_bad_arguments(store: MetadataStore, call: object) -> None:
    with pytest.raises(AsyncStoreError) as caught:
        await call(store)  # type: ignore[operator]  # one of the lambdas above
    assert isinstance(caught.value, InvalidParameterError)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert await store.get_experiment_by_name("ok") is None
