"""The values that stores and repositories take and return, named as in `mlflow.entities`."""

from __future__ import annotations

from asyncstore.entities.deletion import ArtifactOwner, ArtifactOwnerKind
from asyncstore.entities.tracking import (
    Experiment,
    FileInfo,
    LifecycleStage,
    Metric,
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
    "Experiment",
    "FileInfo",
    "LifecycleStage",
    "Metric",
    "PagedList",
    "Param",
    "Run",
    "RunData",
    "RunInfo",
    "RunStatus",
    "ViewType",
]
