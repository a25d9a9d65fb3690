"""MLflow's tracking store for `asyncstore+sqlite://` and its like."""

from __future__ import annotations

from typing import Any

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.async_logging.run_operations import RunOperations
from typing_extensions import override

from asyncstore.entities import Metric, Param
from asyncstore.errors import InvalidStateError
from asyncstore.mlflow_plugin import convert
from asyncstore.mlflow_plugin.async_logging import AsyncLogging
from asyncstore.mlflow_plugin.delegation import OnAsyncStore, on_asyncstore
from asyncstore.mlflow_plugin.errors import translated
from asyncstore.mlflow_plugin.portal import get_portal
from asyncstore.mlflow_plugin.store_uris import artifact_root, database_uri

__all__ = ["TrackingStore"]

METHODS = (
    "create_experiment",
    "get_experiment",
    "get_experiment_by_name",
    "search_experiments",
    "rename_experiment",
    "delete_experiment",
    "restore_experiment",
    "set_experiment_tag",
    "delete_experiment_tag",
    "create_run",
    "get_run",
    "search_runs",
    "update_run_info",
    "delete_run",
    "restore_run",
    "log_batch",
    "log_metric",
    "log_param",
    "set_tag",
    "delete_tag",
    "log_inputs",
    "get_metric_history",
    "get_metric_history_bulk",
    "get_metric_history_bulk_interval",
    "get_metric_history_bulk_interval_from_steps",
)
# What MLflow has since version 3, with entities of those names.
METHODS_OF_3 = (
    "log_outputs",
    "create_logged_model",
    "get_logged_model",
    "finalize_logged_model",
    "log_logged_model_params",
    "set_logged_model_tags",
    "delete_logged_model_tag",
    "search_logged_models",
    "delete_logged_model",
    "get_trace_info",
    "batch_get_trace_infos",
    "search_traces",
    "set_trace_tag",
    "delete_trace_tag",
    "link_traces_to_run",
    "get_assessment",
)
PRIVATE = {
    "_search_datasets": "search_datasets",
    "_hard_delete_run": "hard_delete_run",
    "_hard_delete_experiment": "hard_delete_experiment",
    "_hard_delete_logged_model": "hard_delete_logged_model",
    "_get_deleted_runs": "get_deleted_runs",
    "_get_deleted_logged_models": "get_deleted_logged_models",
}


@on_asyncstore(PRIVATE)
@on_asyncstore(METHODS_OF_3 if hasattr(SqlAlchemyStore, "create_logged_model") else ())
@on_asyncstore(METHODS)
class TrackingStore(OnAsyncStore, SqlAlchemyStore):  # type: ignore[misc]  # MLflow has no types here
    """MLflow's SQL store, whose methods run on asyncstore where it has them.

    The others, and the areas that asyncstore does not serve, are MLflow's on the same database.

    Args:
        store_uri: The database, `asyncstore+sqlite:///...` for instance.
        artifact_uri: Root below which a new experiment gets its artifact location; None takes the
            server's, or `./mlruns`, as in MLflow.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        # Before MLflow's own, which calls methods already.
        self.asyncstore_artifact_location = artifact_root(artifact_uri)
        super().__init__(database_uri(store_uri), self.asyncstore_artifact_location)
        self._async_logging = AsyncLogging(self._log_batch)

    async def _log_batch(
        self, run_id: str, metrics: list[Metric], params: list[Param], tags: dict[str, str]
    ) -> None:
        client = get_portal().client(self.db_uri, self.asyncstore_artifact_location)
        await (await client.get_metadata_store()).log_batch(run_id, metrics, params, tags)

    @override
    def log_batch_async(self, run_id: str, metrics: Any, params: Any, tags: Any) -> RunOperations:
        """Queue a batch on asyncstore's loop; see `AsyncLogging.log`."""
        if get_portal().closed:
            self.log_batch(run_id, metrics, params, tags)
            return RunOperations([])
        given = convert.arguments({"metrics": metrics, "params": params, "tags": tags})
        try:
            return self._async_logging.log(run_id, **given)
        except InvalidStateError as error:
            raise translated(error) from error

    @override
    def flush_async_logging(self) -> None:
        """Wait until all that was queued is logged, or has failed."""
        if not get_portal().closed:
            self._async_logging.flush()

    @override
    def end_async_logging(self) -> None:
        """As `flush_async_logging`: there is no thread of its own to end."""
        self.flush_async_logging()

    @override
    def shut_down_async_logging(self) -> None:
        """As `flush_async_logging`: there is no thread of its own to end."""
        self.flush_async_logging()
