"""The named cases: what is measured, with which peers, and how the outcome is checked."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks import fluent, metadata, metric_peers
from benchmarks.case import OURS, Case, Task, WrongOutcomeError
from benchmarks.http_cases import http_cases
from benchmarks.lab import MLFLOW_POOL
from benchmarks.storages import STORAGES, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.lab import Lab

T = TypeVar("T")


def _transfer_cases() -> Iterator[Case]:
    for delayed in (False, True):
        for size in ("small", "large"):
            for direction in ("up", "down"):
                yield Case(
                    name=f"s3-{size}-{direction}{'-20ms' if delayed else ''}",
                    about=_transfer_about(size, direction, delayed),
                    module="benchmarks.transfer_peers",
                    peers=(OURS, "mlflow", "s3fs", "s5cmd"),
                    task=_upload(size, delayed) if direction == "up" else _download(size, delayed),
                )


def _transfer_about(size: str, direction: str, delayed: bool) -> str:
    what = "1,000 files of 10 KiB" if size == "small" else "one file of 1 GiB"
    return f"{what}, {direction}, {'20 ms round trip' if delayed else 'loopback'}"


def _source(lab: Lab, size: str) -> Path:
    return lab.small_files if size == "small" else lab.large_file.parent


def _variables(lab: Lab, delayed: bool) -> dict[str, str]:
    variables = lab.radosgw.environment
    # s5cmd and s3fs read Amazon's name of the region.
    variables["AWS_REGION"] = lab.radosgw.region
    if delayed:
        variables["MLFLOW_S3_ENDPOINT_URL"] = lab.delayed.url
    return variables


def _upload(size: str, delayed: bool) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        prefix, single = lab.new_name(), size == "large"
        source = _source(lab, size)
        common = {"direction": "up", "bucket": lab.bucket, "single": single}
        warm = {**common, "local": str(lab.warm_file), "prefix": f"warm-{prefix}", "single": True}
        local = str(lab.large_file if single else source)
        arguments = {**common, "local": local, "prefix": prefix, "warm": warm}
        try:
            yield Task(arguments, _variables(lab, delayed))
            pages = lab.radosgw.client.get_paginator("list_objects_v2").paginate(
                Bucket=lab.bucket, Prefix=f"{prefix}/"
            )
            objects = [item for page in pages for item in page.get("Contents", ())]
            found = {item["Key"].removeprefix(f"{prefix}/"): item["Size"] for item in objects}
            _compare(_files(source), found)
        finally:
            lab.radosgw.discard(lab.bucket, prefix)

    return task


def _download(size: str, delayed: bool) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        source = _source(lab, size)
        prefix = lab.upload(source)
        target = lab.directory / lab.new_name()
        warm_target = lab.directory / lab.new_name()
        target.mkdir()
        warm_target.mkdir()
        common = {"direction": "down", "bucket": lab.bucket, "single": size == "large"}
        warm = {
            **common,
            "local": str(warm_target),
            "prefix": lab.upload(lab.warm_file.parent),
            "single": True,
        }
        arguments = {**common, "local": str(target), "prefix": prefix, "warm": warm}
        try:
            yield Task(arguments, _variables(lab, delayed))
            _compare(_files(source), _files(target / prefix))
        finally:
            shutil.rmtree(target)
            shutil.rmtree(warm_target)

    return task


def _storage_cases() -> Iterator[Case]:
    for name, storage in STORAGES.items():
        for size in storage.sizes:
            for direction in storage.directions:
                where, _, delay = name.partition("-")
                yield Case(
                    name="-".join(filter(None, ("artifacts", where, size, direction, delay))),
                    about=_storage_about(where, size, direction, delay),
                    module="benchmarks.storage_peers",
                    peers=(OURS, *storage.peers),
                    task=_storage_task(name, size, direction),
                )


def _storage_about(where: str, size: str, direction: str, delay: str) -> str:
    what = "1,000 files of 10 KiB" if size == "small" else "one file of 512 MiB"
    return f"{where}: {what}, {direction}, {'20 ms round trip' if delay else 'loopback'}"


def _storage_task(
    name: str, size: str, direction: str
) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        place = place_of(lab, name)
        single = size == "large"
        source = lab.artifact_file.parent if single else lab.small_files
        prefix, warm = lab.new_name(), f"warm-{lab.new_name()}"
        common = {
            "direction": direction,
            "uri": place.uri,
            "options": place.options,
            "mlflow": place.mlflow,
            "remote": place.remote,
        }
        target, warm_target = lab.directory / lab.new_name(), lab.directory / lab.new_name()
        with lab.acting_as(place.variables):
            if direction == "down":
                target.mkdir()
                warm_target.mkdir()
                _apart(place.put(source, prefix))
                _apart(place.put(lab.warm_file.parent, warm))
        local = target if direction == "down" else (lab.artifact_file if single else source)
        small = warm_target if direction == "down" else lab.warm_file
        arguments = {
            **common,
            "local": str(local),
            "prefix": prefix,
            "single": single,
            "warm": {**common, "local": str(small), "prefix": warm, "single": True},
        }
        try:
            yield Task(arguments, dict(place.variables))
            if direction == "down":
                _compare(_files(source), _files(target / prefix))
            else:
                with lab.acting_as(place.variables):
                    _compare(_files(source), _apart(place.found(prefix)))
        finally:
            for made in (target, warm_target):
                shutil.rmtree(made, ignore_errors=True)
            with lab.acting_as(place.variables):
                _apart(place.discard(prefix))

    return task


def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Await outside of the event loop that runs the benchmarks."""
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


def _files(root: Path) -> dict[str, int]:
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file()
    }


def _compare(expected: dict[str, int], found: dict[str, int]) -> None:
    if expected != found:
        wrong = sorted(expected.items() ^ found.items())[:5]
        raise WrongOutcomeError(f"{len(found)} of {len(expected)} files; wrong are {wrong}, ...")


def _metric_cases() -> Iterator[Case]:
    for together in (True, False):
        for database in ("sqlite", "postgresql"):
            way = "together" if together else "one after the other"
            yield Case(
                name=f"metrics-{'gather' if together else 'serial'}-{database}",
                about=f"1,000 log_metric {way}, {database} (MLflow: one after the other)",
                module="benchmarks.metric_peers",
                peers=(OURS, "mlflow"),
                task=_metrics(database, together),
            )


def _metrics(database: str, together: bool) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        uri = lab.copy_of(lab.mlflow_database(database))
        artifacts = str(lab.directory / "artifacts")
        arguments = {"uri": uri, "count": lab.metric_count, "together": together}
        yield Task({**arguments, "artifacts": artifacts}, {})
        for table, expected in (
            ("metrics", lab.metric_count + 1),
            ("latest_metrics", metric_peers.KEYS + 1),
        ):
            found = _count(lab, uri, table)
            if found != expected:
                raise WrongOutcomeError(f"{found} rows in {table} instead of {expected}")
        lab.drop(uri)

    return task


def _metadata_cases() -> Iterator[Case]:
    for database in metadata.DATABASES:
        for what, (_, about) in metadata.METADATA_CASES.items():
            yield Case(
                name=f"metadata-{database}-{what}",
                about=f"{database}: {about}",
                module="benchmarks.metadata_peers",
                peers=(OURS, "mlflow"),
                task=_metadata(database, what),
            )


def _metadata(database: str, what: str) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        count = metadata.METADATA_CASES[what][0]
        arguments = {
            "uri": lab.filled_database(database),
            "artifacts": str(lab.directory / "artifacts"),
            "what": what,
            "count": max(count // 10, 1) if lab.quick else count,
            "runs": lab.run_count,
            "points": lab.point_count,
            "long": lab.long_count,
            "keys": metadata.KEYS,
        }
        yield Task(arguments, MLFLOW_POOL if what == "mixed-32" else {})

    return task


def _fluent_cases() -> Iterator[Case]:
    for what, (_, about) in fluent.FLUENT_CASES.items():
        yield Case(
            name=f"fluent-{what}",
            about=f"MLflow's fluent API, SQLite: {about}",
            module="benchmarks.fluent",
            peers=(OURS, "mlflow"),
            task=_fluent(what),
        )


def _fluent(what: str) -> Callable[[Lab], AbstractContextManager[Task]]:
    @contextlib.contextmanager
    def task(lab: Lab) -> Iterator[Task]:
        whole = fluent.FLUENT_CASES[what][0]
        count = max(whole // 10, 1) if lab.quick else whole
        database = lab.filled_database if what == "search-runs" else lab.mlflow_database
        uri, prefix = lab.copy_of(database("sqlite")), lab.new_name()
        arguments = {
            "uri": uri,
            "artifacts": f"s3://{lab.bucket}/{prefix}",
            "local": str(lab.small_files),
            "what": what,
            "count": count,
        }
        try:
            yield Task(arguments, _variables(lab, delayed=True))
            if what == "log-artifacts":
                keys = lab.radosgw.keys(lab.bucket, prefix)
                if sum("/many/" in key for key in keys) != lab.small_count:
                    raise WrongOutcomeError(f"{len(keys)} objects of {lab.small_count}")
            if what == "async-metrics":
                found = _count(lab, uri, "metrics")
                if found != count + 2:
                    raise WrongOutcomeError(f"{found} metrics of {count}")
        finally:
            lab.radosgw.discard(lab.bucket, prefix)

    return task


def _count(lab: Lab, uri: str, table: str) -> int:
    statement = f"SELECT count(*) FROM {table}"
    if uri.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            return int(connection.execute(statement).fetchone()[0])
    return int(lab.postgresql.query(statement, uri.rpartition("/")[2]))


@contextlib.contextmanager
def _import(lab: Lab) -> Iterator[Task]:
    yield Task({}, {})


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *_transfer_cases(),
        *_storage_cases(),
        *_metric_cases(),
        *_metadata_cases(),
        *_fluent_cases(),
        *http_cases(),
        Case(
            "import",
            "python -c 'import ...' (nothing: the interpreter alone)",
            "benchmarks.import_peers",
            (OURS, "mlflow", "nothing"),
            _import,
        ),
    )
}
