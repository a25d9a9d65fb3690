"""MLflow's web UI, from the `mlflow` package that is installed beside asyncstore.

The UI is a page of scripts that calls the server's own API; nothing of MLflow runs here.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from asyncstore.errors import NotFoundError
from asyncstore.server.decoding import Request
from asyncstore.server.routing import AnyRoute, Route, readable
from asyncstore.server.state import Server

__all__ = ["ROUTES", "find_build"]

# Names of scripts and styles carry a hash of their content.
HASHED = "public, max-age=31536000, immutable"
OTHERS = "public, max-age=3600"
PAGE = "no-cache"

MISSING = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>asyncstore</title></head>
<body>
<h1>The tracking server runs; its web UI is not installed</h1>
<p>The UI comes with MLflow. Install it in the environment of the server, and start the server
again:</p>
<pre>pip install mlflow</pre>
<p>Clients need no UI: <code>mlflow.set_tracking_uri</code> takes this server's address.</p>
</body>
</html>
"""


def find_build() -> Path | None:
    """The directory of MLflow's built UI; None where it is not installed. Blocks.

    `mlflow-skinny` and a source tree have no UI.
    """
    try:
        spec = find_spec("mlflow")
    except (ImportError, ValueError):
        return None
    for directory in (spec.submodule_search_locations or []) if spec else []:
        build = Path(directory, "server", "js", "build")
        if (build / "index.html").is_file():
            return build
    return None


@functools.cache
def _files() -> StaticFiles | None:
    build = find_build()
    return None if build is None else StaticFiles(directory=build)


async def page(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """The page of the UI; where MLflow is not installed, one that says so."""
    files = await anyio.to_thread.run_sync(_files)
    if files is None:
        missing = HTMLResponse(MISSING, headers={"Cache-Control": "no-store"})
        await missing(scope, receive, send)
        return
    await _send(files, "index.html", PAGE, scope, receive, send)


async def static_file(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """A script, a style or a picture of the UI."""
    path: str = scope["path_params"]["path"]
    files = await anyio.to_thread.run_sync(_files)
    if files is None:
        raise NotFoundError("the UI is not installed: pip install mlflow, and start again")
    kept = HASHED if path.startswith("static/") else OTHERS
    await _send(files, path, kept, scope, receive, send)


async def _send(
    files: StaticFiles, path: str, kept: str, scope: Scope, receive: Receive, send: Send
) -> None:
    try:
        response = await files.get_response(path, scope)
    except (HTTPException, OSError, UnicodeError) as error:
        raise NotFoundError(f"the UI has no file {path!r}") from error
    response.headers["Cache-Control"] = kept
    await response(scope, receive, send)


async def telemetry(server: Server, request: Request) -> dict[str, Any]:
    """Whether the UI may send statistics of its use: no."""
    return {"disable_ui_telemetry": True, "disable_ui_events": [], "ui_rollout_percentage": 0}


async def telemetry_records(server: Server, request: Request) -> dict[str, Any]:
    """Statistics, which are thrown away."""
    return {"status": "disabled"}


async def gateway_endpoints(server: Server, request: Request) -> dict[str, Any]:
    """The models of a gateway, which the page of runs asks for: none."""
    return {"endpoints": []}


ROUTES: tuple[AnyRoute, ...] = (
    *readable("/", page),
    *readable("/static-files/{path:path}", static_file),
    Route("GET", "/ajax-api/2.0/mlflow/gateway-proxy", gateway_endpoints),
    Route("GET", "/ajax-api/3.0/mlflow/ui-telemetry", telemetry),
    Route("POST", "/ajax-api/3.0/mlflow/ui-telemetry", telemetry_records, reads=True),
)
