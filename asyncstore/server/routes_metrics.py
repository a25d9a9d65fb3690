"""The history of metrics."""

from __future__ import annotations

from typing import Any

from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_tracking import metric_to_json, metric_with_run_id_to_json
from asyncstore.server.decoding import Int64, Request, RequiredText
from asyncstore.server.requests import listed, page
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

API = "/api/2.0/mlflow/metrics/"
# As of MLflow's server.
MOST_VALUES = 25_000
MOST_RUNS = 100
MOST_VALUES_OF_A_RUN = 2_500


class GetMetricHistory(Request):
    """A metric of a run."""

    run_id: RequiredText
    metric_key: RequiredText
    max_results: Int64 | None = None
    page_token: str | None = None


class GetMetricHistoryBulk(Request):
    """A metric of some runs."""

    run_id: list[str]
    metric_key: RequiredText
    max_results: Int64 | None = None


class GetMetricHistoryBulkInterval(Request):
    """A metric of some runs, between two steps."""

    run_ids: list[str]
    metric_key: RequiredText
    start_step: Int64 | None = None
    end_step: Int64 | None = None
    max_results: Int64 | None = None


async def get_metric_history(server: Server, request: GetMetricHistory) -> dict[str, Any]:
    """Every value of a metric."""
    if request.max_results is not None and request.max_results <= 0:
        raise InvalidParameterError(f"max_results must be above 0, and is {request.max_results}")
    found = await server.store.get_metric_history(
        request.run_id, request.metric_key, request.max_results, request.page_token or None
    )
    return await page("metrics", found, metric_to_json)


async def get_metric_history_bulk(server: Server, request: GetMetricHistoryBulk) -> dict[str, Any]:
    """The first values of a metric in some runs."""
    _check_runs(request.run_id, "run_id")
    wanted = MOST_VALUES if request.max_results is None else request.max_results
    found = await server.store.get_metric_history_bulk(
        request.run_id, request.metric_key, max(0, min(wanted, MOST_VALUES))
    )
    return {"metrics": await listed(found, metric_with_run_id_to_json)}


async def get_metric_history_bulk_interval(
    server: Server, request: GetMetricHistoryBulkInterval
) -> dict[str, Any]:
    """An even sample of a metric's values in each of some runs."""
    _check_runs(request.run_ids, "run_ids")
    wanted = MOST_VALUES_OF_A_RUN if request.max_results is None else request.max_results
    if not 1 <= wanted <= MOST_VALUES_OF_A_RUN:
        raise InvalidParameterError(f"max_results must be between 1 and {MOST_VALUES_OF_A_RUN}")
    start, end = request.start_step, request.end_step
    if start is not None and end is not None and start > end:
        raise InvalidParameterError(f"end_step is {end}, and before start_step, which is {start}")
    found = await server.store.get_metric_history_bulk_interval(
        request.run_ids, request.metric_key, wanted, start, end
    )
    return {"metrics": await listed(found, metric_with_run_id_to_json)} if found else {}


def _check_runs(run_ids: list[str], name: str) -> None:
    if not 1 <= len(run_ids) <= MOST_RUNS:
        raise InvalidParameterError(
            f"{name} must name 1 to {MOST_RUNS} runs, and names {len(run_ids)}"
        )


ROUTES: tuple[AnyRoute, ...] = (
    Route("GET", API + "get-history", get_metric_history, GetMetricHistory, searches=True),
    Route(
        "GET",
        API + "get-history-bulk",
        get_metric_history_bulk,
        GetMetricHistoryBulk,
        searches=True,
    ),
    Route(
        "GET",
        API + "get-history-bulk-interval",
        get_metric_history_bulk_interval,
        GetMetricHistoryBulkInterval,
        searches=True,
    ),
)
