"""The words of searches for runs and experiments: `mlflow.utils.search_utils` of MLflow 3.17."""

from __future__ import annotations

from typing import Final

from asyncstore.metadata.filters.vocabulary import LISTED, NUMERIC, TAGGED, TEXT, Field, Vocabulary

__all__ = ["EXPERIMENTS", "RUNS"]

_START, _END = Field("start_time", NUMERIC, float), Field("end_time", NUMERIC, float)
_RUN_NAME = Field("run_name", TEXT)
RUNS: Final = Vocabulary(
    prefixes={
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("parameter", "parameters", "param", "params"), "param"),
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
        **dict.fromkeys(("dataset", "datasets"), "dataset"),
    },
    attributes={
        "run_id": Field("run_id", LISTED),
        **{key: Field(key, TEXT) for key in ("artifact_uri", "status", "user_id")},
        **dict.fromkeys(("run_name", "run name", "Run name", "Run Name"), _RUN_NAME),
        **dict.fromkeys(("start_time", "created", "Created"), _START),
        "end_time": _END,
    },
    keyed={"metric": NUMERIC, "param": TAGGED, "tag": TAGGED},
    dataset={key: Field(key, LISTED) for key in ("name", "digest", "context")},
    sortable=frozenset({"attribute", "metric", "param", "tag"}),
    not_sortable=frozenset({"run name", "Run name", "Run Name"}),
)
EXPERIMENTS: Final = Vocabulary(
    prefixes={"attribute": "attribute", "tag": "tag", "tags": "tag"},
    attributes={
        "name": Field("name", TEXT),
        "experiment_id": Field("experiment_id", frozenset({"=", "!=", "IN", "NOT IN"})),
        "creation_time": Field("creation_time", NUMERIC, int),
        "last_update_time": Field("last_update_time", NUMERIC, int),
    },
    keyed={"tag": TAGGED},
    dataset={},
    sortable=frozenset({"attribute"}),
)
