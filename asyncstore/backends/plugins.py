"""Storages of other packages, found by their entry points."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any, NamedTuple

from asyncstore import uris
from asyncstore.backends.base import Backend
from asyncstore.errors import AsyncStoreError, MissingDependencyError
from asyncstore.plugins import described, entries

__all__ = [
    "BACKENDS",
    "MLFLOW",
    "Plugin",
    "find_backend",
    "find_mlflow",
    "open_backend",
    "schemes",
]

#: Name: a scheme. Value: a module or an object with asyncstore's `open_backend(uri, options)`.
BACKENDS = "asyncstore.backends"
#: MLflow's own group. Name: a scheme. Value: an `ArtifactRepository` class or a function.
MLFLOW = "mlflow.artifact_repository"


# asyncstore inside MLflow, which is no storage of somebody else.
OWN = "asyncstore.mlflow_plugin."


class Plugin(NamedTuple):
    """What an entry point names, loaded.

    Args:
        name: The entry point and its package, for messages.
        value: The object.
    """

    name: str
    value: Any


def schemes() -> list[str]:
    """The schemes of all installed plugins, whether they can be loaded or not. Blocks."""
    found = {entry.name.lower() for group in (BACKENDS, MLFLOW) for entry in _foreign(group)}
    return sorted(found)


def find_backend(scheme: str) -> Plugin | None:
    """Load the asyncstore plugin of a scheme. Blocks: call it in a worker thread.

    Only the plugins of this very scheme are imported. One that cannot be loaded is named in a
    warning, and the next one is taken.

    Args:
        scheme: In lower case.

    Returns:
        The plugin; None where no package has one.

    Raises:
        MissingDependencyError: There are some, and none can be loaded; the last one lacks a module.
        AsyncStoreError: None can be loaded for another reason.
    """
    return _find(BACKENDS, scheme, lambda value: callable(getattr(value, "open_backend", None)))


def find_mlflow(scheme: str) -> Plugin | None:
    """The same for MLflow's artifact plugins."""
    return _find(MLFLOW, scheme, callable)


async def open_backend(plugin: Plugin, uri: str, storage_options: Mapping[str, Any]) -> Backend:
    """Open a URI with an asyncstore plugin.

    Raises:
        MissingDependencyError: The plugin lacks a library.
        AsyncStoreError: What it returned is no `Backend`.
    """
    try:
        backend = await plugin.value.open_backend(uri, storage_options)
    except AsyncStoreError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"open {uris.redact(uri)}: {plugin.name} needs {error.name or error}"
        ) from error
    if not isinstance(backend, Backend):
        raise AsyncStoreError(
            f"open {uris.redact(uri)}: {plugin.name} returned a {type(backend).__name__}, which is "
            "no asyncstore.backends.Backend"
        )
    return backend


def _foreign(group: str) -> list[EntryPoint]:
    return [entry for entry in entries(group) if not entry.value.startswith(OWN)]


def _find(group: str, scheme: str, usable: Any) -> Plugin | None:
    candidates = [entry for entry in _foreign(group) if entry.name.lower() == scheme]
    reason: Exception | None = None
    for entry in candidates:
        try:
            value = entry.load()
            if not usable(value):
                raise TypeError(f"{entry.value} is no storage")  # noqa: TRY301  reported below
        except Exception as error:  # noqa: BLE001  whatever a stranger's module does
            reason = error
            warnings.warn(
                f"{described(entry)} cannot be loaded: {type(error).__name__}: {error}",
                stacklevel=2,
            )
        else:
            return Plugin(described(entry), value)
    if reason is not None:
        kind = MissingDependencyError if isinstance(reason, ImportError) else AsyncStoreError
        raise kind(
            f"the scheme {scheme!r} is that of {described(candidates[-1])}, which cannot be "
            f"loaded: {type(reason).__name__}: {reason}"
        ) from reason
    return None
