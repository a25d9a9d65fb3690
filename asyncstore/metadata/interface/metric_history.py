"""The interface to the history of metrics of many runs."""

from __future__ import annotations

from abc import ABC

__all__ = ["MetricHistoryMethods"]


class MetricHistoryMethods(ABC):  # noqa: B024
    """The methods of a store that concern the history of metrics of many runs."""
