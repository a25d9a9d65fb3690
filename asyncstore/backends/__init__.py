"""The storages: which scheme is served by which backend, and what to install for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import anyio.to_thread

from asyncstore import uris
from asyncstore.backends.base import Backend, Capabilities
from asyncstore.errors import InvalidParameterError, MissingDependencyError

__all__ = ["Backend", "Capabilities", "open_backend"]


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
FTP = Registration("asyncstore.backends.ftp", "ftp")
HDFS = Registration("asyncstore.backends.hdfs", "hdfs")
HTTP = Registration("asyncstore.backends.http", "http")
SQL = Registration("asyncstore.backends.sql", None)
THREADED = Registration("asyncstore.backends.threaded", None)

#: A scheme of a database may carry a driver, `postgresql+psycopg2`, which is not part of the name.
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
    "sqlite": SQL,
    "postgresql": SQL,
    "mysql": SQL,
    "mssql": SQL,
}


async def open_backend(uri: str, storage_options: Mapping[str, Any] | None = None) -> Backend:
    """Open the storage of a URI. Its library is imported now, in a worker thread.

    Args:
        uri: A path, or a URI of any scheme of `SCHEMES` or of fsspec.
        storage_options: Arguments of the fsspec filesystem; None for none.

    Raises:
        InvalidParameterError: Nobody knows the scheme.
        MissingDependencyError: The scheme's library is not installed; says which extra has it.
    """
    scheme = uris.scheme_of(uri)
    registration = SCHEMES.get(scheme.partition("+")[0])
    if registration is None:
        if not await anyio.to_thread.run_sync(_known_to_fsspec, scheme):
            raise InvalidParameterError(_unknown(uri, scheme))
        registration = THREADED
    try:
        module = await anyio.to_thread.run_sync(importlib.import_module, registration.module)
    except ImportError as error:
        if registration.extra is None:
            raise
        raise MissingDependencyError(
            f"{scheme}: needs the library {error.name}; "
            f"run: pip install 'asyncstore[{registration.extra}]'"
        ) from error
    backend: Backend = await module.open_backend(uri, storage_options or {})
    return backend


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
    return (
        f"{uris.redact(uri)}: there is no storage for the scheme {scheme!r}. asyncstore has a "
        f"plain path, {own}; and every protocol of fsspec.available_protocols()"
    )
