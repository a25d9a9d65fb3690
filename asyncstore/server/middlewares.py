"""What stands before the routes of every server, as the settings say."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from asyncstore import settings
from asyncstore.errors import MissingDependencyError
from asyncstore.server.access_log import AccessLogMiddleware
from asyncstore.server.auth import Authenticator, AuthMiddleware
from asyncstore.server.limits import BodyLimitMiddleware, RateLimitMiddleware
from asyncstore.server.security import (
    STATE_CHANGING,
    HostMiddleware,
    OriginMiddleware,
    SecurityHeadersMiddleware,
    origin_pattern,
)
from asyncstore.server.shutdown import ShutdownMiddleware

__all__ = ["middlewares"]

ANY = "*"


def middlewares(static_prefix: str = "") -> list[Middleware]:
    """Middlewares of a server, the outermost first; they want `Lookup` before them.

    Args:
        static_prefix: What stands before every path.

    Returns:
        In this order: the end of the server, the access log, metrics, spans, headers, hosts,
        origins, the rate limit, users, and the size of bodies.

    Raises:
        InvalidParameterError: A variable is not acceptable.
        MissingDependencyError: Metrics or spans are asked for, and their library is missing.
    """
    chosen = [Middleware(ShutdownMiddleware)]
    if settings.ASYNCSTORE_SERVER_ACCESS_LOG.get():
        chosen.append(Middleware(AccessLogMiddleware))
    page: list[Middleware] = []
    if settings.MLFLOW_EXPOSE_PROMETHEUS.get() is not None:
        library = _library("metrics", "prometheus_client")
        shared = settings.PROMETHEUS_MULTIPROC_DIR.get()
        metrics = library.ServerMetrics(Path(shared) if shared else None)
        chosen.append(Middleware(library.MetricsMiddleware, metrics=metrics))
        path = f"{static_prefix}/metrics"
        page.append(Middleware(library.MetricsPage, metrics=metrics, path=path))
    if settings.ASYNCSTORE_SERVER_TELEMETRY.get():
        library = _library("telemetry", "opentelemetry-api")
        chosen.append(Middleware(library.TelemetryMiddleware))
    if not settings.MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE.get():
        chosen += _against_browsers()
    if (rate := settings.ASYNCSTORE_SERVER_RATE_LIMIT.get()) is not None:
        chosen.append(Middleware(RateLimitMiddleware, rate=rate))
    if (users := settings.ASYNCSTORE_SERVER_AUTH_FILE.get()) is not None:
        chosen.append(Middleware(AuthMiddleware, authenticator=Authenticator(Path(users))))
    bodies = Middleware(
        BodyLimitMiddleware,
        max_body=settings.ASYNCSTORE_SERVER_MAX_BODY_SIZE.get(),
        max_upload=settings.ASYNCSTORE_SERVER_MAX_UPLOAD_SIZE.get(),
        timeout=settings.ASYNCSTORE_SERVER_CLIENT_TIMEOUT.get(),
    )
    return [*chosen, *page, bodies]


def _against_browsers() -> list[Middleware]:
    hosts = settings.MLFLOW_SERVER_ALLOWED_HOSTS.get()
    origins = settings.MLFLOW_SERVER_CORS_ALLOWED_ORIGINS.get()
    frames = settings.MLFLOW_SERVER_X_FRAME_OPTIONS.get()
    chosen = [Middleware(SecurityHeadersMiddleware, x_frame_options=frames)]
    if hosts is None or ANY not in hosts:
        chosen.append(Middleware(HostMiddleware, allowed=hosts))
    methods = ["GET", *sorted(STATE_CHANGING)]
    if ANY in origins:
        # Without credentials, browsers leave out what they know of the user.
        cors = Middleware(
            CORSMiddleware, allow_origins=[ANY], allow_methods=methods, allow_headers=[ANY]
        )
        return [*chosen, cors]
    cors = Middleware(
        CORSMiddleware,
        allow_origin_regex=origin_pattern(origins).pattern,
        allow_credentials=True,
        allow_methods=methods,
        allow_headers=[ANY],
    )
    return [*chosen, cors, Middleware(OriginMiddleware, allowed=origins)]


def _library(module: str, package: str) -> ModuleType:
    try:
        return import_module(f"asyncstore.server.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} of the server needs {package}; run: pip install {package}"
        ) from error
