"""Artifact locations of experiments and runs, made absolute and joined as MLflow does."""

from __future__ import annotations

from urllib.parse import unquote

from asyncstore.errors import InvalidParameterError
from asyncstore.uris import join, local_path, redact, scheme_of

__all__ = ["absolute", "append"]


def absolute(location: str) -> str:
    """A location that does not depend on the current directory.

    Args:
        location: A path, a `file:` URI or any other URI.

    Returns:
        A relative path made absolute; everything else as it is.
    """
    scheme = scheme_of(location)
    if scheme == "" and not location.startswith("/"):
        return str(local_path(location))
    if scheme == "file" and not location[len("file:") :].startswith("/"):
        return local_path(location).as_uri()
    return location


def append(location: str, *names: str) -> str:
    """A location below another.

    Args:
        location: A path or a URI; its query stays behind the path.
        names: Directories to append.

    Returns:
        The location of the last of them.

    Raises:
        InvalidParameterError: The query holds `..`, which some storages would follow.
    """
    decoded = location.partition("?")[2] if scheme_of(location) else ""
    while (further := unquote(decoded)) != decoded:
        decoded = further
    if ".." in decoded:
        raise InvalidParameterError(f"{redact(location)}: '..' in the query of a location")
    return join(location, "/".join(names))
