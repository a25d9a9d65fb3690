"""The words of searches for traces: `SearchTraceUtils` of `mlflow.utils.search_utils`, 3.17."""

from __future__ import annotations

from typing import Final

from asyncstore.metadata.filters.vocabulary import LISTED, NUMERIC, TAGGED, Field, Vocabulary

__all__ = ["TRACES"]

_TEXT = LISTED | {"RLIKE"}
_TAGGED = TAGGED | {"RLIKE"}
_TIME = Field("timestamp_ms", NUMERIC, float)
_DURATION = Field("execution_time_ms", NUMERIC, float)
_END = Field("end_time_ms", NUMERIC, float)
TRACES: Final = Vocabulary(
    prefixes={
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys(("attribute", "attributes", "trace"), "attribute"),
        **dict.fromkeys(("metadata", "request_metadata"), "metadata"),
        **{name: name for name in ("span", "feedback", "expectation", "issue")},
    },
    attributes={
        **{key: Field(key, _TEXT) for key in ("request_id", "status", "client_request_id")},
        **dict.fromkeys(("timestamp", "timestamp_ms"), _TIME),
        **dict.fromkeys(("execution_time", "execution_time_ms"), _DURATION),
        **dict.fromkeys(("end_time", "end_time_ms"), _END),
        "experiment_id": Field("experiment_id", frozenset()),
        "name": Field("name", _TAGGED),
        "run_id": Field("run_id", _TAGGED),
        "prompt": Field("prompt", frozenset({"="})),
        "text": Field("text", frozenset({"LIKE", "ILIKE"})),
    },
    keyed={
        "tag": _TAGGED,
        "metadata": _TAGGED,
        "span": _TEXT,
        "feedback": _TAGGED | NUMERIC,
        "expectation": _TAGGED | NUMERIC,
        "issue": frozenset({"="}),
    },
    dataset={},
    sortable=frozenset({"attribute", "tag", "metadata"}),
    not_sortable=frozenset({"prompt", "text", "client_request_id"}),
    ordered_by_number=frozenset({"feedback", "expectation"}),
    only_prefixed={"text": "trace.text"},
)
