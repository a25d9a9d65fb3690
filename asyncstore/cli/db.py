"""`asyncstore db`: the schema of a metadata database."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import anyio.to_thread
import click

from asyncstore.cli.common import as_json, command, print_json

# SQLAlchemy takes a good part of a second, which the other commands need not wait.
MANAGEMENT = "asyncstore.metadata.sql.schema.management"
_uri = click.argument("uri")


@click.group()
def db() -> None:
    """Look at, create or upgrade the schema of a database, such as sqlite:///mlflow.db."""


@db.command()
@_uri
@as_json
@command
async def status(uri: str, as_json: bool) -> None:
    """Show which MLflow's schema a database is at; exits with 1 if there is none."""
    management = await anyio.to_thread.run_sync(import_module, MANAGEMENT)
    _show(found := await management.database_status(uri), as_json=as_json)
    if found.mlflow_version is None:
        raise click.exceptions.Exit(1)


@db.command()
@_uri
@click.option(
    "--for-mlflow",
    metavar="VERSION",
    help="The MLflow that is to open it, such as 3.6. Default: the installed one, or the newest.",
)
@as_json
@command
async def create(uri: str, for_mlflow: str | None, as_json: bool) -> None:
    """Create MLflow's tables in an empty database."""
    management = await anyio.to_thread.run_sync(import_module, MANAGEMENT)
    _show(await management.create_database(uri, for_mlflow), as_json=as_json)


@db.command()
@_uri
@as_json
@command
async def upgrade(uri: str, as_json: bool) -> None:
    """Bring a database to the schema of the installed MLflow, by MLflow's migrations.

    Take a backup of the database first.
    """
    management = await anyio.to_thread.run_sync(import_module, MANAGEMENT)
    _show(await management.upgrade_database(uri), as_json=as_json)


def _show(status: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    if status.mlflow_version:
        click.echo(
            f"MLflow {status.mlflow_version}: revision {status.revision}, {status.tables} tables"
        )
    else:
        click.echo(f"revision {status.revision or 'none'}: {status.advice}")
