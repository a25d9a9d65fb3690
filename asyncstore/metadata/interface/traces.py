"""The interface to traces and spans."""

from __future__ import annotations

from abc import ABC

__all__ = ["TraceMethods"]


class TraceMethods(ABC):  # noqa: B024
    """The methods of a store that concern traces and spans."""
