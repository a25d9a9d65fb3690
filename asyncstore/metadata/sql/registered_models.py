"""Registered models."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlRegisteredModels"]


class SqlRegisteredModels(SqlStore):
    """The methods of a store that concern registered models."""
