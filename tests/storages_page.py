"""docs/storages.md, from a run of the conformance suite on every storage.

A pytest plugin: `pytest --write-storages-page` writes the page; any other run of all of the suite
says when the page is not what it gives, and writes the other one beside it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncstore import uris
from asyncstore.backends import SCHEMES
from asyncstore.testing.conformance import ArtifactRepositoryTests

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path(__file__).parent.parent / "docs" / "storages.md"
HEAD = """\
# Storages

One class, `ArtifactRepository`, and a page for each storage with its URIs, credentials, variables
and limits: [local directories](storages/local.md), [NFS](storages/nfs.md), [S3](storages/s3.md),
[Azure](storages/azure.md), [Google Cloud Storage](storages/gcs.md), [SFTP](storages/sftp.md),
[FTP](storages/ftp.md), [HDFS](storages/hdfs.md), [databases](storages/sql.md),
[HTTP](storages/http.md), [a tracking server](storages/mlflow-artifacts.md),
[any other](storages/others.md), and [your own](storages/plugins.md).

This page is written by a run of the conformance suite, `asyncstore.testing.conformance`, on a real
server of every storage: `pytest --write-storages-page`. Its tests are skipped only where a storage
says that it lacks something; the reasons are below.

## What each can do

"Parts at once": parts of one upload go in parallel, in any order. "Ranges": a large file is
received by parallel ranges. "Directories": an empty one is kept. "Versions": reading notices a file
that was replaced meanwhile. "At once": the most requests at the same time.

"""
COLUMNS = (
    "Storage",
    "URIs",
    "Extra",
    "Parts at once",
    "Ranges",
    "Directories",
    "Writable",
    "Versions",
    "At once",
)
PROVEN = """
## What each was proven against

| Storage | Server | Passed | Skipped |
|---|---|---|---|
"""


@dataclass
class _Storage:
    """What a run tells of one class of the suite."""

    cls: type[ArtifactRepositoryTests]
    collected: int = 0
    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    facts: dict[str, Any] = field(default_factory=dict)


class StoragesPage:
    """Collects what the suite says, and writes or checks the page at the end."""

    def __init__(self, *, write: bool) -> None:
        self._write = write
        self._storages: dict[str, _Storage] = {}
        self._whole = False

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Which classes there are, and whether this run is of everything."""
        for item in items:
            cls = getattr(item, "cls", None)
            if cls is not None and issubclass(cls, ArtifactRepositoryTests):
                key = item.nodeid.rpartition("::")[0]
                self._storages.setdefault(key, _Storage(cls)).collected += 1
        every = {
            path.name
            for path in (Path(__file__).parent / "artifacts").glob("test_*.py")
            if "ArtifactRepositoryTests)" in path.read_text(encoding="utf-8")
        }
        run = {key.partition("::")[0].rpartition("/")[2] for key in self._storages}
        self._whole = every <= run and not config.option.keyword and not config.option.markexpr

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One test of one class."""
        storage = self._storages.get(report.nodeid.partition("[")[0].rpartition("::")[0])
        if storage is None:
            return
        storage.facts.update(report.user_properties)
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            storage.skipped[str(reason).removeprefix("Skipped: ")] += 1
        elif report.failed:
            storage.failed += 1
        elif report.when == "call":
            storage.passed += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write, or compare."""
        found = list(self._storages.values())
        missing = any("not installed" in reason for s in found for reason in s.skipped)
        if not self._whole or missing or any(s.failed or not s.facts for s in found):
            if self._write:
                raise pytest.UsageError("the page is written by a whole run without failures")
            return
        text = page(found)
        if self._write:
            PAGE.write_text(text, encoding="utf-8")
        elif PAGE.read_text(encoding="utf-8") != text:
            fresh = PAGE.with_suffix(".md.new")
            fresh.write_text(text, encoding="utf-8")
            session.config.get_terminal_writer().line(
                f"{PAGE.name} is not what this run gives; that is in {fresh.name}", yellow=True
            )


def page(storages: Iterable[_Storage]) -> str:
    """The whole page."""
    ordered = sorted(storages, key=lambda s: (s.cls.storage or s.cls.__name__, s.cls.server))
    lines = [HEAD, f"| {' | '.join(COLUMNS)} |\n", f"|{'---|' * len(COLUMNS)}\n"]
    lines += dict.fromkeys(_row(storage) for storage in ordered)
    lines.append(PROVEN)
    reasons = list(dict.fromkeys(reason for s in ordered for reason in sorted(s.skipped)))
    for s in ordered:
        skipped = ", ".join(f"{s.skipped[r]} ({reasons.index(r) + 1})" for r in sorted(s.skipped))
        lines.append(f"| {_name(s)} | {s.cls.server} | {s.passed} | {skipped or '0'} |\n")
    lines.append("\nSkipped because the test\n\n")
    lines += [f"{number}. {reason}\n" for number, reason in enumerate(reasons, 1)]
    return "".join(lines)


def _name(storage: _Storage) -> str:
    return storage.cls.storage or storage.cls.__name__


def _row(storage: _Storage) -> str:
    scheme = uris.scheme_of(storage.facts["uri"]).partition("+")[0]
    registration = SCHEMES.get(scheme)
    schemes = [name for name, other in SCHEMES.items() if other == registration and registration]
    shown = ", ".join(f"`{name}:`" if name else "a path" for name in schemes)
    can = storage.facts["capabilities"]
    cells = [
        _name(storage),
        shown or "any other that fsspec knows",
        f"`{registration.extra}`" if registration and registration.extra else "",
        *(
            "yes" if can[key] else "no"
            for key in ("parallel_parts", "ranges", "directories", "writable", "versions")
        ),
        str(can["max_concurrency"] or "any"),
    ]
    return f"| {' | '.join(cells)} |\n"
