"""The client's methods for models that runs log."""

from __future__ import annotations

from asyncstore.client.base import ClientBase

__all__ = ["LoggedModelMethods"]


class LoggedModelMethods(ClientBase):
    """The methods of a client that concern models that runs log."""
