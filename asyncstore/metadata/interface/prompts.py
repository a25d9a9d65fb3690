"""The interface to prompts."""

from __future__ import annotations

from abc import ABC

__all__ = ["PromptMethods"]


class PromptMethods(ABC):  # noqa: B024
    """The methods of a store that concern prompts."""
