"""Errors as MLflow's REST API sends them, in both directions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from asyncstore.errors import (
    AlreadyExistsError,
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    OperationTimeoutError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["ENDPOINT_NOT_FOUND", "error_from_response", "error_to_json", "status_of"]

ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"

# The table of mlflow/exceptions.py; what it does not name is a 500.
_STATUSES = {
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "BAD_REQUEST": 400,
    "UNAUTHENTICATED": 401,
    "CUSTOMER_UNAUTHORIZED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    ENDPOINT_NOT_FOUND: 404,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_CONFLICT": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "CANCELLED": 499,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_CLASSES: dict[str, type[AsyncStoreError]] = {
    "INVALID_PARAMETER_VALUE": InvalidParameterError,
    "BAD_REQUEST": InvalidParameterError,
    "RESOURCE_ALREADY_EXISTS": AlreadyExistsError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "CUSTOMER_UNAUTHORIZED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "RESOURCE_DOES_NOT_EXIST": NotFoundError,
    ENDPOINT_NOT_FOUND: NotFoundError,
    "NOT_FOUND": NotFoundError,
    "INVALID_STATE": InvalidStateError,
    "RESOURCE_CONFLICT": InvalidStateError,
    "ABORTED": InvalidStateError,
    "NOT_IMPLEMENTED": UnsupportedError,
    "DEADLINE_EXCEEDED": OperationTimeoutError,
    "DATA_LOSS": IntegrityError,
    "RESOURCE_EXHAUSTED": UnavailableError,
    "REQUEST_LIMIT_EXCEEDED": UnavailableError,
    "TEMPORARILY_UNAVAILABLE": UnavailableError,
}
# What a status says that comes from something before MLflow: a proxy, or a route that is missing.
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: ENDPOINT_NOT_FOUND,
    405: ENDPOINT_NOT_FOUND,
    408: "TEMPORARILY_UNAVAILABLE",
    409: "RESOURCE_CONFLICT",
    413: "BAD_REQUEST",
    422: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
    502: "TEMPORARILY_UNAVAILABLE",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}
# MLflow refuses to change what is deleted with the code for a wrong argument.
_WRONG_STATE = re.compile(
    r"must be in (the )?'\w+' (state|lifecycle_stage)"
    r"|is (active|deleted); (restore|delete) it first"
)


def status_of(error_code: str) -> int:
    """The HTTP status that MLflow answers an error code with."""
    return _STATUSES.get(error_code, 500)


def error_to_json(error: AsyncStoreError) -> tuple[int, dict[str, str]]:
    """The HTTP status of an error, and its body."""
    return status_of(error.error_code), {"error_code": error.error_code, "message": error.message}


def error_from_response(
    status: int,
    body: bytes | str | Mapping[str, Any],
    doing: str = "",
    *,
    retry_after: float | None = None,
) -> AsyncStoreError:
    """The error that fits an answer with an error's status.

    Args:
        status: The HTTP status.
        body: The answer's body; a mapping when its JSON is read already.
        doing: What was asked of whom, without credentials, for the message; empty to leave it out.
        retry_after: Seconds that the server asked to wait; None when it did not say.

    Returns:
        The error. Its `error_code` is `ENDPOINT_NOT_FOUND` when the server has no such route.
    """
    said = _mapping(body)
    code, message = said.get("error_code"), said.get("message")
    if isinstance(code, int) or (isinstance(code, str) and code.isdigit()):
        status, code = int(code), None
    if not isinstance(code, str):
        code = _CODES.get(status, "INTERNAL_ERROR")
        # Routes of FastAPI, such as /v1/traces.
        message = message or said.get("detail")
    if not message:
        message = f"the server answered {status}" + _beginning(body)
    kind = _CLASSES.get(code, AsyncStoreError)
    if kind is InvalidParameterError and _WRONG_STATE.search(str(message)):
        kind = InvalidStateError
    told = f"{doing}: {message}" if doing else str(message)
    if kind is UnavailableError:
        error: AsyncStoreError = UnavailableError(told, retry_after=retry_after)
        error.error_code = code
        return error
    return kind(told, error_code=code)


def _mapping(body: bytes | str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(body, Mapping):
        return body
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _beginning(body: bytes | str | Mapping[str, Any]) -> str:
    found = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    words = " ".join(re.sub(r"<[^>]*>", " ", found).split())
    return f": {words[:200]}" if words else ""
