"""`models:/` URIs, taken apart, and what they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from asyncstore.entities import ModelVersion
from asyncstore.errors import InvalidParameterError, NotFoundError

if TYPE_CHECKING:
    from asyncstore.metadata.store import MetadataStore

__all__ = ["ModelUri", "is_model_uri", "named_version", "parse_model_uri"]

_MODEL_ID = re.compile(r"models:/+(?P<model_id>[^/@]+)")
_VERSION = re.compile(r"models:/+(?P<name>[^/]+)/(?P<version>[^/]+)")
_ALIAS = re.compile(r"models:/+(?P<name>[^/]+)@(?P<alias>[^/@]+)")


@dataclass(frozen=True)
class ModelUri:
    """What a `models:/` URI names: a logged model, or a version, an alias or a stage of a name."""

    model_id: str | None = None
    name: str | None = None
    version: int | None = None
    alias: str | None = None
    stage: str | None = None


def is_model_uri(uri: str) -> bool:
    """Whether a URI has the scheme `models`."""
    return uri.startswith("models:/")


def parse_model_uri(uri: str) -> ModelUri:
    """Take a URI apart.

    Args:
        uri: `models:/<model id>`, `models:/<name>/<version or stage>` or `models:/<name>@<alias>`.

    Raises:
        InvalidParameterError: It is none of these.
    """
    if found := _ALIAS.fullmatch(uri):
        return ModelUri(name=unquote(found["name"]), alias=found["alias"])
    if found := _VERSION.fullmatch(uri):
        name, version = unquote(found["name"]), found["version"]
        if version.isdecimal():
            return ModelUri(name=name, version=int(version))
        return ModelUri(name=name, stage=version)
    if found := _MODEL_ID.fullmatch(uri):
        return ModelUri(model_id=found["model_id"])
    raise InvalidParameterError(
        f"{uri!r} is no URI of a model; there are models:/name/version, models:/name@alias and "
        "models:/model_id"
    )


async def named_version(store: MetadataStore, uri: str) -> ModelVersion:
    """The version that a URI names.

    Args:
        store: Where to look.
        uri: `models:/<name>/<version or stage>` or `models:/<name>@<alias>`.

    Raises:
        InvalidParameterError: It is none of these.
        NotFoundError: There is no such version.
    """
    parsed = parse_model_uri(uri)
    if parsed.name is None:
        raise InvalidParameterError(f"{uri!r} names a logged model, and no version")
    if parsed.version is not None:
        return await store.get_model_version(parsed.name, parsed.version)
    if parsed.alias is not None:
        return await store.get_model_version_by_alias(parsed.name, parsed.alias)
    latest = await store.get_latest_versions(parsed.name, [parsed.stage or ""])
    if not latest:
        raise NotFoundError(f"{uri}: no version of {parsed.name!r} is at this stage")
    return latest[0]
