"""MLflow's tracking server as an ASGI application: `create_app`."""

from __future__ import annotations

from asyncstore.server.app import create_app

__all__ = ["create_app"]
