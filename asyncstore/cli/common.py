"""What the commands share: options, running a coroutine, tables and JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

CommandT = TypeVar("CommandT", bound=Callable[..., object])

tracking_uri = click.option(
    "--tracking-uri",
    metavar="URI",
    help="The database. Default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
traceback = click.option(
    "--traceback", is_flag=True, expose_value=False, help="Show where an error came from."
)
max_results = click.option(
    "--max-results",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many to show.",
)
view = click.option(
    "--view",
    type=click.Choice(["ACTIVE_ONLY", "DELETED_ONLY", "ALL"], case_sensitive=False),
    default="ACTIVE_ONLY",
    show_default=True,
    help="Which to show.",
)
filter_string = click.option(
    "--filter", "filter_string", default="", metavar="TEXT", help="MLflow's search filter."
)
order_by = click.option(
    "--order-by",
    multiple=True,
    metavar="TEXT",
    help="Such as 'metrics.loss ASC'; may be given more than once.",
)


def command(call: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Turn an async function into the body of a command, with `--traceback`."""

    @traceback
    @functools.wraps(call)
    def run(**arguments: Any) -> None:
        # Ctrl-C cancels the task, which cleans up, and comes out as KeyboardInterrupt.
        anyio.run(functools.partial(call, **arguments))

    return run


def print_json(value: object) -> None:
    """Write a value, or a list of them, to standard output."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such numbers; MLflow's JSON writes them as these words too.
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to standard output: boxes for a person, tabs for a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(_cell(value) for value in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console().print(table)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def local_time(milliseconds: int | None) -> str:
    """A time in the person's time zone, to the second."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime("%F %T")


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def more_text(shown: int, token: str | None) -> None:
    """Say on standard error that a table is not complete."""
    if token is not None:
        click.echo(f"The first {shown} are shown; --max-results shows more", err=True)
