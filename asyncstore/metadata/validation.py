"""MLflow's limits on what may be logged, and its error codes when they are exceeded.

The numbers and rules are those of `mlflow.utils.validation` in MLflow 3.17.
"""

from __future__ import annotations

import logging
import numbers
import posixpath
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from asyncstore import settings
from asyncstore.entities import DatasetInput, Metric, Param, RunStatus, ViewType
from asyncstore.errors import InvalidParameterError

__all__ = [
    "artifact_location_length",
    "batch_limits",
    "clean_metric",
    "clean_param",
    "clean_tags",
    "dataset_input",
    "experiment_id_number",
    "experiment_name",
    "experiment_tag",
    "lifecycle_stages",
    "logged_model_name",
    "max_results",
    "run_id",
    "run_status",
    "tag_name",
    "texts",
    "trace_key",
    "trace_tag",
]

MAX_KEY_LENGTH = 250
MAX_PARAM_VALUE_LENGTH = 6000
MAX_TAG_VALUE_LENGTH = 8000
MAX_EXPERIMENT_NAME_LENGTH = 500
MAX_EXPERIMENT_TAG_VALUE_LENGTH = 20000
MAX_METRICS_PER_BATCH = 1000
MAX_PARAMS_TAGS_PER_BATCH = 100
MAX_ENTITIES_PER_BATCH = 1000
SEARCH_MAX_RESULTS_THRESHOLD = 50000
MAX_TRACE_TAG_VALUE_LENGTH = 8000
MAX_INPUT_TAG_KEY_LENGTH = 255
MAX_INPUT_TAG_VALUE_LENGTH = 500
_DATASET_LIMITS = {
    "name": 500,
    "digest": 36,
    "source_type": 36,
    "source": 65_535,
    "schema": 1_048_575,
    "profile": 16_777_215,
}
_NOT_IN_MODELS = frozenset("/:.%\"'")

_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1
_NAME = re.compile(r"[/\w.\- ]*" if sys.platform == "win32" else r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_log = logging.getLogger("asyncstore")


def _name(kind: str, key: object) -> str:
    if not isinstance(key, str):
        raise InvalidParameterError(f"the key of a {kind} must be text, not {key!r}")
    if not _NAME.fullmatch(key):
        raise InvalidParameterError(
            f"{kind} {key!r}: a name may hold letters, digits, spaces and any of _ - . : /"
        )
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        raise InvalidParameterError(
            f"{kind} {key!r}: a name is also used as a path, and this one would become {normal!r}"
        )
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidParameterError(
            f"{kind} {key[:50]!r}...: a name may have {MAX_KEY_LENGTH} characters, "
            f"this one has {len(key)}"
        )
    return key


def _value(kind: str, key: str, value: object, limit: int, *, may_cut: bool = True) -> str:
    if not isinstance(value, str):
        raise InvalidParameterError(f"the value of {kind} {key!r} must be text, not {value!r}")
    if len(value) <= limit:
        return value
    if may_cut and settings.MLFLOW_TRUNCATE_LONG_VALUES.get():
        _log.warning(
            "the value of %s %r has %d characters and is cut to %d", kind, key, len(value), limit
        )
        return value[:limit]
    raise InvalidParameterError(
        f"the value of {kind} {key!r} may have {limit} characters, this one has {len(value)}"
    )


def clean_metric(metric: Metric) -> Metric:
    """A metric whose numbers are Python's own and fit the database; raises otherwise."""
    key = _name("metric", metric.key)
    if (metric.dataset_name is None) != (metric.dataset_digest is None):
        raise InvalidParameterError(
            f"metric {key!r}: dataset_name and dataset_digest belong together; give both or none"
        )
    return Metric(
        key,
        _double(key, metric.value),
        _long(key, "timestamp", metric.timestamp, at_least=0),
        _long(key, "step", metric.step, at_least=_MIN_LONG),
        metric.model_id,
        metric.dataset_name,
        metric.dataset_digest,
    )


def _double(key: str, value: Any) -> float:
    # Counts NumPy's numbers as numbers, and True as none.
    if type(value) is float:
        return value
    if isinstance(value, numbers.Number) and not isinstance(value, bool | complex):
        try:
            return float(value)  # type: ignore[arg-type]  # Number promises nothing
        except (OverflowError, TypeError, ValueError):
            pass
    raise InvalidParameterError(f"metric {key!r}: the value must be a 64-bit float, not {value!r}")


def _long(key: str, what: str, value: Any, *, at_least: int) -> int:
    try:
        if isinstance(value, numbers.Number) and at_least <= (number := int(value)) <= _MAX_LONG:  # type: ignore[call-overload]  # Number promises nothing
            return int(number)
    except (OverflowError, TypeError, ValueError):
        pass
    bounds = "a 64-bit integer" if at_least else "a 64-bit integer, 0 or more"
    raise InvalidParameterError(f"metric {key!r}: the {what} must be {bounds}, not {value!r}")


def clean_param(param: Param) -> Param:
    """A param that fits its limits, cut if that is allowed; raises otherwise."""
    key = _name("param", param.key)
    return Param(key, _value("param", key, param.value, MAX_PARAM_VALUE_LENGTH))


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run that fit their limits, cut if that is allowed; raises otherwise."""
    return {
        _name("tag", key): _value("tag", key, value, MAX_TAG_VALUE_LENGTH)
        for key, value in tags.items()
    }


def experiment_tag(key: str, value: str) -> None:
    """Refuse a tag of an experiment that exceeds its limits; these are never cut."""
    _name("tag", key)
    _value("tag", key, value, MAX_EXPERIMENT_TAG_VALUE_LENGTH, may_cut=False)


def texts(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a new run, which MLflow leaves to the database's limits; keys and values are text."""
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidParameterError(f"tag {key!r}: key and value must be text, not {value!r}")
    return dict(tags)


def tag_name(key: object) -> str:
    """A key that a tag may have; raises otherwise."""
    return _name("tag", key)


def trace_key(key: object) -> str:
    """A key that a tag or metadata of a trace may have; raises otherwise."""
    return _name("trace tag", key)


def trace_tag(key: str, value: str) -> tuple[str, str]:
    """A tag of a trace that fits its limits, cut if that is allowed; raises otherwise."""
    trace_key(key)
    return key, _value("trace tag", key, value, MAX_TRACE_TAG_VALUE_LENGTH)


def batch_limits(metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[str]) -> None:
    """Refuse a batch that is none, is too large or names a param twice."""
    for what, given in (("metrics", metrics), ("params", params)):
        if not isinstance(given, Sequence):
            raise InvalidParameterError(f"{what} must be a list, not {given!r:.80}")
    total = len(metrics) + len(params) + len(tags)
    for what, count, limit in (
        ("metrics", len(metrics), MAX_METRICS_PER_BATCH),
        ("params", len(params), MAX_PARAMS_TAGS_PER_BATCH),
        ("tags", len(tags), MAX_PARAMS_TAGS_PER_BATCH),
        ("metrics, params and tags together", total, MAX_ENTITIES_PER_BATCH),
    ):
        if count > limit:
            raise InvalidParameterError(
                f"a batch may have {limit} {what}, this one has {count}; log several batches"
            )
    keys = [param.key for param in params]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise InvalidParameterError(f"a batch may name a param once; twice: {', '.join(twice)}")


def logged_model_name(name: object) -> None:
    """Refuse a name that a logged model must not have; None is for a random one."""
    if name is not None and (not name or not isinstance(name, str) or _NOT_IN_MODELS & set(name)):
        raise InvalidParameterError(
            f"{name!r}: a logged model needs a name without any of "
            f"{' '.join(sorted(_NOT_IN_MODELS))}"
        )


def dataset_input(value: DatasetInput) -> None:
    """Refuse a dataset with something missing or too long."""
    for what, limit in _DATASET_LIMITS.items():
        text = getattr(value.dataset, what)
        if text is None and what in ("schema", "profile"):
            continue
        if not isinstance(text, str):
            raise InvalidParameterError(f"the {what} of a dataset must be text, not {text!r}")
        if len(text) > limit:
            raise InvalidParameterError(
                f"the {what} of a dataset may have {limit} characters, this one has {len(text)}"
            )
    for key, text in value.tags.items():
        for what, part, limit in (
            ("key", key, MAX_INPUT_TAG_KEY_LENGTH),
            ("value", text, MAX_INPUT_TAG_VALUE_LENGTH),
        ):
            if not isinstance(part, str) or len(part) > limit:
                raise InvalidParameterError(
                    f"the {what} of an input tag must be text of at most {limit} characters, "
                    f"not {part!r:.80}"
                )


def run_id(value: object) -> str:
    """A run id that has the form of one; raises otherwise."""
    if isinstance(value, str) and _RUN_ID.fullmatch(value):
        return value
    raise InvalidParameterError(f"{value!r} is not a run id")


def run_status(value: str) -> str:
    """A status that MLflow knows; raises otherwise."""
    if value in get_args(RunStatus):
        return value
    raise InvalidParameterError(
        f"{value!r} is not a run status; there are {', '.join(get_args(RunStatus))}"
    )


def experiment_name(name: object) -> str:
    """An experiment name that MLflow accepts; raises otherwise."""
    if not isinstance(name, str) or not name:
        raise InvalidParameterError(f"an experiment needs a name, not {name!r}")
    if len(name) > MAX_EXPERIMENT_NAME_LENGTH:
        raise InvalidParameterError(
            f"an experiment name may have {MAX_EXPERIMENT_NAME_LENGTH} characters, "
            f"this one has {len(name)}"
        )
    return name


def experiment_id_number(experiment_id: object) -> int:
    """The number that an experiment id is in the database; raises when it is none."""
    try:
        number = int(experiment_id)  # type: ignore[call-overload]  # refused below what is no id
    except (TypeError, ValueError):
        number = None
    # SQLite's column has 64 bits, and ids that came from MLflow's file store have 18 digits; a
    # database whose column has 32 says so itself.
    if number is None or not -(2**63) <= number < 2**63:
        raise InvalidParameterError(f"{experiment_id!r} is not an experiment id; ids are integers")
    return int(number)


def artifact_location_length(location: str) -> None:
    """Refuse a location that is longer than MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH."""
    limit = settings.MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH.get()
    if len(location) > limit:
        raise InvalidParameterError(
            f"an artifact location may have {limit} characters, this one has {len(location)}; "
            "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH sets the limit"
        )


def lifecycle_stages(view_type: ViewType) -> list[str]:
    """The lifecycle stages that a view type shows; raises when it is none."""
    stages = {
        "ACTIVE_ONLY": ["active"],
        "DELETED_ONLY": ["deleted"],
        "ALL": ["active", "deleted"],
    }
    if view_type not in stages:
        raise InvalidParameterError(
            f"{view_type!r} is not a view type; there are {', '.join(stages)}"
        )
    return stages[view_type]


def max_results(value: int | None) -> None:
    """Refuse a page size outside MLflow's bounds; None is for the caller to judge."""
    if value is None:
        return
    if not isinstance(value, int) or not 1 <= value <= SEARCH_MAX_RESULTS_THRESHOLD:
        raise InvalidParameterError(
            f"max_results must be 1 to {SEARCH_MAX_RESULTS_THRESHOLD}, not {value!r}"
        )
