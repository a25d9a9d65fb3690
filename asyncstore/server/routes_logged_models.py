"""Models that runs log."""

from __future__ import annotations

from typing import Any

from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_logged_models import (
    logged_model_status_from_json,
    logged_model_to_json,
)
from asyncstore.server.decoding import Clauses, Int64, Request, RequiredText
from asyncstore.server.requests import Tag, page, tags_of
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

API = "/api/2.0/mlflow/logged-models"
SEARCH_MAX_RESULTS = 50


class CreateLoggedModel(Request):
    """A new model."""

    experiment_id: RequiredText
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[Tag] | None = None
    tags: list[Tag] | None = None


class OfLoggedModel(Request):
    """A model."""

    model_id: RequiredText


class GetLoggedModel(OfLoggedModel):
    """A model, which may be deleted."""

    allow_deleted: bool | None = None


class FinalizeLoggedModel(OfLoggedModel):
    """How making a model ended."""

    status: str | Int64


class LogLoggedModelParams(OfLoggedModel):
    """Parameters of a model."""

    params: list[Tag] | None = None


class SetLoggedModelTags(OfLoggedModel):
    """Tags of a model."""

    tags: list[Tag] | None = None


class DeleteLoggedModelTag(OfLoggedModel):
    """A tag of a model that goes."""

    tag_key: RequiredText


class SearchedDataset(Request):
    """A dataset whose metrics count."""

    dataset_name: RequiredText
    dataset_digest: str | None = None


class OrderBy(Request):
    """What to sort by."""

    field_name: RequiredText
    ascending: bool | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class SearchLoggedModels(Request):
    """Which models to find."""

    experiment_ids: list[str]
    filter: str | None = None
    datasets: list[SearchedDataset] | None = None
    max_results: Int64 | None = None
    order_by: Clauses[OrderBy] | None = None
    page_token: str | None = None


async def create_logged_model(server: Server, request: CreateLoggedModel) -> dict[str, Any]:
    """Create a model."""
    model = await server.store.create_logged_model(
        request.experiment_id,
        request.name or None,
        request.source_run_id or None,
        tags_of(request.tags),
        tags_of(request.params),
        request.model_type or None,
    )
    return {"model": logged_model_to_json(model)}


async def get_logged_model(server: Server, request: GetLoggedModel) -> dict[str, Any]:
    """A model with its tags, parameters and metrics."""
    model = await server.store.get_logged_model(
        request.model_id, allow_deleted=bool(request.allow_deleted)
    )
    return {"model": logged_model_to_json(model)}


async def finalize_logged_model(server: Server, request: FinalizeLoggedModel) -> dict[str, Any]:
    """Say how making a model ended."""
    status = logged_model_status_from_json({"status": request.status})
    model = await server.store.finalize_logged_model(request.model_id, status)
    return {"model": logged_model_to_json(model)}


async def delete_logged_model(server: Server, request: OfLoggedModel) -> dict[str, Any]:
    """Mark a model as deleted."""
    await server.store.delete_logged_model(request.model_id)
    return {}


async def log_logged_model_params(server: Server, request: LogLoggedModelParams) -> dict[str, Any]:
    """Log parameters to a model."""
    await server.store.log_logged_model_params(request.model_id, tags_of(request.params))
    return {}


async def set_logged_model_tags(server: Server, request: SetLoggedModelTags) -> dict[str, Any]:
    """Set tags of a model."""
    await server.store.set_logged_model_tags(request.model_id, tags_of(request.tags))
    return {}


async def delete_logged_model_tag(server: Server, request: DeleteLoggedModelTag) -> dict[str, Any]:
    """Delete a tag of a model."""
    await server.store.delete_logged_model_tag(request.model_id, request.tag_key)
    return {}


async def search_logged_models(server: Server, request: SearchLoggedModels) -> dict[str, Any]:
    """Search models."""
    if not request.experiment_ids:
        raise InvalidParameterError("experiment_ids must name at least one experiment")
    found = await server.store.search_logged_models(
        request.experiment_ids,
        request.filter or None,
        [
            {"dataset_name": each.dataset_name}
            | ({"dataset_digest": each.dataset_digest} if each.dataset_digest else {})
            for each in request.datasets
        ]
        if request.datasets
        else None,
        request.max_results or SEARCH_MAX_RESULTS,
        [
            {
                "field_name": each.field_name,
                "ascending": each.ascending is not False,
                "dataset_name": each.dataset_name or None,
                "dataset_digest": each.dataset_digest or None,
            }
            for each in request.order_by
        ]
        if request.order_by
        else None,
        request.page_token or None,
    )
    return await page("models", found, logged_model_to_json)


ROUTES: tuple[AnyRoute, ...] = (
    Route("POST", API, create_logged_model, CreateLoggedModel),
    Route(
        "POST",
        API + "/search",
        search_logged_models,
        SearchLoggedModels,
        reads=True,
        searches=True,
    ),
    Route("GET", API + "/{model_id}", get_logged_model, GetLoggedModel),
    Route("PATCH", API + "/{model_id}", finalize_logged_model, FinalizeLoggedModel),
    Route("DELETE", API + "/{model_id}", delete_logged_model, OfLoggedModel),
    Route("POST", API + "/{model_id}/params", log_logged_model_params, LogLoggedModelParams),
    Route("PATCH", API + "/{model_id}/tags", set_logged_model_tags, SetLoggedModelTags),
    # The key of a tag may have slashes.
    Route(
        "DELETE",
        API + "/{model_id}/tags/{tag_key:path}",
        delete_logged_model_tag,
        DeleteLoggedModelTag,
    ),
)
