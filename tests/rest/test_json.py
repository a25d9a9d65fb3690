"""Entities come back from the JSON of MLflow's REST API as they were."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.entities import (
    Assessment,
    AssessmentError,
    AssessmentSource,
    Dataset,
    DatasetInput,
    Expectation,
    Experiment,
    Feedback,
    FileInfo,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    MetricWithRunId,
    ModelVersion,
    Param,
    RegisteredModel,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    Span,
    SpanEvent,
    Trace,
    TraceData,
    TraceInfo,
)
from asyncstore.errors import (
    AlreadyExistsError,
    AsyncStoreError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.rest.errors import error_from_response, error_to_json
from asyncstore.rest.json_logged_models import logged_model_from_json, logged_model_to_json
from asyncstore.rest.json_registry import (
    model_version_from_json,
    model_version_to_json,
    registered_model_from_json,
    registered_model_to_json,
)
from asyncstore.rest.json_spans import (
    otlp_span_from_json,
    otlp_span_to_json,
    span_from_json,
    span_to_json,
)
from asyncstore.rest.json_traces import (
    assessment_from_json,
    assessment_to_json,
    trace_from_json,
    trace_info_from_json,
    trace_to_json,
)
from asyncstore.rest.json_tracking import (
    dataset_input_from_json,
    experiment_from_json,
    experiment_to_json,
    file_info_from_json,
    file_info_to_json,
    metric_from_json,
    metric_to_json,
    metric_with_run_id_from_json,
    metric_with_run_id_to_json,
    param_from_json,
    param_to_json,
    run_from_json,
    run_to_json,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORD = st.text("abc/ é=.", min_size=1, max_size=8)
NOTE = st.none() | WORD
INT64 = st.integers(-(2**63), 2**63 - 1)
TIME = st.integers(1, 253_402_300_799_999)
TAGS = st.dictionaries(WORD, TEXT, max_size=3)
NUMBER = st.floats(allow_nan=True, allow_infinity=True)
STAGE = st.sampled_from(["active", "deleted"])
# NaN is not equal to itself, which a comparison of whole entities would stumble over.
FINITE = st.floats(allow_nan=False, allow_infinity=True)


def metrics(run_id: st.SearchStrategy[str | None], value: Any = FINITE) -> Any:
    plain = st.builds(Metric, WORD, value, INT64, INT64, model_id=NOTE, run_id=run_id)
    measured = st.builds(
        Metric, WORD, value, INT64, INT64, dataset_name=WORD, dataset_digest=WORD, run_id=run_id
    )
    return plain | measured


def some(strategy: Any) -> Any:
    return st.lists(strategy, max_size=2).map(tuple)


EXPERIMENTS = st.builds(
    Experiment, WORD, WORD, WORD, STAGE, TAGS, st.none() | TIME, st.none() | TIME
)
DATASET_INPUTS = st.builds(
    DatasetInput, st.builds(Dataset, WORD, WORD, WORD, TEXT, NOTE, NOTE), TAGS
)
DATA = st.builds(
    lambda latest, params, tags: RunData({m.key: m.value for m in latest}, params, tags, latest),
    some(metrics(st.none())),
    TAGS,
    TAGS,
)
RUNS = st.builds(
    Run,
    st.builds(
        RunInfo,
        WORD,
        TEXT,
        WORD,
        TEXT,
        st.sampled_from(["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]),
        st.none() | INT64,
        st.none() | TIME,
        STAGE,
        TEXT,
    ),
    DATA,
    st.builds(RunInputs, some(DATASET_INPUTS), some(st.builds(LoggedModelInput, WORD))),
    st.builds(RunOutputs, some(st.builds(LoggedModelOutput, WORD, INT64))),
)
MODEL_VERSIONS = st.builds(
    ModelVersion,
    name=WORD,
    version=st.integers(1, 2**31),
    creation_timestamp=INT64,
    last_updated_timestamp=st.none() | TIME,
    description=st.none() | TEXT,
    user_id=st.none() | TEXT,
    current_stage=st.sampled_from(["None", "Staging", "Production", "Archived"]),
    source=st.none() | TEXT,
    run_id=st.none() | TEXT,
    status=st.sampled_from(["READY", "PENDING_REGISTRATION", "FAILED_REGISTRATION"]),
    status_message=NOTE,
    tags=TAGS,
    run_link=st.none() | TEXT,
    aliases=some(WORD),
)
REGISTERED_MODELS = st.builds(
    RegisteredModel,
    name=WORD,
    creation_timestamp=INT64,
    last_updated_timestamp=st.none() | TIME,
    description=NOTE,
    latest_versions=some(MODEL_VERSIONS),
    tags=TAGS,
    aliases=st.dictionaries(WORD, st.integers(1, 2**31), max_size=2),
)
LOGGED_MODELS = st.builds(
    LoggedModel,
    experiment_id=WORD,
    model_id=WORD,
    name=WORD,
    artifact_location=WORD,
    creation_timestamp=INT64,
    last_updated_timestamp=INT64,
    model_type=st.none() | TEXT,
    source_run_id=st.none() | TEXT,
    status=st.sampled_from(["UNSPECIFIED", "PENDING", "READY", "FAILED"]),
    status_message=st.none() | TEXT,
    tags=TAGS,
    params=TAGS,
    metrics=some(metrics(NOTE)),
)


def json_values(integers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    finite = st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | integers | finite | TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORD, inner, max_size=2),
        max_leaves=4,
    )


SAID = {
    "name": WORD,
    # As far as a double is exact, which protobuf has for all numbers of JSON.
    "value": json_values(st.integers(-(2**53), 2**53)),
    "source": st.builds(
        AssessmentSource, st.sampled_from(["HUMAN", "LLM_JUDGE", "CODE"]), st.none() | WORD
    ),
    "trace_id": NOTE,
    "assessment_id": NOTE,
    "run_id": NOTE,
    "span_id": NOTE,
    "rationale": st.none() | TEXT,
    "metadata": TAGS,
    "overrides": NOTE,
    "valid": st.booleans(),
    "create_time_ms": st.none() | TIME,
    "last_update_time_ms": st.none() | TIME,
}
ASSESSMENTS: st.SearchStrategy[Assessment] = (
    st.builds(Feedback, **SAID, error=st.none() | st.builds(AssessmentError, WORD, NOTE, NOTE))
    | st.builds(Expectation, **SAID)
    | st.builds(Assessment, **{**SAID, "value": st.builds(dict, issue_name=WORD)})
)
ID8 = st.binary(min_size=8, max_size=8).map(bytes.hex)
TRACE_IDS = st.binary(min_size=16, max_size=16).map(lambda digits: f"tr-{digits.hex()}")
JSON_VALUES = json_values(INT64)
VALUES = st.dictionaries(WORD, JSON_VALUES, max_size=2)


def spans(trace_id: str) -> Any:
    return st.builds(
        Span,
        trace_id=st.just(trace_id),
        span_id=ID8,
        name=TEXT,
        start_time_ns=st.integers(0, 2**64 - 1),
        end_time_ns=st.none() | st.integers(1, 2**64 - 1),
        parent_id=st.none() | ID8,
        span_type=WORD,
        inputs=JSON_VALUES,
        outputs=JSON_VALUES,
        attributes=VALUES,
        status=st.sampled_from(["UNSET", "OK", "ERROR"]),
        status_message=TEXT,
        events=some(st.builds(SpanEvent, TEXT, st.integers(0, 2**64 - 1), VALUES)),
    )


def traces(trace_id: str) -> Any:
    info = st.builds(
        TraceInfo,
        trace_id=st.just(trace_id),
        experiment_id=WORD,
        request_time=TIME,
        state=st.sampled_from(["STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS"]),
        request_preview=st.none() | TEXT,
        response_preview=st.none() | TEXT,
        client_request_id=st.none() | TEXT,
        execution_duration=st.none() | st.integers(-(10**12), 10**12),
        trace_metadata=TAGS,
        tags=TAGS,
        assessments=some(ASSESSMENTS.map(_as_read)),
    )
    return st.builds(Trace, info, st.builds(TraceData, some(spans(trace_id))))


def _as_read(assessment: Assessment) -> Assessment:
    """With its run in the metadata, where MLflow's JSON has it."""
    if assessment.run_id is None:
        return assessment
    metadata = {"mlflow.assessment.sourceRunId": assessment.run_id, **assessment.metadata}
    return dataclasses.replace(assessment, metadata=metadata)


def _over_the_wire(made: Any) -> Any:
    return json.loads(json.dumps(made, allow_nan=False))


def _with_text_integers(made: Any) -> Any:
    """As protobuf's own JSON has 64-bit integers, which some clients send."""
    if isinstance(made, dict):
        return {key: _with_text_integers(value) for key, value in made.items()}
    if isinstance(made, list):
        return [_with_text_integers(value) for value in made]
    return str(made) if type(made) is int else made


@given(EXPERIMENTS)
def test_experiments(experiment: Experiment) -> None:
    made = _over_the_wire(experiment_to_json(experiment))
    assert experiment_from_json(made) == experiment
    assert experiment_from_json(_with_text_integers(made)) == experiment


@given(RUNS)
def test_runs(run: Run) -> None:
    made = _over_the_wire(run_to_json(run))
    assert run_from_json(made) == run
    assert run_from_json(_with_text_integers(made)) == run


@given(metrics(NOTE, NUMBER))
def test_metrics(metric: Metric) -> None:
    again = metric_from_json(_over_the_wire(metric_to_json(metric)))
    assert repr(again) == repr(metric)


@given(st.builds(MetricWithRunId, WORD, FINITE, INT64, INT64, run_id=WORD))
def test_metrics_with_their_runs(found: MetricWithRunId) -> None:
    assert metric_with_run_id_from_json(_over_the_wire(metric_with_run_id_to_json(found))) == found


@given(st.builds(Param, WORD, TEXT))
def test_params(param: Param) -> None:
    assert param_from_json(_over_the_wire(param_to_json(param))) == param


@given(
    st.builds(FileInfo, WORD, st.just(False), st.integers(0, 2**63 - 1))
    | st.builds(FileInfo, WORD, st.just(True), st.none())
)
def test_entries_of_a_listing(info: FileInfo) -> None:
    assert file_info_from_json(_over_the_wire(file_info_to_json(info))) == info


@given(REGISTERED_MODELS)
def test_registered_models(model: RegisteredModel) -> None:
    made = _over_the_wire(registered_model_to_json(model))
    assert registered_model_from_json(made) == model


@given(MODEL_VERSIONS)
def test_model_versions(version: ModelVersion) -> None:
    assert model_version_from_json(_over_the_wire(model_version_to_json(version))) == version


@given(LOGGED_MODELS)
def test_logged_models(model: LoggedModel) -> None:
    assert logged_model_from_json(_over_the_wire(logged_model_to_json(model))) == model


@given(ASSESSMENTS)
def test_assessments(assessment: Assessment) -> None:
    again = assessment_from_json(_over_the_wire(assessment_to_json(assessment)))
    expected = _as_read(assessment)
    if expected.metadata.get("mlflow.assessment.sourceRunId") == assessment.run_id:
        assert again == expected
    assert type(again) is type(assessment)


@given(TRACE_IDS.flatmap(traces))
def test_traces(trace: Trace) -> None:
    assert trace_from_json(_over_the_wire(trace_to_json(trace))) == trace


@given(TRACE_IDS.flatmap(spans))
def test_spans_as_mlflow_keeps_them(span: Span) -> None:
    assert span_from_json(_over_the_wire(span_to_json(span))) == span


@given(TRACE_IDS.flatmap(spans))
def test_spans_of_opentelemetry(span: Span) -> None:
    made = _over_the_wire(otlp_span_to_json(span))
    assert otlp_span_from_json(made) == span
    assert otlp_span_from_json(_with_text_integers(made)) == span


def test_what_is_absent_has_a_default() -> None:
    run = run_from_json({"info": {"run_uuid": "r"}})
    assert run.info.run_id == "r"
    assert run.info.end_time is None
    assert run.data == RunData()
    assert metric_from_json({"key": "m", "value": None}) == Metric("m", 0.0, 0, 0)
    assert math.isnan(metric_from_json({"key": "m", "value": "NaN"}).value)


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (metric_from_json, {"key": 5}),
        (metric_from_json, {"value": "many"}),
        (metric_from_json, {"value": True}),
        (metric_from_json, {"step": 1.5}),
        (metric_from_json, {"step": "one"}),
        (metric_from_json, {"timestamp": [1]}),
        (experiment_from_json, {"tags": {"a": "b"}}),
        (experiment_from_json, {"tags": ["a"]}),
        (experiment_from_json, {"lifecycle_stage": "asleep"}),
        (run_from_json, {"info": {"status": 9}}),
        (run_from_json, {"data": []}),
        (dataset_input_from_json, {"dataset": "d"}),
        (model_version_from_json, {"aliases": [1]}),
        (logged_model_from_json, {"info": {"status": "READY"}}),
        (assessment_from_json, {"assessment_name": "a"}),
        (assessment_from_json, {"feedback": {}, "create_time": "yesterday"}),
        (assessment_from_json, {"feedback": {}, "create_time": "2026-01-01T00:00:00"}),
        (assessment_from_json, {"expectation": {"serialized_value": {"value": "{}"}}}),
        (trace_info_from_json, {"trace_id": "tr-1"}),
        (
            trace_info_from_json,
            {
                "trace_location": {"mlflow_experiment": {"experiment_id": "1"}},
                "execution_duration": "soon",
            },
        ),
        (otlp_span_from_json, {"attributes": [{"key": "a", "value": 5}]}),
        (otlp_span_from_json, {"attributes": [{"key": "a", "value": {"double_value": "x"}}]}),
        (otlp_span_from_json, {"start_time_unix_nano": "now"}),
    ],
)
def test_what_is_no_such_message_is_a_wrong_parameter(read: Any, content: Any) -> None:
    with pytest.raises(InvalidParameterError):
        read(content)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("no run"), 404),
        (AlreadyExistsError("taken"), 400),
        (InvalidParameterError("wrong"), 400),
        (InvalidStateError("not now"), 500),
        (UnsupportedError("cannot"), 501),
        (UnavailableError("later"), 503),
        (AsyncStoreError("broken"), 500),
        (AsyncStoreError("odd", error_code="NO_SUCH_CODE"), 500),
    ],
)
def test_errors(error: AsyncStoreError, status: int) -> None:
    answered, body = error_to_json(error)
    assert answered == status
    again = error_from_response(answered, json.dumps(body))
    assert type(again) is type(error)
    assert (again.message, again.error_code) == (error.message, error.error_code)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (404, b"<!doctype html><h1>Not Found</h1>", NotFoundError, "ENDPOINT_NOT_FOUND"),
        (404, b'{"detail": "Not Found"}', NotFoundError, "ENDPOINT_NOT_FOUND"),
        (502, b"<h1>Bad Gateway</h1>", UnavailableError, "TEMPORARILY_UNAVAILABLE"),
        (429, b"", UnavailableError, "REQUEST_LIMIT_EXCEEDED"),
        (500, b'{"error_code": 404, "message": "gone"}', NotFoundError, "ENDPOINT_NOT_FOUND"),
        (500, b"[]", AsyncStoreError, "INTERNAL_ERROR"),
        (400, b"\xff", InvalidParameterError, "BAD_REQUEST"),
        (418, b"", AsyncStoreError, "INTERNAL_ERROR"),
        (
            400,
            b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "it must be in \'b\' state"}',
            InvalidStateError,
            "INVALID_PARAMETER_VALUE",
        ),
    ],
)
def test_answers_of_others(
    status: int, body: bytes, kind: type[AsyncStoreError], code: str
) -> None:
    error = error_from_response(status, body, "getting run r from http://server")
    assert type(error) is kind
    assert error.error_code == code
    assert error.message.startswith("getting run r from http://server: ")
    assert "<" not in error.message


def test_a_server_says_when_to_come_back() -> None:
    error = error_from_response(503, b"", retry_after=7)
    assert isinstance(error, UnavailableError)
    assert error.retry_after == 7
