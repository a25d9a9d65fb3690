"""The command line, called in this process, in an empty directory; fixtures of its tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asyncstore.cli import main

__all__ = ["Cli", "cli", "in_tmp_path"]

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command: its exit status, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run
