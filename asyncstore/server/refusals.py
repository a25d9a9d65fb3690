"""What middlewares share: what they look at, and how they refuse a request, as MLflow would."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import Scope, Send

from asyncstore.server.routing import route_of

__all__ = ["OPEN_PATHS", "header", "headers_named", "path_template", "refuse"]

# What a load balancer asks, without being anybody and by whatever name it knows the server.
OPEN_PATHS = frozenset({"/health", "/version"})


def headers_named(scope: Scope, name: bytes) -> list[bytes]:
    """Every value of a header.

    Args:
        scope: Of the request.
        name: In small letters.
    """
    return [value for key, value in scope["headers"] if key == name]


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a header; None when the request has none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def path_template(scope: Scope) -> str | None:
    """The path of a request as the table of routes has it, such as `/api/2.0/mlflow/runs/get`.

    Args:
        scope: Of the request.

    Returns:
        The path; None where no route of the table serves it.
    """
    route = route_of(scope).route
    return None if route is None else route.path


async def refuse(
    send: Send,
    status: int,
    error_code: str,
    message: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Answer a request with an error.

    Args:
        send: Of the request.
        status: HTTP status.
        error_code: MLflow's name for the kind of trouble.
        message: What was refused and what the person can do.
        headers: More headers.
    """
    body = json.dumps({"error_code": error_code, "message": message}).encode()
    own = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
