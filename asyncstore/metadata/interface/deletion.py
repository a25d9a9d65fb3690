"""The interface to deletion for good."""

from __future__ import annotations

from abc import ABC

__all__ = ["DeletionMethods"]


class DeletionMethods(ABC):  # noqa: B024
    """The methods of a store that concern deletion for good."""
