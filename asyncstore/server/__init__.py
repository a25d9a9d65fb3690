"""MLflow's tracking server as an ASGI application: `create_app`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncstore.server.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # The command line looks at users without what serves them.
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asyncstore.server.app import create_app

    return create_app
