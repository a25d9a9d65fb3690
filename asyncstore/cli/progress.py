"""Progress bars of transfers, through fsspec's `Callback`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from asyncstore import settings

__all__ = ["Bars"]


class Bars:
    """Progress bars on standard error, one for each activity.

    Nothing is drawn where standard error is no terminal, or with
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false.
    """

    def __init__(self) -> None:
        shown = settings.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get() and sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Amount(),
            _Speed(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars; on plain standard error where there are none."""
        self._progress.console.print(Text(line), soft_wrap=True)

    @contextmanager
    def bar(self, name: str, unit: str = "bytes") -> Iterator[Callback]:
        """A bar for one activity.

        Args:
            name: What it is.
            unit: What is counted.

        Yields:
            The callback that moves it.
        """
        task = self._progress.add_task(name, total=None, unit=unit)
        yield _BarCallback(self._progress, task)
        self._progress.stop_task(task)


class _BarCallback(Callback):  # type: ignore[misc]  # fsspec ships no types
    def __init__(self, progress: Progress, task: TaskID) -> None:
        super().__init__()
        self._progress = progress
        self._task = task

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """fsspec calls it whenever `size` or `value` changed."""
        self._progress.update(self._task, total=self.size, completed=self.value)


class _Amount(ProgressColumn):
    def __init__(self) -> None:
        super().__init__()
        self._bytes, self._count = DownloadColumn(binary_units=True), MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        return (self._bytes if task.fields["unit"] == "bytes" else self._count).render(task)


class _Speed(ProgressColumn):
    def __init__(self) -> None:
        super().__init__()
        self._bytes = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        if task.fields["unit"] == "bytes":
            return self._bytes.render(task)
        speed = task.finished_speed or task.speed
        return Text(
            "" if speed is None else f"{speed:.0f} {task.fields['unit']}/s", "progress.data"
        )
