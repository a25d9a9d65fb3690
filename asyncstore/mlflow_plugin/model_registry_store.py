"""MLflow's model registry store for `asyncstore+sqlite://` and its like."""

from __future__ import annotations

from typing import Any

from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from asyncstore.entities import ModelVersion
from asyncstore.mlflow_plugin import convert
from asyncstore.mlflow_plugin.delegation import OnAsyncStore, on_asyncstore
from asyncstore.mlflow_plugin.portal import get_portal
from asyncstore.mlflow_plugin.store_uris import artifact_root, database_uri

__all__ = ["ModelRegistryStore"]

METHODS = (
    "create_registered_model",
    "get_registered_model",
    "search_registered_models",
    "update_registered_model",
    "rename_registered_model",
    "delete_registered_model",
    "get_latest_versions",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "create_model_version",
    "get_model_version",
    "get_model_version_by_alias",
    "get_model_version_download_uri",
    "search_model_versions",
    "update_model_version",
    "transition_model_version_stage",
    "delete_model_version",
    "set_model_version_tag",
    "delete_model_version_tag",
)


@on_asyncstore(METHODS)
class ModelRegistryStore(OnAsyncStore, SqlAlchemyStore):  # type: ignore[misc]  # MLflow has no types here
    """MLflow's SQL registry, whose methods run on asyncstore where it has them.

    Prompts are MLflow's own methods, on the registered models that asyncstore keeps. Webhooks are
    MLflow's, on the same database.

    Args:
        store_uri: The database, `asyncstore+sqlite:///...` for instance.
    """

    def __init__(self, store_uri: str) -> None:
        # Of no meaning here but for a database that is new.
        self.asyncstore_artifact_location = artifact_root(None)
        super().__init__(database_uri(store_uri))

    def copy_model_version(self, src_mv: Any, dst_name: str) -> Any:
        """Copy a version of a model to another model, which is made if need be."""
        if get_portal().closed:
            return super().copy_model_version(src_mv, dst_name)
        version = ModelVersion(src_mv.name, src_mv.version, src_mv.creation_timestamp)
        arguments = {"src_mv": version, "dst_name": dst_name}
        return convert.result(self.run_on_asyncstore("copy_model_version", arguments))
