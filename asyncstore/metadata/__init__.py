"""Metadata of experiments and runs, in a SQL database on MLflow's schema."""

from __future__ import annotations

from asyncstore.metadata.store import MetadataStore

__all__ = ["MetadataStore"]
