"""Metadata of any MLflow tracking server, over HTTP; opened by `MetadataStore.open`."""

from __future__ import annotations

from asyncstore.metadata.rest.store import RestStore

__all__ = ["RestStore"]
