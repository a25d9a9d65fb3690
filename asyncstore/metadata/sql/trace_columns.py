"""What of a trace was a tag or metadata once and is a column in the schemas since MLflow 3.17."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from asyncstore.metadata.sql.schema.tables import Tables

__all__ = [
    "COST",
    "COST_KEY",
    "NAME_TAG",
    "SESSION_KEY",
    "USAGE",
    "USAGE_KEY",
    "demote",
    "numbers",
    "promote",
]

# Rows by table.
Rows = Mapping[str, Sequence[Mapping[str, Any]]]

NAME_TAG = "mlflow.traceName"
SESSION_KEY = "mlflow.trace.session"
# JSON objects whose keys are the columns' names.
USAGE_KEY, COST_KEY = "mlflow.trace.tokenUsage", "mlflow.trace.cost"
USAGE = (
    *("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "cache_creation_input_tokens_above_1hr"),
)
COST = ("input_cost", "output_cost", "total_cost")
MAX_SESSION_LENGTH = 250
MAX_NAME_LENGTH = 4096


def promote(tables: Tables, rows: Rows) -> dict[str, list[dict[str, Any]]]:
    """The rows of one trace with what MLflow's newer schemas keep in columns in these.

    Args:
        tables: The tables of the database's revision.
        rows: The rows of the trace; left as they are.

    Returns:
        The rows to write; the same where the schema has no such columns.
    """
    if "trace_name" not in tables.trace_info.c:
        return {name: [dict(row) for row in of_table] for name, of_table in rows.items()}
    tags = {row["key"]: row["value"] for row in rows["trace_tags"]}
    metadata = {row["key"]: row["value"] for row in rows["trace_request_metadata"]}
    usage, cost = numbers(metadata.get(USAGE_KEY)), numbers(metadata.get(COST_KEY))
    columns: dict[str, Any] = {
        "trace_name": _cut(tags.get(NAME_TAG), MAX_NAME_LENGTH),
        "session_id": _cut(metadata.get(SESSION_KEY), MAX_SESSION_LENGTH),
        **{name: _whole(usage.get(name)) for name in USAGE},
        **{name: cost.get(name) for name in COST},
    }
    promoted = {NAME_TAG, SESSION_KEY, USAGE_KEY, COST_KEY}
    return {name: [dict(row) for row in of_table] for name, of_table in rows.items()} | {
        "trace_info": [{**row, **columns} for row in rows["trace_info"]],
        "trace_tags": [dict(row) for row in rows["trace_tags"] if row["key"] != NAME_TAG],
        "trace_request_metadata": [
            dict(row) for row in rows["trace_request_metadata"] if row["key"] not in promoted
        ],
    }


def demote(row: Any, tags: dict[str, str], metadata: dict[str, str]) -> None:
    """Put what a row of traces has in columns among its tags and metadata, where users look.

    Args:
        row: A row of the table of traces, of any revision.
        tags: The trace's tags.
        metadata: Its metadata.
    """
    found = row._mapping  # noqa: SLF001  SQLAlchemy's public name for it
    if "trace_name" not in found:
        return
    if found["trace_name"] is not None:
        tags[NAME_TAG] = found["trace_name"]
    if found["session_id"] is not None:
        metadata[SESSION_KEY] = found["session_id"]
    for key, columns in ((USAGE_KEY, USAGE), (COST_KEY, COST)):
        values = {name: found[name] for name in columns if found[name] is not None}
        if values:
            metadata[key] = json.dumps(values)


def _cut(text: str | None, length: int) -> str | None:
    return None if text is None else text[:length]


def numbers(text: str | None) -> dict[str, float]:
    """The finite numbers of a JSON object; none where it is something else."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _whole(value: float | None) -> int | None:
    if value is None or value != int(value) or not -(2**63) <= value < 2**63:
        return None
    return int(value)
