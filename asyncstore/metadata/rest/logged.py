"""What runs log, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from asyncstore.entities import Metric, PagedList, Param
from asyncstore.metadata import validation
from asyncstore.metadata.rest.base import API, RestBase, token_of
from asyncstore.rest.json_fields import messages
from asyncstore.rest.json_tracking import (
    metric_from_json,
    metric_to_json,
    param_to_json,
    tags_to_json,
)

__all__ = ["RestLogged"]

HISTORY_AT_ONCE = 25_000


class RestLogged(RestBase):
    """The methods of a store that concern what runs log."""

    @override
    async def log_metric(self, run_id: str, metric: Metric) -> None:
        validation.run_id(run_id)
        wanted = {**metric_to_json(validation.clean_metric(metric)), "run_id": run_id}
        await self._post(f"{API}/runs/log-metric", wanted, repeatable=True)

    @override
    async def log_param(self, run_id: str, param: Param) -> None:
        validation.run_id(run_id)
        wanted = {**param_to_json(validation.clean_param(param)), "run_id": run_id}
        await self._post(f"{API}/runs/log-parameter", wanted, repeatable=True)

    @override
    async def set_tag(self, run_id: str, key: str, value: str) -> None:
        validation.run_id(run_id)
        (tag,) = tags_to_json(validation.clean_tags({key: value}))
        await self._post(f"{API}/runs/set-tag", {**tag, "run_id": run_id}, repeatable=True)

    @override
    async def delete_tag(self, run_id: str, key: str) -> None:
        validation.run_id(run_id)
        await self._post(f"{API}/runs/delete-tag", {"run_id": run_id, "key": key})

    @override
    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        validation.run_id(run_id)
        validation.batch_limits(metrics, params, list(tags or {}))
        wanted = {
            "run_id": run_id,
            "metrics": [metric_to_json(validation.clean_metric(metric)) for metric in metrics],
            "params": [param_to_json(validation.clean_param(param)) for param in params],
            "tags": tags_to_json(validation.clean_tags(tags or {})),
        }
        await self._post(f"{API}/runs/log-batch", wanted, repeatable=True)

    @override
    async def get_metric_history(
        self,
        run_id: str,
        metric_key: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[Metric]:
        validation.run_id(run_id)
        wanted: dict[str, Any] = {
            "run_id": run_id,
            "run_uuid": run_id,
            "metric_key": metric_key,
            # MLflow 3.6 gives a token of a page whose size it was not told, and refuses it.
            "max_results": HISTORY_AT_ONCE if max_results is None else max_results,
            "page_token": page_token,
        }
        metrics: list[Metric] = []
        while True:
            found = await self._get(f"{API}/metrics/get-history", **wanted)
            metrics.extend(map(metric_from_json, messages(found, "metrics")))
            token = token_of(found)
            if token is None or max_results is not None:
                return PagedList(metrics, token)
            wanted["page_token"] = token
