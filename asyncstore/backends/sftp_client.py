"""SSH connections: where to, who logs in, and who is trusted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import asyncssh

from asyncstore.backends.sftp_errors import translated
from asyncstore.errors import (
    InvalidParameterError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from asyncstore.uris import Location

__all__ = ["Server", "Session", "connect", "disconnect"]

LOGGER = logging.getLogger("asyncstore.backends.sftp")
SSH_PORT = 22
CONNECT_SECONDS = 30
KEEPALIVE_SECONDS = 15
# What OpenSSH takes in one request: 256 KiB with its header.
MAX_BLOCK = 255 * 1024
SAFE_BLOCK = 32 * 1024
# In Python they take half the time of chacha20-poly1305, OpenSSH's first choice.
FAST_CIPHERS = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
# OpenSSH's, without those that are out of date.
HOST_KEY_KINDS = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
KNOWN_HOSTS = Path("~", ".ssh", "known_hosts")

_warned: set[str] = set()


@dataclass(frozen=True)
class Server:
    """Where to connect, and as whom.

    Args:
        location: The URI's parts.
        options: Arguments of `asyncssh.connect`, above those of the URI.
    """

    location: Location
    options: Mapping[str, Any] = field(repr=False)

    @property
    def shown(self) -> str:
        """For messages: no password."""
        user = f"{self.location.user}@" if self.location.user else ""
        port = f":{self.location.port}" if self.location.port else ""
        return f"{self.location.scheme}://{user}{self.location.host}{port}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `asyncssh.connect`."""
        of_uri = {
            "host": self.location.host,
            "port": self.location.port,
            "username": self.location.user,
            "password": self.location.password,
        }
        return {
            "connect_timeout": CONNECT_SECONDS,
            "login_timeout": CONNECT_SECONDS,
            "keepalive_interval": KEEPALIVE_SECONDS,
            **{name: value for name, value in of_uri.items() if value is not None},
            **self.options,
        }

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
class KnownHosts:
    """The host keys that a person trusts.

    Args:
        host: The server's name, as ssh_config resolves it.
        port: Its port.
        files: Where the keys are from; none where the person gave the keys themselves.
        keys: The argument of `asyncssh.connect`; None checks no key.
    """

    host: str
    port: int
    files: Sequence[Path]
    keys: Any

    def refusal(self, action: str, reason: str) -> PermissionDeniedError:
        """The error for a server whose key is not one of them."""
        file = str(self.files[0]) if self.files else "the known_hosts of the storage_options"
        name = self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"
        if f"for host {self.host}" not in reason and "for host" in reason:
            advice = "it stands on the way there; ssh to it once to see and keep its key"
        elif any(self._match()):
            advice = (
                f"the server shows another host key than the one in {file}: somebody may be in "
                "between, or the key has changed. Ask who runs the server; if it has, "
                f"ssh-keygen -R '{name}' -f {file} forgets the old one"
            )
        else:
            advice = (
                f"the host key is not in {file}. If you trust the way to this server, add it: "
                f"ssh-keyscan -p {self.port} {self.host} >> {file}"
            )
        return PermissionDeniedError(
            f"{action}: {reason}; {advice}. storage_options={{'known_hosts': None}} checks no key"
        )

    def _match(self) -> Sequence[Sequence[Any]]:
        """Host keys, keys of authorities, and the rest that asyncssh knows."""
        if not isinstance(self.keys, asyncssh.SSHKnownHosts):
            return ((), ())
        return self.keys.match(self.host, "", None if self.port == SSH_PORT else self.port)

    def kinds(self) -> list[str]:
        """The kinds of the host's keys; none where an authority vouches for it."""
        hosts, authorities, *_ = self._match()
        if authorities:
            return []
        return [kind.decode() for key in hosts for kind in key.sig_algorithms]


class Session:
    """A connection with its one SFTP channel.

    Args:
        connection: The SSH connection.
        sftp: The channel.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient) -> None:
        self.connection = connection
        self.sftp = sftp
        limits = (sftp.limits.max_read_len, sftp.limits.max_write_len, MAX_BLOCK)
        # Bytes of one request.
        self.block = min(limit or SAFE_BLOCK for limit in limits)
        # A request got no answer in time: what the server does is not known any more.
        self.stuck = False

    @property
    def usable(self) -> bool:
        """Whether others may go on with it."""
        return not self.stuck and not self.connection.is_closed()


async def connect(server: Server) -> Session:
    """Log in. Keys, agent, known hosts and ssh_config are OpenSSH's own.

    Raises:
        PermissionDeniedError: The server's key is not the known one, or not known.
        UnauthenticatedError: The server takes none of the keys and no password.
        UnavailableError: The server cannot be reached.
        InvalidParameterError: An option, a key file or ssh_config is not acceptable.

    A cancellation leaves no connection.
    """
    action = f"connect to {server.shown}"
    try:
        with translated(action):
            return await _connect(server, action)
    except UnauthenticatedError as error:
        raise UnauthenticatedError(
            f"{error}; asyncssh tried what storage_options ('client_keys', 'passphrase', "
            "'password'), the agent, ssh_config and the default files of ~/.ssh gave it"
        ) from error.__cause__
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidParameterError):
            raise
        # An option that asyncssh does not have, or a key that is none.
        raise InvalidParameterError(f"{action}: {error}") from error


async def _connect(server: Server, action: str) -> Session:
    arguments = server.arguments
    # Files are read, and all the lines of known_hosts parsed.
    known, preferences = await anyio.to_thread.run_sync(_prepare, arguments)
    try:
        connection = await asyncssh.connect(
            **(preferences | arguments | {"known_hosts": known.keys})
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise known.refusal(action, error.reason) from error
    try:
        # No setting of asyncssh's does this; see `Cork`.
        corked = Cork(connection._transport)  # noqa: SLF001
        connection._transport = corked  # type: ignore[assignment]  # noqa: SLF001  it has its methods
        # A name that is not UTF-8 can be deleted.
        sftp = await connection.start_sftp_client(path_errors="surrogateescape")
        return Session(connection, sftp)
    except BaseException:
        connection.abort()
        raise


def _prepare(arguments: Mapping[str, Any]) -> tuple[KnownHosts, dict[str, Any]]:
    """What asyncssh would read on the event loop, and what it leaves to choose. Blocks."""
    # `config=()`, which is not the default here, stands for ~/.ssh/config.
    config = asyncssh.SSHClientConnectionOptions(
        **({"config": ()} | dict(arguments) | {"client_keys": None})
    )
    known = _known_hosts(arguments.get("known_hosts", ()), config)
    preferences: dict[str, Any] = {}
    if not config.config.get("Ciphers"):
        preferences["encryption_algs"] = FAST_CIPHERS
    kinds = known.kinds()
    if kinds and not config.config.get("HostKeyAlgorithms"):
        # Those that are known first, as ssh does. asyncssh would ask for no other, and a server
        # whose key has changed to another kind would hang up without a word.
        preferences["server_host_key_algs"] = list(dict.fromkeys([*kinds, *HOST_KEY_KINDS]))
    return known, preferences


def _known_hosts(keys: Any, config: asyncssh.SSHClientConnectionOptions) -> KnownHosts:
    if keys not in ((), []) and not _names_files(keys):
        return KnownHosts(config.host, config.port, (), keys)
    if _names_files(keys):
        names = [keys] if isinstance(keys, (str, Path)) else keys
    else:
        # None here would be asyncssh's reading of `UserKnownHostsFile none`: check nothing. ssh
        # takes it for: know nobody.
        names = config.known_hosts if config.known_hosts is not None else [os.devnull]
    files = [Path(name).expanduser() for name in names or [KNOWN_HOSTS]]
    known = asyncssh.SSHKnownHosts()
    for file in files:
        if file.is_file():
            known.load(file.read_text())
    return KnownHosts(config.host, config.port, files, known)


def _names_files(keys: Any) -> bool:
    names = keys if isinstance(keys, (list, tuple)) else [keys]
    return bool(names) and all(isinstance(name, (str, Path)) for name in names)


class Cork:
    """A transport that sends what one turn of the event loop wrote in one go.

    Half of a small transfer's time went into those calls, and in each the worker threads take
    Python's lock away from the event loop. asyncssh has no setting for it, and takes whatever has
    the methods of a transport.

    Args:
        transport: The one that asyncio made.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Hold until the next turn."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held:
            # The connection learns of its end in another way.
            with contextlib.suppress(OSError):
                self._transport.write(b"".join(held))

    def abort(self) -> None:
        """Close at once; what was said before, such as a farewell, goes out if there is room."""
        self._flush()
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def disconnect(session: Session) -> None:
    """End a connection, whatever state it is in."""
    session.connection.close()
    await session.connection.wait_closed()
    await session.sftp.wait_closed()
