"""Small pieces of the file store: `meta.yaml`, directories of texts, lines of metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from asyncstore.uris import scheme_of

__all__ = [
    "MalformedError",
    "Warn",
    "absolute_uri",
    "directories",
    "int64",
    "integer",
    "lines",
    "meta",
    "one_of",
    "text",
    "texts",
]

META = "meta.yaml"
# libyaml parses about ten times faster; it is part of PyYAML's wheels, not of every build.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Warn = Callable[[str], None]


class MalformedError(Exception):
    """An entry that cannot be read; says why."""


def meta(directory: Path, name: str = META) -> dict[str, Any]:
    """The values of a YAML file.

    Args:
        directory: Where it lies.
        name: The file.

    Returns:
        Its values by key.

    Raises:
        MalformedError: It is missing, empty, cut off or no mapping.
    """
    try:
        with (directory / name).open("rb") as file:
            found = yaml.load(file, _LOADER)  # noqa: S506  the loader is a safe one
    except FileNotFoundError as error:
        raise MalformedError(f"has no {name}") from error
    except (OSError, yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise MalformedError(f"{name} cannot be read: {reason}") from error
    if not isinstance(found, dict):
        raise MalformedError(f"{name} is {'empty' if found is None else 'not a mapping'}")
    return found


def text(values: Mapping[str, Any], key: str, default: str | None = None) -> str | None:
    """A text of a YAML file.

    Args:
        values: The values by key.
        key: Which of them; names that look like numbers may stand there unquoted.
        default: What a missing or null value becomes.

    Raises:
        MalformedError: It is a list or a mapping.
    """
    value = values.get(key)
    if value is None:
        return default
    if isinstance(value, dict | list):
        raise MalformedError(f"{key} is no text")
    return str(value)


def integer(values: Mapping[str, Any], key: str, default: int | None = None) -> int | None:
    """An integer of a YAML file; `default` when it is missing or null.

    Raises:
        MalformedError: It is something else.
    """
    value = values.get(key)
    if value is None:
        return default
    try:
        return int64(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"{key} is {value!r} and no number") from error


def int64(value: Any) -> int:
    """An integer that a database's BIGINT can hold.

    Raises:
        ValueError: It is none.
    """
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} has more than 64 bits")
    return number


def one_of(
    values: Mapping[str, Any], key: str, known: Mapping[int, str], default: str | None
) -> str:
    """A word that MLflow writes as a number, or as the word.

    Args:
        values: The values by key.
        key: Which of them.
        known: The words by number.
        default: What a missing or null value becomes; None refuses it.

    Raises:
        MalformedError: It is neither a known number nor a known word.
    """
    value = values.get(key)
    found = default if value is None else known.get(value, value) if _hashable(value) else None
    if found not in known.values():
        raise MalformedError(f"{key} is {value!r}")
    return str(found)


def _hashable(value: Any) -> bool:
    return isinstance(value, int | str)


def directories(parent: Path) -> list[Path]:
    """The directories below `parent`, in order of their names; none when it does not exist."""
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def keys(parent: Path, warn: Warn) -> Iterator[tuple[str, Path]]:
    """The files below `parent` with their keys, of which those with a slash lie deeper."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            warn(f"{error.filename}: {error.strerror}; left out")

    for directory, names, files in os.walk(parent, onerror=unreadable):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            yield path.relative_to(parent).as_posix(), path


def texts(parent: Path, warn: Warn) -> dict[str, str]:
    """Params, tags or aliases: a file for each, the key its name and the value what is in it.

    Args:
        parent: The directory; it need not exist.
        warn: Gets a line for each file that cannot be read.
    """
    found: dict[str, str] = {}
    for key, path in keys(parent, warn):
        try:
            found[key] = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            warn(f"{path}: {error}; left out")
    return found


def lines(parent: Path, warn: Warn) -> Iterator[tuple[str, Path, list[str]]]:
    """The lines of every metric, one at a time: its key, its file and the line's fields.

    Args:
        parent: The directory of metrics; it need not exist.
        warn: Gets a line for each file that cannot be read or holds nothing.
    """
    for key, path in keys(parent, warn):
        empty = True
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if fields := line.split():
                        empty = False
                        yield key, path, fields
        except OSError as error:
            warn(f"{path}: {error}; left out")
            continue
        if empty:
            warn(f"{path}: holds no value; left out")


def absolute_uri(uri: str, base: Path) -> str:
    """A location that does not depend on the current directory.

    Args:
        uri: A path, a `file:` URI or any other URI.
        base: The directory that relative ones start from.

    Returns:
        Relative ones made absolute; everything else as it is.
    """
    scheme = scheme_of(uri)
    if scheme == "" and not uri.startswith("/"):
        return str(base / uri)
    if scheme == "file" and not uri[len("file:") :].startswith("/"):
        return (base / unquote(uri[len("file:") :])).as_uri()
    return uri
