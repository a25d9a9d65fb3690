"""MLflow's server over asyncstore: `mlflow server --app-name asyncstore`.

MLflow imports this module in the process of the command already, so that MLflow itself comes later.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from asyncstore.mlflow_plugin import entry_points

__all__ = ["create_app"]

PREFIX = "asyncstore+"


def create_app() -> Any:
    """MLflow's own app, whose databases asyncstore serves, also those of plain URIs.

    `--backend-store-uri` and `--registry-store-uri` stay as they are given. With `sqlite:`,
    `postgresql:`, `mysql:` and `mssql:` the server's stores are asyncstore's as if `asyncstore+`
    stood before; other parts of MLflow that read the same variables, such as its job runner, find
    the database URI that they need.

    Returns:
        The ASGI app, or the WSGI app where MLflow has no other (before 3) or the server is gunicorn
        or waitress.

    Reads of a read replica (`--read-replica-backend-store-uri`) go to the database itself.
    """
    handlers = import_module("mlflow.server.handlers")
    for engine in import_module("mlflow.store.db.db_types").DATABASE_ENGINES:
        # The last one counts for a scheme, and stores are opened with the first request.
        handlers._tracking_store_registry.register(engine, _tracking_store)  # noqa: SLF001  there is no public name
        handlers._model_registry_store_registry.register(engine, _model_registry_store)  # noqa: SLF001  as above
    if _asgi():
        return import_module("mlflow.server.fastapi_app").app
    return import_module("mlflow.server").app


def _asgi() -> bool:
    if find_spec("mlflow.server.fastapi_app") is None:
        return False
    # Set by the command; without it somebody else runs the app, as MLflow recommends with uvicorn.
    server = import_module("mlflow.environment_variables")._MLFLOW_SGI_NAME.get()  # noqa: SLF001  there is no public name
    return server not in ("gunicorn", "waitress")


def _tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    return entry_points.tracking_store(PREFIX + store_uri, artifact_uri)


def _model_registry_store(store_uri: str) -> Any:
    return entry_points.model_registry_store(PREFIX + store_uri)
