"""What runs things for MLflow, in the forms of MLflow's own test plugin."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import mlflow
from mlflow.deployments import BaseDeploymentClient
from mlflow.entities import RunStatus
from mlflow.models.evaluation import EvaluationArtifact, EvaluationResult, ModelEvaluator
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.submitted_run import SubmittedRun
from mlflow.tracking import MlflowClient


class Errand(SubmittedRun):  # type: ignore[misc]  # MLflow has no types here
    """A run in a thread of this process."""

    def __init__(self, run_id: str, work: Any) -> None:
        super().__init__()
        self._run_id = run_id
        self._work = work
        self._status = RunStatus.RUNNING
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
            self._status = RunStatus.FINISHED
        except BaseException:
            self._status = RunStatus.FAILED
            raise

    @property
    def run_id(self) -> str:
        return self._run_id

    def wait(self) -> bool:
        self._thread.join()
        return bool(self._status == RunStatus.FINISHED)

    def get_status(self) -> str:
        return str(RunStatus.to_string(self._status))

    def cancel(self) -> None:
        raise NotImplementedError


class Backend(AbstractBackend):  # type: ignore[misc]  # as above
    """Logs what it was asked to run instead of running it."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, Any],
        version: str | None,
        backend_config: dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> Errand:
        client = MlflowClient(tracking_uri)
        run_id = client.create_run(experiment_id, tags={"workshop.uri": project_uri}).info.run_id

        def work() -> None:
            for key, value in params.items():
                client.log_param(run_id, key, value)
            for step in range(10):
                client.log_metric(run_id, "progress", step / 10, step=step)
            client.set_tag(run_id, "workshop.entry_point", entry_point)
            client.log_text(run_id, json.dumps(backend_config, sort_keys=True), "out/config.json")
            client.set_terminated(run_id)

        return Errand(run_id, work)


class Count(EvaluationArtifact):  # type: ignore[misc]  # as above
    def _save(self, output_artifact_path: str) -> None:
        Path(output_artifact_path).write_text(str(self._content))

    def _load_content_from_file(self, local_artifact_path: str) -> Any:
        return Path(local_artifact_path).read_text()


class Evaluator(ModelEvaluator):  # type: ignore[misc]  # as above
    """Counts the right predictions, and logs that."""

    def can_evaluate(self, *, model_type: str, evaluator_config: Any, **_: Any) -> bool:
        return model_type in ("classifier", "regressor")

    def evaluate(
        self, *, model_type: str, dataset: Any, run_id: str, evaluator_config: Any, **given: Any
    ) -> EvaluationResult:
        model = given["model"]
        predicted = model.predict(dataset.features_data)
        right = sum(int(a == b) for a, b in zip(predicted, dataset.labels_data, strict=True))
        client = MlflowClient()
        client.log_metric(run_id, "right", right)
        client.log_param(run_id, "workshop.weight", evaluator_config["weight"])
        client.set_tag(run_id, "workshop.model_type", model_type)
        client.log_text(run_id, f"{right} of {len(predicted)}", "evaluation/right.txt")
        artifact = Count(
            uri=mlflow.get_artifact_uri("evaluation/right.txt"),
            content=f"{right} of {len(predicted)}",
        )
        return EvaluationResult(metrics={"right": right}, artifacts={"right": artifact})


class Deployments(BaseDeploymentClient):  # type: ignore[misc]  # as above
    """Deploys a model by downloading it, and writes a run about each step."""

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: dict[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        model = mlflow.pyfunc.load_model(model_uri)
        with mlflow.start_run(run_name=name) as run:
            mlflow.log_params({"model_uri": model_uri, **(config or {})})
            mlflow.log_dict({"flavors": sorted(model.metadata.flavors)}, "deployment/model.json")
            mlflow.set_tag("workshop.target", self.target_uri)
        return {"name": name, "flavor": flavor, "run_id": run.info.run_id}

    def update_deployment(self, name: str, *_: Any, **__: Any) -> dict[str, Any]:
        raise NotImplementedError

    def delete_deployment(self, name: str, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        found = mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"tags.`workshop.target` = '{self.target_uri}'",
            output_format="list",
        )
        return [{"name": run.info.run_name} for run in found]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        return next(found for found in self.list_deployments() if found["name"] == name)

    def predict(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
    ) -> Any:
        found = mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"run_name = '{deployment_name}'",
            output_format="list",
        )[0]
        predicted = mlflow.pyfunc.load_model(found.data.params["model_uri"]).predict(inputs)
        MlflowClient().log_metric(found.info.run_id, "predictions", len(predicted))
        return predicted


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Any = None) -> None:
    raise NotImplementedError


def target_help() -> str:
    return "workshop: nothing to configure"
