"""Models that runs log, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from asyncstore.entities import LoggedModel, LoggedModelStatus, PagedList
from asyncstore.errors import AlreadyExistsError, InvalidParameterError
from asyncstore.metadata import validation
from asyncstore.metadata.interface.logged_models import SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
from asyncstore.metadata.rest.base import API, RestBase, chunks, piece, token_of
from asyncstore.rest.json_fields import message, messages
from asyncstore.rest.json_logged_models import (
    logged_model_from_json,
    logged_model_status_to_json,
)
from asyncstore.rest.json_tracking import tags_to_json

__all__ = ["RestLoggedModels"]

# As MLflow's client sends them.
PARAMS_AT_ONCE = 100


class RestLoggedModels(RestBase):
    """The methods of a store that concern models that runs log."""

    @override
    async def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        validation.experiment_id_number(experiment_id)
        validation.logged_model_name(name)
        first, *rest = chunks(tags_to_json(params or {}), PARAMS_AT_ONCE) or [[]]
        wanted = {
            "experiment_id": str(experiment_id),
            "name": name,
            "source_run_id": source_run_id,
            "tags": tags_to_json(tags or {}),
            "params": list(first),
            "model_type": model_type,
        }
        model = _model(await self._post(f"{API}/logged-models", wanted))
        for some in rest:
            await self._log_model_params(model.model_id, some)
        return await self.get_logged_model(model.model_id) if rest else model

    @override
    async def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        return _model(await self._get(_path(model_id), allow_deleted=allow_deleted or None))

    @override
    async def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        wanted = {"model_id": model_id, "status": logged_model_status_to_json(status)}
        return _model(await self._ask("PATCH", _path(model_id), wanted))

    @override
    async def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        for some in chunks(tags_to_json(params), PARAMS_AT_ONCE):
            await self._log_model_params(model_id, some)

    async def _log_model_params(self, model_id: str, params: Sequence[Mapping[str, str]]) -> None:
        try:
            await self._post(
                f"{_path(model_id)}/params", {"model_id": model_id, "params": list(params)}
            )
        except InvalidParameterError as error:
            # So MLflow says that it has one of them.
            if error.error_code != "BAD_REQUEST":
                raise
            raise AlreadyExistsError(error.message, error_code=error.error_code) from error

    @override
    async def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        wanted = {"model_id": model_id, "tags": tags_to_json(tags)}
        await self._ask("PATCH", f"{_path(model_id)}/tags", wanted)

    @override
    async def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        await self._ask("DELETE", f"{_path(model_id)}/tags/{piece(key)}", repeatable=False)

    @override
    async def delete_logged_model(self, model_id: str) -> None:
        await self._ask("DELETE", _path(model_id), {"model_id": model_id}, repeatable=False)

    @override
    async def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        datasets: Sequence[Mapping[str, str]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        if not experiment_ids:
            return PagedList()
        wanted = {
            "experiment_ids": [str(each) for each in experiment_ids],
            "filter": filter_string,
            "datasets": [dict(each) for each in datasets or ()],
            "max_results": max_results or SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT,
            "order_by": [{"ascending": True, **each} for each in order_by or ()],
            "page_token": page_token,
        }
        found = await self._post(f"{API}/logged-models/search", wanted, repeatable=True)
        models = map(logged_model_from_json, messages(found, "models"))
        return PagedList(models, token_of(found))


def _path(model_id: str) -> str:
    return f"{API}/logged-models/{piece(model_id)}"


def _model(answer: Mapping[str, Any]) -> LoggedModel:
    return logged_model_from_json(message(answer, "model"))
