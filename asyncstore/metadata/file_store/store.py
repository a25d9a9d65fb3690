"""The file store put together: experiments, runs, logged models, traces and the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata.file_store import logged_models, registry, runs, traces
from asyncstore.metadata.file_store.entries import Entry
from asyncstore.metadata.file_store.files import (
    META,
    MalformedError,
    Warn,
    absolute_uri,
    directories,
    integer,
    meta,
    one_of,
    text,
    texts,
)

__all__ = ["FileStore"]

TRASH = ".trash"
MODELS = "models"
# Directories of an experiment that are no runs.
RESERVED = frozenset({"tags", "datasets", "traces", MODELS})


class FileStore:
    """A directory that MLflow's file store wrote. Nothing in it is ever changed.

    Its methods read files and so block: call them in a worker thread. Entries that are malformed,
    such as those that a killed process left without a `meta.yaml`, are left out with a warning that
    names them, and so are single params, tags and metric values.

    Args:
        root: The directory, such as `./mlruns`.
        warn: Gets a line for each entry that is left out; called in the thread that reads.

    Raises:
        NotFoundError: The directory does not exist.
        InvalidParameterError: It is no directory, or nothing that MLflow's file store wrote.
    """

    def __init__(self, root: Path, warn: Warn) -> None:
        self.root = root.absolute()
        self._warn = warn
        # MLflow wrote relative locations as seen from where it ran, and `./mlruns` was there too.
        self._base = self.root.parent
        if not self.root.exists():
            raise NotFoundError(f"{root} does not exist")
        if not self.root.is_dir():
            raise InvalidParameterError(f"{root} is not a directory")
        if not self._is_file_store():
            raise InvalidParameterError(
                f"{root} is not a directory of MLflow's file store: no experiment is in it, no "
                f"{TRASH} and no {MODELS}"
            )

    def _is_file_store(self) -> bool:
        return any(
            path.name in (TRASH, MODELS) or (path / META).exists()
            for path in directories(self.root)
        )

    def experiments(self) -> Iterator[Entry]:
        """Every experiment, the active ones first.

        Yields:
            Rows of `experiments` and `experiment_tags`.
        """
        for parent, stage in ((self.root, "active"), (self.root / TRASH, "deleted")):
            for directory in directories(parent):
                if parent == self.root and directory.name in (TRASH, MODELS):
                    continue
                try:
                    yield self._experiment(directory, stage)
                except (MalformedError, OSError) as error:
                    self._left_out("experiment", directory, error)

    def _experiment(self, directory: Path, stage: str) -> Entry:
        values = meta(directory)
        number = _experiment_id(values)
        if str(number) != directory.name:
            raise MalformedError(f"says that it is experiment {number}")
        name = text(values, "name")
        if not name:
            raise MalformedError("has no name")
        location = text(values, "artifact_location") or (self.root / str(number)).as_uri()
        moved_to: dict[str, str] = {}
        if stage == "deleted":
            # What lay in the experiment's directory was moved with it.
            before = self.root / directory.name
            moved_to = {before.as_uri(): directory.as_uri(), str(before): str(directory)}
        row: dict[str, Any] = {
            "experiment_id": number,
            "name": name,
            "artifact_location": absolute_uri(location, self._base),
            "lifecycle_stage": one_of(values, "lifecycle_stage", runs.STAGES, stage),
            "creation_time": integer(values, "creation_time"),
            "last_update_time": integer(values, "last_update_time"),
        }
        tags = texts(directory / "tags", self._warn)
        rows = {
            "experiments": [row],
            "experiment_tags": [
                {"experiment_id": number, "key": key, "value": tags[key]} for key in tags
            ],
        }
        return Entry("experiment", name, directory, rows, moved_to)

    def count_runs(self) -> int:
        """How many runs there are, about: nothing but names is looked at."""
        return sum(
            len(self._run_directories(experiment))
            for parent in (self.root, self.root / TRASH)
            for experiment in directories(parent)
            if experiment.name not in (TRASH, MODELS)
        )

    def _run_directories(self, experiment: Path) -> list[Path]:
        return [path for path in directories(experiment) if path.name not in RESERVED]

    def runs(self, experiment: Entry) -> Iterator[Entry]:
        """The runs of an experiment, with everything but their metrics.

        Args:
            experiment: One of `experiments`.

        Yields:
            Rows of `runs`, `params`, `tags`, `datasets`, `inputs` and `input_tags`.
        """
        for directory in self._run_directories(experiment.directory):
            try:
                yield runs.read_run(directory, experiment, self._base, self._warn)
            except (MalformedError, OSError) as error:
                self._left_out("run", directory, error)

    def metrics(self, run: Entry) -> Iterator[dict[str, Any]]:
        """Every value of every metric of a run, read line by line.

        Args:
            run: One of `runs`.

        Yields:
            Rows of `metrics`.
        """
        return runs.read_metrics(run, self._warn)

    def logged_models(self, experiment: Entry) -> Iterator[Entry]:
        """The logged models of an experiment, with everything but their metrics.

        Yields:
            Rows of `logged_models`, `logged_model_params` and `logged_model_tags`.
        """
        for directory in directories(experiment.directory / MODELS):
            try:
                yield logged_models.read_model(directory, experiment, self._base, self._warn)
            except (MalformedError, OSError) as error:
                self._left_out("logged model", directory, error)

    def logged_model_metrics(self, model: Entry) -> Iterator[dict[str, Any]]:
        """Every value of every metric of a logged model.

        Yields:
            Rows of `logged_model_metrics`.
        """
        return logged_models.read_metrics(model, self._warn)

    def traces(self, experiment: Entry) -> Iterator[Entry]:
        """The traces of an experiment with their assessments; spans are artifacts and stay there.

        Yields:
            Rows of `trace_info`, `trace_tags`, `trace_request_metadata` and `assessments`.
        """
        for directory in directories(experiment.directory / "traces"):
            try:
                yield traces.read_trace(directory, experiment, self._base, self._warn)
            except (MalformedError, OSError) as error:
                self._left_out("trace", directory, error)

    def registered_models(self) -> Iterator[Entry]:
        """The registered models with their versions, prompts among them.

        Yields:
            Rows of `registered_models`, `registered_model_tags`, `model_versions`,
            `model_version_tags` and `registered_model_aliases`.
        """
        for directory in directories(self.root / MODELS):
            try:
                yield registry.read_model(directory, self._base, self._warn)
            except (MalformedError, OSError) as error:
                self._left_out("registered model", directory, error)

    def _left_out(self, kind: str, directory: Path, error: Exception) -> None:
        self._warn(f"{kind} {os.fspath(directory)}: {error}; left out")


def _experiment_id(values: dict[str, Any]) -> int:
    number = integer(values, "experiment_id")
    if number is None:
        raise MalformedError("has no experiment_id")
    return number
