"""Where a tracking server is, and what its requests carry to say who asks.

The rules are those of `mlflow.utils.credentials`, `mlflow.utils.rest_utils` and
`mlflow.utils.databricks_utils` in MLflow 3.17. Everything here blocks: it reads files, and calls
the plugins of others.
"""

from __future__ import annotations

import configparser
import re
from base64 import b64encode
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from asyncstore import plugins, settings, uris
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)

__all__ = ["Answered", "PreparedRequest", "Server", "identify", "server_of"]

FORM = "http://host:port, https://user:password@host/path, databricks or databricks://profile"
CREDENTIALS_FILE = "~/.mlflow/credentials"
PROFILES_FILE = "~/.databrickscfg"
# What would end a header, or is no text in one.
_NO_HEADER = re.compile(r"[^\t\x20-\x7e\xa0-\xff]")
_SECRETS = ("token", "username", "password")


@dataclass
class PreparedRequest:
    """A request, as the `auth=` objects of the library requests want to see one.

    Args:
        method: In upper case.
        url: Whole, with the query.
        headers: Names in any case.
        body: The content; None where there is none, or where it is streamed.
    """

    method: str
    url: str
    headers: MutableMapping[str, str]
    body: bytes | None
    hooks: list[Callable[..., Any]] = field(default_factory=list)

    def register_hook(self, event: str, hook: Callable[..., Any]) -> None:
        """Have `hook` called with the answer, an `Answered`; what it returns is not looked at."""
        if event == "response":
            self.hooks.append(hook)


class Answered(NamedTuple):
    """What the hooks of a request get."""

    status_code: int
    headers: MutableMapping[str, str]
    url: str
    request: PreparedRequest


class Server(NamedTuple):
    """A tracking server.

    Args:
        url: Without a slash at the end and without credentials.
        authorization: The header of that name that belongs to this server alone; None where the
            variables say who asks.
    """

    url: str
    authorization: str | None

    def __repr__(self) -> str:
        return f"Server({self.url!r})"


def server_of(uri: str) -> Server:
    """The server that a tracking URI names. Blocks: it may read a file.

    Args:
        uri: `http://host:port`, with `user:password@` and a path where the server has them, or
            `databricks`: the workspace of DATABRICKS_HOST and DATABRICKS_TOKEN, else of the profile
            DATABRICKS_CONFIG_PROFILE or DEFAULT; or `databricks://profile`: that one's.

    Raises:
        InvalidParameterError: The URI is neither, or a profile names no host.
        NotFoundError: There is no such profile.
        UnauthenticatedError: A profile has no token and no password.
        UnsupportedError: `databricks://scope:prefix`, whose secrets only Databricks can read.
    """
    if uri == "databricks":
        return _default_workspace()
    if uris.scheme_of(uri) == "databricks":
        return _profile(_profile_name(uri))
    if uris.scheme_of(uri) not in ("http", "https"):
        raise InvalidParameterError(f"{uris.redact(uri)} is no tracking server; write {FORM}")
    location = uris.parse_location(uri, FORM, decode_path=False)
    if not location.host:
        raise InvalidParameterError(f"{uris.redact(uri)} names no host; write {FORM}")
    host = f"[{location.host}]" if ":" in location.host else location.host
    port = f":{location.port}" if location.port else ""
    user = location.user
    return Server(
        f"{location.scheme}://{host}{port}{location.path.rstrip('/')}",
        None if user is None else _basic(user, location.password or ""),
    )


def identify(request: PreparedRequest, authorization: str | None, *, databricks: bool) -> None:
    """Put on a request what the variables and the plugins say of who asks. Blocks.

    The first of these that there is counts: the request auth provider that MLFLOW_TRACKING_AUTH
    names; the credentials of the URI; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, each
    else from ~/.mlflow/credentials; MLFLOW_TRACKING_TOKEN. Headers of request header providers are
    there too, unless the request has its own.

    Args:
        request: Its headers are changed.
        authorization: That of `Server`.
        databricks: Whether it is a workspace of Databricks, for which the variables of a tracking
            server are not meant.

    Raises:
        UnauthenticatedError: The provider gives no credentials.
        InvalidParameterError: No provider has that name, or a variable holds what is no header.
    """
    for header, value in plugins.request_headers().items():
        request.headers.setdefault(header, value)
    if authorization is None and not databricks:
        authorization = _of_variables()
    if authorization is not None:
        request.headers["Authorization"] = authorization
    name = settings.MLFLOW_TRACKING_AUTH.get()
    if name and not databricks:
        _authenticate(name, request)
    for header, value in request.headers.items():
        if _NO_HEADER.search(value):
            raise InvalidParameterError(f"the header {header} of a request is no line of text")


def _authenticate(name: str, request: PreparedRequest) -> None:
    try:
        auth = plugins.request_auth(name)
        if isinstance(auth, tuple):
            user, password = auth
            request.headers["Authorization"] = _basic(user, password)
        elif auth is not None:
            auth(request)
    except AsyncStoreError:
        raise
    except Exception as error:
        # Its message may show what is secret.
        raise UnauthenticatedError(
            f"the request auth provider {name!r} gives no credentials: {type(error).__name__}"
        ) from error


def _of_variables() -> str | None:
    user = settings.MLFLOW_TRACKING_USERNAME.get()
    password = settings.MLFLOW_TRACKING_PASSWORD.get()
    if not user or not password:
        stored = _section(Path(CREDENTIALS_FILE).expanduser(), "mlflow") or {}
        user = user or stored.get("mlflow_tracking_username")
        password = password or stored.get("mlflow_tracking_password")
    if user and password:
        return _basic(user, password)
    token = settings.MLFLOW_TRACKING_TOKEN.get()
    return None if token is None else _bearer(token)


def _default_workspace() -> Server:
    host, token = settings.DATABRICKS_HOST.get(), settings.DATABRICKS_TOKEN.get()
    if host and token:
        return Server(_workspace_url(host, settings.DATABRICKS_HOST.name), _bearer(token))
    return _profile(settings.DATABRICKS_CONFIG_PROFILE.get() or "DEFAULT")


def _profile_name(uri: str) -> str:
    name = uri.partition("://")[2].rstrip("/")
    if ":" in name:
        raise UnsupportedError(
            "databricks://scope:prefix reads a secret of Databricks, which only Databricks can do; "
            "write databricks://profile"
        )
    if not name or "/" in name:
        raise InvalidParameterError(f"{uri} names no profile; write databricks://profile")
    return name


def _profile(name: str) -> Server:
    path = Path(settings.DATABRICKS_CONFIG_FILE.get() or PROFILES_FILE).expanduser()
    found = _section(path, name)
    if found is None:
        raise NotFoundError(
            f"{path} has no profile {name}; write it there with host and token, or set "
            "DATABRICKS_HOST and DATABRICKS_TOKEN for the tracking URI databricks"
        )
    if not found.get("host"):
        raise InvalidParameterError(f"{path}: the profile {name} names no host")
    url = _workspace_url(found["host"], f"{path}, profile {name}")
    token, user, password = (found.get(secret) for secret in _SECRETS)
    if token:
        return Server(url, _bearer(token))
    if user and password:
        return Server(url, _basic(user, password))
    raise UnauthenticatedError(
        f"{path}: the profile {name} has no token; asyncstore knows no other way to Databricks"
    )


def _workspace_url(host: str, source: str) -> str:
    url = host if uris.scheme_of(host) in ("http", "https") else f"https://{host}"
    try:
        return server_of(url).url
    except InvalidParameterError as error:
        raise InvalidParameterError(f"{source}: {error}") from error


def _section(path: Path, name: str) -> dict[str, str] | None:
    """A section of an INI file, without what DEFAULT adds to it; None where there is none."""
    # The values are no templates: a password may hold a percent sign.
    parser = configparser.ConfigParser(interpolation=None, default_section="no such section")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, configparser.Error) as error:
        # Its message would show the line.
        kind = type(error).__name__
        raise InvalidParameterError(f"{path} cannot be read: {kind}") from None
    return dict(parser[name]) if name in parser else None


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _bearer(token: str) -> str:
    return f"Bearer {token}"
