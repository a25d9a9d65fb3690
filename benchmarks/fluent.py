"""Who runs a script of MLflow's fluent API: the same script, by other URIs."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FLUENT_CASES", "asyncstore", "mlflow"]

# A task: "uri" of the database, "artifacts" root, "what" to do, how often, "local" files.
Task = dict[str, Any]

# What is done, how often (a tenth with --quick), whether S3 is 20 ms away, and in words.
FLUENT_CASES = {
    "log-artifacts": (1, "log_artifacts of 1,000 files to S3, 20 ms round trip"),
    "log-model": (1, "pyfunc.log_model of a model of 50 files to S3, 20 ms round trip"),
    "load-model": (1, "download and load that model"),
    "async-metrics": (10_000, "10,000 log_metric(synchronous=False), to flushed"),
    "log-metric": (300, "300 log_metric"),
    "runs": (50, "50 runs, each with 5 params, 5 metrics and a tag"),
    "search-runs": (50_000, "search_runs of 50,000 runs, 20 metrics and 20 params each, to pandas"),
}
MODEL_FILES = 45


@contextlib.contextmanager
def asyncstore(task: Task) -> Iterator[Callable[[], None]]:
    prefixed = {key: f"asyncstore+{task[key]}" for key in ("uri", "artifacts")}
    with _script({**task, **prefixed}) as work:
        yield work


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    with _script(task) as work:
        yield work


@contextlib.contextmanager
def _script(task: Task) -> Iterator[Callable[[], None]]:
    import mlflow

    mlflow.set_tracking_uri(task["uri"])
    mlflow.create_experiment("measured", task["artifacts"])
    mlflow.set_experiment("measured")
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run():
        work = _Work(task, Path(folder))
        # Imports, connections, statements that are prepared once.
        mlflow.log_text("warm", "warm.txt")
        mlflow.log_metric("warm", 1)
        mlflow.log_metric("warm", 2, synchronous=False)
        mlflow.flush_async_logging()
        mlflow.search_runs(max_results=1)
        method = getattr(work, task["what"].replace("-", "_"))
        prepare = getattr(work, f"prepare_{method.__name__}", None)
        if prepare is not None:
            prepare()
        yield method


class _Work:
    """One method for each thing to do."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder

    def log_artifacts(self) -> None:
        import mlflow

        mlflow.log_artifacts(self.task["local"], "many")

    def prepare_log_model(self) -> None:
        import mlflow.pyfunc

        files = self.folder / "files"
        files.mkdir()
        for number in range(MODEL_FILES):
            (files / f"{number}.bin").write_bytes(bytes(10 * 1024))

        class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow has no types here
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return model_input

        self.model = Model()

    def log_model(self) -> str:
        import mlflow.pyfunc

        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=self.model,
            artifacts={"files": str(self.folder / "files")},
            pip_requirements=[],
        )
        return str(logged.model_uri)

    def prepare_load_model(self) -> None:
        self.prepare_log_model()
        self.uri = self.log_model()

    def load_model(self) -> None:
        import mlflow.pyfunc

        assert mlflow.pyfunc.load_model(self.uri).predict([1]) == [1]

    def async_metrics(self) -> None:
        import mlflow

        for number in range(self.task["count"]):
            mlflow.log_metric("loss", number, step=number, synchronous=False)
        mlflow.flush_async_logging()

    def log_metric(self) -> None:
        import mlflow

        for number in range(self.task["count"]):
            mlflow.log_metric("loss", number, step=number)

    def runs(self) -> None:
        import mlflow

        for number in range(self.task["count"]):
            with mlflow.start_run(nested=True):
                mlflow.log_params({f"p{n}": n for n in range(5)})
                mlflow.log_metrics({f"m{n}": n / number if number else 0 for n in range(5)})
                mlflow.set_tag("kind", "measured")

    def search_runs(self) -> None:
        import mlflow

        found = mlflow.search_runs(["77"], max_results=self.task["count"])
        assert len(found) == self.task["count"]
