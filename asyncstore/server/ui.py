"""MLflow's web UI, from the `mlflow` package that is installed beside asyncstore.

The UI is a page of scripts that calls the server's own API; nothing of MLflow runs here.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from typing_extensions import override

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

__all__ = ["find_build", "ui_routes"]

# Names of scripts and styles carry a hash of their content; MLflow's server says 28 days.
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


def ui_routes(build: Path | None) -> list[BaseRoute]:
    """The routes of the UI: its page, its files, and the questions of its statistics.

    Args:
        build: What `find_build` found. With None there is a page that says what to install.
    """
    telemetry = "/ajax-api/3.0/mlflow/ui-telemetry"
    routes: list[BaseRoute] = [
        Route(telemetry, _telemetry, methods=["GET"]),
        Route(telemetry, _telemetry_records, methods=["POST"]),
    ]
    if build is None:
        return [*routes, Route("/", _missing)]
    files = _Files(directory=build)

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    return [*routes, Route("/", page), Mount("/static-files", files)]


class _Files(StaticFiles):
    """Files of the UI, with how long a browser may keep them."""

    @override
    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            response = await super().get_response(path, scope)
        except (OSError, UnicodeError) as error:
            raise HTTPException(404) from error
        response.headers["Cache-Control"] = _kept(path)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _kept(path: str) -> str:
    if path == "index.html":
        return PAGE
    return HASHED if path.startswith(f"static{os.sep}") else OTHERS


async def _missing(_: Request) -> Response:
    return HTMLResponse(MISSING, headers={"Cache-Control": "no-store"})


async def _telemetry(_: Request) -> Response:
    # MLflow's UI asks whether it may send statistics of its use. It may not.
    answer: dict[str, Any] = {
        "disable_ui_telemetry": True,
        "disable_ui_events": [],
        "ui_rollout_percentage": 0,
    }
    return JSONResponse(answer)


async def _telemetry_records(_: Request) -> Response:
    return JSONResponse({"status": "disabled"})
