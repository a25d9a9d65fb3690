"""The interface to models that runs log."""

from __future__ import annotations

from abc import ABC

__all__ = ["LoggedModelMethods"]


class LoggedModelMethods(ABC):  # noqa: B024
    """The methods of a store that concern models that runs log."""
