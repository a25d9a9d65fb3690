"""Credentials of Google Cloud: found as google-auth finds them, renewed off the event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import anyio
import anyio.from_thread
import anyio.to_thread
import google.auth
import google.auth.credentials
from google.auth import _cloud_sdk, exceptions, transport
from google.oauth2.credentials import Credentials as AccessToken

from asyncstore import settings
from asyncstore.backends.gcs_errors import unauthenticated
from asyncstore.errors import InvalidParameterError, UnsupportedError

__all__ = ["Credentials", "application_default", "from_token"]

T = TypeVar("T")
SCOPE = "https://www.googleapis.com/auth/devstorage."
# What gcsfs makes credentials of by itself.
GCSFS_TOKENS = ("anon", "cache", "cloud")
TOKEN_WITHIN = 30.0


class Credentials:
    """The credentials of a client, which are renewed when they are about to expire.

    Args:
        credentials: Of google-auth; None for an anonymous client.
    """

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._lock = anyio.Lock()

    async def headers(self) -> dict[str, str]:
        """The headers that a request needs.

        Raises:
            GoogleAuthError: There is no new token to be had.
        """
        headers: dict[str, str] = {}
        if self._credentials is not None:
            if not self._credentials.valid:
                async with self._lock:
                    if not self._credentials.valid:
                        await _in_thread(self._credentials.refresh)
            self._credentials.apply(headers)
        return headers

    def signer_email(self, action: str) -> str:
        """Whose signature `sign` makes.

        Args:
            action: What is to be signed, for the error.

        Raises:
            UnsupportedError: The credentials have no private key.
        """
        signs = isinstance(self._credentials, google.auth.credentials.Signing)
        email = self._credentials.signer_email if signs else None
        if not email:
            raise UnsupportedError(f"{action}: that takes the key of a service account")
        return str(email)

    async def sign(self, messages: Sequence[bytes]) -> list[bytes]:
        """Sign each of the messages, in a worker thread."""
        sign = self._credentials.sign_bytes
        return await anyio.to_thread.run_sync(lambda: [sign(message) for message in messages])


async def application_default(action: str, access: str, *, anonymous: bool) -> Any:
    """The application default credentials: the variable, gcloud's file, the metadata server.

    https://cloud.google.com/docs/authentication/application-default-credentials

    Args:
        action: What they are for, for the message.
        access: gcsfs's word for the scope: read_only, read_write or full_control.
        anonymous: Whether there may be none, as for a public bucket.

    Returns:
        Credentials of google-auth; None when there are none anywhere.

    Raises:
        UnauthenticatedError: What was found cannot be used, or nothing was.
    """

    def find(request: transport.Request) -> Any:
        find_default: Any = google.auth.default
        try:
            return find_default(scopes=[SCOPE + access], request=request)[0]
        except exceptions.DefaultCredentialsError as error:
            named = settings.GOOGLE_APPLICATION_CREDENTIALS.get()
            gcloud: Any = _cloud_sdk.get_application_default_credentials_path
            if anonymous and not named and not Path(gcloud()).is_file():
                return None
            where = "GOOGLE_APPLICATION_CREDENTIALS: " if named else ""
            raise unauthenticated(f"{action}: {where}".rstrip(": "), error) from error

    return await _in_thread(find)


def from_token(token: Any) -> Any:
    """What gcsfs takes as `token`, without its look-up of an access token, which could leak it.

    Args:
        token: As a person gave it. Blocks when it is the name of a file.

    Raises:
        InvalidParameterError: It names a file that does not exist, or is of no use here.
    """
    if not isinstance(token, str) or token in GCSFS_TOKENS or Path(token).is_file():
        return token
    if token in ("", "browser") or os.sep in token or token.endswith(".json"):
        raise InvalidParameterError(
            "storage_options['token'] is neither an access token nor a file that exists"
        )
    access_token: Any = AccessToken
    return access_token(token)


async def _in_thread(call: Callable[[transport.Request], T]) -> T:
    """Run what google-auth does blocking; its requests are cancelled with the caller."""
    return await anyio.to_thread.run_sync(call, _Request())


class _Answer(NamedTuple):
    """What google-auth reads of an answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _Request(transport.Request):
    """google-auth's requests, sent by the event loop that waits for its thread."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Answer:
        try:
            return anyio.from_thread.run(
                partial(_send, url, method, body, headers, within=timeout or TOKEN_WITHIN)
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            said = str(error) or type(error).__name__
            failed: Any = exceptions.TransportError
            raise failed(f"no token: {said}", retryable=True) from error


async def _send(
    url: str, method: str, body: Any, headers: Mapping[str, str] | None, *, within: float
) -> _Answer:
    timeout = aiohttp.ClientTimeout(total=within)
    async with (
        aiohttp.ClientSession(trust_env=True, timeout=timeout) as session,
        session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer,
    ):
        return _Answer(answer.status, answer.headers, await answer.read())
