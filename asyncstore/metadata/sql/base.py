"""What the parts of the SQL store share."""

from __future__ import annotations

import time
from abc import ABC

from typing_extensions import override

from asyncstore.metadata.sql.database import Database
from asyncstore.metadata.sql.schema.tables import Tables
from asyncstore.metadata.store import MetadataStore

__all__ = ["SqlStore", "now_ms"]


class SqlStore(MetadataStore, ABC):
    """A store over a database; each entity's methods are in a file of its own.

    Args:
        database: A connected database with MLflow's schema.
        tables: The tables of the revision that it is at.
        artifact_root: Where new experiments get their artifact location; absolute.
    """

    def __init__(self, database: Database, tables: Tables, artifact_root: str) -> None:
        self._database = database
        self._dialect = database.dialect
        self._tables = tables
        self._artifact_root = artifact_root

    @override
    async def aclose(self) -> None:
        await self._database.aclose()


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
