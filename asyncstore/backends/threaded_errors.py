"""What libraries that are called in threads raise, as errors of asyncstore."""

from __future__ import annotations

import errno

from asyncstore import uris
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["translate"]

# The names of `mlflow.exceptions.MlflowException.error_code`.
CODES: dict[str, type[AsyncStoreError]] = {
    "RESOURCE_DOES_NOT_EXIST": NotFoundError,
    "NOT_FOUND": NotFoundError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "CUSTOMER_UNAUTHORIZED": UnauthenticatedError,
    "INVALID_PARAMETER_VALUE": InvalidParameterError,
    "BAD_REQUEST": InvalidParameterError,
    "NOT_IMPLEMENTED": UnsupportedError,
    "FEATURE_DISABLED": UnsupportedError,
    "DATA_LOSS": IntegrityError,
    "TEMPORARILY_UNAVAILABLE": UnavailableError,
    "REQUEST_LIMIT_EXCEEDED": UnavailableError,
    "RESOURCE_EXHAUSTED": UnavailableError,
    "DEADLINE_EXCEEDED": UnavailableError,
}
STATUSES: dict[int, type[AsyncStoreError]] = {
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: UnavailableError,
    429: UnavailableError,
}
KINDS: tuple[tuple[type[Exception], type[AsyncStoreError]], ...] = (
    (FileNotFoundError, NotFoundError),
    (PermissionError, PermissionDeniedError),
    (IsADirectoryError, InvalidParameterError),
    (NotADirectoryError, InvalidParameterError),
    (FileExistsError, InvalidParameterError),
    (NotImplementedError, UnsupportedError),
    (ConnectionError, UnavailableError),
    (TimeoutError, UnavailableError),
)
# ocifs says so of 429 and 503, and of 500.
TRANSIENT = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)}


def translate(action: str, error: Exception) -> AsyncStoreError:
    """The error of asyncstore for what a library raised; raise it `from error`.

    An error says what it is by its class, by an HTTP status of its response or by MLflow's error
    code, whichever it has.

    Args:
        action: What was being done to what.
        error: What the library raised.

    Returns:
        The error; `AsyncStoreError` itself for what says nothing.
    """
    if isinstance(error, AsyncStoreError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = uris.redact(str(error)) or type(error).__name__
    return _kind(error, status)(f"{action}: {text}")


def _kind(error: Exception, status: object) -> type[AsyncStoreError]:
    code = getattr(error, "error_code", None)
    if isinstance(code, str) and code in CODES:
        return CODES[code]
    if isinstance(status, int):
        if status in STATUSES:
            return STATUSES[status]
        if status >= 500:
            return UnavailableError
    for theirs, ours in KINDS:
        if isinstance(error, theirs):
            return ours
    if isinstance(error, OSError) and error.errno in TRANSIENT:
        return UnavailableError
    return AsyncStoreError
