"""What Google Cloud Storage answers, and what aiohttp and google-auth raise, as asyncstore's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from google.auth import exceptions as google

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

__all__ = ["failure", "parsed", "translated", "unauthenticated"]

HOW_TO_LOG_IN = (
    "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run: "
    "gcloud auth application-default login"
)


# https://cloud.google.com/storage/docs/json_api/v1/status-codes
ERRORS: dict[int, type[AsyncStoreError]] = {
    400: InvalidParameterError,
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    412: IntegrityError,
    501: UnsupportedError,
}
# Some of them come with 403.
TRANSIENT_REASONS = {"rateLimitExceeded", "userRateLimitExceeded", "backendError"}


def failure(
    action: str, status: int, headers: Mapping[str, str], content: bytes
) -> AsyncStoreError:
    """The error that an answer means.

    Args:
        action: What was being done to what, for the message.
        status: The HTTP status.
        headers: Of the answer.
        content: Its body: JSON, XML, HTML, or a line of text.
    """
    said, reason = _said(content)
    message = f"{action}: {said or 'no reason given'} ({status})"
    if status in (408, 429) or reason in TRANSIENT_REASONS or (status >= 500 and status != 501):
        retry_after = headers.get("Retry-After", "")
        seconds = float(retry_after) if retry_after.isdigit() else None
        return UnavailableError(message, retry_after=seconds)
    if status == 401:
        message += f"; {HOW_TO_LOG_IN}"
    elif status == 400 and "requester pays" in said.lower():
        message += "; pass storage_options={'requester_pays': True} or the project that pays"
    elif status == 400 and "doesn't match calculated" in said:
        return IntegrityError(message)
    return ERRORS.get(status, AsyncStoreError)(message)


def _said(content: bytes) -> tuple[str, str]:
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        text = content[:300].decode(errors="replace")
        return " ".join(text.split()), ""
    if not isinstance(error, dict):
        return str(error), ""
    details = error.get("errors")
    first = details[0] if isinstance(details, list) and details else {}
    return str(error.get("message") or ""), str(first.get("reason") or "")


def parsed(action: str, status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
    """The resource that a good answer holds.

    Raises:
        UnavailableError: It is none, as when a proxy on the way answers by itself.
        AsyncStoreError: It is an error in spite of its status.
    """
    try:
        resource = json.loads(content)
    except ValueError:
        resource = None
    if not isinstance(resource, dict):
        raise UnavailableError(f"{action}: the answer ({status}) is no JSON object")
    if "error" in resource:
        error = resource["error"]
        code = error.get("code") if isinstance(error, dict) else None
        raise failure(action, code if isinstance(code, int) else 500, headers, content)
    return resource


def unauthenticated(action: str, error: google.GoogleAuthError) -> AsyncStoreError:
    """The error for credentials that are missing or cannot be had; without what a server sent."""
    said = str(error.args[0]) if error.args else type(error).__name__
    if isinstance(error, google.RefreshError) and len(error.args) > 1:
        # Both are what a token server sent, which may be another token.
        sent = error.args[1] if isinstance(error.args[1], dict) else {}
        words = [str(sent[name]) for name in ("error", "error_description") if name in sent]
        said = ": ".join(words) or "the token server gave no token"
    error.args = (said,)
    if isinstance(error, google.TransportError) or getattr(error, "retryable", False):
        return UnavailableError(f"{action}: {said}")
    return UnauthenticatedError(f"{action}: {said}; {HOW_TO_LOG_IN}")


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise asyncstore's errors for what aiohttp and google-auth raise, cause kept.

    Args:
        action: What is being done to what, for the message.
    """
    try:
        yield
    except google.GoogleAuthError as error:
        raise unauthenticated(action, error) from error
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise AsyncStoreError(
            f"{action}: {error}; for a private authority name its certificate in SSL_CERT_FILE"
        ) from error
    except aiohttp.InvalidURL as error:
        raise InvalidParameterError(f"{action}: the URL {error} is not acceptable") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(f"{action}: {str(error) or type(error).__name__}") from error
