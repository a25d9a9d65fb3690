"""The words of searches for logged models: `mlflow.utils.search_logged_model_utils` of 3.17."""

from __future__ import annotations

from typing import Final

from asyncstore.metadata.filters.vocabulary import LISTED, NUMERIC, Field, Vocabulary

__all__ = ["LOGGED_MODELS"]

_CREATED = Field("creation_timestamp_ms", NUMERIC, float)
_UPDATED = Field("last_updated_timestamp_ms", NUMERIC, float)
LOGGED_MODELS: Final = Vocabulary(
    prefixes={
        "attributes": "attribute",
        "metrics": "metric",
        "params": "param",
        "tags": "tag",
    },
    attributes={
        **{
            key: Field(key, LISTED)
            for key in (
                *("name", "model_id", "model_type", "source_run_id", "artifact_location"),
                *("experiment_id", "status", "status_message"),
            )
        },
        **dict.fromkeys(("creation_time", "creation_timestamp", "creation_timestamp_ms"), _CREATED),
        **dict.fromkeys(("last_updated_timestamp", "last_updated_timestamp_ms"), _UPDATED),
    },
    keyed={"metric": NUMERIC, "param": LISTED, "tag": LISTED},
    dataset={},
    sortable=frozenset({"attribute", "metric"}),
)
