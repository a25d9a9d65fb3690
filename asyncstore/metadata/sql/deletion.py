"""Deletion for good."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlDeletion"]


class SqlDeletion(SqlStore):
    """The methods of a store that concern deletion for good."""
