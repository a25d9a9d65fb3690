"""`asyncstore artifacts`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import click

from asyncstore.artifacts import ArtifactRepository
from asyncstore.cli import common
from asyncstore.cli.progress import Bars
from asyncstore.client import Client


def _where(call: Callable[..., None]) -> Callable[..., None]:
    """The options that say which artifacts are meant."""
    options: list[Callable[[Any], Any]] = [
        click.option("--run-id", "-r", metavar="ID", help="The artifacts of a run."),
        click.option(
            *("--artifact-uri", "-u"),
            metavar="URI",
            help="The artifacts below a URI: of a storage, runs:/, models:/ or mlflow-artifacts:/.",
        ),
        common.tracking_uri,
    ]
    for option in reversed(options):
        call = option(call)
    return call


@click.group()
def artifacts() -> None:
    """Artifacts of a run, or below any URI."""


@asynccontextmanager
async def _repository(
    run_id: str | None, artifact_uri: str | None, tracking_uri: str | None
) -> AsyncGenerator[ArtifactRepository]:
    if (run_id is None) == (artifact_uri is None):
        raise click.UsageError(
            "give either --run-id or --artifact-uri", click.get_current_context()
        )
    async with Client(tracking_uri) as client:
        if run_id is not None:
            artifact_uri = (await client.get_run(run_id)).info.artifact_uri
        yield await client.get_artifact_repository(artifact_uri or "")


@artifacts.command("list")
@click.argument("path", required=False)
@click.option("--recursive", is_flag=True, help="Every file below the directory.")
@_where
@common.as_json
@common.command
async def list_artifacts(
    path: str | None,
    recursive: bool,
    run_id: str | None,
    artifact_uri: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """List a directory of artifacts; PATH is the root when it is left out."""
    async with _repository(run_id, artifact_uri, tracking_uri) as repository:
        if recursive:
            async with aclosing(repository.walk(path)) as entries:
                found = [entry async for entry in entries]
            found.sort(key=lambda entry: entry.path)
        else:
            found = await repository.list_artifacts(path)
    if as_json:
        common.print_json(
            [
                {"path": entry.path, "is_dir": entry.is_dir, "file_size": entry.file_size}
                for entry in found
            ]
        )
        return
    common.print_table(
        ("PATH", "SIZE"),
        (
            (f"{entry.path}/" if entry.is_dir else entry.path, _size(entry.file_size))
            for entry in found
        ),
    )


def _size(size: int | None) -> str:
    return "" if size is None else common.size_text(size)


@artifacts.command("upload")
@click.argument("local_path")
@click.option("--artifact-path", "-a", metavar="DIRECTORY", help="Where to put it. Default: root.")
@_where
@common.as_json
@common.command
async def upload_artifacts(
    local_path: str,
    artifact_path: str | None,
    run_id: str | None,
    artifact_uri: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Upload a file, or what is in a directory."""
    async with _repository(run_id, artifact_uri, tracking_uri) as repository:
        is_dir = await anyio.to_thread.run_sync(Path(local_path).is_dir)
        upload = repository.log_artifacts if is_dir else repository.log_artifact
        with Bars() as bars, bars.bar("upload") as callback:
            await upload(local_path, artifact_path, callback=callback)
        if as_json:
            common.print_json(
                {
                    "artifact_uri": repository.artifact_uri,
                    "artifact_path": artifact_path,
                    "bytes": callback.value,
                }
            )
        else:
            click.echo(f"{common.size_text(callback.value)} uploaded")


@artifacts.command("download")
@click.argument("path", required=False)
@click.option(
    "--dst-path", "-d", metavar="DIRECTORY", help="Where to put it. Default: a new directory."
)
@_where
@common.as_json
@common.command
async def download_artifacts(
    path: str | None,
    dst_path: str | None,
    run_id: str | None,
    artifact_uri: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Download a file or a directory, PATH, or everything; prints where it is."""
    with Bars() as bars, bars.bar("download") as callback:
        if path is None and artifact_uri is not None and _is_looked_up(artifact_uri):
            # The URI may name a file.
            async with Client(tracking_uri) as client:
                local = await client.download_artifacts(
                    run_id, dst_path=dst_path, artifact_uri=artifact_uri, callback=callback
                )
        else:
            async with _repository(run_id, artifact_uri, tracking_uri) as repository:
                local = await repository.download_artifacts(path, dst_path, callback=callback)
    if as_json:
        common.print_json({"local_path": local, "bytes": callback.value})
    else:
        click.echo(local)


def _is_looked_up(uri: str) -> bool:
    return uri.startswith(("runs:", "models:"))
