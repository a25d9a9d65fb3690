"""What can go wrong, as one tree.

    AsyncStoreError
    ├── NotFoundError                (also a FileNotFoundError)
    ├── AlreadyExistsError           (also a FileExistsError)
    ├── PermissionDeniedError        (also a PermissionError)
    ├── UnauthenticatedError         (also a PermissionError)
    ├── InvalidParameterError        (also a ValueError)
    ├── InvalidStateError
    ├── UnsupportedError             (also a NotImplementedError)
    ├── MissingDependencyError       (also an ImportError)
    ├── OperationTimeoutError        (also a TimeoutError)
    ├── IntegrityError
    ├── SchemaMismatchError
    └── UnavailableError             (also a ConnectionError)

Every error carries MLflow's ``error_code`` as a string (MLflow's ``databricks.proto`` names them),
so that a person who handles `MlflowException` by its code handles these the same way.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AlreadyExistsError",
    "AsyncStoreError",
    "IntegrityError",
    "InvalidParameterError",
    "InvalidStateError",
    "MissingDependencyError",
    "NotFoundError",
    "OperationTimeoutError",
    "PermissionDeniedError",
    "SchemaMismatchError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
]


class AsyncStoreError(Exception):
    """Any error of asyncstore.

    Args:
        message: What was being done, to what, and what the person can do. No credentials.
        error_code: MLflow's name for the kind of trouble; None takes the class's own.
    """

    default_error_code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, *, error_code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code or self.default_error_code

    def __str__(self) -> str:
        # OSError's own __str__ would print an errno that the mixed-in subclasses never set.
        return self.message


class NotFoundError(AsyncStoreError, FileNotFoundError):
    """An experiment, run, artifact, bucket or local file does not exist."""

    default_error_code = "RESOURCE_DOES_NOT_EXIST"


class AlreadyExistsError(AsyncStoreError, FileExistsError):
    """A name that must be unique is taken."""

    default_error_code = "RESOURCE_ALREADY_EXISTS"


class PermissionDeniedError(AsyncStoreError, PermissionError):
    """The storage or the operating system knows who asks, and refuses."""

    default_error_code = "PERMISSION_DENIED"


class UnauthenticatedError(AsyncStoreError, PermissionError):
    """Credentials are missing, wrong or expired."""

    default_error_code = "UNAUTHENTICATED"


class InvalidParameterError(AsyncStoreError, ValueError):
    """An argument, a setting, a filter or a path is not acceptable."""

    default_error_code = "INVALID_PARAMETER_VALUE"


class InvalidStateError(AsyncStoreError):
    """The object exists, but is not in a state that allows the operation."""

    default_error_code = "INVALID_STATE"


class UnsupportedError(AsyncStoreError, NotImplementedError):
    """The storage or database cannot do what was asked."""

    default_error_code = "NOT_IMPLEMENTED"


class MissingDependencyError(AsyncStoreError, ImportError):
    """A library that this scheme needs is not installed; the message names the extra."""

    default_error_code = "NOT_IMPLEMENTED"


class OperationTimeoutError(AsyncStoreError, TimeoutError):
    """The deadline of the whole operation passed."""

    default_error_code = "DEADLINE_EXCEEDED"


class IntegrityError(AsyncStoreError):
    """What arrived is not what was sent, or a file changed while it was being sent."""

    default_error_code = "DATA_LOSS"


class SchemaMismatchError(AsyncStoreError):
    """The database is at a schema revision that asyncstore does not know. Nothing was written."""

    default_error_code = "INVALID_STATE"


class UnavailableError(AsyncStoreError, ConnectionError):
    """The server could not be reached or answered that it cannot serve now; worth a retry.

    Args:
        message: As for `AsyncStoreError`.
        retry_after: Seconds that the server asked to wait; None when it did not say.
    """

    default_error_code = "TEMPORARILY_UNAVAILABLE"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
