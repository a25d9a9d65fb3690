"""The client's methods for what runs read and make."""

from __future__ import annotations

from collections.abc import Sequence

from asyncstore.client.base import ClientBase
from asyncstore.entities import DatasetInput, LoggedModelInput, LoggedModelOutput

__all__ = ["DatasetMethods"]


class DatasetMethods(ClientBase):
    """The methods of a client that concern what runs read and make."""

    async def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        """Record datasets and models that a run read; see `MetadataStore.log_inputs`."""
        await (await self.get_metadata_store()).log_inputs(run_id, datasets, models)

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        """Record models that a run made; see `MetadataStore.log_outputs`."""
        await (await self.get_metadata_store()).log_outputs(run_id, models)
