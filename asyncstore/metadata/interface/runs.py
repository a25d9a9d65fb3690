"""The interface to runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from asyncstore.entities import PagedList, Run, RunInfo, RunStatus, ViewType

__all__ = ["RunMethods"]

SEARCH_MAX_RESULTS_DEFAULT = 1000


class RunMethods(ABC):
    """The methods of a store that concern runs."""

    @abstractmethod
    async def create_run(
        self,
        experiment_id: str,
        user_id: str | None = None,
        start_time: int | None = None,
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Create a run, with the status RUNNING.

        Args:
            experiment_id: An active experiment.
            user_id: Who runs it; None for `unknown`, as MLflow's client writes it.
            start_time: Milliseconds since the epoch; None for now.
            tags: Tags to set; None for none.
            run_name: A name, which becomes the tag `mlflow.runName` too; None for that tag's value
                or a random name.

        Returns:
            The run.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: `run_name` and the tag `mlflow.runName` differ.
        """

    @abstractmethod
    async def get_run(self, run_id: str) -> Run:
        """A run, active or deleted, with its latest metrics, params and tags.

        Args:
            run_id: The run.

        Returns:
            The run.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def update_run_info(
        self,
        run_id: str,
        run_status: RunStatus | None = None,
        end_time: int | None = None,
        run_name: str | None = None,
    ) -> RunInfo:
        """Change what identifies an active run.

        Args:
            run_id: The run.
            run_status: The new status; None keeps it.
            end_time: Milliseconds since the epoch; None keeps it.
            run_name: The new name, also of the tag `mlflow.runName`; None or empty keeps it.

        Returns:
            The changed info.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted. Its artifacts stay.

        Args:
            run_id: The run.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def restore_run(self, run_id: str) -> None:
        """Undo `delete_run`.

        Args:
            run_id: The run.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: ViewType = "ACTIVE_ONLY",
        max_results: int | None = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """Search runs with MLflow's filter grammar.

        Args:
            experiment_ids: The experiments to search; none of them finds nothing.
            filter_string: Comparisons joined by AND, such as
                ``metrics.loss < 0.1 AND params."lr" = '0.01' AND tags.team ILIKE 'a%'``; empty for
                all. A quote inside a quoted string is written twice.
            run_view_type: Active ones, deleted ones, or all.
            max_results: Size of a page, 1 to 50,000; None for everything.
            order_by: Such as `["metrics.loss ASC", "start_time DESC"]`; runs without the value come
                last, behind those with NaN. Ties: the latest start first, then the run id.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """
