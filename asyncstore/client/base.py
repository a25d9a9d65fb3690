"""What the parts of the client share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncstore.metadata import MetadataStore

__all__ = ["ClientBase", "texts"]


class ClientBase(ABC):
    """A client over a metadata store; each entity's methods are in a file of its own."""

    @abstractmethod
    async def get_metadata_store(self) -> MetadataStore:
        """The metadata store underneath, opened if need be."""


def texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags or params with their values as text, as MLflow's client has them; None for none."""
    return {key: str(value) for key, value in (values or {}).items()}
