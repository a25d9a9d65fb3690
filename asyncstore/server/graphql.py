"""GraphQL, with which MLflow's UI reads an experiment, a run and its metrics.

A query is parsed and executed in a worker thread: an answer with thousands of metrics takes
graphql-core longer than the event loop may be held up. What it asks the stores for runs on the
loop.
"""

from __future__ import annotations

import functools
import logging
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread

from asyncstore import settings
from asyncstore.concurrency import unless_cancelled
from asyncstore.errors import AsyncStoreError, InvalidParameterError, MissingDependencyError
from asyncstore.rest.errors import status_of
from asyncstore.rest.json_registry import model_version_to_json
from asyncstore.rest.json_tracking import (
    experiment_to_json,
    metric_with_run_id_to_json,
    run_to_json,
)
from asyncstore.server.decoding import Request
from asyncstore.server.routes_artifacts import ListArtifacts, list_artifacts
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

if TYPE_CHECKING:
    from graphql import GraphQLResolveInfo

__all__ = ["ROUTES"]

logger = logging.getLogger(__name__)
# Of MLflow: values of a run in a chart, and runs of a page.
MAX_VALUES = 2500
PAGE = 1000
RUNS_AT_ONCE = 100
# A large query does not keep the threads from others that need one for a moment.
_threads = anyio.CapacityLimiter(4)


class GraphqlRequest(Request):
    """A query."""

    query: str
    variables: dict[str, Any] | None = None
    operationName: str | None = None  # noqa: N815  GraphQL's own name


async def graphql(server: Server, request: GraphqlRequest) -> dict[str, Any]:
    """Answer a query of MLflow's UI."""
    return await anyio.to_thread.run_sync(_execute, server, request, limiter=_threads)


def _execute(server: Server, request: GraphqlRequest) -> dict[str, Any]:
    try:
        from graphql import GraphQLError, execute_sync

        from asyncstore.server import graphql_schema
    except ImportError as error:
        raise MissingDependencyError(
            "GraphQL needs graphql-core; run: pip install 'asyncstore[server]'"
        ) from error
    try:
        document = graphql_schema.prepared(
            request.query,
            settings.MLFLOW_SERVER_GRAPHQL_MAX_ROOT_FIELDS.get(),
            settings.MLFLOW_SERVER_GRAPHQL_MAX_ALIASES.get(),
        )
    except GraphQLError as error:
        return {"data": None, "errors": [{"message": error.message}]}
    try:
        result = execute_sync(
            graphql_schema.schema(),
            document,
            root_value=_Query(server),
            variable_values=request.variables,
            operation_name=request.operationName,
            field_resolver=_resolve,
        )
    except CancelledError:
        # The client has gone, and nobody reads this.
        return {}
    return {"data": result.data, "errors": [_shown(error) for error in result.errors or ()] or None}


def _shown(error: Any) -> dict[str, str]:
    cause = error.original_error
    if cause is None or isinstance(cause, AsyncStoreError):
        return {"message": error.message}
    logger.error("a GraphQL query failed at %s", error.path, exc_info=cause)
    return {"message": "the server failed to answer; its log says why"}


def _resolve(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    from asyncstore.server import graphql_schema

    name = graphql_schema.snake_case(info.field_name)
    if isinstance(source, _Query):
        return source.root(name, arguments.get("input") or {})
    if str(info.parent_type) == "MlflowRunExtension":
        query: _Query = info.root_value
        if name == "experiment":
            return query.experiment(source["info"]["experiment_id"])
        if name == "model_versions":
            return query.model_versions(source["info"]["run_id"])
    return graphql_schema.field_of(source, info)


class _Query:
    """What one query reads, each experiment once and the versions of all its runs together."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._run_ids: list[str] = []
        self._versions: dict[str, list[dict[str, Any]]] | None = None
        self.experiment = functools.cache(self._experiment)

    def root(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a field at the top; what is refused is an `apiError`."""
        read: Callable[[Any], Coroutine[Any, Any, dict[str, Any]]] = getattr(self, f"_{name}")
        try:
            return anyio.from_thread.run(unless_cancelled, lambda: read(given))
        except AsyncStoreError as error:
            if status_of(error.error_code) >= 500:
                raise
            return {"api_error": {"code": error.error_code, "message": error.message}}

    async def _mlflow_get_experiment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = await self._server.store.get_experiment(_needed(given, "experimentId"))
        return {"experiment": experiment_to_json(found)}

    async def _mlflow_get_run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run_id = given.get("runId") or _needed(given, "runUuid")
        found = await self._server.store.get_run(run_id)
        self._run_ids.append(found.info.run_id)
        return {"run": run_to_json(found)}

    async def _mlflow_search_runs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = await self._server.store.search_runs(
            _texts(given, "experimentIds"),
            given.get("filter") or "",
            given.get("runViewType") or "ACTIVE_ONLY",
            _count(given, PAGE),
            _texts(given, "orderBy"),
            given.get("pageToken") or None,
        )
        self._run_ids += [run.info.run_id for run in found]
        return {"runs": [run_to_json(run) for run in found], "next_page_token": found.token}

    async def _mlflow_get_metric_history_bulk_interval(
        self, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        run_ids = _texts(given, "runIds")
        if len(run_ids) > RUNS_AT_ONCE:
            raise InvalidParameterError(f"runIds has more than {RUNS_AT_ONCE} runs")
        found = await self._server.store.get_metric_history_bulk_interval(
            run_ids,
            _needed(given, "metricKey"),
            min(_count(given, MAX_VALUES), MAX_VALUES),
            given.get("startStep"),
            given.get("endStep"),
        )
        return {"metrics": [metric_with_run_id_to_json(each) for each in found]}

    async def _mlflow_list_artifacts(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run_id = given.get("runId") or given.get("runUuid")
        request = ListArtifacts(run_id=run_id, path=given.get("path"))
        return await list_artifacts(self._server, request)

    async def _mlflow_search_model_versions(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = await self._server.registry.search_model_versions(
            given.get("filter"),
            _count(given, PAGE),
            _texts(given, "orderBy"),
            given.get("pageToken") or None,
        )
        versions = [model_version_to_json(each) for each in found]
        return {"model_versions": versions, "next_page_token": found.token}

    def _experiment(self, experiment_id: str) -> dict[str, Any]:
        read = functools.partial(self._server.store.get_experiment, experiment_id)
        found = anyio.from_thread.run(unless_cancelled, read)
        return experiment_to_json(found)

    def model_versions(self, run_id: str) -> list[dict[str, Any]]:
        """The versions that came from a run."""
        if self._versions is None:
            self._versions = anyio.from_thread.run(unless_cancelled, self._versions_of_runs)
        return self._versions.get(run_id, [])

    async def _versions_of_runs(self) -> dict[str, list[dict[str, Any]]]:
        by_run: dict[str, list[dict[str, Any]]] = {}
        for start in range(0, len(self._run_ids), RUNS_AT_ONCE):
            ids = ", ".join(f"'{each}'" for each in self._run_ids[start : start + RUNS_AT_ONCE])
            found = await self._server.registry.search_model_versions(
                f"run_id IN ({ids})", PAGE * RUNS_AT_ONCE
            )
            for each in found:
                by_run.setdefault(str(each.run_id), []).append(model_version_to_json(each))
        return by_run


def _needed(given: Mapping[str, Any], name: str) -> str:
    value: str | None = given.get(name)
    if not value:
        raise InvalidParameterError(f"Missing value for required parameter '{name}'.")
    return value


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    return [each for each in given.get(name) or () if each is not None]


def _count(given: Mapping[str, Any], default: int) -> int:
    count: int | None = given.get("maxResults")
    return default if count is None else count


ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", "/graphql", graphql, GraphqlRequest, reads=True, searches=True),
)
