"""What the metadata cases read: 100,000 runs, a long history and traces, in each database."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.lab import Lab

__all__ = ["DATABASES", "METADATA_CASES", "fill", "run_id_of"]

DATABASES = ("sqlite", "postgresql", "mariadb")
# What is done, how often (a tenth with --quick), and in words.
METADATA_CASES = {
    "create-run": (200, "200 create_run"),
    "log-batch-10": (200, "200 log_batch of 10 metrics"),
    "log-batch-1000": (20, "20 log_batch of 1,000 metrics"),
    "log-metric-together": (
        1000,
        "1,000 log_metric awaited together (MLflow: 10 threads, as its async logging)",
    ),
    "get-run": (300, "300 get_run"),
    "search-runs": (
        2,
        "2 pages of 100 of 100,000 runs, three filters, ordered by a metric",
    ),
    "metric-history": (3, "3 times the 100,000 points of a metric"),
    "metric-pages": (1, "the 1,000,000 points of a metric, in pages of 25,000"),
    "search-traces": (10, "10 pages of 100 of 20,000 traces, by a tag"),
    "mixed-32": (50, "32 tasks (MLflow: threads), each 50 calls, 80 % of them reads"),
}

RUNS_EXPERIMENT = "77"
KEYS = 20
FILTER = "metrics.m3 > 0.25 AND params.p1 = 'v1' AND tags.kind = 'even'"
ORDER = ["metrics.m5 DESC"]
TRACE_FILTER = "tags.kind = 'even'"
HISTORY_RUN = "f" * 32
# The key of as many points as `metric-pages` walks through; `loss` has those that are read at once.
LONG_KEY = "long"
PAGE_OF_POINTS = 25_000

_RUNS = """
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
    start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
{numbers} SELECT {id}, 'run ' || {n}, 'UNKNOWN', '', '', 'tester', 'FINISHED',
    1700000000000 + i, 1700000001000 + i, '', 'active', '/artifacts/' || {n}, 77 FROM numbers
"""
_METRIC = """
INSERT INTO latest_metrics (run_uuid, {key}, value, timestamp, step, is_nan)
{numbers} SELECT {id}, 'm{k}', ((i * 37 + {k} * 11) % 1000) / 1000.0, 1700000000000 + i, 9, {false}
    FROM numbers
"""
_PARAM = """
INSERT INTO params (run_uuid, {key}, value)
{numbers} SELECT {id}, 'p{k}', 'v' || {mod} FROM numbers
"""
_TAG = """
INSERT INTO tags (run_uuid, {key}, value)
{numbers} SELECT {id}, 'kind', CASE i % 2 WHEN 0 THEN 'even' ELSE 'odd' END FROM numbers
"""
_HISTORY = """
INSERT INTO metrics (run_uuid, {key}, value, timestamp, step, is_nan)
{numbers} SELECT '{run}', '{name}', i / 1000.0, 1700000000000 + i, i, {false} FROM numbers
"""
_TRACE = """
INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status,
    request_preview, response_preview)
{numbers} SELECT 'tr-' || {id}, 77, 1700000000000 + i, 5, 'OK', 'question', 'answer' FROM numbers
"""
_TRACE_TAG = """
INSERT INTO trace_tags (request_id, {key}, value)
{numbers} SELECT 'tr-' || {id}, 'kind', CASE i % 2 WHEN 0 THEN 'even' ELSE 'odd' END FROM numbers
"""
_TRACE_METADATA = """
INSERT INTO trace_request_metadata (request_id, {key}, value)
{numbers} SELECT 'tr-' || {id}, 'k{k}', 'v' || {mod} FROM numbers
"""
_NUMBERS = """WITH RECURSIVE numbers (i) AS (
    SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < {count})"""


def run_id_of(number: int) -> str:
    """The id of one of the runs."""
    return f"{number:032}"


def fill(lab: Lab, database: str, uri: str) -> None:
    """Put runs, a history and traces into a database that MLflow made."""
    statements = list(_statements(lab, database))
    if database == "sqlite":
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return
    name = uri.rpartition("/")[2]
    server = lab.postgresql if database == "postgresql" else lab.mariadb
    for statement in statements:
        server.query(statement, name)
    if database == "postgresql":
        server.query("ANALYZE", name)


def _statements(lab: Lab, database: str) -> Iterator[str]:
    text = "CAST(i AS CHAR)" if database == "mariadb" else "CAST(i AS TEXT)"
    zeros = "0" * 32
    names = {
        "n": text,
        "id": f"substr('{zeros}' || {text}, -32)"
        if database != "postgresql"
        else f"right('{zeros}' || {text}, 32)",
        "key": "`key`" if database == "mariadb" else "key",
        "false": "false" if database == "postgresql" else "0",
    }
    before = ""
    if database == "mariadb":
        before = "SET max_recursive_iterations = 2000000, sql_mode = 'PIPES_AS_CONCAT';"

    def filled(statement: str, count: int, **more: object) -> str:
        numbers = _NUMBERS.format(count=count)
        modulo = text.replace("(i ", "(i % 5 ")
        return before + statement.format(numbers=numbers, mod=modulo, **names, **more)

    yield (
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage,"
        " creation_time, last_update_time)"
        f" VALUES ({RUNS_EXPERIMENT}, 'runs', '/artifacts', 'active', 1, 1)"
    )
    if database == "postgresql":
        yield "SELECT setval('experiments_experiment_id_seq', 1000)"
    yield filled(_RUNS, lab.run_count)
    for key in range(KEYS):
        yield filled(_METRIC, lab.run_count, k=key)
        yield filled(_PARAM, lab.run_count, k=key)
    yield filled(_TAG, lab.run_count)
    yield (
        "INSERT INTO runs (run_uuid, name, source_type, status, lifecycle_stage, artifact_uri,"
        " experiment_id) VALUES"
        f" ('{HISTORY_RUN}', 'history', 'UNKNOWN', 'FINISHED', 'active', '/artifacts', 0)"
    )
    yield filled(_HISTORY, lab.point_count, run=HISTORY_RUN, name="loss")
    yield filled(_HISTORY, lab.long_count, run=HISTORY_RUN, name=LONG_KEY)
    yield filled(_TRACE, lab.trace_count)
    yield filled(_TRACE_TAG, lab.trace_count)
    for key in range(3):
        yield filled(_TRACE_METADATA, lab.trace_count, k=key)
