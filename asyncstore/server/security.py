"""Against what a browser could be made to do: checks of hosts and origins, and headers.

Names and defaults are those of `mlflow server`: MLFLOW_SERVER_ALLOWED_HOSTS,
MLFLOW_SERVER_CORS_ALLOWED_ORIGINS and MLFLOW_SERVER_X_FRAME_OPTIONS.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncstore.server.refusals import (
    OPEN_PATHS,
    header,
    headers_named,
    path_template,
    refuse,
)

__all__ = [
    "LOCAL_ORIGINS",
    "Host",
    "HostMiddleware",
    "OriginMiddleware",
    "SecurityHeadersMiddleware",
    "host_allowed",
    "origin_allowed",
    "origin_pattern",
    "parse_host",
]

STATE_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Notebooks show traces in a frame of this page of MLflow's UI.
FRAMED_PATH = "/static-files/lib/notebook-trace-renderer"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})  # noqa: S104  compared, not bound
LOCAL_ORIGINS = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?"
# RFC 1918 and RFC 4193.
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)
# RFC 1035, section 2.3.4, allows names of 255; what is longer could keep a pattern busy.
LONGEST = 300
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(.+)")


class Host(NamedTuple):
    """A Host header.

    Args:
        name: A name in small letters, or an address without brackets.
        port: Its digits; empty when there is none.
    """

    name: str
    port: str

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address that `name` is; None for a name."""
        try:
            return ipaddress.ip_address(self.name)
        except ValueError:
            return None

    def spellings(self) -> tuple[str, str]:
        """Without the port, and with it, as headers write it."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name, f"{name}:{self.port}" if self.port else name


def parse_host(text: str) -> Host | None:
    """Take a Host header apart.

    Args:
        text: The header, or what stands behind the scheme of an origin.

    Returns:
        Its parts; None when it is no host, such as a text with a path or a user in it.
    """
    found = _HOST.fullmatch(text.lower()) if len(text) <= LONGEST else None
    if found is None:
        return None
    address, name, port = found.groups()
    if address is not None:
        host = Host(address, port or "")
        return host if isinstance(host.address, ipaddress.IPv6Address) else None
    # The dot at the end of a complete name.
    name = name.removesuffix(".")
    return Host(name, port or "") if name else None


def host_allowed(text: str, allowed: Sequence[str] | None) -> bool:
    """Whether a request may be meant for this server.

    A page whose name was made to lead here (DNS rebinding) sends its own name.

    Args:
        text: The Host header.
        allowed: Names or addresses, with or without a port, `*` standing for anything in them, and
            for digits only where the rest of it is an address; None for loopback and private
            addresses.
    """
    host = parse_host(text)
    if host is None:
        return False
    address = host.address
    if allowed is None:
        return host.name in LOCAL_NAMES or (
            address is not None and any(address in network for network in _PRIVATE)
        )
    spellings = host.spellings()
    return any(
        _pattern(each).fullmatch(spelling)
        for each in allowed
        # 10.* is not to let in 10.example.com.
        if address is not None or not re.fullmatch(r"[0-9.*:]*[0-9][0-9.*:]*", each)
        for spelling in spellings
    )


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text.lower()).replace(r"\*", ".*"))


def origin_pattern(allowed: Sequence[str]) -> re.Pattern[str]:
    """Origins that may use the server from a browser: those of this machine, and the allowed ones.

    Args:
        allowed: Origins such as `https://app.example.com`, `*` standing for anything in them.
    """
    return re.compile("|".join([LOCAL_ORIGINS, *(_pattern(each).pattern for each in allowed)]))


def origin_allowed(origin: str, host: str | None, allowed: re.Pattern[str]) -> bool:
    """Whether a page may change something here.

    Args:
        origin: The Origin header.
        host: The Host header, which has been checked; a page of the server itself may.
        allowed: What `origin_pattern` returned.
    """
    if len(origin) > LONGEST:
        return False
    if allowed.fullmatch(origin.lower()):
        return True
    found = _ORIGIN.fullmatch(origin.lower())
    theirs = parse_host(found[1]) if found else None
    # The scheme is left out, since a proxy before the server may speak TLS for it.
    return theirs is not None and theirs == parse_host(host or "")


class HostMiddleware:
    """Refuses requests whose Host header names another server.

    Args:
        app: What it stands before.
        allowed: As for `host_allowed`.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str] | None) -> None:
        self._app = app
        self._allowed = allowed
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "lifespan" or path_template(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        values = headers_named(scope, b"host")
        if len(values) != 1 or not self._allows(values[0]):
            await refuse(
                send,
                403,
                "PERMISSION_DENIED",
                "Invalid Host header: this server does not answer by that name unless "
                "--allowed-hosts or MLFLOW_SERVER_ALLOWED_HOSTS has it",
            )
            return
        await self._app(scope, receive, send)

    def _allows(self, value: bytes) -> bool:
        if value in self._known:
            return True
        allowed = host_allowed(value.decode("latin-1"), self._allowed)
        if allowed and len(self._known) < 100:
            self._known.add(value)
        return allowed


class OriginMiddleware:
    """Refuses requests by which a page of another site would change something (CSRF).

    Programs send no Origin header, and browsers send one with whatever changes something.

    Args:
        app: What it stands before.
        allowed: Origins, as for `origin_pattern`.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = origin_pattern(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "http" and scope["method"] in STATE_CHANGING:
            host = header(scope, b"host")
            for origin in headers_named(scope, b"origin"):
                named = None if host is None else host.decode("latin-1")
                if not origin_allowed(origin.decode("latin-1"), named, self._allowed):
                    await refuse(
                        send,
                        403,
                        "PERMISSION_DENIED",
                        "Cross-origin request blocked: pages of that origin may not change "
                        "anything here unless --cors-allowed-origins or "
                        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS has it",
                    )
                    return
        await self._app(scope, receive, send)


class SecurityHeadersMiddleware:
    """Tells browsers not to guess types, and not to show the server in the frame of another site.

    Args:
        app: What it stands before.
        x_frame_options: SAMEORIGIN or DENY; NONE leaves the header out.
    """

    def __init__(self, app: ASGIApp, x_frame_options: str) -> None:
        self._app = app
        self._always = [(b"x-content-type-options", b"nosniff")]
        self._unframed = list(self._always)
        if x_frame_options.upper() != "NONE":
            self._unframed.append((b"x-frame-options", x_frame_options.upper().encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        framed = FRAMED_PATH in scope["path"]
        added = self._always if framed else self._unframed

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, with_headers)
