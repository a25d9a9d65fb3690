"""Assessments of traces."""

from __future__ import annotations

from asyncstore.metadata.sql.base import SqlStore

__all__ = ["SqlAssessments"]


class SqlAssessments(SqlStore):
    """The methods of a store that concern assessments of traces."""
