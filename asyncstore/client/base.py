"""What the parts of the client share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncstore.metadata import MetadataStore

__all__ = ["ClientBase"]


class ClientBase(ABC):
    """A client over a metadata store; each entity's methods are in a file of its own."""

    @abstractmethod
    async def get_metadata_store(self) -> MetadataStore:
        """The metadata store underneath, opened if need be."""
