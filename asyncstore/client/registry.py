"""The client's methods for registered models, their versions and prompts."""

from __future__ import annotations

from asyncstore.client.base import ClientBase

__all__ = ["RegistryMethods"]


class RegistryMethods(ClientBase):
    """The methods of a client that concern registered models, their versions and prompts."""
