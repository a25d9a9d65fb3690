"""The client's methods for models that runs log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncstore.client.base import ClientBase, texts
from asyncstore.entities import LoggedModel, LoggedModelStatus, PagedList

__all__ = ["LoggedModelMethods"]


class LoggedModelMethods(ClientBase):
    """The methods of a client that concern models that runs log."""

    async def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Create a model; see `MetadataStore.create_logged_model`. Values become text."""
        store = await self.get_metadata_store()
        return await store.create_logged_model(
            experiment_id, name, source_run_id, texts(tags), texts(params), model_type
        )

    async def get_logged_model(self, model_id: str) -> LoggedModel:
        """A model with its tags, params and metrics.

        Raises:
            NotFoundError: There is none.
        """
        return await (await self.get_metadata_store()).get_logged_model(model_id)

    async def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Say how making a model ended: READY or FAILED."""
        return await (await self.get_metadata_store()).finalize_logged_model(model_id, status)

    async def log_model_params(self, model_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters to a model; values become text."""
        store = await self.get_metadata_store()
        await store.log_logged_model_params(model_id, texts(params))

    async def set_logged_model_tags(self, model_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a model; values become text."""
        await (await self.get_metadata_store()).set_logged_model_tags(model_id, texts(tags))

    async def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag of a model.

        Raises:
            NotFoundError: The model or its tag does not exist.
        """
        await (await self.get_metadata_store()).delete_logged_model_tag(model_id, key)

    async def delete_logged_model(self, model_id: str) -> None:
        """Mark a model as deleted. Its artifacts stay."""
        await (await self.get_metadata_store()).delete_logged_model(model_id)

    async def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: Sequence[Mapping[str, str]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """Search models; see `MetadataStore.search_logged_models`."""
        store = await self.get_metadata_store()
        return await store.search_logged_models(
            experiment_ids, filter_string, datasets, max_results, order_by, page_token
        )
