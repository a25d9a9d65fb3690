"""Tables and a plot from results."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from statistics import median
from typing import TYPE_CHECKING, Any, TypedDict

from benchmarks.case import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LIBRARIES = ("asyncstore", "mlflow", "boto3", "s3fs", "s5cmd", "aiobotocore", "sqlalchemy")
_COLUMNS = (
    "case",
    "peer",
    "seconds",
    "peer / asyncstore",
    "CPU s",
    "memory MiB",
    "stall ms",
    "idle loop ms",
)
# Of some cases, behind the others.
_MORE = {"p99_ms": "p99 ms", "server_mib": "server MiB"}

# Keys: seconds, cpu_seconds, peak_mib, noise_ms; asynchronous peers also stall_ms; those of _MORE.
Run = dict[str, float]


class CaseResults(TypedDict):
    name: str
    about: str
    runs: dict[str, list[Run]]


class Results(TypedDict):
    machine: dict[str, Any]
    versions: dict[str, str]
    quick: bool
    cases: list[CaseResults]
    failures: list[str]


def new_results(*, quick: bool) -> Results:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        "versions": versions,
        "quick": quick,
        "cases": [],
        "failures": [],
    }


def text(results: Results) -> str:
    rows = [_columns(results), *_rows(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", *_notes(results)])


def markdown(results: Results) -> str:
    head = _columns(results)
    rows = [head, tuple("---" for _ in head), *_rows(results)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"{note}\n" for note in _notes(results))]).rstrip()


def _more(results: Results) -> list[str]:
    every = [run for case in results["cases"] for runs in case["runs"].values() for run in runs]
    return [key for key in _MORE if any(key in run for run in every)]


def _columns(results: Results) -> tuple[str, ...]:
    return (*_COLUMNS, *(_MORE[key] for key in _more(results)))


def _rows(results: Results) -> list[tuple[str, ...]]:
    more = _more(results)
    return [
        (
            case["name"],
            peer,
            _spread([run["seconds"] for run in runs], 2),
            "" if peer == OURS else _spread(ratios(case, peer), 2),
            _spread([run["cpu_seconds"] for run in runs], 2),
            f"{max(run['peak_mib'] for run in runs):.0f}",
            _spread(_figures(runs, "stall_ms"), 1),
            _spread(_figures(runs, "noise_ms"), 1),
            *(_spread(_figures(runs, key), 1) for key in more),
        )
        for case in results["cases"]
        for peer, runs in case["runs"].items()
        if runs
    ]


def ratios(case: CaseResults, peer: str) -> list[float]:
    """The peer's time by ours, for each pair of measurements that followed one another."""
    pairs = zip(case["runs"][OURS], case["runs"][peer], strict=False)
    return [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def _figures(runs: Sequence[Run], key: str) -> list[float]:
    return [run[key] for run in runs if key in run]


def _notes(results: Results) -> list[str]:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return [
        *(["QUICK: a tenth of the work; these are no results."] if results["quick"] else []),
        (
            "Median (lowest-highest). Ratios are of neighbouring measurements; above 1 asyncstore "
            "is faster. Clients are open and warm. CPU is that of the measured process. Memory is "
            "the highest peak above idle. Stall is the longest time that the event loop did not "
            "come round; the idle loop is one that did nothing beside it, in another process."
        ),
        (
            f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
            f"{machine['date']}: {versions}."
        ),
        *(f"FAILED: {failure}" for failure in results["failures"]),
    ]


def plot(results: Results, path: Path) -> None:
    """Draw the ratios, one bar for each case and peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{case['name']}\n{peer}", peer, found)
        for case in results["cases"]
        for peer in case["runs"]
        if peer != OURS and (found := ratios(case, peer))
    ]
    if not bars:
        return
    peers = sorted({peer for _, peer, _ in bars})
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.42 * len(bars)), layout="constrained")
    for row, (_, peer, found) in enumerate(bars):
        middle = median(found)
        axes.barh(
            row,
            middle - 1,
            left=1,
            color=f"C{peers.index(peer)}",
            xerr=[[middle - min(found)], [max(found) - middle]],
            capsize=2,
        )
        axes.annotate(f" {middle:.2f}", (max(found), row), va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("peer's time / asyncstore's time (right of 1: asyncstore is faster)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
