"""Versions of registered models, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from typing_extensions import override

from asyncstore.entities import ModelVersion, PagedList
from asyncstore.errors import AlreadyExistsError, InvalidParameterError
from asyncstore.metadata import validation, validation_registry
from asyncstore.metadata.interface.model_versions import SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT
from asyncstore.metadata.model_uris import is_model_uri, parse_model_uri
from asyncstore.metadata.rest.base import API, RestBase, token_of
from asyncstore.rest.json_fields import message, messages, text
from asyncstore.rest.json_registry import model_version_from_json
from asyncstore.rest.json_tracking import tags_to_json

__all__ = ["RestModelVersions"]

VERSIONS = f"{API}/model-versions"
MAX_RESULTS_THRESHOLD = 200_000


class RestModelVersions(RestBase):
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
        for key, value in (tags or {}).items():
            validation_registry.registry_tag(key, value)
        # MLflow's server asks for both.
        if model_id is None and source is not None and is_model_uri(source):
            model_id = parse_model_uri(source).model_id
        wanted = {
            "name": name,
            "source": source,
            "run_id": run_id,
            "tags": tags_to_json(tags or {}),
            "run_link": run_link,
            "description": description,
            "model_id": model_id,
        }
        return _version(await self._post(f"{VERSIONS}/create", wanted))

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
        return _version(await self._get(f"{VERSIONS}/get", **_named(name, version)))

    @override
    async def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        found = await self._get(f"{VERSIONS}/get-download-uri", **_named(name, version))
        return text(found, "artifact_uri")

    @override
    async def update_model_version(
        self, name: str, version: int | str, description: str | None = None
    ) -> ModelVersion:
        wanted = {**_named(name, version), "description": description}
        return _version(await self._ask("PATCH", f"{VERSIONS}/update", wanted))

    @override
    async def transition_model_version_stage(
        self, name: str, version: int | str, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        new = validation_registry.stage(stage)
        if archive_existing_versions and new not in ("Staging", "Production"):
            # Servers say so as an internal error, which would be asked for again.
            raise InvalidParameterError(
                f"existing versions are archived for Staging and Production only, not for {new}"
            )
        wanted = {
            **_named(name, version),
            "stage": new,
            "archive_existing_versions": archive_existing_versions,
        }
        return _version(await self._post(f"{VERSIONS}/transition-stage", wanted, repeatable=True))

    @override
    async def delete_model_version(self, name: str, version: int | str) -> None:
        wanted = _named(name, version)
        await self._ask("DELETE", f"{VERSIONS}/delete", wanted, repeatable=False)

    @override
    async def set_model_version_tag(
        self, name: str, version: int | str, key: str, value: str
    ) -> None:
        validation_registry.registry_tag(key, value)
        wanted = {**_named(name, version), "key": key, "value": value}
        await self._post(f"{VERSIONS}/set-tag", wanted, repeatable=True)

    @override
    async def delete_model_version_tag(self, name: str, version: int | str, key: str) -> None:
        validation.tag_name(key)
        await self._ask("DELETE", f"{VERSIONS}/delete-tag", {**_named(name, version), "key": key})

    @override
    async def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        validation_registry.registry_max_results(max_results, MAX_RESULTS_THRESHOLD)
        found = await self._get(
            f"{VERSIONS}/search",
            filter=filter_string,
            max_results=max_results,
            order_by=list(order_by or ()),
            page_token=page_token,
        )
        versions = map(model_version_from_json, messages(found, "model_versions"))
        return PagedList(versions, token_of(found))


def _named(name: str, version: int | str) -> dict[str, Any]:
    return {
        "name": validation_registry.model_name(name),
        "version": str(validation_registry.version_number(version)),
    }


def _version(answer: Mapping[str, Any]) -> ModelVersion:
    return model_version_from_json(message(answer, "model_version"))
