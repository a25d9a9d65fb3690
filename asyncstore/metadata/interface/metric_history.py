"""The interface to the history of metrics of many runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from asyncstore.entities import MetricWithRunId

__all__ = ["MetricHistoryMethods"]


class MetricHistoryMethods(ABC):
    """The methods of a store that concern the history of metrics of many runs."""

    @abstractmethod
    async def get_metric_history_bulk(
        self, run_ids: Sequence[str], metric_key: str, max_results: int
    ) -> list[MetricWithRunId]:
        """The first values of a metric in some runs, by run id, timestamp, step and value.

        Args:
            run_ids: The runs; those that do not exist have no history.
            metric_key: The metric.
            max_results: How many values at most, of all runs together.

        Returns:
            The values.
        """

    @abstractmethod
    async def get_metric_history_bulk_interval(
        self,
        run_ids: Sequence[str],
        metric_key: str,
        max_results: int,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> list[MetricWithRunId]:
        """An even sample of a metric's values in each of some runs, for a chart.

        The database samples; the first and the last value of a run are part of it, unless only one
        is asked for, which is the last.

        Args:
            run_ids: The runs.
            metric_key: The metric.
            max_results: How many values of each run at most; less than 1 counts as 1.
            start_step: The first step; None, as is `end_step` then, for all.
            end_step: The last step.

        Returns:
            The values, by run in the order of `run_ids`, then by step, timestamp and value; none
            of a run that does not exist.

        Raises:
            InvalidParameterError: Only one of `start_step` and `end_step` is given.
        """

    @abstractmethod
    async def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: Sequence[int], max_results: int
    ) -> list[MetricWithRunId]:
        """The values of a metric at some steps of a run, by step, timestamp and value.

        Args:
            run_id: The run.
            metric_key: The metric.
            steps: The steps.
            max_results: How many values at most.

        Returns:
            The values; none of a run that does not exist.
        """
