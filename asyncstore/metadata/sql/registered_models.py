"""Registered models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.entities import ModelVersion, PagedList, RegisteredModel
from asyncstore.errors import AlreadyExistsError, InvalidParameterError
from asyncstore.metadata import page_tokens, validation, validation_registry
from asyncstore.metadata.filters import Comparison, parse_order_by
from asyncstore.metadata.filters.registry import REGISTERED_MODELS
from asyncstore.metadata.interface.registered_models import (
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
)
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.registry_rows import (
    DELETED,
    check_version,
    missing_model,
    read_models,
    read_versions,
    touch_model,
)
from asyncstore.metadata.sql.registry_search import ordered, tagged
from asyncstore.metadata.sql.search import compare, page, parsed
from asyncstore.metadata.sql.statements import upsert

__all__ = ["SqlRegisteredModels"]

MAX_RESULTS_THRESHOLD = 1000


class SqlRegisteredModels(SqlStore):
    """The methods of a store that concern registered models."""

    @override
    async def create_registered_model(
        self,
        name: str,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        validation_registry.no_deployment_job(deployment_job_id)
        validation_registry.model_name(name)
        wanted = dict(tags or {})
        for key, value in wanted.items():
            validation_registry.registry_tag(key, value)
        now = now_ms()
        row = {
            "name": name,
            "creation_time": now,
            "last_updated_time": now,
            "description": description,
        }

        async def create(connection: AsyncConnection) -> None:
            try:
                await connection.execute(insert(self._tables.registered_models).values(row))
            except IntegrityError as error:
                raise AlreadyExistsError(
                    f"{name!r} is a registered model or a prompt already; choose another name"
                ) from error
            if wanted:
                await connection.execute(
                    insert(self._tables.registered_model_tags),
                    [{"name": name, "key": key, "value": wanted[key]} for key in wanted],
                )

        await self._database.write(f"registering model {name!r}", create)
        return RegisteredModel(name, now, now, description, tags=wanted)

    @override
    async def get_registered_model(self, name: str) -> RegisteredModel:
        validation_registry.model_name(name)

        async def get(connection: AsyncConnection) -> list[RegisteredModel]:
            return await read_models(connection, self._tables, self._named(name))

        found = await self._database.read(f"getting registered model {name!r}", get)
        if not found:
            raise missing_model(name)
        return found[0]

    def _named(self, name: str) -> Select[Any]:
        models = self._tables.registered_models
        return select(models).where(self._tables.in_workspace(models), models.c.name == name)

    @override
    async def update_registered_model(
        self, name: str, description: str | None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        validation_registry.no_deployment_job(deployment_job_id)
        validation_registry.model_name(name)

        async def change(connection: AsyncConnection) -> RegisteredModel:
            # PostgreSQL refuses a text that is too long before it looks for the model.
            await touch_model(connection, self._tables, name)
            await touch_model(connection, self._tables, name, description=description)
            return (await read_models(connection, self._tables, self._named(name)))[0]

        return await self._database.write(
            f"updating registered model {name!r}", change, repeatable=True
        )

    @override
    async def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        validation_registry.model_name(name)
        validation_registry.model_name(new_name)
        versions = self._tables.model_versions

        async def rename(connection: AsyncConnection) -> RegisteredModel:
            try:
                # Versions, tags and aliases follow by their foreign keys.
                await touch_model(connection, self._tables, name, name=new_name)
            except IntegrityError as error:
                raise AlreadyExistsError(
                    f"registered model {name!r} cannot be renamed: {new_name!r} exists already"
                ) from error
            await connection.execute(
                update(versions)
                .where(self._tables.in_workspace(versions), versions.c.name == new_name)
                .values(last_updated_time=now_ms())
            )
            return (await read_models(connection, self._tables, self._named(new_name)))[0]

        return await self._database.write(f"renaming registered model {name!r}", rename)

    @override
    async def delete_registered_model(self, name: str) -> None:
        validation_registry.model_name(name)
        tables = self._tables

        async def delete_model(connection: AsyncConnection) -> None:
            await touch_model(connection, tables, name)
            for table in (
                tables.model_version_tags,
                tables.registered_model_aliases,
                tables.registered_model_tags,
                tables.model_versions,
                tables.registered_models,
            ):
                await connection.execute(
                    delete(table).where(tables.in_workspace(table), table.c.name == name)
                )

        await self._database.write(f"deleting registered model {name!r}", delete_model)

    @override
    async def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        comparisons = await parsed(filter_string, REGISTERED_MODELS)
        return await self._search_models(comparisons, max_results, order_by, page_token)

    async def _search_models(
        self,
        comparisons: Sequence[Comparison],
        max_results: int,
        order_by: Sequence[str] | None,
        page_token: str | None,
    ) -> PagedList[RegisteredModel]:
        size = validation_registry.registry_max_results(max_results, MAX_RESULTS_THRESHOLD)
        offset = page_tokens.read_offset(page_token)
        models, tags = self._tables.registered_models, self._tables.registered_model_tags
        conditions: list[ColumnElement[bool]] = [
            compare(models.c[each.key], each, self._dialect)
            for each in comparisons
            if each.entity == "attribute"
        ]
        conditions += tagged(self._tables, self._dialect, models, tags, comparisons)
        orderings = [parse_order_by(text, REGISTERED_MODELS) for text in order_by or ()]
        query = ordered(
            select(models).where(self._tables.in_workspace(models), *conditions),
            models,
            orderings,
            {"name": True},
        )
        query = query.offset(offset).limit(size + 1)

        async def search(connection: AsyncConnection) -> list[RegisteredModel]:
            return await read_models(connection, self._tables, query)

        found = await self._database.read("searching registered models", search)
        return page(found, offset, size)

    @override
    async def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        wanted = {validation_registry.stage(each) for each in stages or ()}
        model = await self.get_registered_model(name)
        return [
            version
            for version in model.latest_versions
            if not wanted or version.current_stage in wanted
        ]

    @override
    async def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        validation_registry.model_name(name)
        validation_registry.registry_tag(key, value)

        async def set_tag(connection: AsyncConnection) -> None:
            await self._check_model(connection, name)
            tags = self._tables.registered_model_tags
            row = self._tables.keyed(tags, {"name": name, "key": key, "value": value})
            await connection.execute(upsert(self._dialect, tags, ["value"]), [row])

        doing = f"setting tag {key!r} of registered model {name!r}"
        await self._database.write(doing, set_tag, repeatable=True)

    @override
    async def delete_registered_model_tag(self, name: str, key: str) -> None:
        validation_registry.model_name(name)
        validation.tag_name(key)
        tags = self._tables.registered_model_tags

        async def delete_tag(connection: AsyncConnection) -> None:
            await self._check_model(connection, name)
            await connection.execute(
                delete(tags).where(
                    self._tables.in_workspace(tags), tags.c.name == name, tags.c.key == key
                )
            )

        doing = f"deleting tag {key!r} of registered model {name!r}"
        await self._database.write(doing, delete_tag, repeatable=True)

    @override
    async def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        validation_registry.model_name(name)
        validation_registry.new_model_alias(alias)
        number = validation_registry.version_number(version)

        async def set_alias(connection: AsyncConnection) -> None:
            await check_version(connection, self._tables, name, number)
            aliases = self._tables.registered_model_aliases
            row = self._tables.keyed(aliases, {"name": name, "alias": alias, "version": number})
            await connection.execute(upsert(self._dialect, aliases, ["version"]), [row])

        doing = f"setting alias {alias!r} of registered model {name!r}"
        await self._database.write(doing, set_alias, repeatable=True)

    @override
    async def delete_registered_model_alias(self, name: str, alias: str) -> None:
        validation_registry.model_name(name)
        validation_registry.model_alias(alias)
        aliases = self._tables.registered_model_aliases

        async def delete_alias(connection: AsyncConnection) -> None:
            await self._check_model(connection, name)
            await connection.execute(
                delete(aliases).where(
                    self._tables.in_workspace(aliases),
                    aliases.c.name == name,
                    aliases.c.alias == alias,
                )
            )

        doing = f"deleting alias {alias!r} of registered model {name!r}"
        await self._database.write(doing, delete_alias, repeatable=True)

    @override
    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        validation_registry.model_name(name)
        validation_registry.model_alias(alias)
        tables = self._tables
        versions, aliases = tables.model_versions, tables.registered_model_aliases
        query = select(versions).where(
            tables.in_workspace(versions),
            versions.c.name == name,
            versions.c.current_stage != DELETED,
        )
        if alias.lower() == "latest":
            query = query.order_by(versions.c.version.desc()).limit(1)
        else:
            pointed = select(aliases.c.version).where(
                tables.in_workspace(aliases), aliases.c.name == name, aliases.c.alias == alias
            )
            query = query.where(versions.c.version == pointed.scalar_subquery())

        async def get(connection: AsyncConnection) -> list[ModelVersion]:
            await self._check_model(connection, name)
            return await read_versions(connection, tables, query)

        found = await self._database.read(f"getting {name!r} by alias {alias!r}", get)
        if not found:
            raise InvalidParameterError(f"registered model {name!r} has no alias {alias!r}")
        return found[0]

    async def _check_model(self, connection: AsyncConnection, name: str) -> None:
        models = self._tables.registered_models
        query = select(models.c.name).where(
            self._tables.in_workspace(models), models.c.name == name
        )
        if (await connection.execute(query)).first() is None:
            raise missing_model(name)
