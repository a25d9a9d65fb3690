"""What MLflow runs (projects, evaluators, deployments) logs to asyncstore's stores, and arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import asyncstore
from asyncstore.entities import Run
from tests.artifacts.test_plugins import ROOT, install

pytestmark = pytest.mark.anyio

PROJECT = """\
name: errand
entry_points:
  main:
    parameters:
      size: {type: int, default: 3}
      word: {type: string, default: none}
    command: "python train.py {size} {word}"
"""
TRAIN = """
import sys
import mlflow

size, word = int(sys.argv[1]), sys.argv[2]
with mlflow.start_run() as run:
    for step in range(size):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.set_tag("word", word)
    mlflow.log_text(f"é {word}" * size, "out/words.txt")
"""
RUN_PROJECT = """
submitted = mlflow.run(
    arguments["project"],
    env_manager="local",
    experiment_name="work",
    parameters={"size": 5, "word": "b-w"},
    backend=arguments["backend"],
    backend_config={"queue": "long"} if arguments["backend"] != "local" else None,
)
print(json.dumps([submitted.run_id, submitted.get_status()]))
"""
MODEL = """
import pandas
import mlflow.pyfunc

class Sign(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [int(value > 0) for value in model_input["x"]]

data = pandas.DataFrame({"x": [-2.0, -1.0, 1.0, 2.0], "y": [0, 1, 1, 1]})
mlflow.set_experiment("work")
"""
EVALUATE = (
    MODEL
    + """
with mlflow.start_run() as run:
    logged = mlflow.pyfunc.log_model("model", python_model=Sign())
    result = mlflow.models.evaluate(
        logged.model_uri,
        data,
        targets="y",
        model_type="classifier",
        evaluators="workshop",
        evaluator_config={"weight": 7},
    )
assert result.metrics == {"right": 3}
assert result.artifacts["right"].content == "3 of 4"
print(json.dumps(run.info.run_id))
"""
)
DEPLOY = (
    MODEL
    + """
from mlflow.deployments import get_deploy_client

with mlflow.start_run():
    logged = mlflow.pyfunc.log_model("model", python_model=Sign(), registered_model_name="sign")
client = get_deploy_client("workshop")
deployed = client.create_deployment("shed", "models:/sign/1", config={"device": "abacus"})
assert client.get_deployment("shed") == {"name": "shed"}
assert list(client.predict("shed", data[["x"]])) == [0, 0, 1, 1]
print(json.dumps(deployed["run_id"]))
"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(["workshop"], tmp_path_factory.mktemp("workshop"))


class Process:
    """A process of MLflow, in which the plugins are installed, on asyncstore's stores."""

    def __init__(self, site: Path, folder: Path) -> None:
        self._site = site
        self._folder = folder
        self.database = f"sqlite:///{folder}/mlflow.db"
        self.artifacts = f"{folder}/art ifacts"

    def __call__(self, code: str, **arguments: Any) -> Any:
        """Run code; returns what it prints last."""
        head = "import json, sys\nimport mlflow\narguments = json.loads(sys.argv[1])\n"
        done = subprocess.run(
            [sys.executable, "-c", head + code, json.dumps(arguments)],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join([str(self._site), str(ROOT)]),
                "MLFLOW_TRACKING_URI": f"asyncstore+{self.database}",
            },
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def create_experiment(self) -> None:
        location = f"asyncstore+{Path(self.artifacts).as_uri()}"
        code = "print(json.dumps(mlflow.create_experiment('work', arguments['location'])))"
        self(code, location=location)


@pytest.fixture
def mlflow_process(site: Path, tmp_path: Path) -> Process:
    process = Process(site, tmp_path)
    process.create_experiment()
    return process


async def read(process: Process, run_id: str, *paths: str) -> tuple[Run, dict[str, str]]:
    """A run and artifacts of it, through asyncstore alone."""
    async with asyncstore.Client(process.database) as client:
        run = await client.get_run(run_id)
        assert run.info.artifact_uri.startswith("asyncstore+file:///")
        repository = await client.get_artifact_repository(run.info.artifact_uri)
        content = {path: (await repository.read_bytes(path)).decode() for path in paths}
    assert run.info.status == "FINISHED"
    # It is where it should be, and not below some other root.
    below = run.info.artifact_uri.rpartition("/")[0].rpartition("/")[2]
    assert below == run_id
    return run, content


async def test_a_project(mlflow_process: Process, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text(PROJECT)
    (project / "train.py").write_text(TRAIN)
    run_id, status = mlflow_process(RUN_PROJECT, project=str(project), backend="local")
    assert status == "FINISHED"
    run, content = await read(mlflow_process, run_id, "out/words.txt")
    assert content == {"out/words.txt": "é b-w" * 5}
    assert run.data.params == {"size": "5", "word": "b-w"}
    assert run.data.metrics == {"loss": 0.2}
    assert run.data.tags["word"] == "b-w"
    assert run.data.tags["mlflow.source.type"] == "PROJECT"
    assert run.data.tags["mlflow.project.entryPoint"] == "main"
    async with asyncstore.Client(mlflow_process.database) as client:
        history = await client.get_metric_history(run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [
        (step, 1 / (step + 1)) for step in range(5)
    ]


async def test_a_project_backend(mlflow_process: Process, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text(PROJECT)
    run_id, status = mlflow_process(RUN_PROJECT, project=str(project), backend="workshop")
    assert status == "FINISHED"
    run, content = await read(mlflow_process, run_id, "out/config.json")
    assert json.loads(content["out/config.json"])["queue"] == "long"
    assert run.data.params == {"size": "5", "word": "b-w"}
    assert run.data.metrics == {"progress": 0.9}
    assert run.data.tags["workshop.entry_point"] == "main"
    assert run.data.tags["workshop.uri"] == str(project)


async def test_a_model_evaluator(mlflow_process: Process) -> None:
    run_id = mlflow_process(EVALUATE)
    run, content = await read(mlflow_process, run_id, "evaluation/right.txt")
    assert content == {"evaluation/right.txt": "3 of 4"}
    assert run.data.metrics == {"right": 3}
    assert run.data.params == {"workshop.weight": "7"}
    assert run.data.tags["workshop.model_type"] == "classifier"
    assert [found.dataset.name for found in run.inputs.dataset_inputs]


async def test_a_deployment_client(mlflow_process: Process) -> None:
    run_id = mlflow_process(DEPLOY)
    run, content = await read(mlflow_process, run_id, "deployment/model.json")
    assert json.loads(content["deployment/model.json"]) == {"flavors": ["python_function"]}
    assert run.info.run_name == "shed"
    assert run.data.params == {"model_uri": "models:/sign/1", "device": "abacus"}
    assert run.data.metrics == {"predictions": 4}
    assert run.data.tags["workshop.target"] == "workshop"
    # Of run context providers, one of which gives a number.
    assert "asyncstore.host.name" in run.data.tags
    assert run.data.tags["porch.seats"] == "4"
    async with asyncstore.Client(mlflow_process.database) as client:
        version = await client.get_model_version("sign", "1")
    assert version.status == "READY"
