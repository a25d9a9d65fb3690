"""Prompts, which are registered models with tags: MLflow keeps them so."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import ModelVersion, PagedList, Prompt, PromptVersion, RegisteredModel
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata import validation, validation_registry
from asyncstore.metadata.filters import Comparison
from asyncstore.metadata.filters.registry import PROMPTS
from asyncstore.metadata.sql.assessments import missing_trace
from asyncstore.metadata.sql.log_batch import inactive_run, missing_run, upsert_tags
from asyncstore.metadata.sql.logged_models import missing_model
from asyncstore.metadata.sql.registered_models import SqlRegisteredModels
from asyncstore.metadata.sql.registry_search import IS_PROMPT_TAG
from asyncstore.metadata.sql.search import parsed
from asyncstore.metadata.sql.statements import insert_missing, locked, upsert
from asyncstore.metadata.sql.traces import write_trace_tags

__all__ = ["SqlPrompts"]

SEARCH_MAX_RESULTS_DEFAULT = 100
# What MLflow writes where a version of a model has its source.
SOURCE = "prompt-template"
TEXT_TAG = "mlflow.prompt.text"
TYPE_TAG = "_mlflow_prompt_type"
RESPONSE_FORMAT_TAG = "_mlflow_prompt_response_format"
MODEL_CONFIG_TAG = "_mlflow_prompt_model_config"
LINKED_PROMPTS_TAG = "mlflow.linkedPrompts"
EXPERIMENT_IDS_TAG = "_mlflow_experiment_ids"
_INTERNAL = {IS_PROMPT_TAG, TEXT_TAG, TYPE_TAG, RESPONSE_FORMAT_TAG, MODEL_CONFIG_TAG}


class SqlPrompts(SqlRegisteredModels):
    """The methods of a store that concern prompts."""

    @override
    async def create_prompt(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Prompt:
        model = await self.create_registered_model(
            name, {IS_PROMPT_TAG: "true", **(tags or {})}, description
        )
        return _prompt(model)

    @override
    async def get_prompt(self, name: str) -> Prompt | None:
        try:
            model = await self.get_registered_model(name)
        except NotFoundError:
            return None
        return _prompt(model) if _is_prompt(model) else None

    @override
    async def search_prompts(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Prompt]:
        asked = await parsed(filter_string, PROMPTS)
        found = await self._search_models(
            [Comparison("tag", IS_PROMPT_TAG, "=", "true"), *map(_in_tag, asked)],
            SEARCH_MAX_RESULTS_DEFAULT if max_results is None else max_results,
            order_by,
            page_token,
        )
        return PagedList(map(_prompt, found), found.token)

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
        runs, tags = self._tables.runs, self._tables.tags.c
        stage = select(runs.c.lifecycle_stage).where(runs.c.run_uuid == run_id)
        said = select(tags.value).where(tags.run_uuid == run_id, tags.key == LINKED_PROMPTS_TAG)

        async def link(connection: AsyncConnection) -> None:
            # Whoever else links waits, and then sees this link.
            found = (await connection.execute(locked(stage, runs))).scalar_one_or_none()
            if found is None:
                raise missing_run(run_id)
            if found != "active":
                raise inactive_run(run_id, found)
            text = (await connection.execute(said)).scalar_one_or_none()
            wanted = validation.clean_tags({LINKED_PROMPTS_TAG: _linked(text, prompt)})
            values = {(run_id, key): value for key, value in wanted.items()}
            await upsert_tags(connection, self._tables, values)

        await self._database.write(f"linking a prompt to run {run_id}", link, repeatable=True)

    @override
    async def link_prompt_version_to_model(
        self, name: str, version: int | str, model_id: str
    ) -> None:
        prompt = await self.get_prompt_version(name, version)
        models, tags = self._tables.logged_models, self._tables.logged_model_tags
        experiment = select(models.c.experiment_id).where(
            models.c.model_id == model_id, models.c.lifecycle_stage != "deleted"
        )
        said = select(tags.c.tag_value).where(
            tags.c.model_id == model_id, tags.c.tag_key == LINKED_PROMPTS_TAG
        )

        async def link(connection: AsyncConnection) -> None:
            number = (await connection.execute(locked(experiment, models))).scalar_one_or_none()
            if number is None:
                raise missing_model(model_id)
            text = (await connection.execute(said)).scalar_one_or_none()
            row = {
                "model_id": model_id,
                "experiment_id": number,
                "tag_key": LINKED_PROMPTS_TAG,
                "tag_value": _linked(text, prompt),
            }
            await connection.execute(upsert(self._dialect, tags, ["tag_value"]), [row])

        doing = f"linking a prompt to logged model {model_id}"
        await self._database.write(doing, link, repeatable=True)

    @override
    async def link_prompts_to_trace(
        self, trace_id: str, prompt_versions: Sequence[PromptVersion]
    ) -> None:
        if not prompt_versions:
            return
        traces, tags = self._tables.trace_info, self._tables.trace_tags
        trace = select(traces.c.request_id).where(traces.c.request_id == trace_id)
        said = select(tags.c.value).where(
            tags.c.request_id == trace_id, tags.c.key == LINKED_PROMPTS_TAG
        )
        rows = [
            {
                "association_id": uuid.uuid4().hex,
                "source_type": "trace",
                "source_id": trace_id,
                "destination_type": "prompt_version",
                "destination_id": version,
            }
            for version in sorted({f"{each.name}/{each.version}" for each in prompt_versions})
        ]

        async def link(connection: AsyncConnection) -> None:
            if (await connection.execute(locked(trace, traces))).first() is None:
                raise missing_trace(trace_id)
            table = self._tables.entity_associations
            await connection.execute(insert_missing(self._dialect, table), rows)
            text = (await connection.execute(said)).scalar_one_or_none()
            linked = _linked(text, *prompt_versions)
            row = {"request_id": trace_id, "key": LINKED_PROMPTS_TAG, "value": linked}
            await write_trace_tags(connection, self._tables, [row])

        await self._database.write(f"linking prompts to trace {trace_id}", link, repeatable=True)

    async def _check_prompt(self, name: str) -> None:
        if not _is_prompt(await self.get_registered_model(name)):
            raise InvalidParameterError(f"{name!r} is a registered model and not a prompt")


def _in_tag(comparison: Comparison) -> Comparison:
    """A comparison of the experiment as one of the tag that MLflow keeps the ids in."""
    if (comparison.entity, comparison.key) != ("attribute", "experiment_id"):
        return comparison
    number = str(comparison.value)
    if not number.isdigit():
        raise InvalidParameterError(
            f"filter_string: {number!r} is not an experiment id; ids are integers"
        )
    return Comparison("tag", EXPERIMENT_IDS_TAG, "LIKE", f"%,{number},%")


def _is_prompt(model: RegisteredModel) -> bool:
    return model.tags.get(IS_PROMPT_TAG) == "true"


def _prompt(model: RegisteredModel) -> Prompt:
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


def _linked(text: str | None, *prompts: PromptVersion) -> str:
    """The tag with some prompts more, unless they are there."""
    try:
        linked = json.loads(text or "[]")
    except ValueError:
        linked = None
    if not isinstance(linked, list):
        raise InvalidParameterError(f"the tag {LINKED_PROMPTS_TAG} is no JSON list: {text!r:.80}")
    for prompt in prompts:
        entry = {"name": prompt.name, "version": str(prompt.version)}
        if entry not in linked:
            linked.append(entry)
    return json.dumps(linked)
