"""Runs the script of real use in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Printed", "differences", "used"]

ROOT = Path(__file__).parents[2]
WATCHDOG = 300


class Printed(NamedTuple):
    results: list[Any]
    messages: set[str]


def used(here: Path, *arguments: str) -> Printed:
    """What the script got, and what was printed besides.

    Args:
        here: A directory for its files.
        arguments: A tracking URI, an artifact root, and chapters to leave out.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.mlflow.real_use", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            # MLflow 2's server answers 500 for an artifact that is missing, and its client then
            # asks for minutes.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        },
        cwd=here,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Printed(json.loads(done.stdout), _messages(done.stderr))


def differences(ours: Printed, theirs: Printed) -> list[Any]:
    """What is different: its name, what was got and what was wanted."""
    assert [name for name, _ in ours.results] == [name for name, _ in theirs.results]
    return [
        (name, got, wanted)
        for (name, got), (_, wanted) in zip(ours.results, theirs.results, strict=True)
        if got != wanted
    ]


def _messages(stderr: str) -> set[str]:
    """What was printed but for news, without numbers and ids."""
    lines = [line for line in stderr.splitlines() if not re.search(r"\bINFO\b", line)]
    return {re.sub(r"[0-9a-f]{8,}|[0-9]+", "#", line) for line in lines if line.strip()}
