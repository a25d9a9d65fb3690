"""MLflow's asynchronous logging on asyncstore's loop: nothing lost, nothing twice, in order."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from asyncstore.mlflow_plugin import async_logging
from asyncstore.mlflow_plugin.portal import get_portal

WATCHDOG = 120
BEGIN = """
    import atexit, json, os, signal, sys, threading
    import anyio, mlflow
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service.utils import _get_store

    # Whoever started the tests may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    mlflow.set_tracking_uri("asyncstore+" + sys.argv[1])
    client = MlflowClient()
    experiment = mlflow.create_experiment("work", artifact_location="artifacts")

    def new_run():
        return client.create_run(experiment).info.run_id

    def log(run_id, key, count):
        for step in range(count):
            client.log_metric(run_id, key, 1, step=step, timestamp=step, synchronous=False)

    def hold_back():
        '''Log nothing until a file `go` is there; note what is logged, and by which process.'''
        logging = _get_store()._async_logging
        log_batch = logging._log_batch
        async def noted(run_id, metrics, params, tags):
            while not os.path.exists("go"):
                await anyio.sleep(0.001)
            with open("noted", "a") as file:
                file.writelines(f"{os.getpid()} {each.key} {each.step}\\n" for each in metrics)
            await log_batch(run_id, metrics, params, tags)
        logging._log_batch = noted
"""
EVERYTHING = """
    runs = [new_run() for _ in range(3)]
    for number in range(5000):
        run_id = runs[number % 3]
        client.log_metric(run_id, "m", number, timestamp=number, step=number, synchronous=False)
        if number % 50 == 0:
            client.log_param(run_id, f"p{number}", number, synchronous=False)
            client.set_tag(run_id, f"t{number}", number, synchronous=False)
    print(json.dumps(runs), flush=True)
"""


class Program:
    """Runs programs on one database, under a watchdog: what counts is also how they end."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.client = MlflowClient(uri)
        self.stderr = ""
        self._uri = uri
        self._folder = folder

    def __call__(self, source: str, *, status: int = 0) -> Any:
        """What the program prints, as JSON."""
        code = textwrap.dedent(BEGIN) + textwrap.dedent(source)
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", code, self._uri],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WATCHDOG,
            check=False,
        )
        self.stderr = done.stderr
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    def steps(self, run_id: str, key: str) -> list[int]:
        """Read by MLflow alone."""
        return [metric.step for metric in self.client.get_metric_history(run_id, key)]

    def noted(self) -> Counter[tuple[str, ...]]:
        lines = (self._folder / "noted").read_text().splitlines()
        return Counter(tuple(line.split()) for line in lines)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "m.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "m.db")
    return f"sqlite:///{tmp_path}/m.db"


@pytest.fixture
def program(uri: str, tmp_path: Path) -> Program:
    return Program(uri, tmp_path)


@pytest.fixture
def on_postgresql(postgresql_uri: str, tmp_path: Path) -> Program:
    return Program(postgresql_uri, tmp_path)


def has_everything(program: Program, runs: list[str]) -> None:
    for number, run_id in enumerate(runs):
        assert program.steps(run_id, "m") == list(range(number, 5000, 3))
        data = program.client.get_run(run_id).data
        given = {str(n) for n in range(0, 5000, 50) if n % 3 == number}
        assert {key[1:]: value for key, value in data.params.items()} == {n: n for n in given}
        assert {n: data.tags[f"t{n}"] for n in given} == {n: n for n in given}


class TestTheEndOfAProcess:
    """Nothing is lost without a flush."""

    @pytest.mark.parametrize(("ending", "status"), [("", 0), ("raise KeyError", 1)])
    def test_everything_is_there(self, ending: str, status: int, program: Program) -> None:
        has_everything(program, program(f"{EVERYTHING}    {ending}\n", status=status))

    def test_on_postgresql(self, on_postgresql: Program) -> None:
        has_everything(on_postgresql, on_postgresql(EVERYTHING))

    def test_threads_and_functions_of_atexit(self, program: Program) -> None:
        source = """
            run_id = new_run()
            # Outlives the main thread.
            threading.Thread(target=log, args=[run_id, "thread", 2000]).start()
            atexit.register(log, run_id, "atexit", 3)
            client.log_param(run_id, "p", "first")
            client.log_param(run_id, "p", "second", synchronous=False)
            print(json.dumps(run_id), flush=True)
        """
        run_id = program(source)
        assert program.steps(run_id, "thread") == list(range(2000))
        assert program.steps(run_id, "atexit") == list(range(3))
        # Nobody is there any more to ask for an error.
        assert "not logged: " in program.stderr
        assert "'p' is 'first', not 'second'" in program.stderr

    def test_mlflow_makes_everything_asynchronous(self, program: Program) -> None:
        source = """
            mlflow.set_experiment("work")
            mlflow.config.enable_async_logging()
            hold_back()
            run = mlflow.start_run()
            mlflow.log_metric("m", 1, step=3)
            mlflow.log_metrics({"n": 1, "o": 2})
            mlflow.log_param("p", "q")
            mlflow.log_params({"r": 1})
            mlflow.set_tag("t", "u")
            mlflow.set_tags({"v": "w"})
            before = client.get_run(run.info.run_id).data
            print(json.dumps([run.info.run_id, before.metrics, before.params]), flush=True)
            open("go", "x").close()
        """
        run_id, metrics, params = program(source)
        assert (metrics, params) == ({}, {})
        run = program.client.get_run(run_id)
        assert run.data.metrics == {"m": 1, "n": 1, "o": 2}
        assert run.data.params == {"p": "q", "r": "1"}
        assert {"t": "u", "v": "w"}.items() <= run.data.tags.items()
        # MLflow ends the active run.
        assert run.info.status == "FINISHED"

    def test_after_an_interrupted_flush(self, program: Program) -> None:
        source = """
            from asyncstore.mlflow_plugin.portal import get_portal
            run_id = new_run()
            hold_back()
            logging = _get_store()._async_logging
            log_batch = logging._log_batch
            async def interrupting(*batch):
                os.kill(os.getpid(), signal.SIGINT)
                await log_batch(*batch)
            logging._log_batch = interrupting
            # So that it is the flush that logs.
            get_portal().start = lambda function: None
            log(run_id, "m", 500)
            del get_portal().start
            try:
                mlflow.flush_async_logging()
            except KeyboardInterrupt:
                print(json.dumps([run_id, os.getpid()]), flush=True)
            open("go", "x").close()
        """
        run_id, pid = program(source)
        assert program.steps(run_id, "m") == list(range(500))
        assert program.noted() == Counter((str(pid), "m", str(step)) for step in range(500))

    def test_each_side_of_a_fork_logs_its_own_and_once(self, program: Program) -> None:
        source = """
            import multiprocessing
            run_id = new_run()
            hold_back()
            def with_flush():
                log(run_id, "with", 300)
                mlflow.flush_async_logging()
            def without():
                log(run_id, "without", 300)
            log(run_id, "before", 300)
            fork = multiprocessing.get_context("fork")
            children = [fork.Process(target=target) for target in (with_flush, without)]
            [child.start() for child in children]
            log(run_id, "after", 300)
            open("go", "x").close()
            [child.join() for child in children]
            assert [child.exitcode for child in children] == [0, 0]
            pids = [os.getpid(), *(child.pid for child in children)]
            print(json.dumps([run_id, *pids]), flush=True)
        """
        run_id, parent, *children = program(source)
        wanted = {"before": parent, "after": parent, "with": children[0], "without": children[1]}
        for key in wanted:
            assert program.steps(run_id, key) == list(range(300))
        assert program.noted() == Counter(
            (str(pid), key, str(step)) for key, pid in wanted.items() for step in range(300)
        )


class Held:
    """A client of MLflow on asyncstore that logs nothing until it is let go."""

    def __init__(self, uri: str) -> None:
        self.client = MlflowClient(f"asyncstore+{uri}")
        self.store = self.client._tracking_client.store
        self.sizes: list[tuple[int, int, int]] = []
        self.gate = threading.Event()
        self._log_batch = self.store._async_logging._log_batch
        self.store._async_logging._log_batch = self._hold_back
        self.experiment = self.client.create_experiment("work", artifact_location="artifacts")

    async def _hold_back(self, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        self.sizes.append((len(metrics), len(params), len(tags)))
        while not self.gate.is_set():
            await anyio.sleep(0.001)
        await self._log_batch(run_id, metrics, params, tags)

    def run(self) -> str:
        return str(self.client.create_run(self.experiment).info.run_id)

    def log(self, run_id: str, step: int, key: str = "m") -> Any:
        return self.client.log_metric(run_id, key, 1, step=step, timestamp=step, synchronous=False)

    def log_param(self, run_id: str, key: str, value: str) -> Any:
        return self.client.log_param(run_id, key, value, synchronous=False)

    def steps(self, run_id: str, key: str = "m") -> list[int]:
        return [metric.step for metric in self.client.get_metric_history(run_id, key)]


@pytest.fixture
def held(uri: str) -> Iterator[Held]:
    made = Held(uri)
    yield made
    made.gate.set()
    made.store.flush_async_logging()


def failed(handle: Any) -> str:
    """What a handle's wait raises; an empty string when it is fine."""
    try:
        handle.wait()
    except MlflowException as error:
        return str(error)
    return ""


def test_the_last_tag_and_the_first_param_count(held: Held) -> None:
    runs = [held.run(), held.run()]
    params = []
    for number in range(250):
        for run_id in runs:
            held.client.set_tag(run_id, "t", number, synchronous=False)
        params.append(held.log_param(runs[0], "p", str(number)))
    held.gate.set()
    held.store.flush_async_logging()
    assert [bool(failed(handle)) for handle in params] == [False] + [True] * 249
    data = [held.client.get_run(run_id).data for run_id in runs]
    assert [each.tags["t"] for each in data] == ["249", "249"]
    assert data[0].params == {"p": "0"}


def test_what_waits_is_logged_in_batches_as_large_as_mlflow_allows(held: Held) -> None:
    run_id = held.run()
    held.log(run_id, 0)
    while not held.sizes:
        pass
    for number in range(1, 2001):
        held.log(run_id, number)
        if number % 10 == 0:
            held.log_param(run_id, f"p{number}", "x")
    held.gate.set()
    held.store.flush_async_logging()
    assert held.steps(run_id) == list(range(2001))
    assert held.sizes == [(1, 0, 0), (910, 90, 0), (909, 91, 0), (181, 19, 0)]


def test_a_bad_item_has_its_own_error_and_its_neighbours_are_logged(held: Held) -> None:
    run_id = held.run()
    held.client.log_param(run_id, "p", "first")
    handles = {
        "a": held.log(run_id, 1),
        "param": held.log_param(run_id, "p", "second"),
        "b": held.log(run_id, 2),
        "nobody": held.log("f" * 32, 3),
        "tag": held.client.set_tag(run_id, "t", "u", synchronous=False),
        "q": held.log_param(run_id, "q", "r"),
        "c": held.log(run_id, 4),
    }
    held.gate.set()
    held.store.flush_async_logging()
    errors = {name: text for name, handle in handles.items() if (text := failed(handle))}
    assert set(errors) == {"param", "nobody"}
    assert "'p' is 'first', not 'second'" in errors["param"]
    assert "f" * 32 in errors["nobody"]
    data = held.client.get_run(run_id).data
    assert held.steps(run_id) == [1, 2, 4]
    assert (data.params, data.tags["t"]) == ({"p": "first", "q": "r"}, "u")


def test_the_handle_waits(held: Held) -> None:
    run_id = held.run()
    handle = held.log(run_id, 7)
    outcome: list[str] = []
    waiting = threading.Thread(target=lambda: outcome.append(failed(handle)))
    waiting.start()
    assert held.steps(run_id) == []
    assert outcome == []
    held.gate.set()
    waiting.join(WATCHDOG)
    assert outcome == [""]
    assert held.steps(run_id) == [7]


def test_a_flush_from_several_threads(held: Held) -> None:
    held.gate.set()
    run_id = held.run()
    seen: dict[str, list[int]] = {}

    def work(key: str) -> None:
        seen[key] = []
        for step in range(200):
            held.log(run_id, step, key)
            if step in (99, 199):
                held.store.flush_async_logging()
                seen[key].append(len(held.steps(run_id, key)))

    threads = [threading.Thread(target=work, args=[f"k{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WATCHDOG)
    assert seen == {f"k{number}": [100, 200] for number in range(8)}


def test_a_flush_before_the_loop_came_to_it(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.gate.set()
    run_id = held.run()
    with monkeypatch.context() as later:
        later.setattr(get_portal(), "start", lambda function: None)
        held.log(run_id, 1)
    held.store.flush_async_logging()
    assert held.steps(run_id) == [1]


def test_a_flush_that_is_interrupted_while_it_logs(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = held.run()
    with monkeypatch.context() as later:
        later.setattr(get_portal(), "start", lambda function: None)
        handle = held.log(run_id, 1)
    flushing = get_portal().start(held.store._async_logging._drain)
    while not held.sizes:
        pass
    # As `Portal.call` does.
    assert flushing.cancel()
    held.gate.set()
    assert failed(handle) == ""
    assert held.steps(run_id) == [1]


def test_a_flush_of_nothing_waits_for_nothing(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MlflowClient(f"asyncstore+{uri}")._tracking_client.store
    monkeypatch.delattr(async_logging, "get_portal")
    store.flush_async_logging()
