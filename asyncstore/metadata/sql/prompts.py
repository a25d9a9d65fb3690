"""Prompts."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlPrompts"]


class SqlPrompts(SqlStore):
    """The methods of a store that concern prompts."""
