"""Who asks, and whether they may: basic auth and bearer tokens, with a role to read or to write."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from asyncstore.errors import AsyncStoreError, UnavailableError
from asyncstore.server.refusals import OPEN_PATHS, headers_named, path_template, refuse
from asyncstore.server.routing import SAFE_METHODS, route_of
from asyncstore.server.users import (
    Role,
    UserEntry,
    hash_password,
    hash_token,
    password_matches,
    read_users,
)

__all__ = ["AuthMiddleware", "Authenticator", "User"]

logger = logging.getLogger(__name__)
# How old what is known of the users file may be, and how long a verified password counts.
FILE_SECONDS, PASSWORD_SECONDS = 1.0, 60.0
# Each takes 16 MiB and a core for a tenth of a second; the next wait, and too many are refused.
_HASHING, _WAITING = 2, 32
_REMEMBERED = 1024


@dataclass(frozen=True)
class User:
    """Who asks.

    Args:
        name: As in the users file.
        role: `read` or `write`.
    """

    name: str
    role: Role


class Authenticator:
    """Knows the users of a file, and sees within a second that it was changed.

    While the file cannot be read, nobody is let in: it could be about to withdraw a token.

    Args:
        path: The users file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = anyio.Lock()
        self._hashing = anyio.CapacityLimiter(_HASHING)
        self._read_until = 0.0
        self._version: tuple[int, ...] = ()
        self._passwords: dict[str, UserEntry] = {}
        self._tokens: dict[str, UserEntry] = {}
        self._failure: str | None = None
        # The key keeps passwords out of the memory of the process, however long a user stays.
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, float] = {}
        self._nobody = ""

    async def authenticate(self, authorization: bytes) -> User | None:
        """Find out who asks.

        Args:
            authorization: The header of that name.

        Returns:
            The user; None when the credentials are of nobody, or are none.

        Raises:
            UnavailableError: The users file cannot be read, or too many passwords wait.
        """
        await self._refresh()
        scheme, _, credentials = authorization.partition(b" ")
        match scheme.lower():
            case b"bearer":
                # Whoever could tell from the time how much of two hashes agrees learns nothing
                # of the token.
                entry = self._tokens.get(hash_token(credentials.strip()))
                return User(entry.name, entry.role) if entry else None
            case b"basic":
                return await self._with_password(credentials.strip())
        return None

    async def _with_password(self, credentials: bytes) -> User | None:
        try:
            name, found, password = base64.b64decode(credentials, validate=True).partition(b":")
            entry = self._passwords.get(name.decode())
        except (binascii.Error, UnicodeDecodeError):
            return None
        if not found:
            return None
        hashed = entry.hash if entry else self._nobody
        # In front of the password, so that a changed one does not count any more.
        secret = hashed.encode() + b"\0" + name + b"\0" + password
        key = hashlib.blake2b(secret, key=self._key).digest()
        if not self._remembers(key):
            if self._hashing.statistics().tasks_waiting >= _WAITING:
                raise UnavailableError("too many passwords are being verified", retry_after=1)
            async with self._hashing:
                # Of many requests with the same password at once, one pays.
                if not self._remembers(key):
                    matches = await anyio.to_thread.run_sync(
                        partial(password_matches, password, hashed)
                    )
                    if not matches or entry is None:
                        return None
                    self._remember(key)
        return User(entry.name, entry.role) if entry else None

    def _remembers(self, key: bytes) -> bool:
        return self._verified.get(key, 0.0) > time.monotonic()

    def _remember(self, key: bytes) -> None:
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        self._verified[key] = time.monotonic() + PASSWORD_SECONDS

    async def _refresh(self) -> None:
        if time.monotonic() >= self._read_until:
            async with self._lock:
                if time.monotonic() >= self._read_until:
                    await anyio.to_thread.run_sync(self._read)
                    self._read_until = time.monotonic() + FILE_SECONDS
        if self._failure:
            raise UnavailableError("the users of this server cannot be read; its log says why")

    def _read(self) -> None:
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
            if version == self._version and not self._failure:
                return
            entries = read_users(self._path)
        except (AsyncStoreError, OSError) as error:
            if str(error) != self._failure:
                logger.error("nobody is let in: %s", error)  # noqa: TRY400  the reason is the message
            self._failure = str(error)
            return
        if not self._nobody:
            # Unknown users cost as much time as known ones.
            self._nobody = hash_password(secrets.token_bytes(16))
        self._passwords = {each.name: each for each in entries if each.kind == "user"}
        self._tokens = {each.hash: each for each in entries if each.kind == "token"}
        self._version, self._failure = version, None


class AuthMiddleware:
    """Lets in who is known, to what their role may do; `/health` and `/version` are open.

    The user stands in the scope as `user`.

    Args:
        app: What it stands before.
        authenticator: Who is known.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
    ) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "lifespan" or path_template(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        values = headers_named(scope, b"authorization")
        try:
            # Two headers could be read in two ways by two programs.
            known = len(values) == 1
            user = await self._authenticator.authenticate(values[0]) if known else None
        except UnavailableError as error:
            retry = str(int(error.retry_after or 5)).encode()
            await refuse(send, 503, error.error_code, error.message, [(b"retry-after", retry)])
            return
        if user is None:
            message = (
                "Your credentials are not those of a user of this server"
                if values
                else "This server wants to know who you are: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
            challenge = (b"www-authenticate", b'Basic realm="mlflow", charset="UTF-8"')
            await refuse(send, 401, "UNAUTHENTICATED", message, [challenge])
            return
        scope["user"] = user
        if user.role != "write" and not _reads(scope):
            message = f"{user.name} may only read: {scope['method']} {scope['path']} is refused"
            await refuse(send, 403, "PERMISSION_DENIED", message)
            return
        await self._app(scope, receive, send)


def _reads(scope: Scope) -> bool:
    found = route_of(scope)
    # What is not in the table is the UI, or nothing.
    return found.reads if found.route else scope["method"] in SAFE_METHODS
