"""What a case is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks.lab import Lab

__all__ = ["OURS", "Case", "Task", "WrongOutcomeError"]

OURS = "asyncstore"


class WrongOutcomeError(Exception):
    """The measured work did not do what it should have."""


@dataclass(frozen=True)
class Task:
    """What a measured process is told: arguments of the peer, and environment variables."""

    arguments: dict[str, Any]
    variables: dict[str, str]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: What to call it on the command line.
        about: What it is, for people.
        module: Where the peers are.
        peers: Names of functions of that module; the first is ours.
        task: Makes a fresh task for each measurement, and checks the outcome when it is left.
    """

    name: str
    about: str
    module: str
    peers: tuple[str, ...]
    task: Callable[[Lab], AbstractContextManager[Task]]
