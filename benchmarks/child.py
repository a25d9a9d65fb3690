"""One measurement, in a process of its own: `python -m benchmarks.child MODULE:PEER TASK`.

A peer is a context manager, synchronous or not, that takes the task, gets everything ready
(imports, an open client, one small request to warm it up) and yields the work to be timed. The
result is one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TICK = 0.001
_MIB = 2**20


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    peer = getattr(importlib.import_module(module), name)
    task = json.loads(sys.argv[2])
    if inspect.isasyncgenfunction(inspect.unwrap(peer)):
        result = asyncio.run(_measure_async(peer, task))
    else:
        with peer(task) as work:
            meter = Meter()
            told = work()
            result = meter.read() | _figures(told)
    sys.stdout.write(f"\n{json.dumps(result)}\n")


async def _measure_async(peer: Any, task: dict[str, Any]) -> dict[str, float]:
    async with peer(task) as work:
        # Let what the warm-up left behind settle.
        await asyncio.sleep(0.1)
        async with ticking() as late:
            meter = Meter()
            told = await work()
            result = meter.read() | _figures(told)
        return {**result, "stall_ms": max(late, default=0.0) * 1000}


def _figures(told: Any) -> dict[str, float]:
    """What the work measured itself, by name; it may return anything else too."""
    return told if isinstance(told, dict) else {}


@contextlib.asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """Tick every millisecond in the running loop, and say by how much each tick came late."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(TICK)
            late.append(time.perf_counter() - start - TICK)

    task = asyncio.create_task(tick())
    # The first tick is due when the work begins.
    await asyncio.sleep(0)
    try:
        yield late
    finally:
        # A stall at the very end shows only when the loop comes round once more.
        await asyncio.sleep(2 * TICK)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Meter:
    """What passes from its creation to `read`: time, CPU time, and memory above the first."""

    def __init__(self) -> None:
        self._idle = memory("VmRSS")
        _reset_peak()
        self._cpu = _cpu_seconds()
        self._commands_cpu = _commands_cpu_seconds()
        self._start = time.perf_counter()

    def read(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._start
        cpu = _cpu_seconds() - self._cpu
        peak = memory("VmHWM") - self._idle
        if _commands_cpu_seconds() > self._commands_cpu:
            # A peer that is a command was idle before it was there.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _rss_unit()
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak / _MIB}


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _commands_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reset_peak() -> None:
    # Linux: proc(5), clear_refs. Elsewhere the peak includes that of the warm-up.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory(field: str, process: int | str = "self") -> int:
    """Resident memory of a process now (VmRSS) or at its peak (VmHWM), in bytes."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _rss_unit()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _rss_unit() -> int:
    return 1 if sys.platform == "darwin" else 1024


if __name__ == "__main__":
    main()
