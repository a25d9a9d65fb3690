"""Artifacts: the repository, and the scheduler of its transfers."""

from asyncstore.artifacts.repository import ArtifactRepository
from asyncstore.artifacts.transfer import TransferOptions

__all__ = ["ArtifactRepository", "TransferOptions"]
