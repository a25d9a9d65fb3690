"""Registered models and their versions, as the JSON of MLflow's REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from asyncstore.entities import ModelVersion, ModelVersionStage, RegisteredModel
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_fields import (
    choice,
    integer,
    list_of,
    messages,
    optional_integer,
    optional_text,
    tags_from_json,
    tags_to_json,
    text,
)

__all__ = [
    "model_version_from_json",
    "model_version_to_json",
    "registered_model_from_json",
    "registered_model_to_json",
]

_STATUSES = {"PENDING_REGISTRATION": 1, "FAILED_REGISTRATION": 2, "READY": 3}


def model_version_to_json(version: ModelVersion) -> dict[str, Any]:
    """A version of a registered model as MLflow's `ModelVersion`."""
    made: dict[str, Any] = {
        "name": version.name,
        "version": str(version.version),
        "creation_timestamp": version.creation_timestamp,
        "last_updated_timestamp": version.last_updated_timestamp,
        "user_id": version.user_id,
        "current_stage": version.current_stage,
        "description": version.description,
        "source": version.source,
        "run_id": version.run_id,
        "status": version.status,
        "status_message": version.status_message or None,
        "tags": tags_to_json(version.tags) or None,
        "run_link": version.run_link,
        "aliases": list(version.aliases) or None,
    }
    return {key: value for key, value in made.items() if value is not None}


def model_version_from_json(d: Mapping[str, Any]) -> ModelVersion:
    """A version of a registered model from MLflow's `ModelVersion`."""
    aliases = list_of(d, "aliases")
    if not all(isinstance(alias, str) for alias in aliases):
        raise InvalidParameterError(f"aliases have to be texts, and are {aliases!r:.100}")
    return ModelVersion(
        name=text(d, "name"),
        version=integer(d, "version"),
        creation_timestamp=integer(d, "creation_timestamp"),
        last_updated_timestamp=optional_integer(d, "last_updated_timestamp"),
        description=optional_text(d, "description"),
        user_id=optional_text(d, "user_id"),
        current_stage=cast("ModelVersionStage", optional_text(d, "current_stage") or "None"),
        source=optional_text(d, "source"),
        run_id=optional_text(d, "run_id"),
        status=choice(d, "status", _STATUSES, "READY"),
        status_message=optional_text(d, "status_message"),
        tags=tags_from_json(messages(d, "tags")),
        run_link=optional_text(d, "run_link"),
        aliases=tuple(aliases),
    )


def registered_model_to_json(model: RegisteredModel) -> dict[str, Any]:
    """A registered model as MLflow's `RegisteredModel`."""
    made: dict[str, Any] = {
        "name": model.name,
        "creation_timestamp": model.creation_timestamp,
        "last_updated_timestamp": model.last_updated_timestamp or None,
        "description": model.description or None,
        "latest_versions": [model_version_to_json(each) for each in model.latest_versions] or None,
        "tags": tags_to_json(model.tags) or None,
        "aliases": [
            {"alias": alias, "version": str(version)} for alias, version in model.aliases.items()
        ]
        or None,
    }
    return {key: value for key, value in made.items() if value is not None}


def registered_model_from_json(d: Mapping[str, Any]) -> RegisteredModel:
    """A registered model from MLflow's `RegisteredModel`."""
    return RegisteredModel(
        name=text(d, "name"),
        creation_timestamp=integer(d, "creation_timestamp"),
        last_updated_timestamp=optional_integer(d, "last_updated_timestamp"),
        description=optional_text(d, "description"),
        latest_versions=tuple(map(model_version_from_json, messages(d, "latest_versions"))),
        tags=tags_from_json(messages(d, "tags")),
        aliases={text(each, "alias"): integer(each, "version") for each in messages(d, "aliases")},
    )
