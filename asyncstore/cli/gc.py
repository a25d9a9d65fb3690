"""`asyncstore gc`."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from importlib import import_module

import anyio.to_thread
import click

from asyncstore import settings
from asyncstore.cli import common
from asyncstore.cli.db import MANAGEMENT
from asyncstore.client import Client
from asyncstore.client import gc as collector
from asyncstore.errors import AsyncStoreError, InvalidParameterError, NotFoundError
from asyncstore.metadata.store import DEFAULT_URI
from asyncstore.uris import redact

# As MLflow writes it: 1d2h3m4s, with fractions.
_AGE = re.compile(
    r"(?:(?P<days>\d*\.?\d+)d)?(?:(?P<hours>\d*\.?\d+)h)?"
    r"(?:(?P<minutes>\d*\.?\d+)m)?(?:(?P<seconds>\d*\.?\d+)s)?"
)


def _ids(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    return [each.strip() for each in value.split(",") if each.strip()]


@click.command()
@click.option(
    "--older-than",
    metavar="AGE",
    help="Only what was deleted longer ago than that, such as 30d, 8h or 1.5d2h3m4s.",
)
@click.option(
    "--run-ids", callback=_ids, metavar="ID,ID", help="Only these runs, which must be deleted."
)
@click.option(
    "--experiment-ids",
    callback=_ids,
    metavar="ID,ID",
    help="Only these experiments, which must be deleted, with everything in them.",
)
@click.option(
    "--logged-model-ids",
    callback=_ids,
    metavar="ID,ID",
    help="Only these logged models, which must be deleted.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed and remove nothing.")
@click.option(
    "--backend-store-uri",
    "--tracking-uri",
    "tracking_uri",
    metavar="URI",
    help="The database. Default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db.",
)
@common.as_json
@common.command
async def gc(
    older_than: str | None,
    run_ids: list[str] | None,
    experiment_ids: list[str] | None,
    logged_model_ids: list[str] | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Remove deleted runs, experiments and logged models for good, with their artifacts.

    Until then, deleted ones can be restored. Without ids, everything that is deleted goes. Killed
    half way, it can be run again for the rest. Where artifacts cannot be removed, the metadata
    stays.
    """
    age = 0 if older_than is None else milliseconds(older_than)
    uri = tracking_uri or settings.MLFLOW_TRACKING_URI.get() or DEFAULT_URI
    management = await anyio.to_thread.run_sync(import_module, MANAGEMENT)
    if await management.is_missing_file(uri):
        raise NotFoundError(f"there is no database {redact(uri)}")
    async with Client(tracking_uri) as client:
        removed = await collector.gc(
            client,
            older_than=age,
            run_ids=run_ids,
            experiment_ids=experiment_ids,
            logged_model_ids=logged_model_ids,
            dry_run=dry_run,
            on_removed=None if as_json else partial(_say, dry_run),
        )
    if as_json:
        common.print_json(removed)
    else:
        click.echo(
            f"{'Would remove' if dry_run else 'Removed'} {len(removed.runs)} runs, "
            f"{len(removed.logged_models)} logged models, {removed.traces} traces and "
            f"{len(removed.experiments)} experiments for good"
        )
    for what, reason in removed.kept.items():
        click.echo(f"{what} stays: {reason}", err=True)
    if removed.kept:
        raise AsyncStoreError(
            f"{len(removed.kept)} could not be removed; run the command again once they can"
        )


def _say(dry_run: bool, kind: str, id_: str) -> None:
    done = "would be" if dry_run else "has been"
    click.echo(f"{kind[0].upper()}{kind[1:]} with ID {id_} {done} permanently deleted.")


def milliseconds(age: str) -> int:
    """An age in MLflow's format, such as `1d2h3m4s`.

    Raises:
        InvalidParameterError: It is in another format.
    """
    found = _AGE.fullmatch(age)
    if not age or found is None:
        raise InvalidParameterError(
            f"--older-than {age!r}: write days, hours, minutes and seconds, such as 8h or 2d8h5m20s"
        )
    parts = {unit: float(number) for unit, number in found.groupdict().items() if number}
    return int(timedelta(**parts).total_seconds() * 1000)
