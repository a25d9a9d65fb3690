"""What asyncssh raises, as errors of asyncstore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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

__all__ = ["LIBRARY", "translated"]

# The first that fits counts. SFTP 3, which OpenSSH speaks, has few codes: a full disk, a directory
# that is not empty and a name that is taken are all SFTPFailure.
# https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02#section-7
KINDS: tuple[tuple[tuple[type[Exception], ...], type[AsyncStoreError]], ...] = (
    ((asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath), NotFoundError),
    ((asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect), PermissionDeniedError),
    ((asyncssh.SFTPOpUnsupported,), UnsupportedError),
    (
        (
            # OpenSSH says so of a name that is too long.
            asyncssh.SFTPBadMessage,
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
    ((asyncssh.SFTPError,), AsyncStoreError),
    ((asyncssh.PermissionDenied, asyncssh.KeyEncryptionError), UnauthenticatedError),
    (
        (
            asyncssh.KeyImportError,
            asyncssh.ConfigParseError,
            # A key file, known_hosts or ssh_config.
            FileNotFoundError,
            PermissionError,
            IsADirectoryError,
            NotADirectoryError,
        ),
        InvalidParameterError,
    ),
    # Both sides would say the same again.
    ((asyncssh.KeyExchangeFailed, asyncssh.ProtocolNotSupported), AsyncStoreError),
    ((asyncssh.DisconnectError, TimeoutError, ConnectionError, OSError), UnavailableError),
)
LIBRARY = tuple(kind for kinds, _ in KINDS for kind in kinds)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise asyncstore's errors for what asyncssh raises, cause kept.

    Args:
        action: What is being done to what, for the message.
    """
    try:
        yield
    except AsyncStoreError:
        # Some are errors of the operating system too.
        raise
    except LIBRARY as error:
        kind = next(kind for kinds, kind in KINDS if isinstance(error, kinds))
        reason = getattr(error, "reason", "") or str(error) or type(error).__name__
        if isinstance(error, asyncssh.SFTPFailure):
            reason = f"{reason} (the server does not say why; it may have no room left)"
        raise kind(f"{action}: {reason}") from error
