"""The application: the tables of routes, the middlewares, and what is open while it runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

import asyncstore
from asyncstore.server import (
    graphql,
    openapi,
    otlp,
    routes_artifacts,
    routes_experiments,
    routes_logged_models,
    routes_metrics,
    routes_presigned,
    routes_registry,
    routes_runs,
    routes_server,
    routes_traces,
    routes_traces_v2,
    ui,
)
from asyncstore.server.endpoint import Endpoint
from asyncstore.server.middlewares import middlewares
from asyncstore.server.routing import AnyRoute, Lookup, Routes
from asyncstore.server.state import Server, ServerOptions

__all__ = ["create_app"]

ROUTES: tuple[AnyRoute, ...] = (
    *routes_server.ROUTES,
    *routes_artifacts.ROUTES,
    *routes_presigned.ROUTES,
    *routes_experiments.ROUTES,
    *routes_runs.ROUTES,
    *routes_metrics.ROUTES,
    *routes_logged_models.ROUTES,
    *routes_registry.ROUTES,
    *routes_traces.ROUTES,
    *routes_traces_v2.ROUTES,
    *otlp.ROUTES,
    *graphql.ROUTES,
    *ui.ROUTES,
)
# What is served with `artifacts_only`, which has no database.
ARTIFACTS_ONLY = (
    *("/health", "/version", "/api/3.0/mlflow/server-info"),
    "/api/2.0/mlflow-artifacts/",
)


def create_app(
    backend_store_uri: str | None = None,
    registry_store_uri: str | None = None,
    default_artifact_root: str | None = None,
    artifacts_destination: str | None = None,
    serve_artifacts: bool | None = None,
    artifacts_only: bool | None = None,
    static_prefix: str | None = None,
    middleware: Sequence[Middleware] = (),
) -> FastAPI:
    """Make the tracking server, to be served by uvicorn or another ASGI server.

    Each argument that is None takes the variable that `mlflow server` hands its workers
    (`_MLFLOW_SERVER_...`), so that `uvicorn --factory asyncstore.server:create_app` can have
    several of them. Databases open when the application starts, and close when it stops.

    Args:
        backend_store_uri: The database, as for `Client`; None, without a variable, for
            `sqlite:///mlflow.db`.
        registry_store_uri: The database of the model registry; None for the same.
        default_artifact_root: Where new experiments keep their artifacts; None for
            `mlflow-artifacts:/`, which is the server, or `./mlartifacts` without `serve_artifacts`.
        artifacts_destination: Where artifacts are that go through the server; None for
            `./mlartifacts`.
        serve_artifacts: Whether artifacts go through the server; None for yes.
        artifacts_only: Whether nothing but artifacts is served; None for no.
        static_prefix: What stands before every path; None for nothing.
        middleware: More ASGI middlewares, inside the server's own; they know the route of a request
            (`route_of`).

    Returns:
        The application, to which routes of FastAPI's may be added.

    Raises:
        InvalidParameterError: A variable is not acceptable.
    """
    options = ServerOptions.of(
        backend_store_uri,
        registry_store_uri,
        default_artifact_root,
        artifacts_destination,
        serve_artifacts,
        artifacts_only,
        static_prefix,
    )
    server = Server(options)
    routes = Routes(
        route
        for route in ROUTES
        if not options.artifacts_only or route.path.startswith(ARTIFACTS_ONLY)
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with server.opened():
            yield

    app = FastAPI(
        title="asyncstore",
        version=asyncstore.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Its own spans have query strings; `telemetry.py` has others.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(Lookup, routes=routes, static_prefix=options.static_prefix),
            *middlewares(options.static_prefix),
            *middleware,
            # The innermost one: a request of the table does not reach FastAPI's own routes.
            Middleware(Endpoint, server=server, routes=routes),
        ],
    )
    described: dict[str, Any] = openapi.document(routes)
    app.openapi = lambda: described  # type: ignore[method-assign]  # FastAPI's own way
    app.state.server = server
    return app
