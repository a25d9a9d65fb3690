"""What MLflow returns, as JSON without what differs from one run of a program to the next."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient

__all__ = ["Day", "fails", "tree"]

ID = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})(?![0-9a-f])")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d:?\d\d|Z)?")
# How long something took, and the sizes of texts that say it.
NOT_COMPARED = {
    *("execution_time_ms", "execution_duration"),
    *("mlflow.trace.sizeBytes", "mlflow.trace.sizeStats"),
}


class Comparable:
    """Values without what no two runs of the script share.

    Ids are numbered in the order in which they appear, times and paths are words.
    """

    def __init__(self, root: str) -> None:
        self._ids: dict[str, str] = {}
        # With asyncstore's prefix: that is the switch itself.
        self._places = [(root.rstrip("/"), "<root>"), (str(Path.cwd()), "<here>")]

    def __call__(self, value: Any) -> Any:
        """A value as JSON has it."""
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self(value.value)
        if isinstance(value, int | np.integer):
            # Moments in milliseconds or nanoseconds.
            return "<time>" if value > 1_500_000_000_000 else int(value)
        if isinstance(value, float | np.floating):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, bytes):
            return f"<{len(value)} bytes>"
        if isinstance(value, pd.DataFrame):
            rows = value.astype(object).where(value.notna(), None).to_dict("records")
            # The columns of MLflow's searches are in the order of a set.
            return {"columns": sorted(map(str, value.columns)), "rows": self(rows)}
        if isinstance(value, Mapping):
            return {
                self(str(key)): self(each) for key, each in value.items() if key not in NOT_COMPARED
            }
        if isinstance(value, list | tuple | np.ndarray | set | frozenset):
            each = sorted(value) if isinstance(value, set | frozenset) else value
            return [self(one) for one in each]
        return self(self._parts(value))

    def _parts(self, value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if hasattr(value, "_properties"):
            return dict(value)
        if hasattr(value, "to_dictionary"):
            return value.to_dictionary()
        return str(value)

    def _text(self, value: str) -> str:
        # MLflow joins URIs with urllib, which leaves out an empty host of schemes that it does not
        # know; both spellings mean the same.
        value = re.sub(r"^asyncstore\+file:/(?!/)", "asyncstore+file:///", value)
        for place, word in self._places:
            value = value.replace(place, word)
        value = MOMENT.sub("<time>", value).removeprefix("asyncstore+")
        return ID.sub(
            lambda found: self._ids.setdefault(found[0], f"<id {len(self._ids) + 1}>"), value
        )


class Day:
    """What was got, in order."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.comparable = Comparable(root)
        self.results: list[list[Any]] = []
        self._chapter = ""

    def chapter(self, name: str) -> None:
        self._chapter = name

    def got(self, name: str, value: Any) -> None:
        self.results.append([self.comparable(f"{self._chapter}: {name}"), self.comparable(value)])

    def tried(self, name: str, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """What a call returned, or its error by its code."""
        try:
            returned = call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  some of MLflow's have no code
            self.got(name, {"error": getattr(error, "error_code", type(error).__name__)})
        else:
            self.got(name, returned)


def fails(call: Callable[..., Any], *args: Any) -> bool:
    """Whether it fails: storages have errors of their own in MLflow."""
    try:
        call(*args)
    except Exception:  # noqa: BLE001  any will do
        return True
    return False


def tree(client: MlflowClient, run_id: str, path: str | None) -> Iterator[tuple[str, int | None]]:
    """Paths and sizes of a run's artifacts."""
    for entry in client.list_artifacts(run_id, path):
        yield entry.path, entry.file_size
        if entry.is_dir:
            yield from tree(client, run_id, entry.path)
