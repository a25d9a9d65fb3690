"""`asyncstore runs`."""

from __future__ import annotations

import click

from asyncstore.cli import common
from asyncstore.cli.experiments import find
from asyncstore.client import Client
from asyncstore.entities import Run, ViewType

COLUMNS = ("RUN ID", "NAME", "EXPERIMENT", "STATUS", "STARTED", "METRICS")
PAGE = 1000

_experiment = click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME|ID",
    help="Experiment to look in; may be given more than once. Default: all.",
)


@click.group()
def runs() -> None:
    """Runs of the database."""


@runs.command("list")
@_experiment
@common.view
@common.max_results
@common.tracking_uri
@common.as_json
@common.command
async def list_runs(
    experiments: tuple[str, ...],
    view: ViewType,
    max_results: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """List runs, the last started first."""
    await _search(experiments, "", (), view, max_results, tracking_uri, as_json)


@runs.command("search")
@_experiment
@common.filter_string
@common.order_by
@common.view
@common.max_results
@common.tracking_uri
@common.as_json
@common.command
async def search_runs(
    experiments: tuple[str, ...],
    filter_string: str,
    order_by: tuple[str, ...],
    view: ViewType,
    max_results: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Search runs, such as with --filter "metrics.loss < 0.1 AND params.solver = 'adam'"."""
    await _search(experiments, filter_string, order_by, view, max_results, tracking_uri, as_json)


async def _search(
    experiments: tuple[str, ...],
    filter_string: str,
    order_by: tuple[str, ...],
    view: ViewType,
    max_results: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    async with Client(tracking_uri) as client:
        if experiments:
            ids = [(await find(client, name)).experiment_id for name in experiments]
        else:
            ids = await _all_experiments(client)
        found = await client.search_runs(
            ids, filter_string, view, max_results, list(order_by) or None
        )
    if as_json:
        common.print_json(found)
        return
    common.print_table(COLUMNS, (_row(run) for run in found))
    common.more_text(len(found), found.token)


async def _all_experiments(client: Client) -> list[str]:
    ids: list[str] = []
    token = None
    while True:
        page = await client.search_experiments("ALL", PAGE, page_token=token)
        ids += [experiment.experiment_id for experiment in page]
        token = page.token
        if token is None:
            return ids


def _row(run: Run) -> tuple[object, ...]:
    metrics = ", ".join(f"{key}={value:.4g}" for key, value in sorted(run.data.metrics.items()))
    info = run.info
    return (
        info.run_id,
        info.run_name,
        info.experiment_id,
        info.status,
        common.local_time(info.start_time),
        metrics,
    )


@runs.command("show")
@click.argument("run_id")
@common.tracking_uri
@common.as_json
@common.command
async def show_run(run_id: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show the run RUN_ID with its latest metrics, its params and its tags."""
    async with Client(tracking_uri) as client:
        run = await client.get_run(run_id)
    if as_json:
        common.print_json(run)
        return
    info, data = run.info, run.data
    rows: list[tuple[object, object]] = [
        ("run id", info.run_id),
        ("name", info.run_name),
        ("experiment", info.experiment_id),
        ("status", info.status),
        ("stage", info.lifecycle_stage),
        ("user", info.user_id),
        ("started", common.local_time(info.start_time)),
        ("ended", common.local_time(info.end_time)),
        ("artifacts", info.artifact_uri),
    ]
    rows += [(f"metric {key}", value) for key, value in sorted(data.metrics.items())]
    rows += [(f"param {key}", value) for key, value in sorted(data.params.items())]
    rows += [(f"tag {key}", value) for key, value in sorted(data.tags.items())]
    common.print_table(("", ""), rows)
