"""What the file store holds, as rows of MLflow's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Rows"]

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """An experiment, a run, a logged model, a trace or a registered model.

    Args:
        kind: Which of them, in words.
        name: Its id or its name.
        directory: Where it lies.
        rows: Rows by table, parents before children. The experiment's id is the file store's.
        moved_to: The experiment's directory in `.trash`, by the URI that it had before it was
            deleted; empty for an experiment that is not deleted.
    """

    kind: str
    name: str
    directory: Path
    rows: Rows
    moved_to: Mapping[str, str] = field(default_factory=dict)
