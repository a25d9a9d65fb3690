"""`python -m benchmarks`: run cases, print a table, write JSON and a plot."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.case import OURS, Case, WrongOutcomeError
from benchmarks.cases import CASES
from benchmarks.child import ticking
from benchmarks.lab import ROOT, Lab

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESULTS = Path("benchmarks/results")
# Far above the slowest; a peer that hangs ends here.
_LIMIT_SECONDS = 600


class MeasurementError(Exception):
    """A measured process failed; the message ends with what it wrote."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        for case in CASES.values():
            print(f"{case.name:26} {case.about}; peers: {', '.join(case.peers[1:])}")
        return 0
    if options.from_json:
        results = json.loads(options.from_json.read_text())
    else:
        with Lab(quick=options.quick) as lab:
            results = asyncio.run(_run(lab, options))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.markdown(results) if options.markdown else report.text(results))
    report.plot(results, options.plot)
    print(f"\nWrote {options.json} and {options.plot}.", file=sys.stderr)
    return 1 if results["failures"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help="names, or parts of names; none means all")
    parser.add_argument("--repeats", type=int, help="measurements of each peer (5; quick: 1)")
    parser.add_argument("--peers", help="only these besides asyncstore, divided by commas")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to try it out")
    parser.add_argument("--json", type=Path, default=_RESULTS / "results.json", metavar="FILE")
    parser.add_argument("--plot", type=Path, default=_RESULTS / "results.png", metavar="FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="report, do not measure")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    return parser


async def _run(lab: Lab, options: argparse.Namespace) -> report.Results:
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM,
        asyncio.current_task().cancel,  # type: ignore[union-attr] # there is one
    )
    repeats = options.repeats or (1 if options.quick else 5)
    results = report.new_results(quick=options.quick)
    for case in _chosen(options.case):
        peers = [p for p in case.peers if p == OURS or not options.peers or p in options.peers]
        runs: dict[str, list[report.Run]] = {peer: [] for peer in peers}
        results["cases"].append({"name": case.name, "about": case.about, "runs": runs})
        for repeat in range(repeats):
            for peer in peers:
                try:
                    run = await _measure(lab, case, peer)
                except (MeasurementError, WrongOutcomeError) as error:
                    reason = str(error).strip().splitlines()[-1]
                    results["failures"].append(f"{case.name} {peer}: {reason}")
                    print(f"{case.name} {peer}: FAILED: {error}", file=sys.stderr)
                    continue
                runs[peer].append(run)
                print(
                    f"{case.name} {repeat + 1}/{repeats} {peer}: {run['seconds']:.3f} s",
                    file=sys.stderr,
                )
    return results


def _chosen(names: Sequence[str]) -> list[Case]:
    unknown = [name for name in names if not any(name in known for known in CASES)]
    if unknown:
        raise SystemExit(f"no case has this in its name: {', '.join(unknown)} (--list shows them)")
    if not names:
        return list(CASES.values())
    return [
        case
        for case in CASES.values()
        # A whole name means that case alone, though others begin with it.
        if any(name == case.name or (name not in CASES and name in case.name) for name in names)
    ]


async def _measure(lab: Lab, case: Case, peer: str) -> report.Run:
    with case.task(lab) as task:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.child"),
            *(f"{case.module}:{peer}", json.dumps(task.arguments)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=lab.environment(task.variables),
        )
        try:
            async with asyncio.timeout(_LIMIT_SECONDS), ticking() as late:
                output, errors = await process.communicate()
        except TimeoutError:
            raise MeasurementError(f"not done after {_LIMIT_SECONDS} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode != 0:
            raise MeasurementError(errors.decode(errors="replace")[-2000:])
    # How late an idle loop beside the measured one was: the machine's own part in a stall.
    return {**json.loads(output.splitlines()[-1]), "noise_ms": max(late, default=0.0) * 1000}


if __name__ == "__main__":
    sys.exit(main())
