"""Deletion for good, which MLflow's REST API has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from typing_extensions import override

from asyncstore.entities import ArtifactOwner, ArtifactOwnerKind
from asyncstore.errors import UnsupportedError
from asyncstore.metadata.rest.base import RestBase
from asyncstore.uris import redact

__all__ = ["RestDeletion"]


class RestDeletion(RestBase):
    """The methods of a store that concern deletion for good: each raises UnsupportedError."""

    def _refuse_deletion(self) -> NoReturn:
        raise UnsupportedError(
            f"{redact(self._connection.uri)}: MLflow's REST API removes nothing for good; use the "
            "server's own database, with `asyncstore gc --backend-store-uri`"
        )

    @override
    async def get_deleted_runs(self, older_than: int = 0) -> list[str]:
        self._refuse_deletion()

    @override
    async def get_deleted_experiments(self, older_than: int = 0) -> list[str]:
        self._refuse_deletion()

    @override
    async def get_deleted_logged_models(self, older_than: int = 0) -> list[str]:
        self._refuse_deletion()

    @override
    async def get_artifact_owners(
        self,
        kind: ArtifactOwnerKind,
        ids: Sequence[str] | None = None,
        experiment_id: str | None = None,
        after: str = "",
        max_results: int = 1000,
    ) -> list[ArtifactOwner]:
        self._refuse_deletion()

    @override
    async def hard_delete_run(self, run_id: str) -> None:
        self._refuse_deletion()

    @override
    async def hard_delete_runs(self, run_ids: Sequence[str]) -> None:
        self._refuse_deletion()

    @override
    async def hard_delete_experiment(self, experiment_id: str) -> None:
        self._refuse_deletion()

    @override
    async def hard_delete_logged_model(self, model_id: str) -> None:
        self._refuse_deletion()
