"""The directory `./mlruns` that MLflow's file store wrote, read as rows of MLflow's tables."""

from __future__ import annotations

from asyncstore.metadata.file_store.store import FileStore

__all__ = ["FileStore"]
