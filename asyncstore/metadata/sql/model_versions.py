"""Versions of registered models."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlModelVersions"]


class SqlModelVersions(SqlStore):
    """The methods of a store that concern versions of registered models."""
