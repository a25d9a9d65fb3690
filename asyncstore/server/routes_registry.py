"""Registered models and their versions."""

from __future__ import annotations

import json
from typing import Any

from asyncstore.rest.json_registry import model_version_to_json, registered_model_to_json
from asyncstore.server.decoding import Clauses, Int64, Request, RequiredText
from asyncstore.server.requests import Tag, list_in_tag, page, tags_of
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.sources import check_prompt_source, checked_source
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

MODELS = "/api/2.0/mlflow/registered-models/"
VERSIONS = "/api/2.0/mlflow/model-versions/"
SEARCH_MODELS_MAX_RESULTS = 100
SEARCH_VERSIONS_MAX_RESULTS = 200_000
IS_PROMPT = "mlflow.prompt.is_prompt"
# In a logged model's tags: the versions that were made of it.
MODEL_VERSIONS_TAG = "mlflow.modelVersions"
# MLflow's clients send numbers of versions as texts.
Version = RequiredText


class CreateRegisteredModel(Request):
    """A new name for versions."""

    name: RequiredText
    tags: list[Tag] | None = None
    description: str | None = None


class OfRegisteredModel(Request):
    """A registered model."""

    name: RequiredText


class UpdateRegisteredModel(OfRegisteredModel):
    """A registered model's new description."""

    description: str | None = None


class RenameRegisteredModel(OfRegisteredModel):
    """A registered model's new name."""

    new_name: RequiredText


class GetLatestVersions(OfRegisteredModel):
    """Stages of a registered model."""

    stages: list[str] | None = None


class SetRegisteredModelTag(OfRegisteredModel):
    """A tag of a registered model."""

    key: RequiredText
    value: str | None = None


class DeleteRegisteredModelTag(OfRegisteredModel):
    """A tag of a registered model that goes."""

    key: RequiredText


class RegisteredModelAlias(OfRegisteredModel):
    """An alias of a registered model."""

    alias: RequiredText


class SetRegisteredModelAlias(RegisteredModelAlias):
    """An alias of a version."""

    version: Version


class SearchRegistry(Request):
    """Which registered models or versions to find."""

    filter: str | None = None
    max_results: Int64 | None = None
    order_by: Clauses[str] | None = None
    page_token: str | None = None


class CreateModelVersion(OfRegisteredModel):
    """A new version."""

    source: RequiredText
    run_id: str | None = None
    tags: list[Tag] | None = None
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class OfModelVersion(OfRegisteredModel):
    """A version."""

    version: Version


class UpdateModelVersion(OfModelVersion):
    """A version's new description."""

    description: str | None = None


class TransitionModelVersionStage(OfModelVersion):
    """A version's new stage."""

    stage: RequiredText
    archive_existing_versions: bool | None = None


class SetModelVersionTag(OfModelVersion):
    """A tag of a version."""

    key: RequiredText
    value: str | None = None


class DeleteModelVersionTag(OfModelVersion):
    """A tag of a version that goes."""

    key: RequiredText


async def create_registered_model(server: Server, request: CreateRegisteredModel) -> dict[str, Any]:
    """Register a name for versions."""
    model = await server.registry.create_registered_model(
        request.name, tags_of(request.tags), request.description or ""
    )
    return {"registered_model": registered_model_to_json(model)}


async def get_registered_model(server: Server, request: OfRegisteredModel) -> dict[str, Any]:
    """A registered model with its tags, aliases and latest versions."""
    model = await server.registry.get_registered_model(request.name)
    return {"registered_model": registered_model_to_json(model)}


async def update_registered_model(server: Server, request: UpdateRegisteredModel) -> dict[str, Any]:
    """Change a registered model's description."""
    model = await server.registry.update_registered_model(request.name, request.description or "")
    return {"registered_model": registered_model_to_json(model)}


async def rename_registered_model(server: Server, request: RenameRegisteredModel) -> dict[str, Any]:
    """Rename a registered model."""
    model = await server.registry.rename_registered_model(request.name, request.new_name)
    return {"registered_model": registered_model_to_json(model)}


async def delete_registered_model(server: Server, request: OfRegisteredModel) -> dict[str, Any]:
    """Delete a registered model for good, with its versions."""
    await server.registry.delete_registered_model(request.name)
    return {}


async def search_registered_models(server: Server, request: SearchRegistry) -> dict[str, Any]:
    """Search registered models."""
    found = await server.registry.search_registered_models(
        request.filter or None,
        SEARCH_MODELS_MAX_RESULTS if request.max_results is None else request.max_results,
        request.order_by,
        request.page_token or None,
    )
    return await page("registered_models", found, registered_model_to_json)


async def get_latest_versions(server: Server, request: GetLatestVersions) -> dict[str, Any]:
    """The latest version of each of some stages."""
    found = await server.registry.get_latest_versions(request.name, request.stages)
    return {"model_versions": [model_version_to_json(each) for each in found]} if found else {}


async def set_registered_model_tag(
    server: Server, request: SetRegisteredModelTag
) -> dict[str, Any]:
    """Set a tag of a registered model."""
    await server.registry.set_registered_model_tag(request.name, request.key, request.value or "")
    return {}


async def delete_registered_model_tag(
    server: Server, request: DeleteRegisteredModelTag
) -> dict[str, Any]:
    """Delete a tag of a registered model."""
    await server.registry.delete_registered_model_tag(request.name, request.key)
    return {}


async def set_registered_model_alias(
    server: Server, request: SetRegisteredModelAlias
) -> dict[str, Any]:
    """Point an alias to a version."""
    await server.registry.set_registered_model_alias(request.name, request.alias, request.version)
    return {}


async def delete_registered_model_alias(
    server: Server, request: RegisteredModelAlias
) -> dict[str, Any]:
    """Delete an alias."""
    await server.registry.delete_registered_model_alias(request.name, request.alias)
    return {}


async def get_model_version_by_alias(
    server: Server, request: RegisteredModelAlias
) -> dict[str, Any]:
    """The version that an alias points to."""
    version = await server.registry.get_model_version_by_alias(request.name, request.alias)
    return {"model_version": model_version_to_json(version)}


async def create_model_version(server: Server, request: CreateModelVersion) -> dict[str, Any]:
    """Create the next version of a registered model."""
    tags = tags_of(request.tags)
    source, run_id, model_id = request.source, request.run_id or None, request.model_id or None
    is_prompt = tags.get(IS_PROMPT, "").lower() == "true"
    if is_prompt:
        check_prompt_source(source)
    else:
        source, run_id = await checked_source(server, source, run_id, model_id)
    version = await server.registry.create_model_version(
        request.name,
        source,
        run_id,
        tags,
        request.run_link or "",
        request.description or "",
        model_id=model_id,
    )
    if model_id and not is_prompt:
        await _note_version(server, model_id, request.name, version.version)
    return {"model_version": model_version_to_json(version)}


async def _note_version(server: Server, model_id: str, name: str, version: int) -> None:
    model = await server.store.get_logged_model(model_id)
    noted = list_in_tag(model.tags.get(MODEL_VERSIONS_TAG))
    entry = {"name": name, "version": version}
    if entry not in noted:
        await server.store.set_logged_model_tags(
            model_id, {MODEL_VERSIONS_TAG: json.dumps([*noted, entry])}
        )


async def get_model_version(server: Server, request: OfModelVersion) -> dict[str, Any]:
    """A version with its tags and aliases."""
    version = await server.registry.get_model_version(request.name, request.version)
    return {"model_version": model_version_to_json(version)}


async def get_model_version_download_uri(server: Server, request: OfModelVersion) -> dict[str, Any]:
    """Where the artifacts of a version are."""
    uri = await server.registry.get_model_version_download_uri(request.name, request.version)
    return {"artifact_uri": uri}


async def update_model_version(server: Server, request: UpdateModelVersion) -> dict[str, Any]:
    """Change a version's description."""
    version = await server.registry.update_model_version(
        request.name, request.version, request.description
    )
    return {"model_version": model_version_to_json(version)}


async def transition_model_version_stage(
    server: Server, request: TransitionModelVersionStage
) -> dict[str, Any]:
    """Move a version to another stage."""
    version = await server.registry.transition_model_version_stage(
        request.name, request.version, request.stage, bool(request.archive_existing_versions)
    )
    return {"model_version": model_version_to_json(version)}


async def delete_model_version(server: Server, request: OfModelVersion) -> dict[str, Any]:
    """Delete a version for good."""
    await server.registry.delete_model_version(request.name, request.version)
    return {}


async def search_model_versions(server: Server, request: SearchRegistry) -> dict[str, Any]:
    """Search versions."""
    found = await server.registry.search_model_versions(
        request.filter or None,
        SEARCH_VERSIONS_MAX_RESULTS if request.max_results is None else request.max_results,
        request.order_by,
        request.page_token or None,
    )
    return await page("model_versions", found, model_version_to_json)


async def set_model_version_tag(server: Server, request: SetModelVersionTag) -> dict[str, Any]:
    """Set a tag of a version."""
    await server.registry.set_model_version_tag(
        request.name, request.version, request.key, request.value or ""
    )
    return {}


async def delete_model_version_tag(
    server: Server, request: DeleteModelVersionTag
) -> dict[str, Any]:
    """Delete a tag of a version."""
    await server.registry.delete_model_version_tag(request.name, request.version, request.key)
    return {}


ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", MODELS + "create", create_registered_model, CreateRegisteredModel),
    Route("GET", MODELS + "get", get_registered_model, OfRegisteredModel),
    Route("PATCH", MODELS + "update", update_registered_model, UpdateRegisteredModel),
    Route("POST", MODELS + "rename", rename_registered_model, RenameRegisteredModel),
    Route("DELETE", MODELS + "delete", delete_registered_model, OfRegisteredModel),
    Route("GET", MODELS + "search", search_registered_models, SearchRegistry, searches=True),
    Route("GET", MODELS + "get-latest-versions", get_latest_versions, GetLatestVersions),
    Route(
        "POST", MODELS + "get-latest-versions", get_latest_versions, GetLatestVersions, reads=True
    ),
    Route("POST", MODELS + "set-tag", set_registered_model_tag, SetRegisteredModelTag),
    Route("DELETE", MODELS + "delete-tag", delete_registered_model_tag, DeleteRegisteredModelTag),
    Route("POST", MODELS + "alias", set_registered_model_alias, SetRegisteredModelAlias),
    Route("DELETE", MODELS + "alias", delete_registered_model_alias, RegisteredModelAlias),
    Route("GET", MODELS + "alias", get_model_version_by_alias, RegisteredModelAlias),
    Route("POST", VERSIONS + "create", create_model_version, CreateModelVersion),
    Route("GET", VERSIONS + "get", get_model_version, OfModelVersion),
    Route("GET", VERSIONS + "get-download-uri", get_model_version_download_uri, OfModelVersion),
    Route("PATCH", VERSIONS + "update", update_model_version, UpdateModelVersion),
    Route(
        "POST",
        VERSIONS + "transition-stage",
        transition_model_version_stage,
        TransitionModelVersionStage,
    ),
    Route("DELETE", VERSIONS + "delete", delete_model_version, OfModelVersion),
    Route("GET", VERSIONS + "search", search_model_versions, SearchRegistry, searches=True),
    Route("POST", VERSIONS + "set-tag", set_model_version_tag, SetModelVersionTag),
    Route("DELETE", VERSIONS + "delete-tag", delete_model_version_tag, DeleteModelVersionTag),
)
