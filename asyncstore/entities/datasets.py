"""Datasets, and what a run reads and makes."""

from __future__ import annotations

__all__: list[str] = []
