"""Registered models, their versions and prompts."""

from __future__ import annotations

__all__: list[str] = []
