"""What deletion for good needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asyncstore.entities.tracking import LifecycleStage

__all__ = ["ArtifactOwner", "ArtifactOwnerKind"]

ArtifactOwnerKind = Literal["run", "logged_model", "trace"]


@dataclass(frozen=True, slots=True)
class ArtifactOwner:
    """A run, a logged model or a trace, with the place of its artifacts.

    Args:
        kind: Which of them.
        id: Its id.
        lifecycle_stage: `deleted` or `active`; a trace is always active.
        deleted_time: When it was deleted, in milliseconds since the epoch, or last changed, for a
            logged model; None when nobody wrote it down.
        artifact_uri: Where its artifacts are; None when it has none.
    """

    kind: ArtifactOwnerKind
    id: str
    lifecycle_stage: LifecycleStage
    deleted_time: int | None
    artifact_uri: str | None
