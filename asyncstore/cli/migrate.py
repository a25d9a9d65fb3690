"""`asyncstore migrate`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import anyio.to_thread
import click

from asyncstore.cli import common
from asyncstore.cli.progress import Bars
from asyncstore.metadata import MetadataStore
from asyncstore.uris import local_path

COLUMNS = ("", "FOUND", "NEW")
IN_MEMORY = "sqlite://"


@click.command()
@click.argument("source", metavar="DIRECTORY")
@click.argument("uri")
@click.option("--dry-run", is_flag=True, help="Say what would be moved and write nothing.")
@common.as_json
@common.command
async def migrate(source: str, uri: str, dry_run: bool, as_json: bool) -> None:
    """Move what MLflow's file store wrote in DIRECTORY, such as ./mlruns, into the database URI.

    Artifacts stay where they are, and DIRECTORY is not changed. It can be run again: what the
    database has is left as it is, and what is missing comes.
    """
    # SQLAlchemy takes a good part of a second, which the other commands need not wait.
    migration = await anyio.to_thread.run_sync(import_module, "asyncstore.metadata.sql.migrate")
    directory = local_path(source)
    # Before a database is made for a directory that was misspelt.
    await migration.check_source(directory)
    target = await _existing(uri) if dry_run else uri
    with Bars() as bars, bars.bar("runs", "runs") as callback:

        def progress(done: int, total: int) -> None:
            callback.set_size(total)
            callback.absolute_update(done)

        async with await MetadataStore.open(target) as store:
            done = await migration.migrate(
                directory, store, dry_run=dry_run, progress=progress, warn=bars.say
            )
    _show(done, as_json=as_json, dry_run=dry_run)


async def _existing(uri: str) -> str:
    """The database, or one in memory where there is none yet: a dry run creates nothing."""
    module = "asyncstore.metadata.sql.schema.management"
    management = await anyio.to_thread.run_sync(import_module, module)
    status = await management.database_status(uri)
    if status.mlflow_version is None:
        click.echo(status.advice, err=True)
        return IN_MEMORY
    return uri


def _show(done: Any, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        common.print_json(done)
        return
    common.print_table(
        COLUMNS,
        ((name.replace("_", " "), done.found[name], done.new.get(name)) for name in done.found),
    )
    for before, after in done.mapped.items():
        click.echo(f"Experiment {before} is experiment {after} in the database")
    if done.left_out:
        click.echo(f"{done.left_out} entries were left out or shortened; see above", err=True)
    click.echo("Nothing was written" if dry_run else "Done; running it again does no harm")
