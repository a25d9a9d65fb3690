"""What MLflow's server has and this one has not."""

from __future__ import annotations

import re

__all__ = ["is_unsupported"]

_UNSUPPORTED = re.compile(
    r"/(?:ajax-)?api/"
    r"(?:2\.0/mlflow/(?:webhooks|runs/create-promptlab-run|gateway-proxy)"
    r"|3\.0/mlflow/(?:assistant|datasets|demo|gateway|genai|issues|label-schemas"
    r"|prompt-optimization|review-queues|scorers|ui-telemetry|workspaces"
    r"|traces/calculate-filter-correlation|traces/metrics)"
    r"|3\.0/jobs)(?:/.*)?"
)


def is_unsupported(path: str) -> bool:
    """Whether a path that the table lacks is one of MLflow's.

    Args:
        path: Without the static prefix.
    """
    return _UNSUPPORTED.fullmatch(path) is not None
