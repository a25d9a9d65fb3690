"""`asyncstore demo`."""

from __future__ import annotations

import shlex

import click

from asyncstore import settings, uris
from asyncstore.cli import common
from asyncstore.cli.progress import Bars
from asyncstore.client import Client
from asyncstore.demo import ALIAS, EXPERIMENT, REGISTERED_MODEL, Report, run_demo


@click.command()
@click.option(
    "--artifact-location",
    metavar="URI",
    help="Root of the new experiment's artifacts. Default: ./mlartifacts.",
)
@click.option(
    "--experiment",
    "experiment_name",
    metavar="NAME",
    default=EXPERIMENT,
    show_default=True,
    help="The experiment, made if it does not exist.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Epochs of each of the three runs.",
)
@common.tracking_uri
@common.as_json
@common.command
async def demo(
    artifact_location: str | None,
    experiment_name: str,
    epochs: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Train a real model and store everything about it, from the first param to the last byte."""
    with Bars() as bars:
        async with Client(tracking_uri, artifact_location=artifact_location) as client:
            report = await run_demo(
                client,
                experiment_name=experiment_name,
                artifact_location=artifact_location,
                epochs=epochs,
                say=bars.say,
                progress=bars.bar,
            )
    database = _database(tracking_uri)
    open_with = _ui_command(tracking_uri, report)
    if as_json:
        common.print_json(_figures(report, database, open_with))
    else:
        click.echo(_summary(report, database, open_with))


def _database(tracking_uri: str | None) -> str:
    uri = tracking_uri or settings.MLFLOW_TRACKING_URI.get() or "sqlite:///mlflow.db"
    return uris.redact(uri)


def _ui_command(tracking_uri: str | None, report: Report) -> str:
    """A line that opens the runs in MLflow's UI, or a server's address; no password is in it."""
    uri = tracking_uri or settings.MLFLOW_TRACKING_URI.get() or ""
    if uris.scheme_of(uri) in ("http", "https"):
        return uris.redact(uri)
    if tracking_uri is None and settings.MLFLOW_TRACKING_URI.get() is not None:
        database = '"$MLFLOW_TRACKING_URI"'
    else:
        database = shlex.quote(_database(tracking_uri))
    command = f"mlflow ui --backend-store-uri {database}"
    endpoint = settings.MLFLOW_S3_ENDPOINT_URL.get()
    if endpoint is not None and uris.scheme_of(report.experiment.artifact_location) == "s3":
        command = f"MLFLOW_S3_ENDPOINT_URL={shlex.quote(uris.redact(endpoint))} {command}"
    return command


def _figures(report: Report, database: str, open_with: str) -> dict[str, object]:
    best = report.best
    return {
        "tracking_uri": database,
        "experiment_id": report.experiment.experiment_id,
        "artifact_location": uris.redact(report.experiment.artifact_location),
        "parent_run_id": report.parent.run_id,
        "best_run_id": best.info.run_id if best else None,
        "search": report.search,
        "files": report.files,
        "uploaded_bytes": report.uploaded,
        "upload_seconds": report.upload_seconds,
        "downloaded_bytes": report.downloaded,
        "download_seconds": report.download_seconds,
        "metrics": report.metrics,
        "median_log_seconds": report.median_log_seconds,
        "same_predictions": report.predictions,
        "accuracy": report.accuracy,
        "registered_model": f"models:/{REGISTERED_MODEL}@{ALIAS}",
        "model_version": report.model_version,
        "traces": report.traces,
        "open_with": open_with,
    }


def _summary(report: Report, database: str, open_with: str) -> str:
    best = report.best
    rows = {
        "Metadata": f"{database}, experiment {report.experiment.experiment_id} "
        f"{report.experiment.name!r}",
        "Artifacts": uris.redact(report.experiment.artifact_location),
        "Runs": f"parent {report.parent.run_id} and three children",
        "Metrics": f"{report.metrics} values in {len(report.log_seconds)} awaited calls, "
        f"median {report.median_log_seconds * 1000:.1f} ms",
        "Uploaded": f"{report.files} files, {_speed(report.uploaded, report.upload_seconds)}",
        "Best run": f"{best.info.run_id} ({best.info.run_name}), found by {report.search}"
        if best
        else "",
        "Downloaded": f"its model, {_speed(report.downloaded, report.download_seconds)}",
        "Proved": f"{report.predictions} predictions of the downloaded model are the same, "
        f"{report.accuracy:.1%} are right",
        "Registered": f"models:/{REGISTERED_MODEL}@{ALIAS}, version {report.model_version}",
        "Traced": f"{report.traces} batches of predictions, linked to the best run",
        "Look at it": open_with,
    }
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows.items())


def _speed(size: int, seconds: float) -> str:
    return (
        f"{common.size_text(size)} in {seconds:.2f} s, "
        f"{common.size_text(size / max(seconds, 1e-9))}/s"
    )
