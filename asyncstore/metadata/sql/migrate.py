"""MLflow's file store moved into a database, with its ids, times and artifact URIs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from asyncstore.concurrency import in_own_task
from asyncstore.databases.errors import RetrySafely
from asyncstore.errors import UnsupportedError
from asyncstore.files.threads import run_in_thread
from asyncstore.metadata.file_store import FileStore
from asyncstore.metadata.file_store.entries import Entry, Rows
from asyncstore.metadata.sql.base import SqlStore
from asyncstore.metadata.sql.migrate_rows import ROWS_AT_ONCE, RowWriter
from asyncstore.metadata.sql.statements import among, chunks, upsert
from asyncstore.metadata.sql.trace_columns import promote
from asyncstore.metadata.store import MetadataStore

__all__ = ["Migration", "check_source", "migrate"]

T = TypeVar("T")

_logger = logging.getLogger("asyncstore")

# What is in memory at once, and in one transaction: entries with their params and tags, values of
# metrics.
ENTRIES_AT_ONCE = 100
POINTS_AT_ONCE = 5000
# Experiment ids are INTEGER, of which SQLite's alone has 64 bits. MLflow's file store makes ids of
# 18 digits.
MAX_ID = 2**31 - 1


@dataclass
class Migration:
    """What a migration did, or with `dry_run` would do.

    Args:
        found: How many of each were read, by table.
        new: How many of them the database did not have; not counted for what belongs to a run, a
            model or a trace.
        mapped: Ids that experiments have in the database, by those that they had, where they
            differ.
        left_out: How many entries were left out or shortened, each with a warning.
    """

    found: Counter[str] = field(default_factory=Counter)
    new: Counter[str] = field(default_factory=Counter)
    mapped: dict[int, int] = field(default_factory=dict)
    left_out: int = 0


async def check_source(source: Path) -> None:
    """Refuse a directory that is not MLflow's file store.

    Raises:
        NotFoundError: It does not exist.
        InvalidParameterError: It is something else.
    """
    await run_in_thread(lambda: FileStore(source, _logger.warning))


async def migrate(
    source: Path,
    store: MetadataStore,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Migration:
    """Move what MLflow's file store holds into a database.

    Runs, logged models, traces and registered models keep their ids and names. An experiment is
    matched by its name; a new one keeps its id when the database has it free and its column can
    hold it. Times, artifact URIs and the state of being deleted are kept; relative URIs are made
    absolute, as seen from the directory above `source`, and those of deleted experiments name
    `.trash`, where MLflow moved their artifacts. Artifacts are not touched.

    It is safe to run again: what the database has is neither changed nor duplicated, and what is
    missing comes. Metrics are read line by line, so that memory is bounded whatever their size.

    Args:
        source: The directory, such as `./mlruns`. Nothing in it is changed.
        store: The database to move it into.
        dry_run: Whether to read and compare everything and write nothing.
        progress: Gets the number of runs that are done, and of all; None for nothing.
        warn: Gets a line for each entry that is left out or shortened, in whichever thread reads;
            None writes it to the log.

    Returns:
        What was done.

    Raises:
        NotFoundError: The directory does not exist.
        InvalidParameterError: It is not a directory of MLflow's file store.
        UnsupportedError: The store is none of a database.

    A cancellation leaves what was moved so far; the next run goes on from there.
    """
    if not isinstance(store, SqlStore):
        raise UnsupportedError("a file store can only be moved into a database")
    done = Migration()

    def left_out(message: str) -> None:
        done.left_out += 1
        (warn or _logger.warning)(message)

    files = await run_in_thread(lambda: FileStore(source, left_out))
    mover = _Mover(files, store, done, left_out, progress, dry_run=dry_run)
    await in_own_task(mover.move)
    return done


class _Mover:
    def __init__(
        self,
        files: FileStore,
        store: SqlStore,
        done: Migration,
        warn: Callable[[str], None],
        progress: Callable[[int, int], None] | None,
        *,
        dry_run: bool,
    ) -> None:
        self._files = files
        self._database = store._database  # noqa: SLF001  a part of the store, in a file of its own
        self._tables = store._tables  # noqa: SLF001  the same
        self._dialect = self._database.dialect
        self._done = done
        self._warn = warn
        self._rows = RowWriter(self._tables, self._dialect, warn)
        self._progress = progress
        self._dry_run = dry_run

    async def move(self) -> None:
        """Move everything: experiments with all that is in them, then the registry."""
        total = await run_in_thread(self._files.count_runs)
        experiments = self._files.experiments()
        while found := await _take(experiments, 1):
            await self._move_experiment(found[0], total)
        models = self._files.registered_models()
        while batch := await _take(models, ENTRIES_AT_ONCE):
            await self._move_models(batch)

    async def _move_experiment(self, experiment: Entry, total: int) -> None:
        number = await self._experiment_id(experiment)
        if number is None:
            return
        runs = self._files.runs(experiment)
        while batch := await _take(runs, ENTRIES_AT_ONCE):
            moved = await self._move_entries(batch, "run_uuid", number)
            points = self._all_metrics(moved)
            while rows := await _take(points, POINTS_AT_ONCE):
                await self._move_metrics(rows)
            if self._progress is not None:
                self._progress(self._done.found["runs"], total)
        models = self._files.logged_models(experiment)
        while batch := await _take(models, ENTRIES_AT_ONCE):
            moved = await self._move_entries(batch, "model_id", number)
            points = self._all_model_metrics(moved)
            while rows := await _take(points, POINTS_AT_ONCE):
                await self._move_model_metrics(rows, number)
        traces = self._files.traces(experiment)
        while batch := await _take(traces, ENTRIES_AT_ONCE):
            promoted = [replace(each, rows=promote(self._tables, each.rows)) for each in batch]
            await self._move_entries(promoted, "request_id", number)

    def _all_metrics(self, runs: Sequence[Entry]) -> Iterator[dict[str, Any]]:
        for run in runs:
            yield from self._files.metrics(run)

    def _all_model_metrics(self, models: Sequence[Entry]) -> Iterator[dict[str, Any]]:
        for model in models:
            yield from self._files.logged_model_metrics(model)

    # Experiments

    async def _experiment_id(self, experiment: Entry) -> int | None:
        """The id that the experiment has in the database, where it is made if need be.

        None when the database cannot hold it.
        """
        fitting = self._rows.fitting("experiments", experiment.rows["experiments"], experiment)
        if not fitting:
            return None
        (row,) = fitting
        tags = self._rows.fitting("experiment_tags", experiment.rows["experiment_tags"], experiment)
        found = await self._database.read(
            f"looking for experiment {experiment.name!r}", partial(self._find_experiment, row)
        )
        self._count(experiment)
        if found is None:
            self._done.new["experiments"] += 1
        number = found
        if not self._dry_run:

            async def write(connection: AsyncConnection) -> int:
                known = await self._find_experiment(row, connection)
                if known is None:
                    known = await self._create_experiment(row, connection)
                await self._rows.insert(
                    connection, "experiment_tags", self._in_experiment(tags, known)
                )
                return known

            number = await self._database.write(
                f"migrating experiment {experiment.name!r}", write, repeatable=True
            )
        if number is None:
            return int(row["experiment_id"])
        if number != row["experiment_id"]:
            self._done.mapped[row["experiment_id"]] = number
        return number

    async def _find_experiment(
        self, row: dict[str, Any], connection: AsyncConnection
    ) -> int | None:
        table = self._tables.experiments
        query = select(table.c.experiment_id).where(
            table.c.name == row["name"], self._tables.in_workspace(table)
        )
        found: int | None = (await connection.execute(query)).scalar_one_or_none()
        return found

    async def _create_experiment(self, row: dict[str, Any], connection: AsyncConnection) -> int:
        table = self._tables.experiments
        number: int = row["experiment_id"]
        query = select(table.c.experiment_id).where(table.c.experiment_id == number)
        # MySQL takes 0 for the next number.
        fits = self._dialect == "sqlite" or 0 < number <= MAX_ID
        if not fits or (await connection.execute(query)).first() is not None:
            row = {key: value for key, value in row.items() if key != "experiment_id"}
        try:
            result = await connection.execute(insert(table), row)
        except IntegrityError as error:
            raise RetrySafely("somebody made the same experiment meanwhile") from error
        if "experiment_id" in row and self._dialect == "postgresql":
            # Its sequence does not see ids that are given.
            sequence = func.pg_get_serial_sequence(table.name, "experiment_id")
            at_least = func.greatest(func.nextval(sequence), number)
            await connection.execute(select(func.setval(sequence, at_least)))
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101  there is one for every single row
        return int(key[0])

    # Runs, logged models and traces

    async def _move_entries(
        self, entries: Sequence[Entry], key: str, experiment_id: int
    ) -> list[Entry]:
        """Write entries with their children; returns those that the database now has."""
        moved: list[Entry] = []
        rows: Rows = {}
        for entry in entries:
            fitting = {
                name: self._rows.fitting(name, self._in_experiment(children, experiment_id), entry)
                for name, children in entry.rows.items()
            }
            if fitting[next(iter(entry.rows))]:
                moved.append(entry)
                for name, children in fitting.items():
                    rows.setdefault(name, []).extend(children)
        await self._write(moved, rows, key)
        return moved

    def _in_experiment(
        self, rows: Sequence[dict[str, Any]], experiment_id: int
    ) -> list[dict[str, Any]]:
        return [
            row | {"experiment_id": experiment_id} if "experiment_id" in row else row
            for row in rows
        ]

    async def _write(self, entries: Sequence[Entry], rows: Rows, key: str) -> None:
        """Write rows of several tables, the first of which is the parents' with this key."""
        if not entries:
            return
        kind = entries[0].kind
        parents = next(iter(rows))
        column = getattr(self._tables, parents).c[key]
        names = [entry.name for entry in entries]

        async def existing(connection: AsyncConnection) -> set[Any]:
            query = select(column).where(among(self._dialect, column, names))
            return set((await connection.execute(query)).scalars())

        known = await self._database.read(f"looking for {kind}s", existing)
        for entry in entries:
            self._count(entry)
        self._done.new[parents] += len(set(names) - known)
        if self._dry_run:
            return

        async def write(connection: AsyncConnection) -> None:
            datasets = await self._insert_datasets(connection, rows.get("datasets", []))
            for name, children in rows.items():
                match name:
                    case "datasets":
                        pass
                    case "inputs":
                        ends = [
                            row | {"source_id": datasets.get(row["source_id"], row["source_id"])}
                            for row in children
                        ]
                        await self._rows.insert(connection, name, ends)
                    case "input_tags":
                        await self._insert_input_tags(connection, children)
                    case _:
                        await self._rows.insert(connection, name, children)

        await self._database.write(f"migrating {kind}s", write, repeatable=True)

    async def _insert_datasets(
        self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]
    ) -> dict[str, str]:
        """Insert datasets; returns the ids of those that the database has under other ids."""
        unique = {row["dataset_uuid"]: row for row in rows}
        await self._rows.insert(connection, "datasets", list(unique.values()))
        if not unique:
            return {}
        table = self._tables.datasets
        query = select(table.c.dataset_uuid, table.c.name, table.c.digest).where(
            table.c.experiment_id == rows[0]["experiment_id"],
            among(self._dialect, table.c.name, sorted({row["name"] for row in rows})),
        )
        known = {
            (row.name, row.digest): row.dataset_uuid for row in await connection.execute(query)
        }
        return {
            given: known.get((row["name"], row["digest"]), given) for given, row in unique.items()
        }

    async def _insert_input_tags(
        self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Insert the tags of inputs that are here by our id, and not from elsewhere already."""
        column = self._tables.inputs.c.input_uuid
        wanted = sorted({row["input_uuid"] for row in rows})
        query = select(column).where(among(self._dialect, column, wanted))
        known = set((await connection.execute(query)).scalars())
        await self._rows.insert(
            connection, "input_tags", [row for row in rows if row["input_uuid"] in known]
        )

    # Metrics

    async def _move_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        fitting = [row for row in rows if self._fits_key(row)]
        self._done.found["metrics"] += len(fitting)
        if self._dry_run or not fitting:
            return
        latest: dict[tuple[str, str], dict[str, Any]] = {}
        for row in fitting:
            key = (row["run_uuid"], row["key"])
            if key not in latest or _order(row) > _order(latest[key]):
                latest[key] = row
        newest = upsert(
            self._dialect,
            self._tables.latest_metrics,
            ["is_nan", "value", "timestamp", "step"],
            newer=["step", "timestamp", "value"],
        )

        async def write(connection: AsyncConnection) -> None:
            await self._rows.insert(connection, "metrics", fitting)
            # Everybody locks rows in the same order, and so nobody waits in a circle.
            for some in chunks([latest[key] for key in sorted(latest)], ROWS_AT_ONCE):
                await connection.execute(newest, list(some))

        await self._database.write("migrating metrics", write, repeatable=True)

    def _fits_key(self, row: dict[str, Any]) -> bool:
        column = self._tables.metrics.c.key
        problem = self._rows.problem(column, row["key"])
        if problem:
            self._warn(f"metric {row['key'][:100]!r} of run {row['run_uuid']}: {problem}; left out")
        return not problem

    async def _move_model_metrics(self, rows: Sequence[dict[str, Any]], experiment_id: int) -> None:
        self._done.found["logged_model_metrics"] += len(rows)
        if self._dry_run:
            return
        runs = self._tables.runs.c.run_uuid
        wanted = sorted({row["run_id"] for row in rows})

        async def write(connection: AsyncConnection) -> set[str]:
            query = select(runs).where(among(self._dialect, runs, wanted))
            known = set((await connection.execute(query)).scalars())
            await self._rows.insert(
                connection,
                "logged_model_metrics",
                [row | {"experiment_id": experiment_id} for row in rows if row["run_id"] in known],
            )
            return known

        known = await self._database.write(
            "migrating metrics of logged models", write, repeatable=True
        )
        for model_id, run_id in sorted({(row["model_id"], row["run_id"]) for row in rows}):
            if run_id not in known:
                self._warn(f"metrics of logged model {model_id}: no run {run_id}; left out")

    # The registry

    async def _move_models(self, entries: Sequence[Entry]) -> None:
        tables = self._tables
        versions = tables.model_versions
        names = [entry.name for entry in entries]

        async def existing(connection: AsyncConnection) -> dict[tuple[str, int], int | None]:
            query = select(versions.c.name, versions.c.version, versions.c.creation_time).where(
                among(self._dialect, versions.c.name, names), tables.in_workspace(versions)
            )
            return {
                (row.name, row.version): row.creation_time
                for row in await connection.execute(query)
            }

        known = await self._database.read("looking for model versions", existing)
        moved: list[Entry] = []
        rows: Rows = {}
        for entry in entries:
            fitting = {
                name: self._rows.fitting(name, children, entry)
                for name, children in entry.rows.items()
            }
            if not fitting["registered_models"]:
                continue
            moved.append(entry)
            fitting["model_versions"] = [
                row for row in fitting["model_versions"] if self._is_same_version(row, known)
            ]
            here = {row["version"] for row in fitting["model_versions"]}
            self._done.new["model_versions"] += len(
                {(entry.name, version) for version in here} - known.keys()
            )
            for name, children in fitting.items():
                rows.setdefault(name, []).extend(
                    row for row in children if row.get("version") in (None, *here)
                )
        await self._write(moved, rows, "name")

    def _is_same_version(
        self, row: dict[str, Any], known: dict[tuple[str, int], int | None]
    ) -> bool:
        key = (row["name"], row["version"])
        if key in known and known[key] != row["creation_time"]:
            self._warn(
                f"version {row['version']} of model {row['name']!r}: the database has another "
                "version of this number; left out"
            )
            return False
        return True

    # Rows

    def _count(self, entry: Entry) -> None:
        for name, rows in entry.rows.items():
            self._done.found[name] += len(rows)


async def _take(rows: Iterator[T], size: int) -> list[T]:
    """The next ones, read in a worker thread; none at the end."""
    return await run_in_thread(lambda: list(islice(rows, size)), repeat=False)


def _order(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]
