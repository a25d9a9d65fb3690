"""Datasets, and what a run reads and makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "Dataset",
    "DatasetInput",
    "DatasetSummary",
    "LoggedModelInput",
    "LoggedModelOutput",
    "RunInputs",
    "RunOutputs",
]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset; an experiment has one for each name and digest.

    Args:
        name: At most 500 characters.
        digest: Tells versions apart; at most 36 characters.
        source_type: Such as `local` or `s3`.
        source: Where it is, as JSON; at most 65,535 characters.
        schema: Its columns, as JSON; at most 1,048,575 characters. None for not known.
        profile: Statistics, as JSON; at most 16,777,215 characters. None for not known.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A dataset that a run read.

    Args:
        dataset: The dataset.
        tags: Keys up to 255 characters, values up to 500; `mlflow.data.context` says what for.
    """

    dataset: Dataset
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset of an experiment, and what a run used it for; None for no such tag."""

    experiment_id: str
    name: str
    digest: str
    context: str | None


@dataclass(frozen=True, slots=True)
class LoggedModelInput:
    """A logged model that a run read."""

    model_id: str


@dataclass(frozen=True, slots=True)
class LoggedModelOutput:
    """A logged model that a run made, and the training step it made it at."""

    model_id: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What a run read."""

    dataset_inputs: tuple[DatasetInput, ...] = ()
    model_inputs: tuple[LoggedModelInput, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """What a run made."""

    model_outputs: tuple[LoggedModelOutput, ...] = ()
