"""The client's methods for registered models, their versions and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncstore.client.base import ClientBase, texts
from asyncstore.entities import ModelVersion, PagedList, Prompt, PromptVersion, RegisteredModel
from asyncstore.metadata.model_uris import named_version

__all__ = ["RegistryMethods"]


class RegistryMethods(ClientBase):
    """The methods of a client that concern registered models, their versions and prompts."""

    # Registered models

    async def create_registered_model(
        self,
        name: str,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Register a name for versions of a model; see `MetadataStore.create_registered_model`."""
        store = await self.get_metadata_store()
        return await store.create_registered_model(
            name, texts(tags), description, deployment_job_id
        )

    async def get_registered_model(self, name: str) -> RegisteredModel:
        """A model with its tags, aliases and the latest version of each stage.

        Raises:
            NotFoundError: There is none.
        """
        return await (await self.get_metadata_store()).get_registered_model(name)

    async def update_registered_model(
        self, name: str, description: str | None = None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Change a model's description; see `MetadataStore.update_registered_model`."""
        store = await self.get_metadata_store()
        return await store.update_registered_model(name, description, deployment_job_id)

    async def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a model, with its versions, tags and aliases."""
        return await (await self.get_metadata_store()).rename_registered_model(name, new_name)

    async def delete_registered_model(self, name: str) -> None:
        """Delete a model for good, with its versions. Artifacts stay."""
        await (await self.get_metadata_store()).delete_registered_model(name)

    async def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Search models; see `MetadataStore.search_registered_models`."""
        store = await self.get_metadata_store()
        return await store.search_registered_models(
            filter_string, max_results, order_by, page_token
        )

    async def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        """The latest version of each of some stages; None for all."""
        return await (await self.get_metadata_store()).get_latest_versions(name, stages)

    async def set_registered_model_tag(self, name: str, key: str, value: Any) -> None:
        """Set a tag of a model; the value as text."""
        store = await self.get_metadata_store()
        await store.set_registered_model_tag(name, key, str(value))

    async def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag of a model."""
        await (await self.get_metadata_store()).delete_registered_model_tag(name, key)

    async def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        """Point an alias to a version; see `MetadataStore.set_registered_model_alias`."""
        store = await self.get_metadata_store()
        await store.set_registered_model_alias(name, alias, version)

    async def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias."""
        await (await self.get_metadata_store()).delete_registered_model_alias(name, alias)

    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that an alias points to.

        Raises:
            NotFoundError: There is no such model.
            InvalidParameterError: It has no such alias.
        """
        return await (await self.get_metadata_store()).get_model_version_by_alias(name, alias)

    # Versions

    async def create_model_version(
        self,
        name: str,
        source: str | None,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        *,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create the next version of a model; see `MetadataStore.create_model_version`."""
        store = await self.get_metadata_store()
        return await store.create_model_version(
            name, source, run_id, texts(tags), run_link, description, model_id=model_id
        )

    async def copy_model_version(self, src_model_uri: str, dst_name: str) -> ModelVersion:
        """Create a version of another model from one; see `MetadataStore.copy_model_version`.

        Args:
            src_model_uri: `models:/<name>/<version or stage>` or `models:/<name>@<alias>`.
            dst_name: The model to copy to, created if there is none.

        Returns:
            The new version.

        Raises:
            InvalidParameterError: The URI is none of these.
            NotFoundError: There is no such version.
        """
        store = await self.get_metadata_store()
        version = await named_version(store, src_model_uri)
        return await store.copy_model_version(version, dst_name)

    async def get_model_version(self, name: str, version: int | str) -> ModelVersion:
        """A version with its tags and aliases.

        Raises:
            NotFoundError: There is none.
        """
        return await (await self.get_metadata_store()).get_model_version(name, version)

    async def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        """Where the artifacts of a version are."""
        store = await self.get_metadata_store()
        return await store.get_model_version_download_uri(name, version)

    async def update_model_version(
        self, name: str, version: int | str, description: str | None = None
    ) -> ModelVersion:
        """Change a version's description."""
        store = await self.get_metadata_store()
        return await store.update_model_version(name, version, description)

    async def transition_model_version_stage(
        self, name: str, version: int | str, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Move a version to another stage; see `MetadataStore.transition_model_version_stage`."""
        store = await self.get_metadata_store()
        return await store.transition_model_version_stage(
            name, version, stage, archive_existing_versions
        )

    async def delete_model_version(self, name: str, version: int | str) -> None:
        """Delete a version for good. Artifacts stay."""
        await (await self.get_metadata_store()).delete_model_version(name, version)

    async def set_model_version_tag(
        self, name: str, version: int | str, key: str, value: Any
    ) -> None:
        """Set a tag of a version; the value as text."""
        store = await self.get_metadata_store()
        await store.set_model_version_tag(name, version, key, str(value))

    async def delete_model_version_tag(self, name: str, version: int | str, key: str) -> None:
        """Delete a tag of a version."""
        await (await self.get_metadata_store()).delete_model_version_tag(name, version, key)

    async def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = 10_000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """Search versions; see `MetadataStore.search_model_versions`."""
        store = await self.get_metadata_store()
        return await store.search_model_versions(filter_string, max_results, order_by, page_token)

    # Prompts

    async def create_prompt(
        self, name: str, description: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> Prompt:
        """Create a prompt; see `MetadataStore.create_prompt`."""
        return await (await self.get_metadata_store()).create_prompt(name, description, texts(tags))

    async def get_prompt(self, name: str) -> Prompt | None:
        """A prompt; None when there is none of this name."""
        return await (await self.get_metadata_store()).get_prompt(name)

    async def search_prompts(
        self,
        filter_string: str | None = None,
        max_results: int = 1000,
        page_token: str | None = None,
        order_by: Sequence[str] | None = None,
    ) -> PagedList[Prompt]:
        """Search prompts; see `MetadataStore.search_prompts`."""
        store = await self.get_metadata_store()
        return await store.search_prompts(filter_string, max_results, order_by, page_token)

    async def delete_prompt(self, name: str) -> None:
        """Delete a prompt for good, with all versions."""
        await (await self.get_metadata_store()).delete_prompt(name)

    async def create_prompt_version(
        self,
        name: str,
        template: str | Sequence[Mapping[str, Any]],
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        model_config: Mapping[str, Any] | None = None,
    ) -> PromptVersion:
        """Create the next version of a prompt; see `MetadataStore.create_prompt_version`."""
        store = await self.get_metadata_store()
        return await store.create_prompt_version(
            name, template, description, texts(tags), response_format, model_config
        )

    async def get_prompt_version(self, name: str, version: int | str) -> PromptVersion:
        """A version of a prompt, by number or alias; see `MetadataStore.get_prompt_version`."""
        return await (await self.get_metadata_store()).get_prompt_version(name, version)

    async def get_prompt_version_by_alias(self, name: str, alias: str) -> PromptVersion:
        """The version of a prompt that an alias points to."""
        store = await self.get_metadata_store()
        return await store.get_prompt_version_by_alias(name, alias)

    async def search_prompt_versions(
        self, name: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[PromptVersion]:
        """The versions of a prompt, the newest first."""
        store = await self.get_metadata_store()
        return await store.search_prompt_versions(name, max_results, page_token)

    async def delete_prompt_version(self, name: str, version: int | str) -> None:
        """Delete a version of a prompt."""
        await (await self.get_metadata_store()).delete_prompt_version(name, version)

    async def set_prompt_tag(self, name: str, key: str, value: Any) -> None:
        """Set a tag of a prompt; the value as text."""
        await (await self.get_metadata_store()).set_prompt_tag(name, key, str(value))

    async def delete_prompt_tag(self, name: str, key: str) -> None:
        """Delete a tag of a prompt."""
        await (await self.get_metadata_store()).delete_prompt_tag(name, key)

    async def set_prompt_version_tag(
        self, name: str, version: int | str, key: str, value: Any
    ) -> None:
        """Set a tag of a version of a prompt; the value as text."""
        store = await self.get_metadata_store()
        await store.set_prompt_version_tag(name, version, key, str(value))

    async def delete_prompt_version_tag(self, name: str, version: int | str, key: str) -> None:
        """Delete a tag of a version of a prompt."""
        await (await self.get_metadata_store()).delete_prompt_version_tag(name, version, key)

    async def set_prompt_alias(self, name: str, alias: str, version: int | str) -> None:
        """Point an alias to a version of a prompt."""
        await (await self.get_metadata_store()).set_prompt_alias(name, alias, version)

    async def delete_prompt_alias(self, name: str, alias: str) -> None:
        """Delete an alias of a prompt."""
        await (await self.get_metadata_store()).delete_prompt_alias(name, alias)

    async def link_prompt_version_to_run(self, name: str, version: int | str, run_id: str) -> None:
        """Record in a tag of a run that it used a version of a prompt."""
        store = await self.get_metadata_store()
        await store.link_prompt_version_to_run(name, version, run_id)

    async def link_prompt_version_to_model(
        self, name: str, version: int | str, model_id: str
    ) -> None:
        """Record in a tag of a logged model that it uses a version of a prompt."""
        store = await self.get_metadata_store()
        await store.link_prompt_version_to_model(name, version, model_id)

    async def link_prompt_versions_to_trace(
        self, prompt_versions: Sequence[PromptVersion], trace_id: str
    ) -> None:
        """Record that a trace used versions of prompts; see `link_prompts_to_trace` of a store."""
        store = await self.get_metadata_store()
        await store.link_prompts_to_trace(trace_id, prompt_versions)
