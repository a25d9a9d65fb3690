"""`Client`: metadata and artifacts behind one object, with the names of `MlflowClient`."""

from __future__ import annotations

from asyncstore.client.active_run import ActiveRun
from asyncstore.client.client import Client

__all__ = ["ActiveRun", "Client"]
