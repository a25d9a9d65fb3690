"""The interface to datasets, and what runs read and make."""

from __future__ import annotations

from abc import ABC

__all__ = ["InputMethods"]


class InputMethods(ABC):  # noqa: B024
    """The methods of a store that concern datasets, and what runs read and make."""
