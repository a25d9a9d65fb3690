"""`asyncstore demo`: a real training run, stored from its first parameter to its last byte.

Three networks learn scikit-learn's handwritten digits at once, each in a worker thread, while the
event loop awaits every log call. The best one is then found by a search, downloaded to a new place,
and asked to predict again.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from asyncstore import uris
from asyncstore.client import ActiveRun, Client
from asyncstore.concurrency import in_own_task, shielded, task_group
from asyncstore.entities import Experiment, Feedback, Run, Span
from asyncstore.errors import (
    AlreadyExistsError,
    IntegrityError,
    InvalidParameterError,
    MissingDependencyError,
)

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

    from asyncstore import demo_model

__all__ = ["Report", "run_demo"]

EXPERIMENT = "asyncstore demo"
REGISTERED_MODEL = "asyncstore-demo-digits"
ALIAS = "best"
# Batches of predictions that are traced, and images in each.
TRACES = 5
BATCH = 20
LEARNING_RATES = (0.0003, 0.001, 0.003)
CLEANUP_WITHIN = 30.0


@dataclass
class Report:
    """What the demo stored and how fast. Sizes in bytes, times in seconds.

    Args:
        experiment: Where the runs are.
        parent: The parent run.
        best: The run that the search found.
        search: The filter of that search.
        files: Files uploaded.
        uploaded: Bytes uploaded.
        upload_seconds: Time of the uploads.
        downloaded: Bytes of the best model.
        download_seconds: Time of its download.
        metrics: Metric values logged.
        log_seconds: Time of each awaited log call.
        predictions: Predictions that were the same after the download.
        accuracy: Share of them that is right.
        model_version: The version of the registered model that the best one became.
        traces: Batches of predictions that were traced.
    """

    experiment: Experiment
    parent: ActiveRun
    best: Run | None = None
    search: str = ""
    files: int = 0
    uploaded: int = 0
    upload_seconds: float = 0.0
    downloaded: int = 0
    download_seconds: float = 0.0
    metrics: int = 0
    log_seconds: list[float] = field(default_factory=list)
    predictions: int = 0
    accuracy: float = 0.0
    model_version: int = 0
    traces: int = 0

    @property
    def median_log_seconds(self) -> float:
        """What a training loop waits for one log call, in the middle of all."""
        return statistics.median(self.log_seconds)


# Makes an fsspec callback for an activity of that name, counted in that unit.
Progress = Callable[[str, str], AbstractContextManager["Callback"]]
T = TypeVar("T")


async def run_demo(
    client: Client,
    *,
    experiment_name: str = EXPERIMENT,
    artifact_location: str | None = None,
    epochs: int = 300,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """Train, log, search, download, and prove that the model came back whole.

    Args:
        client: Where to store.
        experiment_name: The experiment, made if it does not exist.
        artifact_location: The root that the client was given; None for its default.
        epochs: Epochs of each of the three runs. 300 make a checkpoint history of 68 MiB.
        say: Told what happens, a line at a time.
        progress: Makes an fsspec callback for an activity of that name and unit.

    Returns:
        The figures.

    Raises:
        MissingDependencyError: scikit-learn or another library of the demo is not installed.
        InvalidParameterError: The experiment exists and keeps its artifacts elsewhere.
        IntegrityError: The downloaded model does not predict the same.

    A cancellation leaves the runs KILLED.
    """
    experiment = await client.get_or_create_experiment(experiment_name)
    _check_location(experiment, artifact_location)
    say("importing scikit-learn")
    model = await _in_thread(_import_model)
    digits = await _in_thread(model.load_digits)
    say(
        f"{len(digits.images)} images of handwritten digits; {len(LEARNING_RATES)} networks "
        f"learn from them at once, {epochs} epochs each"
    )

    async def work() -> Report:
        async with _workspace() as workspace:
            with await _in_thread(model.one_thread_each):
                async with client.start_run(
                    experiment_id=experiment.experiment_id, run_name="digits"
                ) as parent:
                    report = Report(experiment, parent)
                    demo = _Demo(model, digits, workspace, epochs, progress, report)
                    await demo.train_all()
                    await demo.find_and_check(client)
                    return report

    return await in_own_task(work)


@asynccontextmanager
async def _workspace() -> AsyncGenerator[Path]:
    """A temporary directory that is gone afterwards, also after a cancellation."""
    directory = Path(await _in_thread(lambda: tempfile.mkdtemp(prefix="asyncstore-demo-")))
    try:
        yield directory
    finally:
        await shielded(
            lambda: _in_thread(lambda: shutil.rmtree(directory, ignore_errors=True)),
            within=CLEANUP_WITHIN,
        )


class _Demo:
    def __init__(
        self,
        model: Any,
        digits: demo_model.Digits,
        workspace: Path,
        epochs: int,
        progress: Progress,
        report: Report,
    ) -> None:
        self._model = model
        self._digits = digits
        self._workspace = workspace
        self._epochs = epochs
        self._progress = progress
        self._one_at_a_time = anyio.Lock()
        self.report = report

    async def train_all(self) -> None:
        parent = self.report.parent
        await parent.log_params(
            {
                "dataset": "sklearn.datasets.load_digits",
                "images": len(self._digits.images),
                "learning_rates": ", ".join(str(rate) for rate in LEARNING_RATES),
                "epochs": self._epochs,
            }
        )
        await parent.set_tags({"purpose": "demo", "model": "multilayer perceptron"})
        table = self._workspace / "digits.parquet"
        await _in_thread(lambda: self._digits.write_parquet(table))
        await self._upload(parent, table, "dataset")
        with self._progress("training", "epochs") as callback:
            callback.set_size(len(LEARNING_RATES) * self._epochs)
            async with task_group() as tasks:
                for rate in LEARNING_RATES:
                    tasks.start_soon(self._train_one, rate, callback)

    async def _train_one(self, learning_rate: float, callback: Callback) -> None:
        name = f"learning rate {learning_rate}"
        async with self.report.parent.start_run(
            run_name=name, tags={"model": "multilayer perceptron"}
        ) as run:
            trainer = await _in_thread(
                lambda: self._model.Trainer(self._digits, learning_rate, self._epochs)
            )
            await run.log_params(trainer.params)
            for epoch in range(self._epochs):
                await self._log(run, await _in_thread(trainer.train_epoch), epoch)
                callback.relative_update(1)
            model = await _in_thread(trainer.model)
            accuracy = await _in_thread(lambda: self._accuracy(model))
            await self._log(run, {"test_accuracy": accuracy}, self._epochs - 1)
            here = self._workspace / run.run_id
            await _in_thread(lambda: trainer.save(model, here / "model"))
            picture = here / "confusion_matrix.png"
            await _in_thread(lambda: trainer.draw_confusion_matrix(model, picture))
            await self._upload(run, picture)
            await self._upload(run, here / "model", "model")

    async def _log(self, run: ActiveRun, metrics: dict[str, float], step: int) -> None:
        started = time.perf_counter()
        await run.log_metrics(metrics, step=step)
        self.report.log_seconds.append(time.perf_counter() - started)
        self.report.metrics += len(metrics)

    async def _upload(self, run: ActiveRun, path: Path, artifact_path: str | None = None) -> None:
        sizes = await _in_thread(lambda: _sizes(path))
        # Uploads of several runs could run at once; in turn, their speed can be told.
        async with self._one_at_a_time:
            started = time.perf_counter()
            with self._progress(f"upload {path.name}", "bytes") as callback:
                if artifact_path is not None and len(sizes) > 1:
                    await run.log_artifacts(path, artifact_path, callback=callback)
                else:
                    await run.log_artifact(path, artifact_path, callback=callback)
            self.report.upload_seconds += time.perf_counter() - started
        self.report.files += len(sizes)
        self.report.uploaded += sum(sizes)

    async def find_and_check(self, client: Client) -> None:
        """Find the best run, download its model, and compare its predictions."""
        report = self.report
        report.search = (
            f"tags.`mlflow.parentRunId` = '{report.parent.run_id}' "
            "AND attributes.status = 'FINISHED' AND metrics.validation_accuracy > 0.2"
        )
        found = await client.search_runs(
            [report.experiment.experiment_id],
            report.search,
            max_results=1,
            order_by=["metrics.validation_loss ASC"],
        )
        if not found:
            raise InvalidParameterError("no run learned anything; give it more epochs")
        report.best = best = found[0]
        new_place = self._workspace / "downloaded"
        started = time.perf_counter()
        with self._progress("download model", "bytes") as callback:
            directory = await client.download_artifacts(
                best.info.run_id, "model", new_place, callback=callback
            )
        report.download_seconds = time.perf_counter() - started
        report.downloaded = sum(await _in_thread(lambda: _sizes(Path(directory))))
        model = await _in_thread(lambda: self._check(best.info.run_id, Path(directory)))
        await report.parent.set_tag("best_run_id", best.info.run_id)
        await self._register(client, best)
        await self._trace_predictions(client, best, model)

    async def _register(self, client: Client, best: Run) -> None:
        """The best model becomes the latest version of a registered one, with an alias."""
        with suppress(AlreadyExistsError):
            await client.create_registered_model(
                REGISTERED_MODEL, description="The best of the networks that the demo trained."
            )
        version = await client.create_model_version(
            REGISTERED_MODEL, f"{best.info.artifact_uri}/model", best.info.run_id
        )
        await client.set_registered_model_alias(REGISTERED_MODEL, ALIAS, version.version)
        self.report.model_version = version.version

    async def _trace_predictions(self, client: Client, best: Run, model: demo_model.Model) -> None:
        """Each batch of predictions is a trace with a span for what the network did."""
        images, labels = self._digits.part("test")
        trace_ids = []
        for first in range(0, TRACES * BATCH, BATCH):
            some = images[first : first + BATCH]
            trace_id, start = f"tr-{uuid.uuid4().hex}", time.time_ns()
            found = await _in_thread(partial(model.predict_probabilities, some))
            digits, wanted = found.argmax(axis=1).tolist(), labels[first : first + BATCH].tolist()
            root = Span(
                trace_id,
                uuid.uuid4().hex[:16],
                "predict",
                start,
                time.time_ns(),
                span_type="CHAIN",
                inputs={"images": len(digits)},
                outputs={"digits": digits},
                status="OK",
            )
            network = replace(
                root,
                span_id=uuid.uuid4().hex[:16],
                parent_id=root.span_id,
                name="network",
                span_type="UNKNOWN",
            )
            await client.log_spans(self.report.experiment.experiment_id, [root, network])
            right = Feedback(name="all_right", value=digits == wanted)
            await client.log_assessment(trace_id, right)
            trace_ids.append(trace_id)
        await client.link_traces_to_run(trace_ids, best.info.run_id)
        self.report.traces = len(trace_ids)

    def _check(self, run_id: str, downloaded: Path) -> demo_model.Model:
        """Blocks."""
        trained = self._workspace / run_id / "model"
        try:
            again: demo_model.Model = self._model.Model.load(downloaded)
        except ValueError as error:
            raise IntegrityError(f"the downloaded model is damaged: {error}") from error
        images, labels = self._digits.part("test")
        probabilities = again.predict_probabilities(images)
        if not self._model.same_as_expected(trained, probabilities):
            raise IntegrityError("the downloaded model predicts something else")
        self.report.predictions = len(labels)
        self.report.accuracy = self._accuracy(again)
        return again

    def _accuracy(self, model: demo_model.Model) -> float:
        images, labels = self._digits.part("test")
        return float((model.predict_probabilities(images).argmax(axis=1) == labels).mean())


async def _in_thread(call: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(call)


def _sizes(path: Path) -> list[int]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [file.stat().st_size for file in files]


def _check_location(experiment: Experiment, root: str | None) -> None:
    """An experiment that exists keeps its artifacts where they are, whatever the person asks."""
    if root is None or uris.scheme_of(root) == "":
        here = str(Path(root).absolute()) if root else None
    else:
        here = root
    if here is not None and not experiment.artifact_location.startswith(here.rstrip("/") + "/"):
        raise InvalidParameterError(
            f"the experiment {experiment.name!r} exists and keeps its artifacts in "
            f"{uris.redact(experiment.artifact_location)}; choose another name with --experiment"
        )


def _import_model() -> Any:
    """Takes seconds: scikit-learn, pandas and matplotlib come along."""
    try:
        return import_module("asyncstore.demo_model")
    except ImportError as error:
        raise MissingDependencyError(
            f"the demo needs the library {error.name}; run: pip install 'asyncstore[demo]'"
        ) from error
