"""The client's methods for what runs read and make."""

from __future__ import annotations

from asyncstore.client.base import ClientBase

__all__ = ["DatasetMethods"]


class DatasetMethods(ClientBase):
    """The methods of a client that concern what runs read and make."""
