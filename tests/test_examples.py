"""The examples do what they say, seen from outside."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn

import asyncstore
from asyncstore import plugins
from asyncstore.entities import Run
from asyncstore.errors import UnavailableError
from examples import fastapi_app, mlflow_plugins_in_asyncstore, training_loop
from tests.artifacts.test_plugins import install
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.base import free_port
from tests.servers.radosgw import RadosGateway
from tests.servers.running import running

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture(scope="module")
def tracking_server() -> Iterator[AsyncstoreServer]:
    yield from running(AsyncstoreServer())


async def until(ready: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await ready():
            await anyio.sleep(0.01)


@asynccontextmanager
async def service() -> AsyncIterator[str]:
    """The application behind uvicorn; its URL."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(fastapi_app.app, host="127.0.0.1", port=port, log_level="warning", ws="none")
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)

        async def started() -> bool:
            return server.started

        await until(started)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True


async def runs() -> list[Run]:
    async with asyncstore.Client() as client:
        experiment = await client.get_experiment_by_name("training service")
        return [] if experiment is None else await client.search_runs([experiment.experiment_id])


class TestFastApi:
    async def test_handlers_log_and_upload(self, tmp_path: Path) -> None:
        await self.handlers_log_and_upload(tmp_path)

    async def test_over_http_they_do_the_same(
        self, tracking_server: AsyncstoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.url)
        await self.handlers_log_and_upload(tmp_path)
        assert not (tmp_path / "mlflow.db").exists()

    async def handlers_log_and_upload(self, tmp_path: Path) -> None:
        async with service() as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
            trained = await http.post("/train", json={"epochs": 3})
            assert trained.status_code == 200
            run_id = trained.json()["run_id"]
            shown = (await http.get(f"/runs/{run_id}")).json()
            assert shown["status"] == "FINISHED"
            assert shown["params"] == {"epochs": "3"}
            assert shown["checkpoints"] == [f"checkpoints/epoch_{n:04}.npy" for n in range(3)]
            content = bytes(range(256)) * 50_000
            stored = await http.post(f"/runs/{run_id}/artifacts/deep/notes.bin", content=content)
            assert stored.json() == {"size": len(content)}
            async with asyncstore.Client() as client:
                local = await client.download_artifacts(run_id, "deep/notes.bin", tmp_path / "here")
                assert Path(local).read_bytes() == content
        assert list((tmp_path / "tmp").iterdir()) == []

    async def test_errors_have_mlflows_code(self) -> None:
        async with service() as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
            missing = await http.get("/runs/nobody")
            assert missing.status_code == 404
            assert missing.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
            missing = await http.post("/runs/nobody/artifacts/x", content=b"x")
            assert missing.status_code == 404
            run_id = (await http.post("/train", json={"epochs": 0})).json()["run_id"]
            refused = await http.post(f"/runs/{run_id}/artifacts/%252e%252e/x", content=b"x")
            assert refused.status_code == 400
            assert refused.json()["error_code"] == "INVALID_PARAMETER_VALUE"

    async def test_a_client_that_goes_away_while_it_trains(
        self,
        tmp_path: Path,
        radosgw: RadosGateway,
        s3_bucket: str,
        s3_env: dict[str, str],
    ) -> None:
        async with asyncstore.Client(artifact_location=f"s3://{s3_bucket}/x") as client:
            await client.create_experiment("training service")

        async def has_uploaded() -> bool:
            return await anyio.to_thread.run_sync(lambda: len(radosgw.keys(s3_bucket)) > 0)

        async def has_ended() -> bool:
            return (await runs())[0].info.status != "RUNNING"

        async with service() as url:
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as connection:
                body = '{"epochs": 100000}'
                connection.sendall(
                    "POST /train HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                await until(has_uploaded)
            await until(has_ended)
            async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                again = await http.post("/train", json={"epochs": 1})
                assert again.status_code == 200
        killed = next(run for run in await runs() if run.info.status != "FINISHED")
        assert killed.info.status == "KILLED"
        assert killed.info.end_time is not None
        assert radosgw.open_multipart_uploads(s3_bucket) == []
        assert list((tmp_path / "tmp").iterdir()) == []

    async def test_a_client_that_goes_away_in_the_middle_of_its_upload(
        self, tmp_path: Path
    ) -> None:
        async with service() as url:
            port = int(url.rpartition(":")[2])
            async with httpx.AsyncClient(base_url=url, timeout=60) as http:
                run_id = (await http.post("/train", json={"epochs": 0})).json()["run_id"]

            async def is_received() -> bool:
                files = [f for f in (tmp_path / "tmp").rglob("*") if f.is_file()]
                return any(file.stat().st_size for file in files)

            async def is_gone() -> bool:
                return not list((tmp_path / "tmp").iterdir())

            with socket.create_connection(("127.0.0.1", port)) as connection:
                head = f"POST /runs/{run_id}/artifacts/big HTTP/1.1\r\nHost: x\r\n"
                connection.sendall(f"{head}Content-Length: 100000000\r\n\r\n".encode())
                connection.sendall(bytes(1_000_000))
                await until(is_received)
            await until(is_gone)
            async with asyncstore.Client() as client:
                assert await client.list_artifacts(run_id) == []


class TestTrainingLoop:
    async def test_everything_is_stored_when_the_run_has_ended(self) -> None:
        run_id = await training_loop.main(steps=300)
        async with asyncstore.Client() as client:
            found = await client.get_run(run_id)
            history = await client.get_metric_history(run_id, "loss")
            assert [point.step for point in history] == list(range(300))
            assert found.info.status == "FINISHED"
            assert abs(found.data.metrics["slope"] - 3) < 0.1
            files = await client.list_artifacts(run_id)
            assert [file.path for file in files] == ["slope.txt"]

    async def test_the_loop_never_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with asyncstore.Client() as client, client.start_run() as run:
            stopped = anyio.Event()
            log_batch = run.log_batch

            async def slow(metrics: list[asyncstore.entities.Metric]) -> None:
                await stopped.wait()
                await log_batch(metrics)

            monkeypatch.setattr(run, "log_batch", slow)
            await_nothing = await training_loop_while_logging_hangs(run, stopped)
            assert await_nothing == 50
            history = await client.get_metric_history(run.run_id, "loss")
            assert len(history) == 50

    async def test_errors_surface_when_the_run_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(metrics: object) -> None:
            raise UnavailableError("the database is down")

        steps = []
        async with asyncstore.Client() as client:
            with pytest.raises(ExceptionGroup) as raised:
                async with client.start_run() as run:
                    monkeypatch.setattr(run, "log_batch", broken)
                    async with training_loop.background_log(run) as log:
                        for step in range(20):
                            log.log_metrics({"x": 1}, step)
                            steps.append(step)
                            await anyio.sleep(0)
            assert raised.group_contains(UnavailableError, match="is down")
            assert len(steps) == 20
            assert (await client.get_run(run.run_id)).info.status == "FAILED"

    async def test_a_full_queue_is_reported(self) -> None:
        async with asyncstore.Client() as client, client.start_run() as run:
            with pytest.raises(ExceptionGroup) as raised:
                async with training_loop.background_log(run, capacity=10) as log:
                    for step in range(30):
                        log.log_metrics({"x": 1}, step)
            assert raised.group_contains(BufferError, match="^20 metric values")
            assert len(await client.get_metric_history(run.run_id, "x")) == 10

    async def test_an_error_of_the_training_comes_out_as_itself_after_the_flush(self) -> None:
        async with asyncstore.Client() as client:
            with pytest.raises(ZeroDivisionError):
                async with client.start_run() as run, training_loop.background_log(run) as log:
                    log.log_metrics({"x": 1}, 0)
                    raise ZeroDivisionError
            assert len(await client.get_metric_history(run.run_id, "x")) == 1

    async def test_a_cancelled_training_is_flushed_too(self) -> None:
        async with asyncstore.Client() as client:
            with anyio.CancelScope() as scope:
                async with client.start_run() as run, training_loop.background_log(run) as log:
                    for step in range(100):
                        log.log_metrics({"x": 1}, step)
                    scope.cancel()
                    await anyio.sleep_forever()
            assert len(await client.get_metric_history(run.run_id, "x")) == 100
            assert (await client.get_run(run.run_id)).info.status == "KILLED"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["workshop", "cellar"], tmp_path_factory.mktemp("plugins"))


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(site)
    plugins._providers.cache_clear()
    yield
    plugins._providers.cache_clear()
    for name in [name for name in sys.modules if name.startswith("asyncstore_test_")]:
        del sys.modules[name]


class TestMlflowPlugins:
    async def test_they_tag_the_run_and_keep_its_artifacts(
        self, installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_id = await mlflow_plugins_in_asyncstore.main(f"cellar://{tmp_path}/cellar")
        printed = capsys.readouterr().out.splitlines()
        assert "porch.seats = 4" in printed
        assert printed[-3:] == [f"parts/{number}.txt: 7 bytes" for number in range(3)]
        kept = (tmp_path / "cellar").rglob("*.txt")
        assert sorted(path.read_text() for path in kept) == [f"part {n}\n" for n in range(3)]
        async with asyncstore.Client() as client:
            run = await client.get_run(run_id)
            assert run.info.artifact_uri.startswith(f"cellar://{tmp_path}/cellar/")


async def training_loop_while_logging_hangs(run: asyncstore.ActiveRun, stopped: anyio.Event) -> int:
    """Steps that were trained while nothing at all was logged."""
    trained = 0
    async with training_loop.background_log(run) as log:
        model = training_loop.Regression()
        for step in range(50):
            log.log_metrics(model.step(), step)
            await anyio.sleep(0)
            trained += 1
        stopped.set()
    return trained
