"""Models that runs log."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlLoggedModels"]


class SqlLoggedModels(SqlStore):
    """The methods of a store that concern models that runs log."""
