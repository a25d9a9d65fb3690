"""Run by `base.py` as a process of its own: cleans up when its standard input ends."""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress


def main() -> None:
    groups: list[int] = []
    directories: list[str] = []
    for line in sys.stdin:
        kind, _, value = line.rstrip("\n").partition(" ")
        if kind == "+":
            groups.append(int(value))
        elif kind == "-":
            groups.remove(int(value))
        else:
            directories.append(value)
    for stop_signal in (signal.SIGQUIT, signal.SIGKILL):
        for group in reversed(groups):
            with suppress(OSError):
                os.killpg(group, stop_signal)
        if groups:
            time.sleep(0.5)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
