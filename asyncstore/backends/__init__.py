"""The storages: which scheme is served by which backend, and what to install for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import anyio.to_thread

from asyncstore import uris
from asyncstore.backends import plugins
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.errors import AsyncStoreError, InvalidParameterError, MissingDependencyError

__all__ = ["Backend", "Capabilities", "known_schemes", "open_backend"]


class Registration(NamedTuple):
    """Where the backend of a scheme is, and the extra that it needs (None: none)."""

    module: str
    extra: str | None


LOCAL = Registration("asyncstore.backends.local", None)
MEMORY = Registration("asyncstore.backends.memory", None)
S3 = Registration("asyncstore.backends.s3", "s3")
AZURE = Registration("asyncstore.backends.azure", "azure")
GCS = Registration("asyncstore.backends.gcs", "gcs")
SFTP = Registration("asyncstore.backends.sftp", "sftp")
FTP = Registration("asyncstore.backends.ftp", None)
HDFS = Registration("asyncstore.backends.hdfs", "hdfs")
HTTP = Registration("asyncstore.backends.http", "http")
MLFLOW_ARTIFACTS = Registration("asyncstore.backends.mlflow_artifacts", "http")
SQL = Registration("asyncstore.backends.sql", None)
THREADED = Registration("asyncstore.backends.threaded", None)

SCHEMES: dict[str, Registration] = {
    "": LOCAL,
    "file": LOCAL,
    "memory": MEMORY,
    "s3": S3,
    "s3a": S3,
    "r2": S3,
    "b2": S3,
    "wasb": AZURE,
    "wasbs": AZURE,
    "abfs": AZURE,
    "abfss": AZURE,
    "az": AZURE,
    "gs": GCS,
    "gcs": GCS,
    "sftp": SFTP,
    "ssh": SFTP,
    "ftp": FTP,
    "ftps": FTP,
    "hdfs": HDFS,
    "viewfs": HDFS,
    "http": HTTP,
    "https": HTTP,
    "mlflow-artifacts": MLFLOW_ARTIFACTS,
    "oss": THREADED._replace(extra="oss"),
    "oci": THREADED._replace(extra="oci"),
    "hf": THREADED._replace(extra="hf"),
    "sqlite": SQL,
    "postgresql": SQL,
    "mysql": SQL,
    "mariadb": SQL,
    "mssql": SQL,
}


async def open_backend(uri: str, storage_options: Mapping[str, Any] | None = None) -> Backend:
    """Open the storage of a URI. Its library is imported now, in a worker thread.

    A scheme is looked for in `SCHEMES`, in the entry points of `plugins.BACKENDS`, in fsspec's
    protocols and in the entry points of `plugins.MLFLOW`, in this order.

    Args:
        uri: A path, or a URI of any scheme that one of these has; `asyncstore+` before the scheme
            changes nothing.
        storage_options: Arguments of the fsspec filesystem; None for none.

    Raises:
        InvalidParameterError: Nobody knows the scheme.
        MissingDependencyError: The scheme's library is not installed; says which extra has it.
        AsyncStoreError: The scheme is a plugin's, and the plugin cannot be loaded.
    """
    uri = uris.without_prefix(uri)
    scheme = uris.scheme_of(uri)
    options = storage_options or {}
    registration = _registration(scheme)
    if registration is None:
        return await _open_plugin(scheme, uri, options)
    return await _open_own(registration, scheme, uri, options)


async def _open_own(
    registration: Registration, scheme: str, uri: str, options: Mapping[str, Any]
) -> Backend:
    try:
        module = await anyio.to_thread.run_sync(importlib.import_module, registration.module)
    except ImportError as error:
        if registration.extra is None:
            raise
        raise MissingDependencyError(
            f"{scheme}: needs the library {error.name}; "
            f"run: pip install 'asyncstore[{registration.extra}]'"
        ) from error
    backend: Backend = await module.open_backend(uri, options)
    return backend


async def _open_plugin(scheme: str, uri: str, options: Mapping[str, Any]) -> Backend:
    # What is installed is read from the disk, and what is imported may take its time.
    broken: AsyncStoreError | None = None
    try:
        plugin = await anyio.to_thread.run_sync(plugins.find_backend, scheme)
    except AsyncStoreError as error:
        # It does not stand in the way of others.
        broken, plugin = error, None
    if plugin is not None:
        return await plugins.open_backend(plugin, uri, options)
    if await anyio.to_thread.run_sync(_known_to_fsspec, scheme):
        return await _open_own(THREADED, scheme, uri, options)
    plugin = await anyio.to_thread.run_sync(plugins.find_mlflow, scheme)
    if plugin is None:
        raise broken or InvalidParameterError(await anyio.to_thread.run_sync(_unknown, uri, scheme))
    from asyncstore.backends import mlflow_plugin

    return await mlflow_plugin.open_backend(plugin, uri, options)


def known_schemes() -> list[str]:
    """The schemes that asyncstore itself and fsspec serve, installed or not. Imports fsspec."""
    from fsspec import available_protocols
    from fsspec.registry import registry

    return sorted({*SCHEMES, *available_protocols(), *registry} - {""})


def _registration(scheme: str) -> Registration | None:
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    # That of a database may carry a driver, `postgresql+psycopg2`, which is not part of the name.
    database = SCHEMES.get(scheme.partition("+")[0])
    return database if database is SQL else None


def _known_to_fsspec(scheme: str) -> bool:
    from fsspec import available_protocols
    from fsspec.registry import registry

    # A class that somebody registered is only in the second.
    return scheme in available_protocols() or scheme in registry


def _unknown(uri: str, scheme: str) -> str:
    own = ", ".join(
        f"{name} (pip install 'asyncstore[{registration.extra}]')" if registration.extra else name
        for name, registration in SCHEMES.items()
        if name
    )
    installed = sorted(set(plugins.schemes()) - set(SCHEMES))
    others = f"; of installed plugins {', '.join(installed)}" if installed else ""
    return (
        f"{uris.redact(uri)}: there is no storage for the scheme {scheme!r}. asyncstore has a "
        f"plain path, {own}{others}; and every protocol of fsspec.available_protocols()"
    )
