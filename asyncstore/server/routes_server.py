"""What the server says of itself."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive, Scope, Send

from asyncstore.server.decoding import Request
from asyncstore.server.routes_presigned import presigns, takes_parts
from asyncstore.server.routing import AnyRoute, AsgiRoute, Route
from asyncstore.server.state import Server

__all__ = ["MLFLOW_VERSION", "ROUTES"]

# The MLflow whose protocol this is; its clients ask for it.
MLFLOW_VERSION = "3.17.2"


async def _text(send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def health(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Say that the server runs."""
    await _text(send, b"OK")


async def version(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """The version of MLflow whose protocol the server speaks."""
    await _text(send, MLFLOW_VERSION.encode())


async def get_server_info(server: Server, request: Request) -> dict[str, Any]:
    """What the server can do, for clients that look before they ask."""
    presigned = await presigns(server)
    return {
        # MLflow's name for a database.
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": presigned and takes_parts(),
        "multipart_downloads_enabled": presigned,
        "presigned_upload_run_id_supported": True,
        "presigned_upload_model_id_supported": True,
        "features_enabled": {"gateway": False},
    }


ROUTES: tuple[AnyRoute, ...] = (
    AsgiRoute("GET", "/health", health, gives="text/plain"),
    AsgiRoute("GET", "/version", version, gives="text/plain"),
    Route("GET", "/api/3.0/mlflow/server-info", get_server_info),
)
