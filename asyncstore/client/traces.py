"""The client's methods for traces and assessments."""

from __future__ import annotations

from asyncstore.client.base import ClientBase

__all__ = ["TraceMethods"]


class TraceMethods(ClientBase):
    """The methods of a client that concern traces and assessments."""
