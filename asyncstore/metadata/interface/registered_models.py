"""The interface to registered models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from asyncstore.entities import ModelVersion, PagedList, RegisteredModel

__all__ = ["SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT", "RegisteredModelMethods"]

SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT = 100


class RegisteredModelMethods(ABC):
    """The methods of a store that concern registered models.

    Each of them raises InvalidParameterError for a name that a model must not have: a name is not
    empty, has at most 256 characters, and holds neither / nor :.
    """

    @abstractmethod
    async def create_registered_model(
        self,
        name: str,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Register a name for versions of a model.

        Args:
            name: A name that no other model or prompt has.
            tags: Tags; values up to 100,000 characters (the column of some MLflows: 5,000). None
                for none.
            description: Text, at most 5,000 characters; None for none.
            deployment_job_id: None; MLflow's databases have no place for one.

        Returns:
            The model.

        Raises:
            AlreadyExistsError: The name is taken.
            UnsupportedError: There is a `deployment_job_id`.
        """

    @abstractmethod
    async def get_registered_model(self, name: str) -> RegisteredModel:
        """A model with its tags, aliases and the latest version of each stage.

        Args:
            name: The model.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def update_registered_model(
        self, name: str, description: str | None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Change a model's description.

        Args:
            name: The model.
            description: The new text; None for none.
            deployment_job_id: None; MLflow's databases have no place for one.

        Raises:
            NotFoundError: There is none.
            UnsupportedError: There is a `deployment_job_id`.
        """

    @abstractmethod
    async def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a model, with its versions, tags and aliases.

        Args:
            name: The model.
            new_name: A name that no other has.

        Raises:
            NotFoundError: There is none.
            AlreadyExistsError: The name is taken.
        """

    @abstractmethod
    async def delete_registered_model(self, name: str) -> None:
        """Delete a model for good, with its versions, tags and aliases. Artifacts stay.

        Args:
            name: The model.

        Raises:
            NotFoundError: There is none.
        """

    @abstractmethod
    async def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Search models. Prompts are left out unless the filter asks for them.

        Args:
            filter_string: Such as ``name LIKE 'vision-%' AND tags.team = 'a'``; None for all.
            max_results: Size of a page, 1 to 1,000.
            order_by: Such as `["last_updated_timestamp DESC"]`; names ascending for None and ties.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """

    @abstractmethod
    async def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        """The latest version of each of some stages.

        Args:
            name: The model.
            stages: The stages; None or empty for all.

        Raises:
            NotFoundError: There is no such model.
            InvalidParameterError: There is no such stage.
        """

    @abstractmethod
    async def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a model.

        Args:
            name: The model.
            key: At most 250 characters.
            value: As for `create_registered_model`.

        Raises:
            NotFoundError: There is no such model.
        """

    @abstractmethod
    async def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag of a model; one that is not there is no error, as in MLflow.

        Args:
            name: The model.
            key: The tag.

        Raises:
            NotFoundError: There is no such model.
        """

    @abstractmethod
    async def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        """Point an alias to a version, away from the one that had it.

        Args:
            name: The model.
            alias: Letters, digits, _ and -, at most 255; not `latest`, nor `v` and a number.
            version: The version.

        Raises:
            NotFoundError: There is no such version.
        """

    @abstractmethod
    async def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias; one that is not there is no error, as in MLflow.

        Args:
            name: The model.
            alias: The alias.

        Raises:
            NotFoundError: There is no such model.
        """

    @abstractmethod
    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that an alias points to.

        Args:
            name: The model.
            alias: The alias; `latest` for the one with the highest number.

        Raises:
            NotFoundError: There is no such model.
            InvalidParameterError: It has no such alias, as in MLflow.
        """
