"""The interface to versions of registered models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from asyncstore.entities import ModelVersion, PagedList

__all__ = ["SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT", "ModelVersionMethods"]

SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT = 10_000


class ModelVersionMethods(ABC):
    """The methods of a store that concern versions of registered models.

    Each of them that takes a name and a version raises NotFoundError when there is no such version,
    and InvalidParameterError for what is neither a name nor a version.
    """

    @abstractmethod
    async def create_model_version(
        self,
        name: str,
        source: str | None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create the next version of a model. Versions that are created at once get their own.

        Args:
            name: The registered model.
            source: Where the artifacts are; None for nowhere. A `models:/` URI is resolved: what
                it names is where the version's artifacts are.
            run_id: The run that made it; None takes that of the logged model, if one is named.
            tags: Tags; values up to 100,000 characters. None for none.
            run_link: A link to the run, elsewhere; None for none.
            description: Text, at most 5,000 characters; None for none.
            local_model_path: Has no meaning here; for MLflow's callers.
            model_id: The logged model that is promoted; None for none.

        Returns:
            The version.

        Raises:
            NotFoundError: There is no such registered model, or `source` names nothing.
        """

    @abstractmethod
    async def copy_model_version(self, src_mv: ModelVersion, dst_name: str) -> ModelVersion:
        """Create a version of another model from one, with its tags and description.

        Args:
            src_mv: The version to copy.
            dst_name: The model to copy to, created if there is none.

        Returns:
            The new version; its artifacts are those of the old one.
        """

    @abstractmethod
    async def get_model_version(self, name: str, version: int | str) -> ModelVersion:
        """A version with its tags and aliases.

        Args:
            name: The registered model.
            version: The version.
        """

    @abstractmethod
    async def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        """Where the artifacts of a version are.

        Args:
            name: The registered model.
            version: The version.
        """

    @abstractmethod
    async def update_model_version(
        self, name: str, version: int | str, description: str | None = None
    ) -> ModelVersion:
        """Change a version's description.

        Args:
            name: The registered model.
            version: The version.
            description: The new text; None for none.
        """

    @abstractmethod
    async def transition_model_version_stage(
        self, name: str, version: int | str, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Move a version to another stage.

        Args:
            name: The registered model.
            version: The version.
            stage: None, Staging, Production or Archived, in any case.
            archive_existing_versions: Whether the versions that are there go to Archived; for
                Staging and Production only.
        """

    @abstractmethod
    async def delete_model_version(self, name: str, version: int | str) -> None:
        """Delete a version for good, with its aliases. Artifacts stay, and its number too.

        Args:
            name: The registered model.
            version: The version.
        """

    @abstractmethod
    async def set_model_version_tag(
        self, name: str, version: int | str, key: str, value: str
    ) -> None:
        """Set a tag of a version.

        Args:
            name: The registered model.
            version: The version.
            key: At most 250 characters.
            value: At most 100,000 characters.
        """

    @abstractmethod
    async def delete_model_version_tag(self, name: str, version: int | str, key: str) -> None:
        """Delete a tag of a version; one that is not there is no error, as in MLflow.

        Args:
            name: The registered model.
            version: The version.
            key: The tag.
        """

    @abstractmethod
    async def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """Search versions. Those of prompts are left out unless the filter asks for them.

        Args:
            filter_string: Such as ``name = 'tree' AND run_id IN ('1', '2') AND
                version_number > 3 AND tags.checked = 'yes'``; None for all.
            max_results: Size of a page, 1 to 200,000.
            order_by: Such as `["version_number DESC"]`; None for the latest change first.
            page_token: `token` of the page before; None for the first page.

        Returns:
            A page; its `token` is None on the last one.
        """
