"""Prompts, which are registered models with tags: MLflow keeps them so, in every kind of store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from asyncstore.entities import ModelVersion, PagedList, Prompt, PromptVersion, RegisteredModel
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata import validation_registry
from asyncstore.metadata.store import MetadataStore

__all__ = ["IS_PROMPT_TAG", "LINKED_PROMPTS_TAG", "PromptsAsModels", "linked", "prompt_of"]

SEARCH_MAX_RESULTS_DEFAULT = 100
# What MLflow writes where a version of a model has its source.
SOURCE = "prompt-template"
IS_PROMPT_TAG = "mlflow.prompt.is_prompt"
TEXT_TAG = "mlflow.prompt.text"
TYPE_TAG = "_mlflow_prompt_type"
RESPONSE_FORMAT_TAG = "_mlflow_prompt_response_format"
MODEL_CONFIG_TAG = "_mlflow_prompt_model_config"
LINKED_PROMPTS_TAG = "mlflow.linkedPrompts"
_INTERNAL = {IS_PROMPT_TAG, TEXT_TAG, TYPE_TAG, RESPONSE_FORMAT_TAG, MODEL_CONFIG_TAG}


class PromptsAsModels(MetadataStore):
    """The methods of a store that concern prompts, by those that concern registered models."""

    @override
    async def create_prompt(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Prompt:
        model = await self.create_registered_model(
            name, {IS_PROMPT_TAG: "true", **(tags or {})}, description
        )
        return prompt_of(model)

    @override
    async def get_prompt(self, name: str) -> Prompt | None:
        try:
            model = await self.get_registered_model(name)
        except NotFoundError:
            return None
        return prompt_of(model) if _is_prompt(model) else None

    @override
    async def search_prompts(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Prompt]:
        prompts = f"tags.`{IS_PROMPT_TAG}` = 'true'"
        found = await self.search_registered_models(
            f"{prompts} AND {filter_string}" if filter_string else prompts,
            SEARCH_MAX_RESULTS_DEFAULT if max_results is None else max_results,
            order_by,
            page_token,
        )
        return PagedList(map(prompt_of, found), found.token)

    @override
    async def delete_prompt(self, name: str) -> None:
        await self.delete_registered_model(name)

    @override
    async def set_prompt_tag(self, name: str, key: str, value: str) -> None:
        await self.set_registered_model_tag(name, key, value)

    @override
    async def delete_prompt_tag(self, name: str, key: str) -> None:
        await self.delete_registered_model_tag(name, key)

    @override
    async def create_prompt_version(
        self,
        name: str,
        template: str | Sequence[Mapping[str, Any]],
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        response_format: Mapping[str, Any] | None = None,
        model_config: Mapping[str, Any] | None = None,
    ) -> PromptVersion:
        await self._check_prompt(name)
        is_text = isinstance(template, str)
        kept = {
            IS_PROMPT_TAG: "true",
            TEXT_TAG: template if isinstance(template, str) else json.dumps(list(template)),
            TYPE_TAG: "text" if is_text else "chat",
        }
        if response_format:
            kept[RESPONSE_FORMAT_TAG] = json.dumps(response_format)
        if model_config:
            kept[MODEL_CONFIG_TAG] = json.dumps(model_config)
        version = await self.create_model_version(
            name, SOURCE, tags={**kept, **(tags or {})}, description=description
        )
        return _prompt_version(version)

    @override
    async def get_prompt_version(self, name: str, version: int | str) -> PromptVersion:
        if not isinstance(version, int | str):
            raise InvalidParameterError(f"{version!r} is neither a version nor an alias")
        await self._check_prompt(name)
        if isinstance(version, int) or version.isdecimal():
            return _prompt_version(await self.get_model_version(name, version))
        return _prompt_version(await self.get_model_version_by_alias(name, version))

    @override
    async def get_prompt_version_by_alias(self, name: str, alias: str) -> PromptVersion:
        return await self.get_prompt_version(name, validation_registry.model_alias(alias))

    @override
    async def search_prompt_versions(
        self, name: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[PromptVersion]:
        await self._check_prompt(name)
        quoted = name.replace("'", "''")
        found = await self.search_model_versions(
            f"name = '{quoted}' AND tags.`{IS_PROMPT_TAG}` = 'true'",
            SEARCH_MAX_RESULTS_DEFAULT if max_results is None else max_results,
            ["version_number DESC"],
            page_token,
        )
        return PagedList(map(_prompt_version, found), found.token)

    @override
    async def delete_prompt_version(self, name: str, version: int | str) -> None:
        await self.delete_model_version(name, version)

    @override
    async def set_prompt_version_tag(
        self, name: str, version: int | str, key: str, value: str
    ) -> None:
        await self.set_model_version_tag(name, version, key, value)

    @override
    async def delete_prompt_version_tag(self, name: str, version: int | str, key: str) -> None:
        await self.delete_model_version_tag(name, version, key)

    @override
    async def set_prompt_alias(self, name: str, alias: str, version: int | str) -> None:
        await self.set_registered_model_alias(name, alias, version)

    @override
    async def delete_prompt_alias(self, name: str, alias: str) -> None:
        await self.delete_registered_model_alias(name, alias)

    @override
    async def link_prompt_version_to_run(self, name: str, version: int | str, run_id: str) -> None:
        prompt = await self.get_prompt_version(name, version)
        run = await self.get_run(run_id)
        text = linked(run.data.tags.get(LINKED_PROMPTS_TAG), prompt)
        await self.set_tag(run_id, LINKED_PROMPTS_TAG, text)

    @override
    async def link_prompt_version_to_model(
        self, name: str, version: int | str, model_id: str
    ) -> None:
        prompt = await self.get_prompt_version(name, version)
        model = await self.get_logged_model(model_id)
        text = linked(model.tags.get(LINKED_PROMPTS_TAG), prompt)
        await self.set_logged_model_tags(model_id, {LINKED_PROMPTS_TAG: text})

    async def _check_prompt(self, name: str) -> None:
        if not _is_prompt(await self.get_registered_model(name)):
            raise InvalidParameterError(f"{name!r} is a registered model and not a prompt")


def _is_prompt(model: RegisteredModel) -> bool:
    return model.tags.get(IS_PROMPT_TAG) == "true"


def prompt_of(model: RegisteredModel) -> Prompt:
    """A registered model that is a prompt, as one."""
    return Prompt(
        model.name, model.description, model.creation_timestamp, _without_internal(model.tags)
    )


def _without_internal(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in _INTERNAL}


def _prompt_version(version: ModelVersion) -> PromptVersion:
    tags = version.tags
    if TEXT_TAG not in tags:
        raise InvalidParameterError(
            f"version {version.version} of {version.name!r} has no text of a prompt"
        )
    text = tags[TEXT_TAG]
    return PromptVersion(
        name=version.name,
        version=version.version,
        template=json.loads(text) if tags.get(TYPE_TAG) == "chat" else text,
        commit_message=version.description,
        creation_timestamp=version.creation_timestamp,
        tags=_without_internal(tags),
        aliases=version.aliases,
        last_updated_timestamp=version.last_updated_timestamp,
        user_id=version.user_id,
        response_format=_json(tags.get(RESPONSE_FORMAT_TAG)),
        model_config=_json(tags.get(MODEL_CONFIG_TAG)),
    )


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)


def linked(text: str | None, *prompts: PromptVersion) -> str:
    """The text of the tag LINKED_PROMPTS_TAG with some prompts more, unless they are there."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise InvalidParameterError(f"the tag {LINKED_PROMPTS_TAG} is no JSON list: {text!r:.80}")
    for prompt in prompts:
        entry = {"name": prompt.name, "version": str(prompt.version)}
        if entry not in found:
            found.append(entry)
    return json.dumps(found)
