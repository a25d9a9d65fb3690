"""Runs, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from asyncstore.entities import PagedList, Run, RunInfo, RunStatus, ViewType
from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import validation
from asyncstore.metadata.interface.runs import SEARCH_MAX_RESULTS_DEFAULT
from asyncstore.metadata.rest.base import API, RestBase, now_ms, token_of
from asyncstore.rest.json_fields import message, messages
from asyncstore.rest.json_tracking import run_from_json, run_info_from_json, tags_to_json

__all__ = ["RestRuns"]

UNKNOWN_USER = "unknown"
RUNS_AT_ONCE = 1000


class RestRuns(RestBase):
    """The methods of a store that concern runs."""

    @override
    async def create_run(
        self,
        experiment_id: str,
        user_id: str | None = None,
        start_time: int | None = None,
        tags: Mapping[str, str] | None = None,
        run_name: str | None = None,
    ) -> Run:
        validation.experiment_id_number(experiment_id)
        wanted = {
            "experiment_id": str(experiment_id),
            "user_id": user_id or UNKNOWN_USER,
            "start_time": now_ms() if start_time is None else start_time,
            "tags": tags_to_json(validation.texts(tags or {})),
            "run_name": run_name,
        }
        return run_from_json(message(await self._post(f"{API}/runs/create", wanted), "run"))

    @override
    async def get_run(self, run_id: str) -> Run:
        validation.run_id(run_id)
        # MLflow before 1.0 knows the second name.
        found = await self._get(f"{API}/runs/get", run_id=run_id, run_uuid=run_id)
        return run_from_json(message(found, "run"))

    @override
    async def update_run_info(
        self,
        run_id: str,
        run_status: RunStatus | None = None,
        end_time: int | None = None,
        run_name: str | None = None,
    ) -> RunInfo:
        validation.run_id(run_id)
        wanted = {
            "run_id": run_id,
            "run_uuid": run_id,
            "status": None if run_status is None else validation.run_status(run_status),
            "end_time": end_time,
            "run_name": run_name,
        }
        found = await self._post(f"{API}/runs/update", wanted, repeatable=True)
        return run_info_from_json(message(found, "run_info"))

    @override
    async def delete_run(self, run_id: str) -> None:
        validation.run_id(run_id)
        await self._post(f"{API}/runs/delete", {"run_id": run_id})

    @override
    async def restore_run(self, run_id: str) -> None:
        validation.run_id(run_id)
        await self._post(f"{API}/runs/restore", {"run_id": run_id})

    @override
    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: ViewType = "ACTIVE_ONLY",
        max_results: int | None = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        validation.lifecycle_stages(run_view_type)
        validation.max_results(max_results)
        if isinstance(experiment_ids, str):
            raise InvalidParameterError(f"experiment_ids is a list, not {experiment_ids!r}")
        wanted = {
            "experiment_ids": [str(each) for each in experiment_ids],
            "filter": filter_string,
            "run_view_type": run_view_type,
            "max_results": RUNS_AT_ONCE if max_results is None else max_results,
            "order_by": list(order_by or ()),
            "page_token": page_token,
        }
        runs: list[Run] = []
        while True:
            found = await self._post(f"{API}/runs/search", wanted, repeatable=True)
            runs.extend(map(run_from_json, messages(found, "runs")))
            token = token_of(found)
            if token is None or max_results is not None:
                return PagedList(runs, token)
            wanted["page_token"] = token
