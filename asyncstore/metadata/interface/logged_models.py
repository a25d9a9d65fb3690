"""The interface to models that runs log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from asyncstore.entities import LoggedModel, LoggedModelStatus, PagedList

__all__ = ["SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT", "LoggedModelMethods"]

SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT = 100


class LoggedModelMethods(ABC):
    """The methods of a store that concern models that runs log."""

    @abstractmethod
    async def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Create a model, with the status PENDING until `finalize_logged_model`.

        Args:
            experiment_id: An active experiment.
            name: Without any of ``/ : . % \" '``; None for a random one.
            source_run_id: The run that makes it; None for none.
            tags: Tags; None for none.
            params: Parameters; None for none.
            model_type: Such as `agent`; None for not known.

        Returns:
            The model.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: The name has characters that it must not have.
        """

    @abstractmethod
    async def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        """A model with its tags, params and metrics.

        Args:
            model_id: The model.
            allow_deleted: Whether a deleted one is found too.

        Returns:
            The model.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Say how making a model ended.

        Args:
            model_id: The model, active or deleted.
            status: READY or FAILED.

        Returns:
            The changed model.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """Log parameters to a model.

        Args:
            model_id: The model, active or deleted.
            params: The parameters.

        Raises:
            NotFoundError: There is none.
            AlreadyExistsError: It has one of the parameters (`BAD_REQUEST`, as in MLflow).
        """

    @abstractmethod
    async def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a model.

        Args:
            model_id: The model, active or deleted.
            tags: The tags.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag of a model.

        Args:
            model_id: The model.
            key: The tag.

        Raises:
            NotFoundError: The model or its tag does not exist.
        """

    @abstractmethod
    async def delete_logged_model(self, model_id: str) -> None:
        """Mark a model as deleted. Its artifacts stay.

        Args:
            model_id: The model.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: Sequence[Mapping[str, str]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """Search active models.

        Args:
            experiment_ids: The experiments to search; none of them finds nothing.
            filter_string: Such as ``metrics.accuracy > 0.9 AND params.depth = '3' AND
                name LIKE 'tree%'``; None for all.
            datasets: Such as `[{"dataset_name": "test", "dataset_digest": "1"}]`: metrics in the
                filter are those on one of these, and without any, models with metrics on one of
                them are found. The digest may be left out. None for any.
            max_results: Size of a page; None for 100.
            order_by: Such as `[{"field_name": "metrics.accuracy", "ascending": False}]`, with
                `dataset_name` and `dataset_digest` if need be. Models without the value come last.
                Ties, and None: the newest first, then the model id.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """
