"""The interface to assessments of traces."""

from __future__ import annotations

from abc import ABC

__all__ = ["AssessmentMethods"]


class AssessmentMethods(ABC):  # noqa: B024
    """The methods of a store that concern assessments of traces."""
