"""The JSON of the REST API is what MLflow's own messages say, in both directions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlflow.entities as theirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, MlflowException, RestException
from mlflow.protos.assessments_pb2 import Assessment as AssessmentMessage
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.protos.model_registry_pb2 import ModelVersion as ModelVersionMessage
from mlflow.protos.model_registry_pb2 import RegisteredModel as RegisteredModelMessage
from mlflow.protos.service_pb2 import DatasetInput as DatasetInputMessage
from mlflow.protos.service_pb2 import Experiment as ExperimentMessage
from mlflow.protos.service_pb2 import FileInfo as FileInfoMessage
from mlflow.protos.service_pb2 import LoggedModel as LoggedModelMessage
from mlflow.protos.service_pb2 import Metric as MetricMessage
from mlflow.protos.service_pb2 import MetricWithRunId as MetricWithRunIdMessage
from mlflow.protos.service_pb2 import Run as RunMessage
from mlflow.protos.service_pb2 import Trace as TraceMessage
from mlflow.protos.service_pb2 import TraceInfoV3 as TraceInfoMessage
from mlflow.utils.proto_json_utils import message_to_json, parse_dict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asyncstore.entities import FileInfo, MetricWithRunId
from asyncstore.errors import AsyncStoreError
from asyncstore.rest import (
    json_logged_models,
    json_registry,
    json_spans,
    json_traces,
    json_tracking,
)
from asyncstore.rest.errors import error_from_response, error_to_json
from asyncstore.rest.otlp_protobuf import otlp_export_to_protobuf
from tests.rest import test_json as given_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncstore.entities import Span

# MLflow takes seconds to import, and the machine may be busy.
BUSY = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
NOTHING = {"DEPLOYMENT_JOB_CONNECTION_STATE_UNSPECIFIED", "LOGGED_MODEL_STATUS_UNSPECIFIED"}
CASES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any], type[Any], Any]] = {
    "experiment": (
        given_by.EXPERIMENTS,
        json_tracking.experiment_to_json,
        json_tracking.experiment_from_json,
        ExperimentMessage,
        theirs.Experiment,
    ),
    "run": (
        given_by.RUNS,
        json_tracking.run_to_json,
        json_tracking.run_from_json,
        RunMessage,
        theirs.Run,
    ),
    "metric": (
        given_by.metrics(given_by.NOTE, given_by.NUMBER),
        json_tracking.metric_to_json,
        json_tracking.metric_from_json,
        MetricMessage,
        theirs.Metric,
    ),
    "metric_with_run_id": (
        st.builds(
            MetricWithRunId,
            *(given_by.WORD, given_by.FINITE, given_by.INT64, given_by.INT64),
            run_id=given_by.WORD,
        ),
        json_tracking.metric_with_run_id_to_json,
        json_tracking.metric_with_run_id_from_json,
        MetricWithRunIdMessage,
        None,
    ),
    "dataset_input": (
        given_by.DATASET_INPUTS,
        json_tracking.dataset_input_to_json,
        json_tracking.dataset_input_from_json,
        DatasetInputMessage,
        theirs.DatasetInput,
    ),
    "file_info": (
        st.builds(FileInfo, given_by.WORD, st.just(False), st.integers(0, 2**63 - 1)),
        json_tracking.file_info_to_json,
        json_tracking.file_info_from_json,
        FileInfoMessage,
        theirs.FileInfo,
    ),
    "model_version": (
        given_by.MODEL_VERSIONS,
        json_registry.model_version_to_json,
        json_registry.model_version_from_json,
        ModelVersionMessage,
        ModelVersion,
    ),
    "registered_model": (
        given_by.REGISTERED_MODELS,
        json_registry.registered_model_to_json,
        json_registry.registered_model_from_json,
        RegisteredModelMessage,
        RegisteredModel,
    ),
    "logged_model": (
        given_by.LOGGED_MODELS,
        json_logged_models.logged_model_to_json,
        json_logged_models.logged_model_from_json,
        LoggedModelMessage,
        theirs.LoggedModel,
    ),
    "assessment": (
        given_by.ASSESSMENTS,
        json_traces.assessment_to_json,
        json_traces.assessment_from_json,
        AssessmentMessage,
        None,
    ),
    "trace_info": (
        given_by.TRACE_IDS.flatmap(given_by.traces).map(lambda trace: trace.info),
        json_traces.trace_info_to_json,
        json_traces.trace_info_from_json,
        TraceInfoMessage,
        None,
    ),
    "trace": (
        given_by.TRACE_IDS.flatmap(given_by.traces),
        json_traces.trace_to_json,
        json_traces.trace_from_json,
        TraceMessage,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
@BUSY
@given(data=st.data())
def test_a_message_of_mlflow_says_the_same(name: str, data: st.DataObject) -> None:
    strategy, to_json, from_json, message_type, _ = CASES[name]
    made = json.loads(json.dumps(to_json(data.draw(strategy)), allow_nan=False))
    message = message_type()
    parse_dict(made, message)
    sent = json.loads(message_to_json(message))
    # Nothing of it is unknown to MLflow, and MLflow would write it so.
    assert sent == made
    # Protobuf's own JSON, with 64-bit integers as texts, means the same.
    protobuf = json.loads(message_to_json(message, convert_int64_to_number=False))
    assert to_json(from_json(protobuf)) == to_json(from_json(made))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[4] is not None])
@BUSY
@given(data=st.data())
def test_an_entity_of_mlflow_is_written_the_same(name: str, data: st.DataObject) -> None:
    strategy, to_json, _, message_type, entity = CASES[name]
    made = to_json(data.draw(strategy))
    message = message_type()
    parse_dict(made, message)
    again = json.loads(message_to_json(entity.from_proto(message).to_proto()))
    if name == "experiment":
        # MLflow's entity is in the default workspace where none is named.
        assert again.pop("workspace", "default") == "default"
    assert _said(again) == _said(made)


def _said(value: Any) -> Any:
    """Without what says nothing: MLflow's entities have it empty where it was absent."""
    if isinstance(value, dict):
        said = {key: _said(each) for key, each in value.items()}
        return {
            key: each
            for key, each in said.items()
            if each and not (isinstance(each, str) and each in NOTHING)
        }
    if isinstance(value, list):
        return sorted(map(_said, value), key=repr)
    return value


@BUSY
@given(given_by.TRACE_IDS.flatmap(given_by.spans))
def test_an_export_is_one_of_opentelemetry(span: Span) -> None:
    message = ExportTraceServiceRequest.FromString(otlp_export_to_protobuf([span, span]))
    sent, again = message.resource_spans[0].scope_spans[0].spans
    assert sent == again
    assert json_spans.otlp_span_from_json(json.loads(message_to_json(sent))) == span


@pytest.mark.parametrize("code", ErrorCode.keys())
def test_errors_are_those_of_mlflow(code: str) -> None:
    error = AsyncStoreError("what happened", error_code=code)
    status, body = error_to_json(error)
    assert status == ERROR_CODE_TO_HTTP_STATUS.get(code, 500)
    assert RestException(body).error_code == code
    sent = MlflowException("what happened", ErrorCode.Value(code)).serialize_as_json()
    again = error_from_response(status, sent)
    assert (again.error_code, again.message) == (code, "what happened")
