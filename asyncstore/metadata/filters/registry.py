"""The words of searches of the model registry: `mlflow.utils.search_utils` of MLflow 3.17."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from asyncstore.metadata.filters.vocabulary import LISTED, NUMERIC, TEXT, Field, Vocabulary

__all__ = ["MODEL_VERSIONS", "PROMPTS", "REGISTERED_MODELS"]

# What can be ordered by and not filtered by.
_NONE: frozenset[str] = frozenset()
_PREFIXES = {"attribute": "attribute", "tag": "tag", "tags": "tag"}
_UPDATED = Field("last_updated_time", _NONE)
REGISTERED_MODELS: Final = Vocabulary(
    prefixes=_PREFIXES,
    attributes={
        "name": Field("name", LISTED),
        **dict.fromkeys(("timestamp", "last_updated_timestamp"), _UPDATED),
    },
    keyed={"tag": TEXT},
    dataset={},
    sortable=frozenset({"attribute"}),
)
PROMPTS: Final = replace(
    REGISTERED_MODELS,
    attributes={
        **REGISTERED_MODELS.attributes,
        "experiment_id": Field("experiment_id", frozenset({"="})),
    },
    not_sortable=frozenset({"experiment_id"}),
)
MODEL_VERSIONS: Final = Vocabulary(
    prefixes=_PREFIXES,
    attributes={
        "name": Field("name", LISTED),
        "run_id": Field("run_id", LISTED),
        "source_path": Field("source", TEXT),
        "version_number": Field("version", NUMERIC, int),
        "creation_timestamp": Field("creation_time", _NONE),
        "last_updated_timestamp": _UPDATED,
    },
    keyed={"tag": TEXT},
    dataset={},
    sortable=frozenset({"attribute"}),
    not_sortable=frozenset({"run_id", "source_path"}),
)
