"""MLflow's metadata in a SQL database, over async SQLAlchemy."""

from __future__ import annotations

from asyncstore.metadata.sql.file_store import open_file_store
from asyncstore.metadata.sql.store import SqlMetadataStore, open_store

__all__ = ["SqlMetadataStore", "open_file_store", "open_store"]
