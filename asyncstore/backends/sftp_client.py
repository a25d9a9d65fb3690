"""SSH connections: who is trusted, who logs in, and what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncssh

from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.uris import Location

__all__ = ["Server", "Session", "connect", "disconnect", "translated"]

LOGGER = logging.getLogger("asyncstore.backends.sftp")
CONNECT_SECONDS = 30
KEEPALIVE_SECONDS = 15
# What OpenSSH takes in one request: 256 KiB with its header.
MAX_BLOCK = 255 * 1024
SAFE_BLOCK = 32 * 1024
# OpenSSH's, which it does not say to the library as an error of its own.
NO_SPACE = "no space"

_warned: set[str] = set()


@dataclass(frozen=True)
class Server:
    """Where to connect, and as whom.

    Args:
        location: The URI's parts.
        options: Arguments of `asyncssh.connect`, above those of the URI.
    """

    location: Location
    options: Mapping[str, Any]

    @property
    def shown(self) -> str:
        """For messages: no password."""
        user = f"{self.location.user}@" if self.location.user else ""
        port = f":{self.location.port}" if self.location.port else ""
        return f"{self.location.scheme}://{user}{self.location.host}{port}"

    def warn_of_password(self) -> None:
        """Once for a server: a password in a URI ends up in databases and logs."""
        if self.location.password is not None and self.shown not in _warned:
            _warned.add(self.shown)
            LOGGER.warning(
                "%s: the URI holds a password, and whoever sees the URI sees it; log in with a "
                "key instead",
                self.shown,
            )


@dataclass(frozen=True)
class Session:
    """A connection with its one SFTP channel.

    Args:
        connection: The SSH connection.
        sftp: The channel.
        block: Bytes of one read or write request.
    """

    connection: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient
    block: int


async def connect(server: Server) -> Session:
    """Log in. Keys, agent, known hosts and ssh_config are OpenSSH's own.

    Raises:
        PermissionDeniedError: The server's key is not the known one, or not known.
        UnauthenticatedError: The server takes none of the keys and no password.
        UnavailableError: The server cannot be reached.

    A cancellation leaves no connection.
    """
    location = server.location
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "login_timeout": CONNECT_SECONDS,
        "keepalive_interval": KEEPALIVE_SECONDS,
    }
    if location.port is not None:
        arguments["port"] = location.port
    if location.user is not None:
        arguments["username"] = location.user
    if location.password is not None:
        arguments["password"] = location.password
    with translated(f"connect to {server.shown}", server):
        connection = await asyncssh.connect(location.host, **(arguments | dict(server.options)))
        try:
            sftp = await connection.start_sftp_client()
        except BaseException:
            connection.abort()
            raise
    limit = min(
        sftp.limits.max_read_len or SAFE_BLOCK, sftp.limits.max_write_len or SAFE_BLOCK, MAX_BLOCK
    )
    return Session(connection, sftp, limit)


async def disconnect(session: Session) -> None:
    """End a connection, whatever state it is in."""
    session.connection.abort()
    await session.connection.wait_closed()


_KINDS: tuple[tuple[tuple[type[Exception], ...], type[AsyncStoreError]], ...] = (
    ((asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath), NotFoundError),
    ((asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect), PermissionDeniedError),
    ((asyncssh.SFTPOpUnsupported,), UnsupportedError),
    (
        (
            asyncssh.SFTPNotADirectory,
            asyncssh.SFTPFileIsADirectory,
            asyncssh.SFTPInvalidFilename,
            asyncssh.SFTPInvalidParameter,
        ),
        InvalidParameterError,
    ),
    (
        (
            asyncssh.SFTPNoConnection,
            asyncssh.SFTPConnectionLost,
            asyncssh.ChannelOpenError,
            asyncssh.ConnectionLost,
        ),
        UnavailableError,
    ),
    ((asyncssh.PermissionDenied, asyncssh.KeyEncryptionError), UnauthenticatedError),
    ((asyncssh.KeyImportError, asyncssh.ConfigParseError), InvalidParameterError),
    ((asyncssh.SFTPError,), AsyncStoreError),
    ((asyncssh.DisconnectError, TimeoutError, ConnectionError), UnavailableError),
)
LIBRARY = tuple(kind for kinds, _ in _KINDS for kind in kinds)


@contextmanager
def translated(action: str, server: Server | None = None) -> Iterator[None]:
    """Raise asyncstore's errors for what asyncssh raises, cause kept.

    Args:
        action: What is being done to what, for the message.
        server: Which one is being connected to; None when one is.
    """
    try:
        yield
    except AsyncStoreError:
        # Some are errors of the operating system too.
        raise
    except asyncssh.HostKeyNotVerifiable as error:
        host = server.location.host if server else ""
        port = f"-p {server.location.port} " if server and server.location.port else ""
        raise PermissionDeniedError(
            f"{action}: {error.reason}. If you trust this server, add its key: "
            f"ssh-keyscan {port}{host} >> ~/.ssh/known_hosts. If it was known and its key has "
            "changed, ask who runs it first. storage_options={'known_hosts': None} checks no key"
        ) from error
    except LIBRARY as error:
        kind = next(kind for kinds, kind in _KINDS if isinstance(error, kinds))
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        raise kind(f"{action}: {reason}") from error
    except OSError as error:
        raise UnavailableError(f"{action}: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        if server is None:
            raise
        # An option that asyncssh does not have, or a key file that is none.
        raise InvalidParameterError(f"{action}: {error}") from error
