"""Registered models, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from asyncstore.entities import ModelVersion, PagedList, RegisteredModel
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import validation_registry
from asyncstore.metadata.interface.registered_models import (
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
)
from asyncstore.metadata.rest.base import API, RestBase, token_of
from asyncstore.rest.json_fields import message, messages
from asyncstore.rest.json_registry import model_version_from_json, registered_model_from_json
from asyncstore.rest.json_tracking import tags_to_json

__all__ = ["RestRegisteredModels"]

MODELS = f"{API}/registered-models"
MAX_RESULTS_THRESHOLD = 1000


class RestRegisteredModels(RestBase):
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
        for key, value in (tags or {}).items():
            validation_registry.registry_tag(key, value)
        wanted = {"name": name, "tags": tags_to_json(tags or {}), "description": description}
        return _model(await self._post(f"{MODELS}/create", wanted))

    @override
    async def get_registered_model(self, name: str) -> RegisteredModel:
        validation_registry.model_name(name)
        return _model(await self._get(f"{MODELS}/get", name=name))

    @override
    async def update_registered_model(
        self, name: str, description: str | None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        validation_registry.no_deployment_job(deployment_job_id)
        validation_registry.model_name(name)
        wanted = {"name": name, "description": description}
        return _model(await self._ask("PATCH", f"{MODELS}/update", wanted))

    @override
    async def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        validation_registry.model_name(name)
        validation_registry.model_name(new_name)
        wanted = {"name": name, "new_name": new_name}
        return _model(await self._post(f"{MODELS}/rename", wanted))

    @override
    async def delete_registered_model(self, name: str) -> None:
        validation_registry.model_name(name)
        await self._ask("DELETE", f"{MODELS}/delete", {"name": name}, repeatable=False)

    @override
    async def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        validation_registry.registry_max_results(max_results, MAX_RESULTS_THRESHOLD)
        found = await self._get(
            f"{MODELS}/search",
            filter=filter_string,
            max_results=max_results,
            order_by=list(order_by or ()),
            page_token=page_token,
        )
        models = map(registered_model_from_json, messages(found, "registered_models"))
        return PagedList(models, token_of(found))

    @override
    async def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        validation_registry.model_name(name)
        wanted = {
            "name": name,
            "stages": [validation_registry.stage(each) for each in stages or ()],
        }
        found = await self._post(f"{MODELS}/get-latest-versions", wanted, repeatable=True)
        return list(map(model_version_from_json, messages(found, "model_versions")))

    @override
    async def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        validation_registry.model_name(name)
        validation_registry.registry_tag(key, value)
        wanted = {"name": name, "key": key, "value": value}
        await self._post(f"{MODELS}/set-tag", wanted, repeatable=True)

    @override
    async def delete_registered_model_tag(self, name: str, key: str) -> None:
        validation_registry.model_name(name)
        await self._ask("DELETE", f"{MODELS}/delete-tag", {"name": name, "key": key})

    @override
    async def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        validation_registry.model_name(name)
        wanted = {
            "name": name,
            "alias": validation_registry.new_model_alias(alias),
            "version": str(validation_registry.version_number(version)),
        }
        await self._post(f"{MODELS}/alias", wanted, repeatable=True)

    @override
    async def delete_registered_model_alias(self, name: str, alias: str) -> None:
        validation_registry.model_name(name)
        wanted = {"name": name, "alias": validation_registry.model_alias(alias)}
        await self._ask("DELETE", f"{MODELS}/alias", wanted)

    @override
    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        validation_registry.model_name(name)
        validation_registry.model_alias(alias)
        if alias.lower() == "latest":
            # Servers before MLflow 3 refuse this one.
            latest = await self.get_latest_versions(name)
            if not latest:
                raise InvalidParameterError(f"registered model {name!r} has no alias {alias!r}")
            return max(latest, key=lambda version: version.version)
        found = await self._get(f"{MODELS}/alias", name=name, alias=alias)
        return model_version_from_json(message(found, "model_version"))


def _model(answer: Mapping[str, Any]) -> RegisteredModel:
    return registered_model_from_json(message(answer, "registered_model"))
