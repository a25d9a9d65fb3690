"""The prompts of a SQL database: what is not as good by the methods of registered models."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import PagedList, Prompt, PromptVersion
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import validation
from asyncstore.metadata.filters import Comparison
from asyncstore.metadata.filters.registry import PROMPTS
from asyncstore.metadata.prompts import (
    IS_PROMPT_TAG,
    LINKED_PROMPTS_TAG,
    SEARCH_MAX_RESULTS_DEFAULT,
    PromptsAsModels,
    linked,
    prompt_of,
)
from asyncstore.metadata.sql.assessments import missing_trace
from asyncstore.metadata.sql.log_batch import inactive_run, missing_run, upsert_tags
from asyncstore.metadata.sql.logged_models import missing_model
from asyncstore.metadata.sql.registered_models import SqlRegisteredModels
from asyncstore.metadata.sql.search import parsed
from asyncstore.metadata.sql.statements import insert_missing, locked, upsert
from asyncstore.metadata.sql.traces import write_trace_tags

__all__ = ["SqlPrompts"]

EXPERIMENT_IDS_TAG = "_mlflow_experiment_ids"


class SqlPrompts(SqlRegisteredModels, PromptsAsModels):
    """The methods of a store that concern prompts."""

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
        return PagedList(map(prompt_of, found), found.token)

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
            wanted = validation.clean_tags({LINKED_PROMPTS_TAG: linked(text, prompt)})
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
                "tag_value": linked(text, prompt),
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
            said_now = linked(text, *prompt_versions)
            row = {"request_id": trace_id, "key": LINKED_PROMPTS_TAG, "value": said_now}
            await write_trace_tags(connection, self._tables, [row])

        await self._database.write(f"linking prompts to trace {trace_id}", link, repeatable=True)


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
