"""MLflow's filter and order_by grammars: one grammar, and the words of each kind of search."""

from __future__ import annotations

from asyncstore.metadata.filters.parser import parse_filter, parse_order_by
from asyncstore.metadata.filters.tracking import EXPERIMENTS, RUNS
from asyncstore.metadata.filters.vocabulary import ORDER, Comparison, Ordering, Vocabulary

__all__ = [
    "EXPERIMENTS",
    "ORDER",
    "RUNS",
    "Comparison",
    "Ordering",
    "Vocabulary",
    "parse_filter",
    "parse_order_by",
]
