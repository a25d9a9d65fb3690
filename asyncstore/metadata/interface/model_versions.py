"""The interface to versions of registered models."""

from __future__ import annotations

from abc import ABC

__all__ = ["ModelVersionMethods"]


class ModelVersionMethods(ABC):  # noqa: B024
    """The methods of a store that concern versions of registered models."""
