"""The values that stores and repositories take and return, named as in `mlflow.entities`."""

from __future__ import annotations

from asyncstore.entities.datasets import (
    Dataset,
    DatasetInput,
    DatasetSummary,
    LoggedModelInput,
    LoggedModelOutput,
    RunInputs,
    RunOutputs,
)
from asyncstore.entities.deletion import ArtifactOwner, ArtifactOwnerKind
from asyncstore.entities.logged_models import LoggedModel, LoggedModelStatus
from asyncstore.entities.registry import (
    ModelVersion,
    ModelVersionStage,
    Prompt,
    PromptVersion,
    RegisteredModel,
)
from asyncstore.entities.tracking import (
    Experiment,
    FileInfo,
    LifecycleStage,
    Metric,
    MetricWithRunId,
    PagedList,
    Param,
    Run,
    RunData,
    RunInfo,
    RunStatus,
    ViewType,
)

__all__ = [
    "ArtifactOwner",
    "ArtifactOwnerKind",
    "Dataset",
    "DatasetInput",
    "DatasetSummary",
    "Experiment",
    "FileInfo",
    "LifecycleStage",
    "LoggedModel",
    "LoggedModelInput",
    "LoggedModelOutput",
    "LoggedModelStatus",
    "Metric",
    "MetricWithRunId",
    "ModelVersion",
    "ModelVersionStage",
    "PagedList",
    "Param",
    "Prompt",
    "PromptVersion",
    "RegisteredModel",
    "Run",
    "RunData",
    "RunInfo",
    "RunInputs",
    "RunOutputs",
    "RunStatus",
    "ViewType",
]
