"""A command in a terminal of its own, as a person runs it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str | Path, env: dict[str, str] | None = None) -> None:
        self.read_end, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asyncstore.cli", *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"} | (env or {}),
            start_new_session=True,
        )
        os.close(terminal)
        self.seen = ""

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def read_until(self, pattern: str | None) -> None:
        """Read until a pattern was seen; None for the end of the command."""
        while pattern is None or not re.search(pattern, self.seen):
            try:
                piece = os.read(self.read_end, 65536)
            except OSError:
                piece = b""
            if not piece:
                assert pattern is None, f"{pattern!r} did not come: {self.seen}"
                return
            self.seen += piece.decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.read_end)
