"""The cases over HTTP: servers side by side on one database, and clients through one server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from benchmarks.case import OURS, Case, Task
from benchmarks.http_peers import HTTP_CASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from benchmarks.lab import Lab

__all__ = ["http_cases"]

PEERS = (OURS, "mlflow_1", "mlflow")
DATABASES = ("sqlite", "postgresql")
HANDLERS = 200


def http_cases() -> Iterator[Case]:
    """Every case over HTTP."""
    for what, (_, _, about) in HTTP_CASES.items():
        for database in DATABASES if what != "upload" and what != "download" else ("sqlite",):
            yield Case(
                name=f"http-{database}-{what}",
                about=f"{database}: {about}; one worker, MLflow also its default ones",
                module="benchmarks.http_peers",
                peers=PEERS,
                task=_load(database, what),
            )
    yield Case(
        name="http-handlers",
        about=f"{HANDLERS} FastAPI handlers at once, each one log_metric (MLflow: to_thread)",
        module="benchmarks.handler_peers",
        peers=(OURS, "mlflow"),
        task=_handlers,
    )
    yield Case(
        name="http-multipart-20ms",
        about="one file of 1 GiB by presigned parts, S3 20 ms away",
        module="benchmarks.multipart_peers",
        peers=(OURS, "mlflow"),
        task=_multipart,
    )


def _load(database: str, what: str) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        count, connections, _ = HTTP_CASES[what]
        artifacts = what in ("upload", "download")
        arguments: dict[str, Any] = {
            "servers": {peer: lab.tracking_server(peer, database) for peer in PEERS},
            "what": what,
            "count": count if artifacts else max(count // 10, 4) if lab.quick else count,
            "connections": connections,
        }
        yield Task(arguments, {})

    return task


@contextlib.contextmanager
def _handlers(lab: Lab) -> Iterator[Task]:
    url, _ = lab.tracking_server(OURS, "postgresql")
    yield Task({"url": url, "count": HANDLERS}, {})


@contextlib.contextmanager
def _multipart(lab: Lab) -> Iterator[Task]:
    variables = {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "5242880",
    }
    url, _ = lab.tracking_server("asyncstore-s3", "sqlite")
    yield Task({"url": url, "local": str(lab.large_file)}, variables)
