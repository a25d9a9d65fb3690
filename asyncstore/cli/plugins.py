"""`asyncstore plugins`."""

from __future__ import annotations

import click

from asyncstore import plugins
from asyncstore.cli import common

COLUMNS = ("GROUP", "NAME", "PACKAGE", "SERVES")


@click.command("plugins")
@click.option("--check", is_flag=True, help="Load each of them, and show why one cannot be.")
@common.as_json
@common.command
async def list_plugins(check: bool, as_json: bool) -> None:
    """List the installed plugins of MLflow's kinds and of asyncstore, and what they serve."""
    # The main thread is where modules expect to be imported; nothing else runs here.
    found = plugins.installed(check=check)
    if as_json:
        common.print_json(found)
        return
    columns = (*COLUMNS, "LOADS") if check else COLUMNS
    common.print_table(columns, (_row(plugin) for plugin in found))


def _row(plugin: plugins.InstalledPlugin) -> tuple[object, ...]:
    package = f"{plugin.package} {plugin.version}".strip()
    row = (plugin.group, plugin.name, package, plugin.serves)
    return row if plugin.error is None else (*row, plugin.error or "yes")
