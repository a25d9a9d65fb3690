"""The interface to prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from asyncstore.entities import PagedList, Prompt, PromptVersion

__all__ = ["PromptMethods"]


class PromptMethods(ABC):
    """The methods of a store that concern prompts, which are tagged registered models.

    What holds for registered models and their versions holds here: names, limits and errors.
    """

    @abstractmethod
    async def create_prompt(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Prompt:
        """Create a prompt.

        Args:
            name: A name that no other prompt or model has.
            description: Text; None for none.
            tags: Tags; None for none.

        Raises:
            AlreadyExistsError: The name is taken.
        """

    @abstractmethod
    async def get_prompt(self, name: str) -> Prompt | None:
        """A prompt; None when there is none of this name.

        Args:
            name: The prompt.
        """

    @abstractmethod
    async def search_prompts(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Prompt]:
        """Search prompts.

        Args:
            filter_string: As for `search_registered_models`; None for all.
            max_results: Size of a page, 1 to 1,000; None for 100.
            order_by: As for `search_registered_models`.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """

    @abstractmethod
    async def delete_prompt(self, name: str) -> None:
        """Delete a prompt for good, with all versions.

        Args:
            name: The prompt.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def set_prompt_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a prompt; see `set_registered_model_tag`."""

    @abstractmethod
    async def delete_prompt_tag(self, name: str, key: str) -> None:
        """Delete a tag of a prompt; see `delete_registered_model_tag`."""

    @abstractmethod
    async def create_prompt_version(
        self,
        name: str,
        template: str | Sequence[Mapping[str, Any]],
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        response_format: Mapping[str, Any] | None = None,
        model_config: Mapping[str, Any] | None = None,
    ) -> PromptVersion:
        """Create the next version of a prompt.

        Args:
            name: The prompt.
            template: Text with ``{{ variables }}``, or the messages of a chat; at most 100,000
                characters as JSON.
            description: What changed; None for nothing said.
            tags: Tags; None for none.
            response_format: JSON schema of the answer; None for any.
            model_config: Settings of the model, such as its temperature; None for none.

        Raises:
            NotFoundError: There is no such prompt.
            InvalidParameterError: The name is that of a model.
        """

    @abstractmethod
    async def get_prompt_version(self, name: str, version: int | str) -> PromptVersion:
        """A version of a prompt.

        Args:
            name: The prompt.
            version: The version, or an alias.

        Raises:
            NotFoundError: There is no such prompt or version.
            InvalidParameterError: The name is that of a model, or there is no such alias.
        """

    @abstractmethod
    async def get_prompt_version_by_alias(self, name: str, alias: str) -> PromptVersion:
        """The version of a prompt that an alias points to; see `get_prompt_version`."""

    @abstractmethod
    async def search_prompt_versions(
        self, name: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[PromptVersion]:
        """The versions of a prompt, the newest first.

        Args:
            name: The prompt.
            max_results: Size of a page; None for 100.
            page_token: `token` of the page before; None for the first page.

        Raises:
            NotFoundError: There is no such prompt.
            InvalidParameterError: The name is that of a model.
        """

    @abstractmethod
    async def delete_prompt_version(self, name: str, version: int | str) -> None:
        """Delete a version of a prompt; see `delete_model_version`."""

    @abstractmethod
    async def set_prompt_version_tag(
        self, name: str, version: int | str, key: str, value: str
    ) -> None:
        """Set a tag of a version; see `set_model_version_tag`."""

    @abstractmethod
    async def delete_prompt_version_tag(self, name: str, version: int | str, key: str) -> None:
        """Delete a tag of a version; see `delete_model_version_tag`."""

    @abstractmethod
    async def set_prompt_alias(self, name: str, alias: str, version: int | str) -> None:
        """Point an alias to a version; see `set_registered_model_alias`."""

    @abstractmethod
    async def delete_prompt_alias(self, name: str, alias: str) -> None:
        """Delete an alias; see `delete_registered_model_alias`."""

    @abstractmethod
    async def link_prompt_version_to_run(self, name: str, version: int | str, run_id: str) -> None:
        """Record in a tag of a run that it used a version of a prompt.

        Args:
            name: The prompt.
            version: The version, or an alias.
            run_id: The run.

        Raises:
            NotFoundError: The prompt, its version or the run does not exist.
        """

    @abstractmethod
    async def link_prompt_version_to_model(
        self, name: str, version: int | str, model_id: str
    ) -> None:
        """Record in a tag of a logged model that it uses a version of a prompt.

        Args:
            name: The prompt.
            version: The version, or an alias.
            model_id: The logged model.

        Raises:
            NotFoundError: The prompt, its version or the model does not exist.
        """

    @abstractmethod
    async def link_prompts_to_trace(
        self, trace_id: str, prompt_versions: Sequence[PromptVersion]
    ) -> None:
        """Record that a trace used versions of prompts; `prompt` in a search finds it.

        A tag of the trace says so too, which is where MLflow's user interface looks.

        Args:
            trace_id: The trace.
            prompt_versions: The versions; those that are linked already stay so.

        Raises:
            NotFoundError: There is no such trace.
        """
