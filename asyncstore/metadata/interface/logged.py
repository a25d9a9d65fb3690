"""The interface to what runs log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from asyncstore.entities import Metric, PagedList, Param

__all__ = ["LoggedMethods"]


class LoggedMethods(ABC):
    """The methods of a store that concern what runs log."""

    @abstractmethod
    async def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value of a metric to an active run.

        Calls that wait at the same time share one transaction; each has its own result. The latest
        value of a metric is the one of the greatest (step, timestamp, value).

        Args:
            run_id: The run.
            metric: NaN is kept; an infinity becomes the largest float of its sign, as in MLflow.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def log_param(self, run_id: str, param: Param) -> None:
        """Log a parameter to an active run. A parameter is immutable.

        Args:
            run_id: The run.
            param: A value above 6,000 characters is cut, unless MLFLOW_TRUNCATE_LONG_VALUES is
                false.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: It was logged before with another value.
        """

    @abstractmethod
    async def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of an active run; `mlflow.runName` renames the run.

        Args:
            run_id: The run.
            key: At most 250 characters.
            value: Above 8,000 characters it is cut, unless MLFLOW_TRUNCATE_LONG_VALUES is false.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag of an active run.

        Args:
            run_id: The run.
            key: The tag.

        Raises:
            NotFoundError: The run or its tag does not exist.
            InvalidStateError: The run is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log metrics, params and tags to an active run in one go: all of them, or none on error.

        Args:
            run_id: The run.
            metrics: At most 1,000.
            params: At most 100, each key once.
            tags: At most 100; None for none. At most 1,000 metrics, params and tags together.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: A limit is exceeded, or a param was logged with another value.
        """

    @abstractmethod
    async def get_metric_history(
        self,
        run_id: str,
        metric_key: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Metric]:
        """Every value of a metric that was logged, by timestamp, step and value.

        Args:
            run_id: The run; one that does not exist has no history.
            metric_key: The metric.
            max_results: Size of a page; None for everything.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """
