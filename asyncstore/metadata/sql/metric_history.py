"""The history of metrics of many runs."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlMetricHistory"]


class SqlMetricHistory(SqlStore):
    """The methods of a store that concern the history of metrics of many runs."""
