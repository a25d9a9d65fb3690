"""Credentials of requests to a tracking server: asyncstore's provider, for MLflow and for itself.

MLflow finds it by its entry point, takes it when MLFLOW_TRACKING_AUTH is `asyncstore`, and gives
what `get_auth` returns to requests; it needs neither of the two.
"""

from __future__ import annotations

import base64
import math
import os
import re
import shlex
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from asyncstore import settings
from asyncstore.errors import InvalidParameterError, UnauthenticatedError

__all__ = ["Auth", "RequestAuth"]

#: Seconds that the command has.
COMMAND_WITHIN = 30.0
# RFC 6750, section 2.1: what a token is made of. There is no colon in it.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
UNAUTHORIZED = 401


class RequestAuth:
    """The provider named `asyncstore`."""

    def get_name(self) -> str:
        """What MLFLOW_TRACKING_AUTH has to be."""
        return "asyncstore"

    def get_auth(self) -> Auth:
        """What puts the credentials on a request."""
        return Auth()


class Auth:
    """Puts an Authorization header on a request; `auth=` of requests.

    The first of these that is set counts:

    1. ASYNCSTORE_AUTH_FILE, a file that something else may write anew at any time. It is read for
       each request; while it is missing or empty, what it said before counts.
    2. ASYNCSTORE_AUTH_COMMAND, run without a shell and within 30 s. What it printed counts for
       ASYNCSTORE_AUTH_COMMAND_LIFETIME seconds, or until a server answers 401.
    3. MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, then MLFLOW_TRACKING_TOKEN, in the
       order of MLflow.

    File and command hold one line: a token, sent as Bearer, or `user:password`, sent as Basic.
    It may be used from any thread, and blocks while the file is read or the command runs.
    """

    def __call__(self, request: Any) -> Any:
        """Put the header on a prepared request.

        Args:
            request: Has `headers`, and may have `register_hook` as a request of requests does.

        Returns:
            The same request.

        Raises:
            UnauthenticatedError: No variable is set and the request has no credentials either; or
                the file or the command gives none.
            InvalidParameterError: What they give is no token and no `user:password`.
        """
        header = authorization()
        if header is not None:
            request.headers["Authorization"] = header
            if (register := getattr(request, "register_hook", None)) is not None:
                register("response", forget_if_refused)
        elif "Authorization" not in request.headers:
            raise UnauthenticatedError(
                "MLFLOW_TRACKING_AUTH is asyncstore, but there are no credentials: set "
                "ASYNCSTORE_AUTH_FILE, ASYNCSTORE_AUTH_COMMAND, MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return request


class _Remembered:
    """What the file or the command of a process gave last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.file: tuple[str, str] | None = None
        self.command: tuple[str, str, float] | None = None


_remembered = _Remembered()


def _forget() -> None:
    global _remembered
    _remembered = _Remembered()


# A lock that another thread held during the fork would stay locked in the child for ever.
os.register_at_fork(after_in_child=_forget)


def authorization() -> str | None:
    """The value of the Authorization header; None where nothing is set. Blocks.

    Raises:
        UnauthenticatedError: The file or the command gives no credentials.
        InvalidParameterError: What they give is no token and no `user:password`.
    """
    if (path := settings.ASYNCSTORE_AUTH_FILE.get()) is not None:
        return _header(_from_file(path), settings.ASYNCSTORE_AUTH_FILE.name)
    if (command := settings.ASYNCSTORE_AUTH_COMMAND.get()) is not None:
        return _header(_from_command(command), settings.ASYNCSTORE_AUTH_COMMAND.name)
    user = settings.MLFLOW_TRACKING_USERNAME.get()
    password = settings.MLFLOW_TRACKING_PASSWORD.get()
    if user and password:
        return _basic(f"{user}:{password}")
    if (token := settings.MLFLOW_TRACKING_TOKEN.get()) is not None:
        return _bearer(token, settings.MLFLOW_TRACKING_TOKEN.name)
    return None


def forget_if_refused(response: Any, **_: Any) -> None:
    """Have the command run again for the next request, when a server refused this one with 401."""
    if response.status_code == UNAUTHORIZED:
        _remembered.command = None


def _header(text: str, source: str) -> str:
    return _basic(text) if ":" in text else _bearer(text, source)


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def _bearer(token: str, source: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise InvalidParameterError(f"{source}: what it gives is no token (RFC 6750)")
    return f"Bearer {token}"


def _one_line(text: str, source: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) > 1:
        raise InvalidParameterError(f"{source}: it gives {len(lines)} lines, not one")
    return lines[0] if lines else ""


def _from_file(path: str) -> str:
    name = settings.ASYNCSTORE_AUTH_FILE.name
    trouble = "it is empty"
    found = ""
    try:
        found = _one_line(Path(path).read_text(encoding="utf-8"), name)
    except UnicodeDecodeError:
        # The cause would show what was read.
        raise InvalidParameterError(f"{name}: {path} is no text") from None
    except OSError as error:
        trouble = error.strerror or type(error).__name__
    if found:
        _remembered.file = (path, found)
        return found
    last = _remembered.file
    if last is not None and last[0] == path:
        return last[1]
    raise UnauthenticatedError(f"{name}: {path} holds no credentials: {trouble}")


def _from_command(command: str) -> str:
    state = _remembered
    # One run serves all the threads that ask at the same time.
    with state.lock:
        limit = settings.ASYNCSTORE_AUTH_COMMAND_LIFETIME.get()
        lifetime = math.inf if limit is None or limit < 0 else limit
        if state.command is not None:
            asked, printed, at = state.command
            if asked == command and time.monotonic() < at + lifetime:
                return printed
        printed = _run(command)
        state.command = (command, printed, time.monotonic())
        return printed


def _run(command: str) -> str:
    name = settings.ASYNCSTORE_AUTH_COMMAND.name
    trouble = ""
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=COMMAND_WITHIN,
        )
    except subprocess.TimeoutExpired:
        trouble = f"it took more than {COMMAND_WITHIN:g} s"
    except OSError as error:
        trouble = f"it cannot be started: {error.strerror or type(error).__name__}"
    except ValueError:
        trouble = "its quotes do not match"
    else:
        # What it wrote, on either output, may be secret.
        if done.returncode:
            trouble = f"it ended with status {done.returncode}"
        elif not done.stdout.strip():
            trouble = "it printed nothing"
    if trouble:
        raise UnauthenticatedError(f"{name}: the command gives no credentials: {trouble}")
    try:
        return _one_line(done.stdout.decode(), name)
    except UnicodeDecodeError:
        raise InvalidParameterError(f"{name}: what it printed is no text") from None
