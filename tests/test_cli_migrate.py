"""`asyncstore migrate`, as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

import asyncstore
from asyncstore.entities import Run
from tests.command_line import Cli, cli, in_tmp_path
from tests.metadata import mlruns
from tests.terminal import Terminal

pytestmark = pytest.mark.usefixtures("in_tmp_path")

__all__ = ["cli", "in_tmp_path"]
RUN = "a" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mlruns"
    first = mlruns.experiment(root, 7, "first")
    mlruns.run(first, RUN)
    mlruns.model(root, "model")
    (first / ("b" * 32)).mkdir()
    return root


def get_run(uri: str) -> Run:
    async def get() -> Run:
        async with asyncstore.Client(uri) as client:
            return await client.get_run(RUN)

    return anyio.run(get)


def test_migrate(cli: Cli, root: Path) -> None:
    status, out, err = cli("migrate", "./mlruns", "sqlite:///new.db")
    assert status == 0
    assert "runs\t1\t1" in out
    assert "metrics\t4\t" in out
    assert f"run {root / '7' / ('b' * 32)}: has no meta.yaml; left out" in err
    assert get_run("sqlite:///new.db").data.metrics["loss"] == 0.125
    status, out, _ = cli("migrate", "./mlruns", "sqlite:///new.db")
    assert status == 0
    assert "runs\t1\t0" in out


def test_dry_run(cli: Cli, root: Path, tmp_path: Path) -> None:
    status, out, err = cli("migrate", "mlruns", "sqlite:///new.db", "--dry-run")
    assert status == 0
    assert "runs\t1\t1" in out
    assert "Nothing was written" in out
    assert "empty" in err
    assert not (tmp_path / "new.db").exists()
    cli("migrate", "mlruns", "sqlite:///new.db")
    before = (tmp_path / "new.db").read_bytes()
    _, out, _ = cli("migrate", "mlruns", "sqlite:///new.db", "--dry-run")
    assert "runs\t1\t0" in out
    assert (tmp_path / "new.db").read_bytes() == before


def test_json(cli: Cli, root: Path) -> None:
    _, out, _ = cli("migrate", root.as_uri(), "sqlite:///new.db", "--json")
    found = json.loads(out)
    assert found["found"]["runs"] == found["new"]["runs"] == 1
    assert found["left_out"] == 1


def test_ids_that_are_taken_are_told(cli: Cli, root: Path) -> None:
    async def take() -> None:
        async with asyncstore.Client("sqlite:///new.db") as client:
            while await client.create_experiment(f"here {anyio.current_time()}") != "7":
                pass

    anyio.run(take)
    _, out, _ = cli("migrate", "mlruns", "sqlite:///new.db")
    assert "Experiment 7 is experiment 8 in the database" in out


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_what_is_no_file_store(cli: Cli, tmp_path: Path, source: str) -> None:
    status, _, err = cli("migrate", source, "sqlite:///new.db")
    assert status == 1
    assert "does not exist" in err or "not a directory of MLflow's file store" in err
    assert not (tmp_path / "new.db").exists()


def test_the_target_must_be_a_database(cli: Cli, root: Path, tmp_path: Path) -> None:
    mlruns.experiment(tmp_path / "other", 8, "other")
    status, _, err = cli("migrate", "mlruns", "./other")
    assert status == 1
    assert "NOT_IMPLEMENTED" in err


def test_progress_bar(root: Path) -> None:
    with Terminal("migrate", "mlruns", "sqlite:///new.db") as terminal:
        terminal.read_until(None)
        assert terminal.process.wait() == 0
    assert "1/1" in terminal.seen or "1/2" in terminal.seen


def test_killed_and_run_again(cli: Cli, root: Path) -> None:
    """Interrupted in the middle of a long metric, it is complete after the next time."""
    lines = "".join(f"{step} {step / 7} {step}\n" for step in range(100_000))
    mlruns.write(root / "7" / RUN / "metrics" / "long", lines)
    for number in range(300):
        mlruns.run(mlruns.experiment(root, 6, "before"), f"{number:032}")
    with Terminal("migrate", "mlruns", "sqlite:///new.db") as terminal:
        terminal.read_until(r"[1-9]\d\d/")
        terminal.process.kill()
        terminal.process.wait()
    status, _, _ = cli("migrate", "mlruns", "sqlite:///new.db")
    assert status == 0

    async def history() -> int:
        async with asyncstore.Client("sqlite:///new.db") as client:
            assert len(await client.search_runs(["6", "7"])) == 301
            return len(await client.get_metric_history(RUN, "long"))

    assert anyio.run(history) == 100_000
