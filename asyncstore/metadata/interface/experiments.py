"""The interface to experiments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from asyncstore.entities import Experiment, PagedList, ViewType

__all__ = ["ExperimentMethods"]

SEARCH_MAX_RESULTS_DEFAULT = 1000


class ExperimentMethods(ABC):
    """The methods of a store that concern experiments."""

    @abstractmethod
    async def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Create an experiment.

        Args:
            name: Unique name, at most 500 characters (PostgreSQL: 256, the column's length).
            artifact_location: Path or URI of the artifacts; a local path is made absolute. At most
                MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH characters. None for `<root>/<experiment id>`.
            tags: Tags to set; keys up to 250 characters, values up to 20,000. None for none.

        Returns:
            The id of the experiment.

        Raises:
            AlreadyExistsError: The name is taken, also by a deleted experiment.
        """

    @abstractmethod
    async def get_or_create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """The experiment of a name, created if there is none.

        However many tasks and processes ask at once, one experiment comes of it.

        Args:
            name: As for `create_experiment`.
            artifact_location: As for `create_experiment`; not looked at when the name exists.
            tags: As for `create_experiment`; not set when the name exists.

        Returns:
            The experiment, which may be a deleted one.
        """

    @abstractmethod
    async def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment by its id, active or deleted.

        Args:
            experiment_id: The id.

        Returns:
            The experiment with its tags.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """An experiment by its name, active or deleted.

        Args:
            experiment_name: The name.

        Returns:
            The experiment with its tags; None when there is none.
        """

    @abstractmethod
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an active experiment.

        Args:
            experiment_id: The experiment.
            new_name: A name that no other has.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted.
            AlreadyExistsError: The name is taken (`BAD_REQUEST`, as in MLflow).
        """

    @abstractmethod
    async def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and all its runs as deleted. Artifacts stay.

        Args:
            experiment_id: The experiment.

        Raises:
            NotFoundError: There is no active experiment of this id.
        """

    @abstractmethod
    async def restore_experiment(self, experiment_id: str) -> None:
        """Undo `delete_experiment`, for the experiment and all its runs.

        Args:
            experiment_id: The experiment.

        Raises:
            NotFoundError: There is no deleted experiment of this id.
        """

    @abstractmethod
    async def search_experiments(
        self,
        view_type: ViewType = "ACTIVE_ONLY",
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Search experiments.

        Args:
            view_type: Active ones, deleted ones, or all.
            max_results: Size of a page, 1 to 50,000.
            filter_string: Such as ``name LIKE 'vision-%' AND tags.team = 'a'``; None for all.
                Attributes: name, experiment_id, creation_time, last_update_time.
            order_by: Such as `["name ASC"]`; None for the newest first.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """

    @abstractmethod
    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an active experiment.

        Args:
            experiment_id: The experiment.
            key: At most 250 characters.
            value: At most 20,000 characters.

        Raises:
            NotFoundError: The experiment does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Delete a tag of an active experiment.

        Args:
            experiment_id: The experiment.
            key: The tag.

        Raises:
            NotFoundError: The experiment or its tag does not exist.
            InvalidStateError: The experiment is deleted (`INVALID_PARAMETER_VALUE`).
        """
