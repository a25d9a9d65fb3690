"""The interface to registered models."""

from __future__ import annotations

from abc import ABC

__all__ = ["RegisteredModelMethods"]


class RegisteredModelMethods(ABC):  # noqa: B024
    """The methods of a store that concern registered models."""
