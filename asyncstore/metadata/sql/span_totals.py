"""Token usage and cost of a trace, added up over its spans as MLflow does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asyncstore.metadata.sql.trace_columns import COST, USAGE

__all__ = ["SpanNode", "total_cost", "total_usage"]

USAGE_ATTRIBUTE = "mlflow.chat.tokenUsage"
COST_ATTRIBUTE = "mlflow.llm.cost"


@dataclass(frozen=True)
class SpanNode:
    """Of a span, what adding up needs.

    Args:
        span_id: The span.
        parent_id: Its parent; None for the root.
        usage: Its token usage; None for none.
        cost: Its cost; None for none.
    """

    span_id: str
    parent_id: str | None
    usage: Mapping[str, Any] | None
    cost: Mapping[str, Any] | None

    @classmethod
    def of(cls, span_id: str, parent_id: str | None, attributes: Mapping[str, Any]) -> SpanNode:
        """From the attributes of a span."""
        usage, cost = attributes.get(USAGE_ATTRIBUTE), attributes.get(COST_ATTRIBUTE)
        return cls(
            span_id,
            parent_id,
            usage if isinstance(usage, Mapping) else None,
            cost if isinstance(cost, Mapping) else None,
        )


def total_usage(nodes: Iterable[SpanNode]) -> dict[str, int]:
    """Tokens of a trace by the names of MLflow's columns; empty when no span says any."""
    found = _total({node.span_id: (node.parent_id, node.usage) for node in nodes}, USAGE)
    return {key: int(value) for key, value in found.items()}


def total_cost(nodes: Iterable[SpanNode]) -> dict[str, float]:
    """Cost of a trace by the names of MLflow's columns; empty when no span says any."""
    found = _total({node.span_id: (node.parent_id, node.cost) for node in nodes}, COST)
    return {key: float(value) for key, value in found.items()}


def _total(
    spans: Mapping[str, tuple[str | None, Mapping[str, Any] | None]], keys: Iterable[str]
) -> dict[str, float]:
    # A span that says something says it for all below it, whose own is not added.
    counted = [
        said
        for parent_id, said in spans.values()
        if said is not None and not _is_below_one_that_says(spans, parent_id)
    ]
    return {
        key: sum(_number(said[key]) for said in counted if key in said)
        for key in keys
        if any(key in said for said in counted)
    }


def _is_below_one_that_says(
    spans: Mapping[str, tuple[str | None, Mapping[str, Any] | None]], span_id: str | None
) -> bool:
    seen: set[str] = set()
    while span_id is not None and span_id in spans and span_id not in seen:
        seen.add(span_id)
        parent_id, said = spans[span_id]
        if said is not None:
            return True
        span_id = parent_id
    return False


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
