"""The `asyncstore` command: its groups, and how its errors look."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

import asyncstore
from asyncstore.cli import (
    artifacts,
    db,
    demo,
    experiments,
    gc,
    migrate,
    plugins,
    runs,
    server,
    server_users,
)
from asyncstore.errors import AsyncStoreError

OK, ERROR, INTERRUPTED = 0, 1, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(asyncstore.__version__, prog_name="asyncstore")
def cli() -> None:
    """The async storage layer for machine learning: runs and artifacts, as MLflow keeps them."""


cli.add_command(db.db)
cli.add_command(demo.demo)
cli.add_command(experiments.experiments)
cli.add_command(runs.runs)
cli.add_command(artifacts.artifacts)
cli.add_command(gc.gc)
cli.add_command(migrate.migrate)
cli.add_command(plugins.list_plugins)
cli.add_command(server.server)
cli.add_command(server_users.server_users)


def run(arguments: Sequence[str] | None) -> int:
    """Run a command and turn its errors into one line and an exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(words, prog_name="asyncstore", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted", err=True)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last place that can tell the person
        if "--traceback" in words:
            traceback.print_exception(error)
        click.echo(f"Error: {describe(error)}", err=True)
        return ERROR
    # Click returns the status of its Exit, and otherwise what the command returns: nothing.
    return status or OK


def describe(error: Exception) -> str:
    """One line: the error code and the message."""
    if isinstance(error, AsyncStoreError):
        text = f"{error.error_code}: {error}"
    else:
        text = f"INTERNAL_ERROR: {type(error).__name__}: {error} (--traceback says where)"
    return " ".join(text.split())
