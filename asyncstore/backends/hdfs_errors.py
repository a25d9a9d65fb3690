"""What hdfs-native and pyarrow raise, as errors of asyncstore."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["translate", "translated"]

# hdfs-native raises a RuntimeError `Kind("...")`, and `RPCError("java.Class", "...")` for what the
# NameNode says: by the kind, or the last part of the class.
KINDS: dict[str, type[AsyncStoreError]] = {
    "InvalidPathException": InvalidParameterError,
    "HadoopIllegalArgumentException": InvalidParameterError,
    "IllegalArgumentException": InvalidParameterError,
    "PathComponentTooLongException": InvalidParameterError,
    "ParentNotDirectoryException": InvalidParameterError,
    "InvalidArgument": InvalidParameterError,
    "InvalidPath": InvalidParameterError,
    "UrlParseError": InvalidParameterError,
    "XmlParseError": InvalidParameterError,
    "AccessControlException": PermissionDeniedError,
    "AuthorizationException": PermissionDeniedError,
    "InvalidToken": UnauthenticatedError,
    "SaslException": UnauthenticatedError,
    "SASLError": UnauthenticatedError,
    "GSSAPIError": UnauthenticatedError,
    "NoSASLMechanism": UnauthenticatedError,
    "StandbyException": UnavailableError,
    "RetriableException": UnavailableError,
    "SafeModeException": UnavailableError,
    "NotReplicatedYetException": UnavailableError,
    "IOError": UnavailableError,
    "DataTransferError": UnavailableError,
    "ChecksumError": UnavailableError,
    "OperationFailed": UnavailableError,
    "InternalError": UnavailableError,
    "InvalidRPCResponse": UnavailableError,
    "BlocksNotFound": UnavailableError,
    "UnsupportedFeature": UnsupportedError,
    "UnsupportedErasureCodingPolicy": UnsupportedError,
}
# What has no class of its own.
MESSAGES: tuple[tuple[re.Pattern[str], type[AsyncStoreError]], ...] = (
    (re.compile(r"Path is not a file: "), InvalidParameterError),
    (re.compile(r"create: Pathname too long\."), InvalidParameterError),
    (re.compile(r"Source .* and destination .* must both be directories"), InvalidParameterError),
    (re.compile(r"SIMPLE authentication is not enabled"), UnauthenticatedError),
    # No DataNode is up, has room, or takes another writer just now.
    (re.compile(r"File .* could only be (replicated|written) to"), UnavailableError),
)
CLASSES: tuple[tuple[type[Exception], type[AsyncStoreError]], ...] = (
    (FileNotFoundError, NotFoundError),
    (PermissionError, PermissionDeniedError),
    (FileExistsError, InvalidParameterError),
    (IsADirectoryError, InvalidParameterError),
    (NotADirectoryError, InvalidParameterError),
)
NUMBERS = {errno.EINVAL: InvalidParameterError, errno.EDQUOT: AsyncStoreError}
_NATIVE = re.compile(r'(\w+)\((?:"([\w.$]+)", )?"?(.*)', re.DOTALL)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise what a library raises in the block as an error of asyncstore.

    Args:
        action: What is being done to what.
    """
    try:
        yield
    except (AsyncStoreError, StopAsyncIteration):
        raise
    except Exception as error:
        raise translate(action, error) from error
    except BaseException as error:
        # Rust's last word, which its bindings do not count among the exceptions.
        if type(error).__name__ == "PanicException":
            raise UnavailableError(f"{action}: hdfs-native gave up: {error}") from error
        raise


def translate(action: str, error: Exception) -> AsyncStoreError:
    """The error of asyncstore for what a library raised; raise it `from error`.

    Args:
        action: What was being done to what.
        error: What was raised.
    """
    text = str(error)
    kind: type[AsyncStoreError] | None = None
    if isinstance(error, RuntimeError) and (found := _NATIVE.match(text)):
        name = re.split(r"[.$]", found[2] or found[1])[-1]
        kind = KINDS.get(name)
        text = found[3].replace("\\n", "\n").removesuffix('")')
    # The server's stack is of no use to a person.
    text = text.partition("\n")[0].strip() or type(error).__name__
    said = (ours for pattern, ours in MESSAGES if pattern.match(text))
    kind = kind or next(said, None) or _by_class(error)
    return kind(f"{action}: {text}")


def _by_class(error: Exception) -> type[AsyncStoreError]:
    if not isinstance(error, OSError):
        return AsyncStoreError
    by_number = NUMBERS.get(error.errno or 0, UnavailableError)
    # What becomes of a connection comes without a class and without a number.
    return next((ours for theirs, ours in CLASSES if isinstance(error, theirs)), by_number)
