"""The model registry of the file store: `mlruns/models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncstore.metadata.file_store.entries import Entry, Rows
from asyncstore.metadata.file_store.files import (
    MalformedError,
    Warn,
    absolute_uri,
    directories,
    integer,
    meta,
    text,
    texts,
)

__all__ = ["read_model"]

VERSION = "version-"


def read_model(directory: Path, base: Path, warn: Warn) -> Entry:
    """A registered model with its versions.

    Args:
        directory: Where it lies.
        base: Where relative locations start.
        warn: Gets a line for each child that is left out.

    Raises:
        MalformedError: It cannot be read.
    """
    values = meta(directory)
    name = text(values, "name")
    if name != directory.name:
        raise MalformedError(f"says that it is model {name!r}")
    tags = texts(directory / "tags", warn)
    rows: Rows = {
        "registered_models": [
            {
                "name": name,
                "creation_time": integer(values, "creation_timestamp"),
                "last_updated_time": integer(values, "last_updated_timestamp"),
                "description": text(values, "description"),
            }
        ],
        "registered_model_tags": [{"name": name, "key": key, "value": tags[key]} for key in tags],
        "model_versions": [],
        "model_version_tags": [],
        "registered_model_aliases": [],
    }
    for found in directories(directory):
        if found.name.startswith(VERSION):
            try:
                _read_version(found, name, base, rows, warn)
            except (MalformedError, OSError) as error:
                warn(f"model version {found}: {error}; left out")
    versions = {row["version"] for row in rows["model_versions"]}
    for alias, version in texts(directory / "aliases", warn).items():
        if not version.strip().isdecimal() or int(version) not in versions:
            warn(f"alias {directory / 'aliases' / alias}: no version {version[:20]!r}; left out")
            continue
        rows["registered_model_aliases"].append(
            {"name": name, "alias": alias, "version": int(version)}
        )
    return Entry("registered model", name, directory, rows)


def _read_version(directory: Path, name: str, base: Path, rows: Rows, warn: Warn) -> None:
    values = meta(directory)
    version = integer(values, "version")
    if version is None or directory.name != f"{VERSION}{version}":
        raise MalformedError(f"says that it is version {version}")
    tags = texts(directory / "tags", warn)
    row: dict[str, Any] = {
        "name": name,
        "version": version,
        "creation_time": integer(values, "creation_timestamp"),
        "last_updated_time": integer(values, "last_updated_timestamp"),
        "description": text(values, "description"),
        "user_id": text(values, "user_id"),
        "current_stage": text(values, "current_stage", "None"),
        "source": _source(values, "source", base),
        "storage_location": _source(values, "storage_location", base),
        "run_id": text(values, "run_id"),
        "run_link": text(values, "run_link"),
        "status": text(values, "status", "READY"),
        "status_message": text(values, "status_message"),
    }
    rows["model_versions"].append(row)
    rows["model_version_tags"] += [
        {"name": name, "version": version, "key": key, "value": tags[key]} for key in tags
    ]


def _source(values: dict[str, Any], key: str, base: Path) -> str | None:
    """Where a version's files are; prompts have a word there that is no path."""
    found = text(values, key)
    if found is None or "/" not in found:
        return found
    return absolute_uri(found, base)
