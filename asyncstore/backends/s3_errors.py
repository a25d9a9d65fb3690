"""What botocore and aiohttp raise, as errors of asyncstore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore import exceptions as boto

from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)

__all__ = ["RangeNotSatisfiableError", "translated"]


class RangeNotSatisfiableError(InvalidParameterError):
    """The file ends before the range begins."""


# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; a HEAD has no body, so its
# code is the bare status.
ERRORS: dict[str, type[AsyncStoreError]] = {
    "404": NotFoundError,
    "NoSuchBucket": NotFoundError,
    "NoSuchKey": NotFoundError,
    "NoSuchUpload": NotFoundError,
    "403": PermissionDeniedError,
    "AccessDenied": PermissionDeniedError,
    "AllAccessDisabled": PermissionDeniedError,
    "ExpiredToken": UnauthenticatedError,
    "InvalidAccessKeyId": UnauthenticatedError,
    "InvalidToken": UnauthenticatedError,
    "SignatureDoesNotMatch": UnauthenticatedError,
    "412": IntegrityError,
    "416": RangeNotSatisfiableError,
    "BadDigest": IntegrityError,
    "PreconditionFailed": IntegrityError,
    "InvalidArgument": InvalidParameterError,
    "InvalidBucketName": InvalidParameterError,
    "InvalidRange": RangeNotSatisfiableError,
    "InvalidRequest": InvalidParameterError,
    "KeyTooLongError": InvalidParameterError,
}
TRANSIENT = {
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeTooSkewed",
}
CONNECTION = (
    aiohttp.ClientError,
    boto.EndpointConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    TimeoutError,
)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise asyncstore's errors for what botocore and aiohttp raise, cause kept.

    Args:
        action: What is being done to what, for the message.
    """
    try:
        yield
    except boto.ClientError as error:
        raise _from_response(action, error) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise UnauthenticatedError(
            f"{action}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
        ) from error
    except boto.CredentialRetrievalError as error:
        raise UnauthenticatedError(f"{action}: {error}") from error
    except (boto.SSLError, boto.ProxyConnectionError) as error:
        raise AsyncStoreError(
            f"{action}: {error}; for a private authority name its certificate in AWS_CA_BUNDLE"
        ) from error
    except CONNECTION as error:
        raise UnavailableError(f"{action}: {str(error) or type(error).__name__}") from error
    except (boto.BotoCoreError, ValueError) as error:
        raise InvalidParameterError(f"{action}: {error}") from error


def _from_response(action: str, error: boto.ClientError) -> AsyncStoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    message = f"{action}: {error.response.get('Error', {}).get('Message') or code} ({code})"
    if code in ERRORS:
        return ERRORS[code](message)
    if code in TRANSIENT or status == 429 or status >= 500:
        retry_after = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
        seconds = float(retry_after) if retry_after.isdigit() else None
        return UnavailableError(message, retry_after=seconds)
    return AsyncStoreError(message)
