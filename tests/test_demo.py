"""The demo, on SQLite and local files, and on PostgreSQL and S3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import numpy as np
import pyarrow.parquet
import pytest

import asyncstore
from asyncstore import demo_model
from asyncstore.cli import main
from asyncstore.demo import ALIAS, REGISTERED_MODEL, TRACES
from asyncstore.entities import FileInfo, Run, Trace
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.radosgw import RadosGateway
from tests.servers.running import require
from tests.terminal import Terminal

EPOCHS = 12


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def figures(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    status = main(["demo", "--epochs", str(EPOCHS), "--json", *words])
    output = capsys.readouterr()
    assert status == 0, output.err
    found: dict[str, object] = json.loads(output.out)
    return found


async def check_registered(report: dict[str, object]) -> None:
    """The alias leads to the best run, which has the traced predictions."""
    async with asyncstore.Client() as client:
        best = str(report["best_run_id"])
        version = await client.get_model_version_by_alias(REGISTERED_MODEL, ALIAS)
        assert report["registered_model"] == f"models:/{REGISTERED_MODEL}@{ALIAS}"
        assert (version.version, version.run_id) == (report["model_version"], best)
        run = await client.get_run(best)
        assert version.source == f"{run.info.artifact_uri}/model"
        registered = await client.get_registered_model(REGISTERED_MODEL)
        assert registered.aliases == {ALIAS: version.version}
        experiment = str(report["experiment_id"])
        traces = await client.search_traces([experiment], filter_string=f"run_id = '{best}'")
        assert len(traces) == report["traces"] == TRACES == 5
        for trace in traces:
            assert isinstance(trace, Trace)
            (said,) = trace.info.assessments
            assert said.name == "all_right"
            assert {span.name for span in trace.data.spans} == {"predict", "network"}


async def stored(experiment: str) -> dict[str, tuple[Run, list[FileInfo]]]:
    """The runs of an experiment, by name, with all their files."""
    async with asyncstore.Client() as client:
        found = await client.get_experiment_by_name(experiment)
        assert found is not None
        result = {}
        for run in await client.search_runs([found.experiment_id]):
            repository = await client.get_artifact_repository(run.info.artifact_uri)
            result[run.info.run_name] = (run, [file async for file in repository.walk()])
        return result


def check(found: dict[str, tuple[Run, list[FileInfo]]], report: dict[str, object]) -> None:
    parent, parent_files = found.pop("digits")
    assert [file.path for file in parent_files] == ["dataset/digits.parquet"]
    assert parent.data.params["epochs"] == str(EPOCHS)
    assert parent.data.tags["best_run_id"] == report["best_run_id"]
    assert len(found) == 3
    files, size = len(parent_files), sum(file.file_size or 0 for file in parent_files)
    for run, below in found.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert set(run.data.metrics) == {
            *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
            "test_accuracy",
        }
        assert {"learning_rate", "solver", "hidden_layers"} <= set(run.data.params)
        model = [file for file in below if file.path.startswith("model/")]
        assert len(model) >= 30
        assert [file.path for file in below if file not in model] == ["confusion_matrix.png"]
        files += len(below)
        size += sum(file.file_size or 0 for file in below)
    best = min(found.values(), key=lambda pair: pair[0].data.metrics["validation_loss"])[0]
    assert report["best_run_id"] == best.info.run_id
    assert report["accuracy"] == best.data.metrics["test_accuracy"]
    assert (report["files"], report["uploaded_bytes"]) == (files, size)
    assert report["metrics"] == 3 * (4 * EPOCHS + 1)
    assert report["same_predictions"] == 360


def test_with_nothing_configured_and_again_in_the_same_directory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = figures(capsys)
    assert (tmp_path / "mlflow.db").is_file()
    assert first["artifact_location"] == str(tmp_path / "mlartifacts" / str(first["experiment_id"]))
    assert first["open_with"] == "mlflow ui --backend-store-uri sqlite:///mlflow.db"
    check(anyio.run(stored, "asyncstore demo"), first)
    anyio.run(check_registered, first)

    second = figures(capsys)
    anyio.run(check_registered, second)
    assert (first["model_version"], second["model_version"]) == (1, 2)
    assert second["experiment_id"] == first["experiment_id"]
    assert second["parent_run_id"] != first["parent_run_id"]

    async def history() -> list[float]:
        async with asyncstore.Client() as client:
            values = await client.get_metric_history(str(first["best_run_id"]), "train_loss")
            assert [value.step for value in values] == list(range(EPOCHS))
            return [value.value for value in values]

    losses = anyio.run(history)
    assert losses[-1] < losses[0] / 2

    run = tmp_path / "mlartifacts" / str(first["experiment_id"]) / str(first["parent_run_id"])
    table = pyarrow.parquet.read_table(run / "artifacts" / "dataset" / "digits.parquet")
    assert (table.num_rows, table.num_columns) == (1797, 66)
    picture = run.with_name(str(first["best_run_id"])) / "artifacts" / "confusion_matrix.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_on_postgresql_and_s3(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    postgresql_uri: str,
    radosgw: RadosGateway,
    s3_bucket: str,
    s3_env: dict[str, str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql_uri)
    report = figures(capsys, "--artifact-location", f"s3://{s3_bucket}/prefix")
    assert report["artifact_location"] == f"s3://{s3_bucket}/prefix/{report['experiment_id']}"
    assert report["open_with"] == (
        f"MLFLOW_S3_ENDPOINT_URL={radosgw.endpoint_url} "
        'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
    )
    assert "***" in str(report["tracking_uri"])
    check(anyio.run(stored, "asyncstore demo"), report)
    anyio.run(check_registered, report)
    assert radosgw.open_multipart_uploads(s3_bucket) == []
    assert len(radosgw.keys(s3_bucket)) == report["files"]
    assert list(tmp_path.iterdir()) == []


def test_on_a_tracking_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = AsyncstoreServer()
    require(server)
    with server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        report = figures(capsys)
        assert report["artifact_location"] == f"mlflow-artifacts:/{report['experiment_id']}"
        assert report["open_with"] == server.url
        check(anyio.run(stored, "asyncstore demo"), report)
        anyio.run(check_registered, report)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_marks_its_runs_killed_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    env = {"TMPDIR": str(tmp_path / "tmp")}
    with Terminal("demo", "--epochs", "5000", env=env) as command:
        command.read_until(r"[1-9]\d*/15000")
        command.interrupt()
        command.read_until(None)
        assert command.process.wait() == 130
    assert "Traceback" not in command.seen
    found = anyio.run(stored, "asyncstore demo")
    assert {run.info.status for run, _ in found.values()} == {"KILLED"}
    assert len(found) == 4
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_summary_says_where_everything_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "asyncstore.cli", "demo", "--epochs", "3"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    assert lines[-1].endswith("mlflow ui --backend-store-uri sqlite:///mlflow.db")
    assert str(tmp_path / "mlartifacts") in done.stdout
    assert "360 predictions of the downloaded model are the same" in done.stdout


def test_an_experiment_that_is_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    async def make() -> None:
        async with asyncstore.Client() as client:
            await client.create_experiment("taken", artifact_location="memory://somewhere")

    anyio.run(make)
    words = ["demo", "--experiment", "taken", "--artifact-location", "s3://bucket/x"]
    assert main(words) == 1
    assert "keeps its artifacts in memory://somewhere" in capsys.readouterr().err


def test_a_damaged_download_is_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    download = asyncstore.Client.download_artifacts

    async def damage(*arguments: object, **options: object) -> str:
        where = await download(*arguments, **options)  # type: ignore[arg-type]  # passed through
        bias = next(Path(where).rglob("layer_2_bias.npy"))
        np.save(bias, np.load(bias) + 1)
        return where

    monkeypatch.setattr(asyncstore.Client, "download_artifacts", damage)
    assert main(["demo", "--epochs", "3"]) == 1
    assert "DATA_LOSS" in capsys.readouterr().err


def test_300_epochs_make_a_history_of_at_least_64_mib() -> None:
    trainer = demo_model.Trainer(demo_model.load_digits(), 0.001, 300)
    trainer.train_epoch()
    assert trainer.history_size >= 64 * 2**20


def test_a_member_must_be_what_the_checkpoint_history_has(tmp_path: Path) -> None:
    digits = demo_model.load_digits()
    trainer = demo_model.Trainer(digits, 0.003, 2)
    for _ in range(2):
        trainer.train_epoch()
    trainer.save(trainer.model(), tmp_path / "model")
    images = digits.part("test")[0]
    again = demo_model.Model.load(tmp_path / "model")
    expected = np.load(tmp_path / "model" / "expected_probabilities.npy")
    assert np.array_equal(again.predict_probabilities(images), expected)
    history = np.load(tmp_path / "model" / "checkpoints.npy")
    history[1, 7] += 1
    np.save(tmp_path / "model" / "checkpoints.npy", history)
    with pytest.raises(ValueError, match="epoch 1 differs"):
        demo_model.Model.load(tmp_path / "model")
