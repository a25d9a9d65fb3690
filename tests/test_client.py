"""`Client`: both stores behind one object, and runs that end as they should."""

from __future__ import annotations

import asyncio
import getpass
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

import asyncstore
from asyncstore.artifacts import ArtifactRepository
from asyncstore.client.active_run import ActiveRun
from asyncstore.entities import Metric, Param
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnavailableError,
)
from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio

Body = Callable[[ActiveRun], Awaitable[None]]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def client() -> AsyncIterator[asyncstore.Client]:
    async with asyncstore.Client() as opened:
        yield opened


async def status_of(client: asyncstore.Client, run_id: str) -> str:
    return (await client.get_run(run_id)).info.status


class TestLogging:
    async def test_everything_that_is_logged_comes_back(
        self, client: asyncstore.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCSTORE_RUN_CONTEXT", "false")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "a.bin").write_bytes(b"a")
        (tmp_path / "one.txt").write_text("one")
        async with client.start_run(experiment_name="e", run_name="r", tags={"n": 1}) as run:
            await run.log_metric("loss", 0.5, step=3)
            await run.log_metric("loss", math.nan, step=4)
            await run.log_metrics({"x": 1, "y": 2.5}, step=1, timestamp=7)
            await run.log_param("p", 0.1)
            await run.log_params({"q": "text", "r": None})
            await run.set_tag("t", True)
            await run.set_tags({"u": 1.5, "v": "gone"})
            await run.delete_tag("v")
            await run.log_batch([Metric("z", 1.0, 8, 2)], [Param("s", "1")], {"w": 2})
            await run.log_artifact(tmp_path / "one.txt", "texts")
            await run.log_artifact(tmp_path / "model")
            await run.log_artifacts(tmp_path / "model", "copy")
            await run.log_text("é", "texts/two.txt")
            assert [file.path for file in await run.list_artifacts("texts")] == [
                "texts/one.txt",
                "texts/two.txt",
            ]
            where = Path(await run.download_artifacts("texts", tmp_path / "here"))
            assert (where / "two.txt").read_text(encoding="utf-8") == "é"
            repository = await run.get_artifact_repository()
            assert await repository.read_bytes("model/a.bin") == b"a"
            assert await repository.read_bytes("copy/a.bin") == b"a"
        found = await client.get_run(run.run_id)
        assert found.info.run_name == "r"
        assert found.info.end_time is not None
        assert math.isnan(found.data.metrics.pop("loss"))
        assert found.data.metrics == {"x": 1.0, "y": 2.5, "z": 1.0}
        assert found.data.params == {"p": "0.1", "q": "text", "r": "None", "s": "1"}
        own = {k: v for k, v in found.data.tags.items() if not k.startswith("mlflow.")}
        assert own == {"n": "1", "t": "True", "u": "1.5", "w": "2"}
        history = await client.get_metric_history(run.run_id, "loss")
        assert [(metric.step, math.isnan(metric.value)) for metric in history] == [
            (3, False),
            (4, True),
        ]
        assert (await client.get_metric_history(run.run_id, "y"))[0].timestamp == 7
        by_id = await client.download_artifacts(run.run_id, "texts/one.txt", tmp_path / "by-id")
        assert Path(by_id).read_text() == "one"

    async def test_timestamps_are_now(
        self, client: asyncstore.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with client.start_run() as run:
            before = run.info.start_time
            assert before is not None
            await run.log_metric("a", 1)
            await client.log_metric(run.run_id, "b", 1, timestamp=0)
        found = await client.get_run(run.run_id)
        latest = {metric.key: metric for metric in found.data.latest_metrics}
        assert found.info.end_time is not None
        assert before <= latest["a"].timestamp <= found.info.end_time
        assert latest["b"].timestamp == 0
        assert latest["b"].step == 0

    async def test_the_tags_that_mlflow_sets(
        self, client: asyncstore.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASYNCSTORE_RUN_CONTEXT", "false")
        async with client.start_run(run_name="named", description="about it") as run:
            tags = (await client.get_run(run.run_id)).data.tags
        assert tags == {
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": sys.argv[0],
            "mlflow.source.type": "LOCAL",
            "mlflow.runName": "named",
            "mlflow.note.content": "about it",
        }
        assert run.info.user_id == getpass.getuser()

    async def test_a_tag_of_the_person_goes_before_mlflows(self, client: asyncstore.Client) -> None:
        async with client.start_run(tags={"mlflow.user": "somebody"}) as run:
            assert run.info.user_id == "somebody"
            assert run.data.tags["mlflow.user"] == "somebody"

    async def test_search_and_change(self, client: asyncstore.Client) -> None:
        first = await client.create_experiment("first", tags={"k": 1})
        await client.set_experiment_tag(first, "team", "a")
        await client.rename_experiment(first, "renamed")
        found = await client.search_experiments(filter_string="tags.team = 'a'")
        assert [(e.name, e.tags["k"]) for e in found] == [("renamed", "1")]
        await client.delete_experiment_tag(first, "team")
        assert (await client.get_experiment(first)).tags == {"k": "1"}
        run = await client.create_run(first)
        assert run.info.status == "RUNNING"
        assert run.info.user_id == "unknown"
        await client.update_run(run.info.run_id, status="SCHEDULED", name="new name")
        await client.log_param(run.info.run_id, "p", 1)
        await client.set_tag(run.info.run_id, "t", 2)
        updated = (await client.search_runs([first], "params.p = '1' and tags.t = '2'"))[0].info
        assert (updated.status, updated.run_name) == ("SCHEDULED", "new name")
        await client.set_terminated(run.info.run_id, "FAILED", end_time=5)
        ended = (await client.get_run(run.info.run_id)).info
        assert (ended.status, ended.end_time) == ("FAILED", 5)
        await client.delete_run(run.info.run_id)
        assert await client.search_runs([first]) == []
        await client.restore_run(run.info.run_id)
        assert len(await client.search_runs([first])) == 1
        await client.delete_experiment(first)
        assert len(await client.search_experiments("DELETED_ONLY")) == 1
        await client.restore_experiment(first)
        assert await client.get_experiment_by_name("nobody") is None

    async def test_on_s3_every_run_shares_one_connection_pool(
        self, tmp_path: Path, s3_bucket: str, s3_env: dict[str, str]
    ) -> None:
        (tmp_path / "one.txt").write_text("one")
        async with asyncstore.Client(artifact_location=f"s3://{s3_bucket}/root") as client:
            async with client.start_run(experiment_name="a") as first:
                await first.log_artifact(tmp_path / "one.txt")
                async with first.start_run() as second:
                    await second.log_artifact(tmp_path / "one.txt")
            assert first.info.artifact_uri.startswith(f"s3://{s3_bucket}/root/")
            repositories = [await run.get_artifact_repository() for run in (first, second)]
            assert repositories[0].fs is repositories[1].fs
            assert await repositories[1].read_bytes("one.txt") == b"one"


class TestExperimentOfARun:
    async def test_without_one_it_is_the_default_experiment(
        self, client: asyncstore.Client
    ) -> None:
        async with client.start_run() as run:
            assert run.info.experiment_id == "0"

    async def test_a_name_is_made_when_it_does_not_exist(self, client: asyncstore.Client) -> None:
        async with client.start_run(experiment_name="new") as run:
            pass
        found = await client.get_experiment_by_name("new")
        assert found is not None
        assert found.experiment_id == run.info.experiment_id

    async def test_the_variables(
        self, client: asyncstore.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await client.create_experiment("by id")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
        async with client.start_run() as run:
            assert run.info.experiment_id == made
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by id")
        async with client.start_run() as run:
            assert run.info.experiment_id == made
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by name")
        with pytest.raises(InvalidParameterError, match="MLFLOW_EXPERIMENT_ID is"):
            async with client.start_run():
                pytest.fail("the two disagree")
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
        async with client.start_run() as run:
            found = await client.get_experiment(run.info.experiment_id)
        assert found.name == "by name"

    async def test_an_id_and_a_name_are_too_much(self, client: asyncstore.Client) -> None:
        with pytest.raises(InvalidParameterError, match="not both"):
            async with client.start_run(experiment_id="0", experiment_name="x"):
                pytest.fail("started")

    async def test_one_that_does_not_exist(self, client: asyncstore.Client) -> None:
        with pytest.raises(NotFoundError):
            async with client.start_run(experiment_id="12345"):
                pytest.fail("started")

    async def test_new_ones_keep_artifacts_below_the_root(self, tmp_path: Path) -> None:
        root = tmp_path / "elsewhere"
        async with (
            asyncstore.Client(artifact_location=str(root)) as client,
            client.start_run(experiment_name="e") as run,
        ):
            await run.log_text("x", "x.txt")
        expected = root / run.info.experiment_id / run.run_id / "artifacts" / "x.txt"
        assert expected.read_text() == "x"


class TestNested:
    async def test_a_nested_run_names_its_parent(self, client: asyncstore.Client) -> None:
        async with (
            client.start_run(experiment_name="e") as parent,
            parent.start_run(run_name="child", tags={"a": 1}, description="d") as child,
        ):
            assert child.info.experiment_id == parent.info.experiment_id
        found = await client.get_parent_run(child.run_id)
        assert found is not None
        assert found.info.run_id == parent.run_id
        assert await client.get_parent_run(parent.run_id) is None

    async def test_a_deleted_parent_is_refused(self, client: asyncstore.Client) -> None:
        parent = await client.create_run("0")
        await client.delete_run(parent.info.run_id)
        with pytest.raises(InvalidStateError, match="is deleted"):
            async with client.start_run(parent_run_id=parent.info.run_id):
                pytest.fail("started")

    async def test_many_children_at_once(self, client: asyncstore.Client) -> None:
        async def child(parent: ActiveRun, number: int) -> None:
            async with parent.start_run() as run:
                await run.log_metric("number", number)

        async with client.start_run() as parent, anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(child, parent, number)
        found = await client.search_runs(
            ["0"], f"tags.mlflow.parentRunId = '{parent.run_id}' and status = 'FINISHED'"
        )
        assert sorted(run.data.metrics["number"] for run in found) == list(range(20))


class TestResume:
    async def test_an_ended_run_goes_on(self, client: asyncstore.Client) -> None:
        async with client.start_run(run_name="old", tags={"a": 1}) as first:
            await first.log_metric("x", 1, step=1)
        async with client.start_run(run_id=first.run_id, run_name="new", tags={"b": 2}) as second:
            assert second.info.status == "RUNNING"
            assert second.data.tags["b"] == "2"
            await second.log_metric("x", 2, step=2)
        found = await client.get_run(first.run_id)
        assert (found.info.run_name, found.info.status) == ("new", "FINISHED")
        assert found.data.metrics == {"x": 2.0}

    async def test_a_deleted_run_does_not(self, client: asyncstore.Client) -> None:
        run = await client.create_run("0")
        await client.delete_run(run.info.run_id)
        with pytest.raises(InvalidStateError, match="restore it first"):
            async with client.start_run(run_id=run.info.run_id):
                pytest.fail("started")


class Boom(Exception):
    pass


class TestEndOfARun:
    async def test_finished(self, client: asyncstore.Client) -> None:
        async with client.start_run() as run:
            assert await status_of(client, run.run_id) == "RUNNING"
        assert await status_of(client, run.run_id) == "FINISHED"

    async def test_failed_on_an_error_which_comes_out(self, client: asyncstore.Client) -> None:
        with pytest.raises(Boom):
            async with client.start_run() as run:
                raise Boom
        assert await status_of(client, run.run_id) == "FAILED"

    async def test_failed_on_a_group_of_errors(self, client: asyncstore.Client) -> None:
        with pytest.raises(ExceptionGroup):
            async with client.start_run() as run:
                raise ExceptionGroup("two", [Boom(), Boom()])
        assert await status_of(client, run.run_id) == "FAILED"

    @pytest.mark.parametrize(
        "error",
        [KeyboardInterrupt(), BaseExceptionGroup("both", [Boom(), KeyboardInterrupt()])],
        ids=["alone", "in a group"],
    )
    async def test_killed_on_an_interrupt(
        self, client: asyncstore.Client, error: BaseException
    ) -> None:
        runs = []

        async def train() -> None:
            async with client.start_run() as run:
                runs.append(run)
                raise error

        with pytest.raises(type(error)) as raised:
            await train()
        assert raised.value is error
        assert await status_of(client, runs[0].run_id) == "KILLED"

    async def test_killed_when_a_scope_is_cancelled(self, client: asyncstore.Client) -> None:
        with anyio.CancelScope() as scope:
            async with client.start_run() as run:
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert await status_of(client, run.run_id) == "KILLED"

    async def test_killed_when_a_sibling_fails(self, client: asyncstore.Client) -> None:
        runs = []
        started = anyio.Event()

        async def train() -> None:
            async with client.start_run() as run:
                runs.append(run)
                started.set()
                await anyio.sleep_forever()

        async def fail() -> None:
            await started.wait()
            raise Boom

        with pytest.raises(ExceptionGroup):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(train)
                tasks.start_soon(fail)
        assert await status_of(client, runs[0].run_id) == "KILLED"

    async def test_killed_when_the_task_is_cancelled(self, client: asyncstore.Client) -> None:
        task, run = await started_in_a_task(client)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await status_of(client, run.run_id) == "KILLED"

    async def test_killed_when_asyncios_timeout_passes(self, client: asyncstore.Client) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as timeout, client.start_run() as run:
                timeout.reschedule(0)
                await asyncio.Event().wait()
        assert await status_of(client, run.run_id) == "KILLED"

    async def test_a_timeout_inside_the_block_is_an_error(self, client: asyncstore.Client) -> None:
        with pytest.raises(TimeoutError):
            async with client.start_run() as run, asyncio.timeout(0):
                await asyncio.Event().wait()
        assert await status_of(client, run.run_id) == "FAILED"

    async def test_cancelled_again_while_it_is_being_marked(
        self, client: asyncstore.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        marking, go_on = anyio.Event(), anyio.Event()
        set_terminated = client.set_terminated

        async def slowly(*arguments: str) -> None:
            marking.set()
            await go_on.wait()
            await set_terminated(*arguments)  # type: ignore[arg-type]  # passed through

        task, run = await started_in_a_task(client)
        monkeypatch.setattr(client, "set_terminated", slowly)
        task.cancel()
        await marking.wait()
        for _ in range(3):
            task.cancel()
            await anyio.lowlevel.checkpoint()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await status_of(client, run.run_id) == "KILLED"

    async def test_what_cannot_be_marked_does_not_hide_the_error(
        self, client: asyncstore.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(Boom):
            async with client.start_run() as run:
                await client.delete_run(run.run_id)
                raise Boom
        assert f"run {run.run_id} could not be marked FAILED" in caplog.text

    async def test_marking_is_bounded_in_time(
        self,
        client: asyncstore.Client,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def never(*_: object) -> None:
            await anyio.sleep_forever()

        task, run = await started_in_a_task(client)
        monkeypatch.setattr("asyncstore.client.active_run.STEP_WITHIN", 0.05)
        monkeypatch.setattr(client, "set_terminated", never)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert f"run {run.run_id} could not be marked KILLED: no answer" in caplog.text
        monkeypatch.undo()

    async def test_no_run_stays_running_wherever_the_cancellation_hits(
        self, client: asyncstore.Client
    ) -> None:
        await cancel_everywhere(client)

    async def test_no_run_stays_running_wherever_it_hits_on_postgresql(
        self, postgresql_uri: str
    ) -> None:
        async with asyncstore.Client(postgresql_uri) as client:
            await cancel_everywhere(client)


async def cancel_everywhere(client: asyncstore.Client) -> None:
    """Cancel a run at one turn of the event loop after another; each must have ended."""
    await client.search_runs(["0"])  # opens the database
    before = asyncio.all_tasks()

    async def train() -> None:
        async with client.start_run(experiment_name="e") as run:
            await run.log_metric("x", 1)

    tasks = set()
    for turns in range(150):
        task = asyncio.create_task(train())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        tasks.add(task)
    assert any(task.cancelled() for task in tasks)
    assert all(task.cancelled() or task.exception() is None for task in tasks)
    found = await client.get_experiment_by_name("e")
    assert found is not None
    statuses = {r.info.status for r in await client.search_runs([found.experiment_id])}
    assert statuses <= {"KILLED", "FINISHED"}
    assert "KILLED" in statuses
    assert asyncio.all_tasks() == before


async def started_in_a_task(
    client: asyncstore.Client,
) -> tuple[asyncio.Task[None], ActiveRun]:
    runs = []
    started = anyio.Event()

    async def train() -> None:
        async with client.start_run() as run:
            runs.append(run)
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(train())
    await started.wait()
    return task, runs[0]


class TestOpening:
    async def test_many_tasks_open_the_database_and_the_storage_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        open_store = MetadataStore.open
        open_repository = ArtifactRepository.open

        async def count_store(uri: str | None, location: str | None) -> MetadataStore:
            opened.append("store")
            return await open_store(uri, location)

        async def count_repository(self: ArtifactRepository) -> ArtifactRepository:
            opened.append("repository")
            return await open_repository(self)

        monkeypatch.setattr(MetadataStore, "open", count_store)
        monkeypatch.setattr(ArtifactRepository, "open", count_repository)

        async def work(client: asyncstore.Client, number: int) -> None:
            async with client.start_run() as run:
                await run.log_text("x", f"{number}.txt")

        async with asyncstore.Client() as client:
            assert opened == []
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(work, client, number)
        assert sorted(opened) == ["repository", "store"]

    async def test_who_opens_it_may_be_cancelled(self) -> None:
        async with asyncstore.Client() as client:
            first = asyncio.create_task(client.get_metadata_store())
            second = asyncio.create_task(client.get_metadata_store())
            await anyio.lowlevel.checkpoint()
            first.cancel()
            assert await second is await client.get_metadata_store()
            with pytest.raises(asyncio.CancelledError):
                await first

    async def test_a_failure_to_open_is_not_remembered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fails(uri: str | None, location: str | None) -> MetadataStore:
            raise UnavailableError("down")

        async with asyncstore.Client() as client:
            with monkeypatch.context() as patch:
                patch.setattr(MetadataStore, "open", fails)
                with pytest.raises(UnavailableError):
                    await client.get_run("x")
            await client.search_runs(["0"])

    async def test_closing_twice_and_using_it_afterwards(self) -> None:
        client = asyncstore.Client()
        async with client:
            store = await client.get_metadata_store()
            async with client.start_run() as run:
                await run.log_text("x", "x")
        await client.aclose()
        for call in (
            lambda: client.get_run(run.run_id),
            lambda: client.log_text(run.run_id, "x", "x"),
            lambda: client.get_artifact_repository("."),
            client.__aenter__,
        ):
            with pytest.raises(InvalidStateError, match="closed"):
                await call()
        with pytest.raises(InvalidStateError):
            await store.get_run(run.run_id)

    async def test_it_does_not_remember_every_run(
        self, client: asyncstore.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("asyncstore.client.client.REMEMBERED_RUNS", 3)
        runs = [await client.create_run("0") for _ in range(5)]
        for run in runs:
            await client.log_text(run.info.run_id, run.info.run_id, "id.txt")
        assert len(client._artifact_uris) == 3
        local = await client.download_artifacts(runs[0].info.run_id, "id.txt")
        assert Path(local).read_text() == runs[0].info.run_id

    async def test_storage_options_reach_the_storage(self) -> None:
        async with asyncstore.Client(storage_options={"auto_mkdir": True}) as client:
            repository = await client.get_artifact_repository("here")
            assert repository.fs.storage_options["auto_mkdir"] is True
