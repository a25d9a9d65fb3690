"""The client of Azure Blob Storage: who is asked, as whom, and what goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import DefaultAzureCredential
from azure.storage.blob import ContentSettings
from azure.storage.blob.aio import BlobServiceClient

from asyncstore import __version__, settings, uris
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.files.reading import ContentType
from asyncstore.sockets import Sockets

__all__ = [
    "MAX_CONNECTIONS",
    "Account",
    "Service",
    "connect",
    "content_settings",
    "parse_uri",
    "translated",
]

MAX_CONNECTIONS = 64
FORMS = (
    "wasbs://container@account.blob.core.windows.net/path, "
    "abfss://container@account.dfs.core.windows.net/path or az://container/path"
)
# Amazon's rule of names is not Azure's: https://learn.microsoft.com/rest/api/storageservices/
# naming-and-referencing-containers--blobs--and-metadata
CONTAINER = re.compile(r"\$(root|web|logs)|[a-z0-9](-?[a-z0-9]){2,62}")
HOST = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.([a-z0-9.\-]+)")


@dataclass(frozen=True)
class Account:
    """What a URI says.

    Args:
        container: The container.
        host: The host of the blob service; None where the credentials say whose account it is.
        prefix: The path inside, without slashes around it.
    """

    container: str
    host: str | None
    prefix: str


def parse_uri(uri: str) -> Account:
    """The container, the account and the prefix of a URI.

    Raises:
        InvalidParameterError: One of them is missing or cannot be one.
    """
    scheme, separator, rest = uri.partition("://")
    shown = uris.redact(uri)
    if not separator:
        raise InvalidParameterError(f"{shown}: write {FORMS}")
    authority, _, path = rest.partition("/")
    uris.root_path(uri, path)
    container, at, address = authority.partition("@")
    if not container:
        raise InvalidParameterError(f"{shown} names no container; write {FORMS}")
    if not CONTAINER.fullmatch(container):
        raise InvalidParameterError(
            f"{shown}: {container!r} is no name of a container (3 to 63 lower case letters, "
            "digits and single hyphens)"
        )
    host = None
    if at:
        found = HOST.fullmatch(address)
        if not found:
            raise InvalidParameterError(f"{shown} names no storage account; write {FORMS}")
        # Both endpoints of an account lead to the same data.
        host = f"{found[1]}.blob.{found[2]}"
    elif scheme.lower() in ("wasb", "wasbs"):
        raise InvalidParameterError(f"{shown} names no storage account; write {FORMS}")
    return Account(container, host, path.strip("/"))


@dataclass(frozen=True)
class Service:
    """An open client with what has to be closed behind it."""

    client: BlobServiceClient
    credential: Any
    sockets: Sockets

    async def aclose(self) -> None:
        """Close every connection."""
        await self.client.close()
        if hasattr(self.credential, "close"):
            await self.credential.close()
        await self.sockets.hang_up()


async def connect(account: Account, storage_options: Mapping[str, Any]) -> Service:
    """Make a client; no request is sent.

    Args:
        account: Whose.
        storage_options: `connection_string`, `account_name`, `account_key`, `sas_token` and
            `credential`, as adlfs names them, above the variables; any other argument of
            `BlobServiceClient`.

    Raises:
        InvalidParameterError: Nobody says whose account it is.
        ValueError: A credential is malformed.
    """
    options = dict(storage_options)
    connection_string = options.pop("connection_string", None)
    name = options.pop("account_name", None)
    given = [options.pop(key, None) for key in ("account_key", "sas_token", "credential")]
    credential = next(filter(None, given), None)
    if not connection_string and not credential:
        # The documented order: a connection string, a key, then whatever the machine has.
        connection_string = settings.AZURE_STORAGE_CONNECTION_STRING.get()
    host = account.host or (f"{name}.blob.core.windows.net" if name else None)
    if host is None and not connection_string:
        raise InvalidParameterError(
            "nobody says whose storage account it is: set AZURE_STORAGE_CONNECTION_STRING, give "
            "storage_options={'account_name': ...}, or name it in the URI: " + FORMS
        )
    sockets = Sockets()
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, socket_factory=sockets.make),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=True,
    )
    arguments: dict[str, Any] = {
        # One place retries: the scheduler, which knows the deadline.
        "retry_total": 0,
        "user_agent": f"asyncstore/{__version__}",
        "user_agent_overwrite": True,
        "connection_timeout": 10,
        "read_timeout": 60,
        "transport": AioHttpTransport(session=session, session_owner=True),
        **options,
    }
    try:
        if connection_string:
            client = BlobServiceClient.from_connection_string(connection_string, **arguments)
            return Service(client, None, sockets)
        credential = (
            credential or settings.AZURE_STORAGE_ACCESS_KEY.get() or DefaultAzureCredential()
        )
        client = BlobServiceClient(f"https://{host}", credential, **arguments)
        return Service(client, credential, sockets)
    except BaseException:
        await session.close()
        raise


def content_settings(content_type: ContentType) -> ContentSettings:
    """What a blob says of its content."""
    return ContentSettings(content_type=content_type.type, content_encoding=content_type.encoding)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise asyncstore's errors for what Azure's library raises, cause kept.

    Args:
        action: What is being done to what, for the message.
    """
    try:
        yield
    except (IncompleteReadError, ServiceRequestError, ServiceResponseError) as error:
        raise UnavailableError(f"{action}: {error.message}") from error
    except HttpResponseError as error:
        raise _from_response(action, error) from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(f"{action}: {str(error) or type(error).__name__}") from error
    except AzureError as error:
        raise AsyncStoreError(f"{action}: {error.message}") from error
    except AsyncStoreError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"{action}: {error}") from error


def _from_response(action: str, error: HttpResponseError) -> AsyncStoreError:
    found = getattr(error, "error_code", None) or ""
    code = str(getattr(found, "value", found))
    status = error.status_code or 0
    first_line = (error.message or "").splitlines()[0] if error.message else ""
    message = f"{action}: {first_line} ({code or status})"
    if status == 401 or code in ("AuthenticationFailed", "InvalidAuthenticationInfo"):
        return UnauthenticatedError(message)
    if status == 0 and isinstance(error, ClientAuthenticationError):
        return UnauthenticatedError(
            f"{message}; set AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY, or log in"
        )
    if status == 403:
        return PermissionDeniedError(message)
    if status == 404:
        return NotFoundError(message)
    if status == 412 or code == "Md5Mismatch":
        return IntegrityError(message)
    if status in (408, 429) or status >= 500:
        response: Any = error.response
        retry_after = str(response.headers.get("Retry-After", "")) if response is not None else ""
        return UnavailableError(
            message, retry_after=float(retry_after) if retry_after.isdigit() else None
        )
    if status == 400:
        return InvalidParameterError(message)
    return AsyncStoreError(message)
