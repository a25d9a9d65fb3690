"""The example that is an MLflow script does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

from tests.artifacts.test_plugins import ROOT


def test_mlflow_on_asyncstore(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "mlflow_on_asyncstore.py")],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("digits")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("asyncstore+file:///")
    assert [each.step for each in client.get_metric_history(run.info.run_id, "accuracy")] == list(
        range(20)
    )
    accuracy = run.data.metrics["accuracy"]
    assert accuracy > 0.9
    assert run.data.params["epochs"] == "20"
    assert list((tmp_path / "artifacts").rglob("params.json"))
    assert list((tmp_path / "artifacts").rglob("MLmodel"))
    said = done.stdout.splitlines()[-1]
    assert said.endswith(f"best run {run.info.run_id}: {accuracy:.3f}")
