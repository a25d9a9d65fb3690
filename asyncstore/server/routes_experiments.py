"""Experiments."""

from __future__ import annotations

from typing import Any

from asyncstore.rest.json_tracking import experiment_to_json
from asyncstore.server.decoding import Request, RequiredText
from asyncstore.server.routing import AnyRoute, Route
from asyncstore.server.state import Server

__all__ = ["ROUTES"]


class GetExperiment(Request):
    """Which experiment."""

    experiment_id: RequiredText


async def get_experiment(server: Server, request: GetExperiment) -> dict[str, Any]:
    """An experiment by its id."""
    return {
        "experiment": experiment_to_json(await server.store.get_experiment(request.experiment_id))
    }


ROUTES: tuple[AnyRoute, ...] = (
    Route("GET", "/api/2.0/mlflow/experiments/get", get_experiment, GetExperiment),
)
