"""Experiments, runs and what runs log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from asyncstore.entities.datasets import RunInputs, RunOutputs

__all__ = [
    "Experiment",
    "FileInfo",
    "LifecycleStage",
    "Metric",
    "MetricWithRunId",
    "PagedList",
    "Param",
    "Run",
    "RunData",
    "RunInfo",
    "RunStatus",
    "ViewType",
]

T = TypeVar("T")

LifecycleStage = Literal["active", "deleted"]
RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
ViewType = Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of an artifact listing.

    Args:
        path: POSIX path relative to the repository's root.
        is_dir: Whether it is a directory.
        file_size: Size in bytes; None for a directory.
        etag: The storage's mark of this very content; None where it has none.
    """

    path: str
    is_dir: bool
    file_size: int | None
    etag: str | None = field(default=None, compare=False, repr=False)


# Not frozen, as the others are: histories have hundreds of thousands, and that takes twice as long.
@dataclass(unsafe_hash=True, slots=True)
class Metric:
    """One value of a metric.

    Args:
        key: Name, at most 250 characters.
        value: The value; NaN and the infinities are allowed.
        timestamp: Milliseconds since the epoch.
        step: The training step.
        model_id: The logged model that it is about, besides the run; None for none.
        dataset_name: The dataset that it was measured on; None for none.
        dataset_digest: The dataset's digest; given if and only if the name is.
        run_id: The run that logged it, where a logged model's metrics are read; None otherwise.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


@dataclass(unsafe_hash=True, slots=True)
class MetricWithRunId(Metric):
    """One value of a metric, with the run that logged it."""

    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a run, immutable once logged.

    Args:
        key: Name, at most 250 characters.
        value: Text, at most 6,000 characters.
    """

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment. Times are milliseconds since the epoch."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: LifecycleStage
    tags: dict[str, str] = field(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What identifies a run, and its state. Times are milliseconds since the epoch."""

    run_id: str
    run_name: str
    experiment_id: str
    user_id: str
    status: RunStatus
    start_time: int | None
    end_time: int | None
    lifecycle_stage: LifecycleStage
    artifact_uri: str


@dataclass(frozen=True, slots=True)
class RunData:
    """What was logged to a run.

    Args:
        metrics: The latest value of each metric.
        params: Every parameter.
        tags: Every tag.
        latest_metrics: `metrics` with timestamp and step.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    latest_metrics: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its `info`, its `data`, and the datasets and models that it read and made."""

    info: RunInfo
    data: RunData
    inputs: RunInputs = field(default_factory=RunInputs)
    outputs: RunOutputs = field(default_factory=RunOutputs)


class PagedList(list[T]):
    """A page of results.

    Args:
        items: The results of this page.
        token: Pass it as `page_token` for the next page; None on the last page.
    """

    def __init__(self, items: Iterable[T] = (), token: str | None = None) -> None:
        super().__init__(items)
        self.token = token
