"""What is peculiar to aiohttp and TLS in a connection to a tracking server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from asyncstore import settings
from asyncstore.errors import AsyncStoreError, InvalidParameterError, UnavailableError

__all__ = ["UNREACHED", "Response", "redirected", "same_server", "tls", "translated"]

SAME_METHOD = {307, 308}
REDIRECTS = {301, 302, 303, *SAME_METHOD}
#: What aiohttp raises when no connection came about, so that nothing was asked.
UNREACHED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Response(aiohttp.ClientResponse):
    """An answer whose connection breaks with it, when it is not read to its end.

    Closing would wait until the server has taken in what was to be sent, which may be never.
    """

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Wait for the head of the answer."""
        try:
            return await super().start(connection)
        except BaseException:
            _break(connection)
            raise

    def hang_up(self) -> None:
        """Break the connection, unless the answer was read to its end."""
        _break(self.connection)
        self.close()


def _break(connection: Any) -> None:
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


def tls() -> ssl.SSLContext | bool:
    """How a server's certificate is checked, as the variables say. Blocks.

    Returns:
        A context; True for aiohttp's own, which trusts the system's certificates, and False for no
        check at all.

    Raises:
        InvalidParameterError: Two variables contradict each other, or a file is no certificate.
    """
    insecure = settings.MLFLOW_TRACKING_INSECURE_TLS.get()
    trusted = settings.MLFLOW_TRACKING_SERVER_CERT_PATH.get()
    own = settings.MLFLOW_TRACKING_CLIENT_CERT_PATH.get()
    if insecure and trusted:
        raise InvalidParameterError(
            "MLFLOW_TRACKING_INSECURE_TLS checks no certificate and "
            "MLFLOW_TRACKING_SERVER_CERT_PATH says which to trust; set one of them"
        )
    if not trusted and not own:
        return not insecure
    name = settings.MLFLOW_TRACKING_SERVER_CERT_PATH.name
    try:
        if trusted and Path(trusted).is_dir():
            context = ssl.create_default_context(capath=trusted)
        else:
            context = ssl.create_default_context(cafile=trusted)
        name = settings.MLFLOW_TRACKING_CLIENT_CERT_PATH.name
        if own:
            context.load_cert_chain(own)
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"{name} cannot be used: {error}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def redirected(doing: str, method: str, response: aiohttp.ClientResponse, body: Any) -> URL | None:
    """Where an answer sends the request instead; None where it does not.

    Args:
        doing: What was asked, for the error.
        method: Of the request.
        response: The answer, its body unread.
        body: What the request sent.

    Raises:
        InvalidParameterError: To another server, which would get the credentials; or in a way in
            which the request would become another one.
    """
    location = response.headers.get("Location")
    if response.status not in REDIRECTS or location is None:
        return None
    if not settings.MLFLOW_ALLOW_HTTP_REDIRECTS.get():
        raise InvalidParameterError(
            f"{doing}: the server answered {response.status}, and MLFLOW_ALLOW_HTTP_REDIRECTS is "
            "false"
        )
    here = response.url
    try:
        target = here.join(URL(location, encoded=True)).with_fragment(None)
        origin = target.origin()
    except ValueError as error:
        raise InvalidParameterError(f"{doing}: redirected to what is no URL") from error
    if not same_server(here.origin(), origin):
        raise InvalidParameterError(
            f"{doing}: the server redirects to {origin}, where credentials are not sent; if that "
            "is the tracking server, write it as the tracking URI"
        )
    streamed = body is not None and not isinstance(body, bytes)
    if streamed or (method not in ("GET", "HEAD") and response.status not in SAME_METHOD):
        raise InvalidParameterError(
            f"{doing}: the server redirects with {response.status} to "
            f"{target.with_query(None)}, where a {method} cannot follow; write "
            f"{origin} as the tracking URI"
        )
    return target


def same_server(here: URL, there: URL) -> bool:
    """Whether what is for one origin may be sent to another: it is the same, or its https."""
    if here.host != there.host:
        return False
    if (here.scheme, there.scheme) == ("http", "https"):
        return here.port == there.port or (here.port, there.port) == (80, 443)
    return (here.scheme, here.port) == (there.scheme, there.port)


@contextmanager
def translated(doing: str, timeout: float) -> Iterator[None]:
    """Turn what aiohttp raises in the block into errors of asyncstore.

    Args:
        doing: What was asked, to begin the message with.
        timeout: The seconds that a server has.
    """
    try:
        yield
    except AsyncStoreError:
        raise  # also a TimeoutError, some of them
    except (aiohttp.InvalidURL, UnicodeError) as error:
        raise InvalidParameterError(f"{doing}: this is no URL, or no name of a host") from error
    except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch) as error:
        raise AsyncStoreError(
            f"{doing}: {error}; MLFLOW_TRACKING_SERVER_CERT_PATH says which certificates to trust"
        ) from error
    except aiohttp.ClientHttpProxyError as error:
        raise AsyncStoreError(f"{doing}: the proxy answers {error.status}") from error
    except TimeoutError as error:
        raise UnavailableError(
            f"{doing}: no answer within {timeout:g} s, which MLFLOW_HTTP_REQUEST_TIMEOUT sets"
        ) from error
    except aiohttp.ClientError as error:
        raise UnavailableError(f"{doing}: {error or type(error).__name__}") from error
