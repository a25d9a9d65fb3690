"""`asyncstore experiments`."""

from __future__ import annotations

import click

from asyncstore.cli import common
from asyncstore.client import Client
from asyncstore.entities import Experiment, ViewType
from asyncstore.errors import NotFoundError

COLUMNS = ("ID", "NAME", "STAGE", "UPDATED", "ARTIFACT LOCATION")


@click.group()
def experiments() -> None:
    """Experiments of the database."""


@experiments.command("list")
@common.view
@common.max_results
@common.tracking_uri
@common.as_json
@common.command
async def list_experiments(
    view: ViewType, max_results: int, tracking_uri: str | None, as_json: bool
) -> None:
    """List experiments, the newest first."""
    await _search("", (), view, max_results, tracking_uri, as_json)


@experiments.command("search")
@common.filter_string
@common.order_by
@common.view
@common.max_results
@common.tracking_uri
@common.as_json
@common.command
async def search_experiments(
    filter_string: str,
    order_by: tuple[str, ...],
    view: ViewType,
    max_results: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Search experiments, such as with --filter "name LIKE 'digits%'"."""
    await _search(filter_string, order_by, view, max_results, tracking_uri, as_json)


async def _search(
    filter_string: str,
    order_by: tuple[str, ...],
    view: ViewType,
    max_results: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    async with Client(tracking_uri) as client:
        found = await client.search_experiments(
            view, max_results, filter_string or None, list(order_by) or None
        )
    if as_json:
        common.print_json(found)
        return
    common.print_table(COLUMNS, (_row(experiment) for experiment in found))
    common.more_text(len(found), found.token)


def _row(experiment: Experiment) -> tuple[object, ...]:
    return (
        experiment.experiment_id,
        experiment.name,
        experiment.lifecycle_stage,
        common.local_time(experiment.last_update_time),
        experiment.artifact_location,
    )


@experiments.command("show")
@click.argument("experiment")
@common.tracking_uri
@common.as_json
@common.command
async def show_experiment(experiment: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show an EXPERIMENT, named by its id or its name."""
    async with Client(tracking_uri) as client:
        found = await find(client, experiment)
    if as_json:
        common.print_json(found)
        return
    common.print_table(("", ""), zip(COLUMNS, _row(found), strict=True))
    common.print_table(("", ""), ((f"tag {key}", value) for key, value in found.tags.items()))


async def find(client: Client, experiment: str) -> Experiment:
    """An experiment by its name, or else by its id."""
    found = await client.get_experiment_by_name(experiment)
    if found is not None:
        return found
    if not experiment.isdecimal():
        raise NotFoundError(f"there is no experiment named {experiment!r}")
    return await client.get_experiment(experiment)
