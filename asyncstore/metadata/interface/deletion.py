"""The interface to deletion for good, which `asyncstore gc` is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from asyncstore.entities import ArtifactOwner, ArtifactOwnerKind

__all__ = ["DeletionMethods"]


class DeletionMethods(ABC):
    """The methods of a store that concern deletion for good.

    None of them touches artifacts: `asyncstore.client.gc` removes those first, because without the
    metadata nobody would know where they are. In MLflow the methods are private to `mlflow gc`
    (`_hard_delete_run`, `_get_deleted_runs`, ...).
    """

    #: Whether the store refuses every write; who removes artifacts first has to know before.
    read_only: ClassVar[bool] = False

    @abstractmethod
    async def get_deleted_runs(self, older_than: int = 0) -> list[str]:
        """The ids of deleted runs.

        Args:
            older_than: Milliseconds since the deletion. Runs that were deleted before MLflow
                recorded the time count as old.

        Returns:
            The ids, in no particular order.
        """

    @abstractmethod
    async def get_deleted_experiments(self, older_than: int = 0) -> list[str]:
        """The ids of deleted experiments.

        Args:
            older_than: Milliseconds since the last change, which the deletion was.

        Returns:
            The ids, in no particular order.
        """

    @abstractmethod
    async def get_deleted_logged_models(self, older_than: int = 0) -> list[str]:
        """The ids of deleted logged models.

        Args:
            older_than: Milliseconds since the last change, which the deletion was.

        Returns:
            The ids, in no particular order; none in a database without logged models.
        """

    @abstractmethod
    async def get_artifact_owners(
        self,
        kind: ArtifactOwnerKind,
        ids: Sequence[str] | None = None,
        experiment_id: str | None = None,
        after: str = "",
        max_results: int = 1000,
    ) -> list[ArtifactOwner]:
        """Runs, logged models or traces with their artifact URIs, whatever their stage.

        Args:
            kind: Which of them.
            ids: Those to look for; the ones that do not exist are left out. None for all.
            experiment_id: Those of an experiment; None for every one.
            after: The id to begin behind, for the next page.
            max_results: Size of a page.

        Returns:
            A page, ordered by id; empty behind the last one.
        """

    @abstractmethod
    async def hard_delete_run(self, run_id: str) -> None:
        """Remove a deleted run for good, with all that was logged to it.

        Args:
            run_id: The run.

        Raises:
            NotFoundError: There is none.
            InvalidStateError: It is not deleted (`INVALID_PARAMETER_VALUE`). MLflow leaves this
                check to its command.

        A cancellation leaves the run with all or, if it has many values of metrics, with fewer of
        them; doing it again removes the rest.
        """

    @abstractmethod
    async def hard_delete_runs(self, run_ids: Sequence[str]) -> None:
        """`hard_delete_run` for many, in few statements. Runs that do not exist are no error.

        Args:
            run_ids: The runs, any number.

        Raises:
            InvalidStateError: One of them is not deleted; those of the same hundred stay.
        """

    @abstractmethod
    async def hard_delete_experiment(self, experiment_id: str) -> None:
        """Remove a deleted experiment for good, with its runs, logged models, traces and the rest.

        Args:
            experiment_id: The experiment.

        Raises:
            NotFoundError: There is no deleted experiment with this id.
            InvalidStateError: A run of it was restored (`INVALID_PARAMETER_VALUE`). MLflow removes
                that one too.

        A cancellation leaves the experiment with a part of them; doing it again removes the rest.
        """

    @abstractmethod
    async def hard_delete_logged_model(self, model_id: str) -> None:
        """Remove a deleted logged model for good.

        Args:
            model_id: The model.

        Raises:
            NotFoundError: There is none.
            InvalidStateError: It is not deleted (`INVALID_PARAMETER_VALUE`).
        """
