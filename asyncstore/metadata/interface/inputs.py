"""The interface to datasets, and what runs read and make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from asyncstore.entities import DatasetInput, DatasetSummary, LoggedModelInput, LoggedModelOutput

__all__ = ["InputMethods"]


class InputMethods(ABC):
    """The methods of a store that concern datasets, and what runs read and make."""

    @abstractmethod
    async def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        """Record that an active run read datasets and logged models.

        An experiment knows a dataset by name and digest. What is recorded already stays as it is.

        Args:
            run_id: The run.
            datasets: Datasets with their tags; None for none.
            models: Logged models; None for none.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
            InvalidParameterError: A name, digest, source or tag is missing or too long.
        """

    @abstractmethod
    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        """Record that an active run made logged models.

        Args:
            run_id: The run.
            models: The models, each with the step it was made at.

        Raises:
            NotFoundError: The run does not exist.
            InvalidStateError: It is deleted (`INVALID_PARAMETER_VALUE`, as in MLflow).
        """

    @abstractmethod
    async def search_datasets(self, experiment_ids: Sequence[str]) -> list[DatasetSummary]:
        """The datasets that runs of some experiments read, each once for every use.

        Args:
            experiment_ids: The experiments.

        Returns:
            At most 1,000, as in MLflow.
        """
