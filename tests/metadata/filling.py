"""Databases full of runs, traces and logged models, by SQL: logging them would take minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.metadata.test_opening import execute

__all__ = ["KEYS", "Counts", "fill", "id_of"]

# Params and metrics of each run.
KEYS = 20
DATASETS = 100
_UNLOGGED = ("params", "latest_metrics", "metrics", "tags", "inputs", "input_tags")
_ANALYZED = (
    *("runs", "params", "latest_metrics", "tags", "metrics", "datasets", "inputs", "input_tags"),
    *("trace_info", "trace_tags", "trace_request_metadata", "assessments"),
    *("logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics"),
)


@dataclass(frozen=True)
class Counts:
    """How much there is: runs, values of the metric `loss` of run 0, traces, logged models."""

    runs: int
    points: int
    traces: int
    models: int


def id_of(number: int) -> str:
    """The id of a run, a trace or a logged model."""
    return f"{number:032}"


async def fill(uri: str, counts: Counts) -> None:
    """Fill experiment 0 of a database that has MLflow's newest tables and nothing else."""
    dialect = uri.partition(":")[0]
    before = {
        "mysql": ["SET max_recursive_iterations = 2000000, sql_mode = 'PIPES_AS_CONCAT'"],
        # Foreign keys would be looked up a row at a time, and each row written twice.
        "postgresql": [
            "SET session_replication_role = replica",
            *(f"ALTER TABLE {name} SET UNLOGGED" for name in _UNLOGGED),
        ],
    }
    after = {
        "mysql": [f"ANALYZE TABLE {', '.join(_ANALYZED)}"],
        "postgresql": ["ANALYZE"],
    }
    statements = [_in_dialect(dialect, count, text) for count, text in _statements(counts)]
    await execute(uri, *before.get(dialect, ()), *statements, *after.get(dialect, ()))


def _in_dialect(dialect: str, count: int, text: str) -> str:
    numbers = (
        f"WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) "
    )
    name, false = "'' || i", "0"
    id_ = "printf('%032d', i)" if dialect == "sqlite" else "lpad('' || i, 32, '0')"
    if dialect == "postgresql":
        numbers, false = "", "false"
        text = text.replace(" FROM n", f" FROM generate_series(0, {count - 1}) AS n (i)")
    columns, _, values = text.partition(" SELECT ")
    key = "`key`" if dialect == "mysql" else "key"
    true = {"0": "1"}.get(false, "true")
    filled = f"INSERT INTO {columns} {numbers}SELECT {values}"
    for word, meaning in {
        ":id": id_,
        ":name": name,
        ":key": key,
        ":false": false,
        ":true": true,
    }.items():
        filled = filled.replace(word, meaning)
    return filled


def _statements(counts: Counts) -> Iterator[tuple[int, str]]:
    runs, traces, models = counts.runs, counts.traces, counts.models
    yield (
        runs,
        (
            "runs (run_uuid, name, source_type, status, lifecycle_stage, start_time, artifact_uri,"
            " experiment_id) SELECT :id, 'run ' || :name, 'LOCAL', 'FINISHED', 'active', i, '/a', 0"
            " FROM n"
        ),
    )
    for k in range(KEYS):
        yield (
            runs,
            (
                "latest_metrics (run_uuid, :key, value, timestamp, step, is_nan)"
                f" SELECT :id, 'm{k}', ((i * 37 + {k} * 11) % 1000) / 1000.0, i, 9, :false FROM n"
            ),
        )
        yield runs, f"params (run_uuid, :key, value) SELECT :id, 'p{k}', 'v' || (i % 5) FROM n"
    for key in ("kind", "mlflow.runName"):
        yield runs, f"tags (run_uuid, :key, value) SELECT :id, '{key}', 'v' || (i % 2) FROM n"
    yield (
        counts.points,
        (
            "metrics (run_uuid, :key, value, timestamp, step, is_nan)"
            f" SELECT '{id_of(0)}', 'loss', i, i, i, :false FROM n"
        ),
    )
    yield (
        DATASETS,
        (
            "datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type,"
            " dataset_source)"
            " SELECT 'd' || i, 0, 'data ' || i, 'digest ' || (i % 7), 'local', '{}' FROM n"
        ),
    )
    yield (
        runs,
        (
            "inputs (input_uuid, source_type, source_id, destination_type, destination_id)"
            f" SELECT :id, 'DATASET', 'd' || (i % {DATASETS}), 'RUN', :id FROM n"
        ),
    )
    yield (
        runs,
        (
            "input_tags (input_uuid, name, value)"
            " SELECT :id, 'mlflow.data.context', CASE i % 2 WHEN 0 THEN 'train' ELSE 'test' END"
            " FROM n"
        ),
    )
    yield (
        traces,
        (
            "trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status,"
            " trace_name, session_id) SELECT :id, 0, i, 5, 'OK', 'name', 's' || (i % 1000) FROM n"
        ),
    )
    for k in range(3):
        yield (
            traces,
            (f"trace_tags (request_id, :key, value) SELECT :id, 'k{k}', 'v' || (i % 5) FROM n"),
        )
        yield (
            traces,
            (
                "trace_request_metadata (request_id, :key, value)"
                f" SELECT :id, 'k{k}', 'v' || (i % 5) FROM n"
            ),
        )
    yield (
        traces,
        (
            "assessments (assessment_id, trace_id, name, assessment_type, value, created_timestamp,"
            " last_updated_timestamp, source_type, valid, experiment_id, trace_timestamp_ms,"
            " aggregate_value, is_numeric_value) SELECT 'a-' || i, :id, 'score', 'feedback',"
            " '' || (i % 10), i, i, 'CODE', :true, 0, i, i % 10, :true FROM n"
        ),
    )
    yield (
        models,
        (
            "logged_models (model_id, experiment_id, name, artifact_location,"
            " creation_timestamp_ms, last_updated_timestamp_ms, status, lifecycle_stage)"
            " SELECT :id, 0, 'model', '/a', i, i, 2, 'active' FROM n"
        ),
    )
    yield (
        models,
        (
            "logged_model_params (model_id, experiment_id, param_key, param_value)"
            " SELECT :id, 0, 'p', 'v' || (i % 5) FROM n"
        ),
    )
    yield (
        models,
        (
            "logged_model_tags (model_id, experiment_id, tag_key, tag_value)"
            " SELECT :id, 0, 't', 'v' || (i % 5) FROM n"
        ),
    )
    yield (
        models,
        (
            "logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step,"
            " metric_value, experiment_id, run_id)"
            f" SELECT :id, 'm', 1, 1, i, 0, '{id_of(0)}' FROM n"
        ),
    )
