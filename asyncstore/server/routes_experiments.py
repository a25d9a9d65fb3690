"""Experiments, and the datasets that their runs read."""

from __future__ import annotations

from typing import Any

from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.rest.json_tracking import experiment_to_json
from asyncstore.server.decoding import Clauses, Int64, Request, RequiredText
from asyncstore.server.requests import Tag, page, tags_of, view_type_of
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.sources import check_artifact_location
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

API = "/api/2.0/mlflow/experiments/"
SEARCH_MAX_RESULTS = 1000
# As of MLflow's server.
MOST_EXPERIMENTS_OF_DATASETS = 20


class CreateExperiment(Request):
    """A new experiment."""

    name: RequiredText
    artifact_location: str | None = None
    tags: list[Tag] | None = None


class GetExperimentByName(Request):
    """An experiment by its name."""

    experiment_name: RequiredText


class OfExperiment(Request):
    """An experiment."""

    experiment_id: RequiredText


class UpdateExperiment(OfExperiment):
    """An experiment's new name."""

    new_name: RequiredText


class SetExperimentTag(OfExperiment):
    """A tag of an experiment."""

    key: RequiredText
    value: str | None = None


class DeleteExperimentTag(OfExperiment):
    """A tag of an experiment that goes."""

    key: RequiredText


class SearchExperiments(Request):
    """Which experiments to find."""

    view_type: str | Int64 | None = None
    max_results: Int64 | None = None
    filter: str | None = None
    order_by: Clauses[str] | None = None
    page_token: str | None = None


class SearchDatasets(Request):
    """The experiments whose datasets to find."""

    experiment_ids: list[str] | None = None


async def create_experiment(server: Server, request: CreateExperiment) -> dict[str, Any]:
    """Create an experiment."""
    if request.artifact_location:
        await check_artifact_location(server, request.artifact_location)
    experiment_id = await server.store.create_experiment(
        request.name, request.artifact_location or None, tags_of(request.tags)
    )
    return {"experiment_id": experiment_id}


async def get_experiment(server: Server, request: OfExperiment) -> dict[str, Any]:
    """An experiment by its id."""
    found = await server.store.get_experiment(request.experiment_id)
    return {"experiment": experiment_to_json(found)}


async def get_experiment_by_name(server: Server, request: GetExperimentByName) -> dict[str, Any]:
    """An experiment by its name."""
    found = await server.store.get_experiment_by_name(request.experiment_name)
    if found is None:
        raise NotFoundError(f"there is no experiment named {request.experiment_name!r:.200}")
    return {"experiment": experiment_to_json(found)}


async def delete_experiment(server: Server, request: OfExperiment) -> dict[str, Any]:
    """Mark an experiment as deleted."""
    await server.store.delete_experiment(request.experiment_id)
    return {}


async def restore_experiment(server: Server, request: OfExperiment) -> dict[str, Any]:
    """Undo the deletion of an experiment."""
    await server.store.restore_experiment(request.experiment_id)
    return {}


async def update_experiment(server: Server, request: UpdateExperiment) -> dict[str, Any]:
    """Rename an experiment."""
    await server.store.rename_experiment(request.experiment_id, request.new_name)
    return {}


async def set_experiment_tag(server: Server, request: SetExperimentTag) -> dict[str, Any]:
    """Set a tag of an experiment."""
    await server.store.set_experiment_tag(request.experiment_id, request.key, request.value or "")
    return {}


async def delete_experiment_tag(server: Server, request: DeleteExperimentTag) -> dict[str, Any]:
    """Delete a tag of an experiment."""
    await server.store.delete_experiment_tag(request.experiment_id, request.key)
    return {}


async def search_experiments(server: Server, request: SearchExperiments) -> dict[str, Any]:
    """Search experiments."""
    found = await server.store.search_experiments(
        view_type_of(request.view_type),
        SEARCH_MAX_RESULTS if request.max_results is None else request.max_results,
        request.filter,
        request.order_by,
        request.page_token or None,
    )
    return await page("experiments", found, experiment_to_json)


async def search_datasets(server: Server, request: SearchDatasets) -> dict[str, Any]:
    """The datasets that runs of some experiments read."""
    wanted = request.experiment_ids or []
    if not 1 <= len(wanted) <= MOST_EXPERIMENTS_OF_DATASETS:
        raise InvalidParameterError(
            f"experiment_ids must name 1 to {MOST_EXPERIMENTS_OF_DATASETS} experiments, "
            f"and names {len(wanted)}"
        )
    summaries = [
        {
            "experiment_id": each.experiment_id,
            "name": each.name,
            "digest": each.digest,
            **({} if each.context is None else {"context": each.context}),
        }
        for each in await server.store.search_datasets(wanted)
    ]
    return {"dataset_summaries": summaries} if summaries else {}


ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", API + "create", create_experiment, CreateExperiment),
    Route("GET", API + "get", get_experiment, OfExperiment),
    Route("GET", API + "get-by-name", get_experiment_by_name, GetExperimentByName),
    Route("POST", API + "delete", delete_experiment, OfExperiment),
    Route("POST", API + "restore", restore_experiment, OfExperiment),
    Route("POST", API + "update", update_experiment, UpdateExperiment),
    Route("POST", API + "set-experiment-tag", set_experiment_tag, SetExperimentTag),
    Route("POST", API + "delete-experiment-tag", delete_experiment_tag, DeleteExperimentTag),
    Route("GET", API + "search", search_experiments, SearchExperiments, searches=True),
    Route("POST", API + "search", search_experiments, SearchExperiments, reads=True, searches=True),
    Route(
        "POST", API + "search-datasets", search_datasets, SearchDatasets, reads=True, searches=True
    ),
)
