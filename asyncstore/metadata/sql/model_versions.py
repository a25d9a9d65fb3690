"""Versions of registered models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import override

from asyncstore.databases.errors import RetrySafely
from asyncstore.entities import ModelVersion, PagedList
from asyncstore.errors import AlreadyExistsError, InvalidParameterError
from asyncstore.metadata import page_tokens, validation, validation_registry
from asyncstore.metadata.filters import parse_order_by
from asyncstore.metadata.filters.registry import MODEL_VERSIONS
from asyncstore.metadata.interface.model_versions import SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT
from asyncstore.metadata.model_uris import is_model_uri, named_version, parse_model_uri
from asyncstore.metadata.sql.base import SqlStore, now_ms
from asyncstore.metadata.sql.registry_rows import (
    DELETED,
    check_version,
    missing_version,
    read_versions,
    touch_model,
)
from asyncstore.metadata.sql.registry_search import ordered, tagged
from asyncstore.metadata.sql.search import compare, page, parsed
from asyncstore.metadata.sql.statements import upsert

__all__ = ["SqlModelVersions"]

MAX_RESULTS_THRESHOLD = 200_000
_ACTIVE_STAGES = ("Staging", "Production")


class SqlModelVersions(SqlStore):
    """The methods of a store that concern versions of registered models."""

    @override
    async def create_model_version(
        self,
        name: str,
        source: str | None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        validation_registry.model_name(name)
        wanted = dict(tags or {})
        for key, value in wanted.items():
            validation_registry.registry_tag(key, value)
        location, run_of_model = await self._resolve(source)
        if not run_id and model_id and not run_of_model:
            run_of_model = (await self.get_logged_model(model_id)).source_run_id
        run_id = run_id or run_of_model
        versions = self._tables.model_versions

        async def create(connection: AsyncConnection) -> ModelVersion:
            # Who creates versions of one model waits here for the others.
            await touch_model(connection, self._tables, name)
            highest = select(func.max(versions.c.version)).where(
                self._tables.in_workspace(versions), versions.c.name == name
            )
            number = ((await connection.execute(highest)).scalar() or 0) + 1
            now = now_ms()
            row = {
                "name": name,
                "version": number,
                "creation_time": now,
                "last_updated_time": now,
                "description": description,
                "user_id": None,
                "current_stage": "None",
                "source": source,
                "storage_location": location,
                "run_id": run_id,
                "run_link": run_link,
                "status": "READY",
                "status_message": None,
            }
            try:
                await connection.execute(insert(versions).values(self._tables.known(versions, row)))
            except IntegrityError as error:
                raise RetrySafely("somebody else created this version") from error
            if wanted:
                await connection.execute(
                    insert(self._tables.model_version_tags),
                    [
                        {"name": name, "version": number, "key": key, "value": wanted[key]}
                        for key in wanted
                    ],
                )
            return ModelVersion(
                name,
                number,
                now,
                now,
                description,
                source=source,
                run_id=run_id,
                tags=wanted,
                run_link=run_link,
            )

        return await self._database.write(f"creating a version of {name!r}", create)

    async def _resolve(self, source: str | None) -> tuple[str | None, str | None]:
        """Where the artifacts of a source are, and the run of the logged model that it names."""
        if source is None or not is_model_uri(source):
            return source, None
        uri = parse_model_uri(source)
        if uri.model_id is not None:
            model = await self.get_logged_model(uri.model_id)
            return model.artifact_location, model.source_run_id
        version = await named_version(self, source)
        return await self.get_model_version_download_uri(version.name, version.version), None

    @override
    async def copy_model_version(self, src_mv: ModelVersion, dst_name: str) -> ModelVersion:
        old = await self.get_model_version(src_mv.name, src_mv.version)
        with suppress(AlreadyExistsError):
            await self.create_registered_model(dst_name)
        return await self.create_model_version(
            dst_name,
            f"models:/{old.name}/{old.version}",
            old.run_id,
            old.tags,
            old.run_link,
            old.description,
        )

    @override
    async def get_model_version(self, name: str, version: int | str) -> ModelVersion:
        query, number = self._numbered(name, version)

        async def get(connection: AsyncConnection) -> list[ModelVersion]:
            return await read_versions(connection, self._tables, query)

        found = await self._database.read(f"getting version {number} of {name!r}", get)
        if not found:
            raise missing_version(name, number)
        return found[0]

    def _numbered(self, name: str, version: int | str) -> tuple[Select[Any], int]:
        validation_registry.model_name(name)
        number = validation_registry.version_number(version)
        versions = self._tables.model_versions
        query = select(versions).where(
            self._tables.in_workspace(versions),
            versions.c.name == name,
            versions.c.version == number,
            versions.c.current_stage != DELETED,
        )
        return query, number

    @override
    async def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        query, number = self._numbered(name, version)

        async def get(connection: AsyncConnection) -> str:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise missing_version(name, number)
            return str(row.storage_location or row.source)

        return await self._database.read(f"locating version {number} of {name!r}", get)

    @override
    async def update_model_version(
        self, name: str, version: int | str, description: str | None = None
    ) -> ModelVersion:
        return await self._change_version(name, version, {"description": description})

    @override
    async def transition_model_version_stage(
        self, name: str, version: int | str, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        canonical = validation_registry.stage(stage)
        if archive_existing_versions and canonical not in _ACTIVE_STAGES:
            raise InvalidParameterError(
                f"existing versions are archived for {' and '.join(_ACTIVE_STAGES)} only, not for "
                f"{canonical}",
                error_code="INTERNAL_ERROR",  # as in MLflow
            )
        archived = canonical if archive_existing_versions else None
        return await self._change_version(name, version, {"current_stage": canonical}, archived)

    async def _change_version(
        self,
        name: str,
        version: int | str,
        changes: Mapping[str, Any],
        archived: str | None = None,
    ) -> ModelVersion:
        query, number = self._numbered(name, version)
        versions = self._tables.model_versions
        of_model = [self._tables.in_workspace(versions), versions.c.name == name]

        async def change(connection: AsyncConnection) -> ModelVersion:
            await check_version(connection, self._tables, name, number)
            now = now_ms()
            if "current_stage" in changes:
                await touch_model(connection, self._tables, name)
            if archived is not None:
                await connection.execute(
                    update(versions)
                    .where(
                        *of_model,
                        versions.c.version != number,
                        versions.c.current_stage == archived,
                    )
                    .values(current_stage="Archived", last_updated_time=now)
                )
            await connection.execute(
                update(versions)
                .where(*of_model, versions.c.version == number)
                .values(last_updated_time=now, **changes)
            )
            return (await read_versions(connection, self._tables, query))[0]

        doing = f"updating version {number} of {name!r}"
        return await self._database.write(doing, change, repeatable=True)

    @override
    async def delete_model_version(self, name: str, version: int | str) -> None:
        _, number = self._numbered(name, version)
        versions, aliases = self._tables.model_versions, self._tables.registered_model_aliases

        async def delete_version(connection: AsyncConnection) -> None:
            await check_version(connection, self._tables, name, number)
            await touch_model(connection, self._tables, name)
            await connection.execute(
                delete(aliases).where(
                    self._tables.in_workspace(aliases),
                    aliases.c.name == name,
                    aliases.c.version == number,
                )
            )
            # The row stays, as MLflow leaves it, so that its number is not used again.
            row = {
                "current_stage": DELETED,
                "last_updated_time": now_ms(),
                "description": None,
                "user_id": None,
                "source": "REDACTED-SOURCE-PATH",
                "run_id": "REDACTED-RUN-ID",
                "run_link": "REDACTED-RUN-LINK",
                "status_message": None,
            }
            await connection.execute(
                update(versions)
                .where(
                    self._tables.in_workspace(versions),
                    versions.c.name == name,
                    versions.c.version == number,
                )
                .values(**row)
            )

        await self._database.write(f"deleting version {number} of {name!r}", delete_version)

    @override
    async def set_model_version_tag(
        self, name: str, version: int | str, key: str, value: str
    ) -> None:
        _, number = self._numbered(name, version)
        validation_registry.registry_tag(key, value)
        tags = self._tables.model_version_tags

        async def set_tag(connection: AsyncConnection) -> None:
            await check_version(connection, self._tables, name, number)
            row = {"name": name, "version": number, "key": key, "value": value}
            await connection.execute(
                upsert(self._dialect, tags, ["value"]), [self._tables.keyed(tags, row)]
            )

        doing = f"setting tag {key!r} of version {number} of {name!r}"
        await self._database.write(doing, set_tag, repeatable=True)

    @override
    async def delete_model_version_tag(self, name: str, version: int | str, key: str) -> None:
        _, number = self._numbered(name, version)
        validation.tag_name(key)
        tags = self._tables.model_version_tags

        async def delete_tag(connection: AsyncConnection) -> None:
            await check_version(connection, self._tables, name, number)
            await connection.execute(
                delete(tags).where(
                    self._tables.in_workspace(tags),
                    tags.c.name == name,
                    tags.c.version == number,
                    tags.c.key == key,
                )
            )

        doing = f"deleting tag {key!r} of version {number} of {name!r}"
        await self._database.write(doing, delete_tag, repeatable=True)

    @override
    async def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        size = validation_registry.registry_max_results(max_results, MAX_RESULTS_THRESHOLD)
        offset = page_tokens.read_offset(page_token)
        comparisons = await parsed(filter_string, MODEL_VERSIONS)
        versions, tags = self._tables.model_versions, self._tables.model_version_tags
        conditions: list[ColumnElement[bool]] = [
            compare(versions.c[each.key], each, self._dialect)
            for each in comparisons
            if each.entity == "attribute"
        ]
        conditions += tagged(self._tables, self._dialect, versions, tags, comparisons)
        orderings = [
            parse_order_by(text, MODEL_VERSIONS)
            for text in order_by or ("last_updated_timestamp DESC", "name", "version_number DESC")
        ]
        query = ordered(
            select(versions).where(
                self._tables.in_workspace(versions),
                versions.c.current_stage != DELETED,
                *conditions,
            ),
            versions,
            orderings,
            {"name": True, "version": False},
        )
        query = query.offset(offset).limit(size + 1)

        async def search(connection: AsyncConnection) -> list[ModelVersion]:
            return await read_versions(connection, self._tables, query)

        found = await self._database.read("searching model versions", search)
        return page(found, offset, size)
