"""Who is imported, each in a fresh interpreter."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Task = dict[str, Any]


@contextlib.contextmanager
def asyncstore(task: Task) -> Iterator[Callable[[], None]]:
    yield from _statement("import asyncstore")


@contextlib.contextmanager
def mlflow(task: Task) -> Iterator[Callable[[], None]]:
    yield from _statement("import mlflow")


@contextlib.contextmanager
def nothing(task: Task) -> Iterator[Callable[[], None]]:
    """The interpreter alone: what no library can go below."""
    yield from _statement("pass")


def _statement(statement: str) -> Iterator[Callable[[], None]]:
    command = [sys.executable, "-c", statement]
    # Once before, so that the byte code is compiled and the files are in the page cache.
    subprocess.run(command, check=True)

    def again() -> None:
        subprocess.run(command, check=True)

    yield again
