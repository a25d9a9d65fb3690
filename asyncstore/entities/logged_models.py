"""Models that runs log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from asyncstore.entities.tracking import Metric

__all__ = ["LoggedModel", "LoggedModelStatus"]

LoggedModelStatus = Literal["UNSPECIFIED", "PENDING", "READY", "FAILED"]


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model that a run logged. Times are milliseconds since the epoch."""

    experiment_id: str
    model_id: str
    name: str
    artifact_location: str
    creation_timestamp: int
    last_updated_timestamp: int
    model_type: str | None = None
    source_run_id: str | None = None
    status: LoggedModelStatus = "READY"
    status_message: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()

    @property
    def model_uri(self) -> str:
        """`models:/<model id>`."""
        return f"models:/{self.model_id}"
