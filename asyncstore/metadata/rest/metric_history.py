"""The history of metrics of many runs, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from asyncstore.entities import Metric, MetricWithRunId
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata.rest.base import API, UI_API, RestBase, chunks
from asyncstore.rest.json_fields import messages
from asyncstore.rest.json_tracking import metric_with_run_id_from_json

__all__ = ["RestMetricHistory"]

# MLflow's server takes no more runs at once, and gives no more values.
RUNS_AT_ONCE = 100
MAX_HISTORY_RESULTS = 25_000


class RestMetricHistory(RestBase):
    """The methods of a store that concern the history of metrics of many runs."""

    @override
    async def get_metric_history_bulk(
        self, run_ids: Sequence[str], metric_key: str, max_results: int
    ) -> list[MetricWithRunId]:
        values: list[MetricWithRunId] = []
        ordered = sorted(set(run_ids))
        if max_results > MAX_HISTORY_RESULTS:
            for run_id in ordered:
                history = await self.get_metric_history(run_id, metric_key)
                values.extend(_of_run(run_id, metric) for metric in history)
                if len(values) >= max_results:
                    break
            return values[:max_results]
        for some in chunks(ordered, RUNS_AT_ONCE):
            found = await self._get(
                f"{UI_API}/metrics/get-history-bulk",
                run_id=list(some),
                metric_key=metric_key,
                max_results=max_results - len(values),
            )
            values.extend(map(metric_with_run_id_from_json, messages(found, "metrics")))
            if len(values) >= max_results:
                break
        return values[:max_results]

    @override
    async def get_metric_history_bulk_interval(
        self,
        run_ids: Sequence[str],
        metric_key: str,
        max_results: int,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> list[MetricWithRunId]:
        if (start_step is None) != (end_step is None):
            raise InvalidParameterError("give start_step and end_step, or neither")
        values: list[MetricWithRunId] = []
        for some in chunks(run_ids, RUNS_AT_ONCE):
            found = await self._get(
                f"{API}/metrics/get-history-bulk-interval",
                run_ids=list(some),
                metric_key=metric_key,
                max_results=max(1, max_results),
                start_step=start_step,
                end_step=end_step,
            )
            values.extend(map(metric_with_run_id_from_json, messages(found, "metrics")))
        return values

    @override
    async def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: Sequence[int], max_results: int
    ) -> list[MetricWithRunId]:
        # The API has no such question, so the whole history comes.
        wanted = set(steps)
        history = await self.get_metric_history(run_id, metric_key)
        found = sorted(
            (metric for metric in history if metric.step in wanted),
            key=lambda metric: (metric.step, metric.timestamp, metric.value),
        )
        return [_of_run(run_id, metric) for metric in found[:max_results]]


def _of_run(run_id: str, metric: Metric) -> MetricWithRunId:
    return MetricWithRunId(metric.key, metric.value, metric.timestamp, metric.step, run_id=run_id)
