"""Artifacts: the repository, and the scheduler of its transfers."""

from asyncstore.artifacts.repository import ArtifactRepository
from asyncstore.artifacts.transfer import TransferOptions
from asyncstore.backends import known_schemes

__all__ = ["ArtifactRepository", "TransferOptions", "known_schemes"]
