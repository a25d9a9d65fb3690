"""Experiments, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from asyncstore.entities import Experiment, PagedList, ViewType
from asyncstore.errors import AlreadyExistsError, InvalidParameterError, NotFoundError
from asyncstore.metadata import validation
from asyncstore.metadata.interface.experiments import SEARCH_MAX_RESULTS_DEFAULT
from asyncstore.metadata.rest.base import API, RestBase, token_of
from asyncstore.rest.json_fields import message, messages, text
from asyncstore.rest.json_tracking import experiment_from_json, tags_to_json

__all__ = ["RestExperiments"]


class RestExperiments(RestBase):
    """The methods of a store that concern experiments."""

    @override
    async def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        validation.experiment_name(name)
        for key, value in (tags or {}).items():
            validation.experiment_tag(key, value)
        wanted = {
            "name": name,
            "artifact_location": artifact_location,
            "tags": tags_to_json(tags or {}),
        }
        return text(await self._post(f"{API}/experiments/create", wanted), "experiment_id")

    @override
    async def get_or_create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        found = await self.get_experiment_by_name(name)
        if found is not None:
            return found
        try:
            experiment_id = await self.create_experiment(name, artifact_location, tags)
        except AlreadyExistsError:
            # Somebody else was faster, or a first attempt arrived whose answer was lost.
            if (found := await self.get_experiment_by_name(name)) is None:
                raise
            return found
        return await self.get_experiment(experiment_id)

    @override
    async def get_experiment(self, experiment_id: str) -> Experiment:
        validation.experiment_id_number(experiment_id)
        found = await self._get(f"{API}/experiments/get", experiment_id=experiment_id)
        return experiment_from_json(message(found, "experiment"))

    @override
    async def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        validation.experiment_name(experiment_name)
        try:
            found = await self._get(
                f"{API}/experiments/get-by-name", experiment_name=experiment_name
            )
        except NotFoundError:
            return None
        return experiment_from_json(message(found, "experiment"))

    @override
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        validation.experiment_id_number(experiment_id)
        validation.experiment_name(new_name)
        wanted = {"experiment_id": str(experiment_id), "new_name": new_name}
        try:
            await self._post(f"{API}/experiments/update", wanted)
        except InvalidParameterError as error:
            # So MLflow says that the name is taken.
            if error.error_code != "BAD_REQUEST":
                raise
            raise AlreadyExistsError(error.message, error_code=error.error_code) from error

    @override
    async def delete_experiment(self, experiment_id: str) -> None:
        validation.experiment_id_number(experiment_id)
        await self._post(f"{API}/experiments/delete", {"experiment_id": str(experiment_id)})

    @override
    async def restore_experiment(self, experiment_id: str) -> None:
        validation.experiment_id_number(experiment_id)
        await self._post(f"{API}/experiments/restore", {"experiment_id": str(experiment_id)})

    @override
    async def search_experiments(
        self,
        view_type: ViewType = "ACTIVE_ONLY",
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        validation.lifecycle_stages(view_type)
        validation.max_results(max_results)
        wanted = {
            "view_type": view_type,
            "max_results": max_results,
            "filter": filter_string,
            "order_by": list(order_by or ()),
            "page_token": page_token,
        }
        found = await self._post(f"{API}/experiments/search", wanted, repeatable=True)
        experiments = map(experiment_from_json, messages(found, "experiments"))
        return PagedList(experiments, token_of(found))

    @override
    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        validation.experiment_id_number(experiment_id)
        validation.experiment_tag(key, value)
        wanted = {"experiment_id": str(experiment_id), "key": key, "value": value}
        await self._post(f"{API}/experiments/set-experiment-tag", wanted, repeatable=True)

    @override
    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        validation.experiment_id_number(experiment_id)
        wanted = {"experiment_id": str(experiment_id), "key": key}
        await self._post(f"{API}/experiments/delete-experiment-tag", wanted)
