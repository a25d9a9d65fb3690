"""`models:/` URIs, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from asyncstore.errors import InvalidParameterError

__all__ = ["ModelUri", "is_model_uri", "parse_model_uri"]

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
