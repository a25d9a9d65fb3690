"""The schema of the MLflow that is installed beside asyncstore, found without importing it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from asyncstore.errors import InvalidParameterError
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS, Tables, load

__all__ = ["newest_for_installed", "of_version", "revisions_of_installed"]

_REVISION = re.compile(r"""^revision(?:: str)? = ["'](\w+)["']""", re.MULTILINE)


def newest_for_installed() -> Tables:
    """What a new database gets: the newest schema that the installed MLflow can open or upgrade.

    Returns:
        That schema; the newest of all where no MLflow is installed, or none that is known.
    """
    known = revisions_of_installed()
    for version in reversed(SNAPSHOTS):
        tables = load(version)
        if tables.revision in known:
            return tables
    return load(SNAPSHOTS[-1])


def of_version(version: str) -> Tables:
    """The schema of a version of MLflow.

    Args:
        version: Such as `3.6` or `3.17.2`; of several that match, the newest is taken.

    Raises:
        InvalidParameterError: There is no snapshot of it.
    """
    for name in reversed(SNAPSHOTS):
        if f"{name}.".startswith(f"{version}."):
            return load(name)
    raise InvalidParameterError(
        f"no schema of MLflow {version} is known; there are those of {', '.join(SNAPSHOTS)}"
    )


def revisions_of_installed() -> set[str]:
    """The revisions that the installed MLflow has migrations for; none where it is missing."""
    # Importing MLflow takes seconds; its migrations name their revisions.
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        return set()
    versions = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    found = (_REVISION.search(path.read_text("utf-8")) for path in versions.glob("*.py"))
    return {match[1] for match in found if match}
