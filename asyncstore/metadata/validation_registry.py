"""MLflow's limits on the model registry; see `validation`."""

from __future__ import annotations

import posixpath
import re
from typing import Any, get_args

from asyncstore.entities import ModelVersionStage
from asyncstore.errors import InvalidParameterError, UnsupportedError
from asyncstore.metadata import validation

__all__ = [
    "model_alias",
    "model_name",
    "new_model_alias",
    "no_deployment_job",
    "registry_max_results",
    "registry_tag",
    "stage",
    "version_number",
]

MAX_MODEL_NAME_LENGTH = 256
MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH = 100_000
MAX_REGISTERED_MODEL_ALIAS_LENGTH = 255

_ALIAS = re.compile(r"[\w\-]+")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_STAGES: dict[str, ModelVersionStage] = {each.lower(): each for each in get_args(ModelVersionStage)}


def model_name(name: object) -> str:
    """A name that a registered model may have; raises otherwise."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidParameterError(f"a registered model needs a name, not {name!r}")
    normal = posixpath.normpath(name)
    if "/" in name or ":" in name or normal != name or normal in (".", ".."):
        raise InvalidParameterError(
            f"{name!r}: the name of a registered model must not be a path, nor hold / or :"
        )
    if len(name) > MAX_MODEL_NAME_LENGTH:
        raise InvalidParameterError(
            f"the name of a registered model may have {MAX_MODEL_NAME_LENGTH} characters, this one "
            f"has {len(name)}"
        )
    return name


def version_number(version: Any) -> int:
    """The number that a version is; raises when it is none."""
    try:
        number = int(version)
    except (TypeError, ValueError):
        number = -1
    if not -1 < number < 2**31:
        raise InvalidParameterError(f"{version!r} is not a version; versions are whole numbers")
    return number


def registry_tag(key: str, value: str) -> None:
    """Refuse a tag of a model or version that exceeds its limits."""
    validation.tag_name(key)
    if not isinstance(value, str) or len(value) > MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH:
        raise InvalidParameterError(
            f"the value of tag {key!r} must be text of at most "
            f"{MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH} characters, not {value!r:.80}"
        )


def model_alias(alias: object) -> str:
    """An alias that has the form of one; raises otherwise."""
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidParameterError(
            f"{alias!r} is not an alias; an alias holds letters, digits, _ and -"
        )
    if len(alias) > MAX_REGISTERED_MODEL_ALIAS_LENGTH:
        raise InvalidParameterError(
            f"an alias may have {MAX_REGISTERED_MODEL_ALIAS_LENGTH} characters, this one has "
            f"{len(alias)}"
        )
    return alias


def new_model_alias(alias: object) -> str:
    """An alias that may be set: MLflow reserves `latest` and those that look like versions."""
    text = model_alias(alias)
    if text.lower() == "latest" or _VERSION_ALIAS.fullmatch(text):
        raise InvalidParameterError(f"the alias {text!r} is reserved; choose another one")
    return text


def no_deployment_job(job_id: object) -> None:
    """Refuse a deployment job, which only Databricks' registry has a place for."""
    if job_id is not None:
        raise UnsupportedError("MLflow's databases have no place for a deployment_job_id")


def stage(name: str) -> ModelVersionStage:
    """The stage of a name, in any case; raises when it is none."""
    found = _STAGES.get(str(name).lower())
    if found is None:
        raise InvalidParameterError(
            f"{name!r} is not a stage; there are {', '.join(_STAGES.values())}"
        )
    return found


def registry_max_results(value: object, limit: int) -> int:
    """Refuse a page size outside MLflow's bounds."""
    if not isinstance(value, int) or not 1 <= value <= limit:
        raise InvalidParameterError(f"max_results must be 1 to {limit}, not {value!r}")
    return value
