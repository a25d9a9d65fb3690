"""URIs of storages and databases, and paths of artifacts: parse, join, redact, refuse.

An *artifact path* is relative to the root of its repository: POSIX, normalised, never outside the
root. A *URI* names a root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from asyncstore.errors import InvalidParameterError

__all__ = [
    "Location",
    "artifact_path",
    "join",
    "local_path",
    "parse_location",
    "redact",
    "root_path",
    "scheme_of",
    "without_prefix",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_DRIVE = re.compile(r"[A-Za-z]:")
_URL_TAIL = re.compile(r"[?#]")
_SECRET_QUERY = re.compile(
    r"(?i)([?&][^=&#]*(?:password|passwd|pwd|secret|token|signature|credential|key|sig)[^=&#]*=)"
    r"[^&#]*"
)


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case; an empty string for a plain path.

    Args:
        uri: A URI or a path. A single letter before the colon is a Windows drive, not a scheme.

    Returns:
        The scheme, with a driver if it has one (`postgresql+psycopg2`).
    """
    found = _SCHEME.match(uri)
    return found[1].lower() if found and len(found[1]) > 1 else ""


def without_prefix(uri: str) -> str:
    """The URI that asyncstore itself opens.

    Args:
        uri: Such as `asyncstore+s3://bucket/path`, which has MLflow choose asyncstore's plugin and
            means `s3://bucket/path`; others stay as they are.

    Returns:
        The URI without the prefix.

    Raises:
        InvalidParameterError: The prefix stands there twice.
    """
    prefix = "asyncstore+"
    if not scheme_of(uri).startswith(prefix):
        return uri
    rest = uri[len(prefix) :]
    if scheme_of(rest).startswith(prefix):
        raise InvalidParameterError(f"{redact(uri)}: write {prefix} once")
    return rest


def local_path(uri: str) -> Path:
    """The absolute path that a plain path or a `file:` URI names.

    Args:
        uri: `dir`, `/dir`, `file:dir`, `file:/dir`, `file:///dir` or `file://localhost/dir`.
            Percent escapes are decoded in a `file:` URI and kept in a plain path.

    Returns:
        The path, absolute, with links left as they are.

    Raises:
        InvalidParameterError: The URI names another host or another scheme.
    """
    scheme = scheme_of(uri)
    if not scheme:
        return Path(uri).absolute()
    if scheme not in ("file", "local"):
        raise InvalidParameterError(f"{redact(uri)} is not a local path")
    rest = uri[len(scheme) + 1 :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise InvalidParameterError(
                f"{uri} names the host {host!r}; a file URI is local: write file:///{host}/{path} "
                "for an absolute path"
            )
        rest = slash + path
    return Path(unquote(rest)).absolute()


@dataclass(frozen=True)
class Location:
    """The parts of `scheme://user:password@host:port/path`, percent-decoded.

    Args:
        scheme: In lower case.
        user: None where the URI names none.
        password: None where the URI has none; not shown by `repr`.
        host: Without brackets; an empty string where the URI names none.
        port: None where the URI names none.
        path: From its first slash, or an empty string.
    """

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    host: str
    port: int | None
    path: str


def parse_location(uri: str, form: str, *, decode_path: bool = True) -> Location:
    """Take a URI apart that names a server.

    Args:
        uri: `scheme://...`.
        form: How such a URI is to be written, for the errors: `sftp://user@host:port/path`.
        decode_path: Whether percent escapes in the path are decoded; storages whose own tools take
            the path as it stands do not.

    Returns:
        Its parts. The host may be empty: who needs one checks.

    Raises:
        InvalidParameterError: A user without a host, a port that is none, or a path that
            `root_path` refuses. The message shows no password.
    """
    scheme, separator, rest = uri.partition("://")
    shown = redact(uri)
    if not separator:
        raise InvalidParameterError(f"{shown}: write {form}")
    authority, slash, path = rest.partition("/")
    userinfo, at, address = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", address)
    host, port = (bracketed[1], bracketed[2]) if bracketed else _host_and_port(address)
    if at and not user:
        raise InvalidParameterError(f"{shown} has '@' and no user before it; write {form}")
    if at and not host:
        raise InvalidParameterError(f"{shown} names a user and no host; write {form}")
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidParameterError(f"{shown}: the port is not a number from 1 to 65535")
    root_path(uri, path)
    return Location(
        scheme=scheme.lower(),
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
        host=unquote(host),
        port=int(port) if port else None,
        path=slash + (unquote(path) if decode_path else path),
    )


def _host_and_port(address: str) -> tuple[str, str | None]:
    host, colon, port = address.partition(":")
    return host, port if colon else None


def root_path(uri: str, path: str) -> str:
    """Check the path of a repository's root.

    Args:
        uri: The URI that it is from, for the error.
        path: The path as it stands in the URI.

    Returns:
        The same path.

    Raises:
        InvalidParameterError: It has a `..`, or a `?` or `#`, or an escape that decodes to a
            slash, a backslash, a NUL or `..`: what reads such a path next may take it for another.
    """
    shown = redact(uri)
    if _URL_TAIL.search(path):
        raise InvalidParameterError(f"{shown}: the path of a root has no '?' and no '#'")
    decoded = path
    while True:
        if ".." in decoded.split("/"):
            raise InvalidParameterError(f"{shown}: the path of a root has no '..'")
        if "\0" in decoded or "\\" in decoded:
            raise InvalidParameterError(f"{shown}: the path of a root has no backslash and no NUL")
        further = unquote(decoded)
        if further == decoded:
            return path
        if further.count("/") != decoded.count("/"):
            raise InvalidParameterError(f"{shown}: an escape in the path decodes to a slash")
        decoded = further


def artifact_path(path: str | None) -> str:
    """Check and normalise a path inside a repository.

    Whatever could leave the root is refused: a parent reference, an absolute path, a drive letter,
    a backslash or a NUL; as it stands, percent-encoded any number of times, or behind `#` or `?`
    (storage servers and MLflow's own server decode and cut such paths). Honest names with spaces,
    `%`, `+`, `#` or `?` pass as they are.

    Args:
        path: POSIX path; None, an empty string and `.` are the root.

    Returns:
        The path without empty and `.` segments; an empty string for the root.

    Raises:
        InvalidParameterError: The path would leave the root, or is not UTF-8.
    """
    if not path:
        return ""
    _refuse_unsafe(path, path)
    decoded = path
    while (further := unquote(decoded)) != decoded:
        decoded = further
        _refuse_unsafe(decoded, path)
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _refuse_unsafe(form: str, path: str) -> None:
    """Refuse a form that a decoded path takes; `path` is what the person wrote."""
    try:
        form.encode()
    except UnicodeEncodeError as error:
        raise InvalidParameterError(f"artifact path {path!r} is not UTF-8") from error
    if "\0" in form or "\\" in form:
        raise InvalidParameterError(
            f"artifact path {path!r} holds a backslash or a NUL character; separate names with '/'"
        )
    for piece in (form, *_URL_TAIL.split(form)):
        if piece.startswith("/") or _DRIVE.match(piece) or ".." in piece.split("/"):
            raise InvalidParameterError(
                f"artifact path {path!r} is not inside the repository; "
                "give a relative path without '..'"
            )


def join(root: str, path: str) -> str:
    """Append an artifact path to a root path or URI.

    Args:
        root: A path or a URI; a query or fragment stays behind the path, as MLflow keeps it.
        path: A path that `artifact_path` returned; an empty string appends nothing.

    Returns:
        The joined path or URI.
    """
    if not path:
        return root
    tail = ""
    if scheme_of(root) and (found := _URL_TAIL.search(root)):
        root, tail = root[: found.start()], root[found.start() :]
    return f"{root.rstrip('/')}/{path}{tail}"


def parent(path: str) -> str:
    """The directory part of an artifact path; an empty string for the root."""
    directory = str(PurePosixPath(path).parent)
    return "" if directory == "." else directory


def redact(uri: str) -> str:
    """A URI that may be shown: passwords and secret query values replaced by `***`.

    Args:
        uri: Any URI.

    Returns:
        The same URI without its secrets.
    """
    scheme, separator, rest = uri.partition("://")
    if separator:
        # A password may itself hold '@' or '/': the host starts behind the last '@'.
        userinfo, at, location = rest.rpartition("@")
        if at and ":" in userinfo:
            user = userinfo.partition(":")[0]
            uri = f"{scheme}://{user}:***@{location}"
    return _SECRET_QUERY.sub(r"\1***", uri)
