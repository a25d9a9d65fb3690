"""Datasets, and what runs read and make."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlInputs"]


class SqlInputs(SqlStore):
    """The methods of a store that concern datasets, and what runs read and make."""
