"""Traces and spans."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlTraces"]


class SqlTraces(SqlStore):
    """The methods of a store that concern traces and spans."""
