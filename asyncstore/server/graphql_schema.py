"""The part of MLflow's GraphQL schema that its UI asks for, and what a query may cost."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLResolveInfo,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    build_schema,
    parse,
    validate,
)

if TYPE_CHECKING:
    from graphql import GraphQLScalarType

__all__ = ["QueryLimits", "field_of", "prepared", "schema"]

MAX_LENGTH = 64 * 1024
MAX_TOKENS = 5000
MAX_DEPTH = 10
MAX_SELECTIONS = 1000

_METRIC = "key: String value: Float timestamp: LongString step: LongString"
_TAG = "key: String value: String"
SDL = f"""
directive @component(name: String!) on QUERY | MUTATION

"A 64 bit integer as text, which JavaScript cannot hold."
scalar LongString

enum MlflowRunStatus {{ RUNNING SCHEDULED FINISHED FAILED KILLED }}
enum MlflowModelVersionStatus {{ PENDING_REGISTRATION FAILED_REGISTRATION READY }}
enum MlflowViewType {{ ACTIVE_ONLY DELETED_ONLY ALL }}

type ApiError {{ code: String message: String helpUrl: String traceId: String }}
type MlflowExperimentTag {{ {_TAG} }}
type MlflowRunTag {{ {_TAG} }}
type MlflowParam {{ {_TAG} }}
type MlflowInputTag {{ {_TAG} }}
type MlflowModelVersionTag {{ {_TAG} }}
type MlflowMetric {{
  {_METRIC} datasetName: String datasetDigest: String modelId: String runId: String
}}
type MlflowMetricWithRunId {{ {_METRIC} runId: String }}
type MlflowFileInfo {{ path: String isDir: Boolean fileSize: LongString }}

type MlflowExperiment {{
  experimentId: String name: String artifactLocation: String lifecycleStage: String
  lastUpdateTime: LongString creationTime: LongString tags: [MlflowExperimentTag!]
  effectiveTraceArchivalRetention: String workspace: String
}}
type MlflowRunInfo {{
  runId: String runUuid: String runName: String experimentId: String userId: String
  status: MlflowRunStatus startTime: LongString endTime: LongString artifactUri: String
  lifecycleStage: String
}}
type MlflowRunData {{
  metrics: [MlflowMetric!] params: [MlflowParam!] tags: [MlflowRunTag!]
}}
type MlflowDataset {{
  name: String digest: String sourceType: String source: String schema: String profile: String
}}
type MlflowDatasetInput {{ tags: [MlflowInputTag!] dataset: MlflowDataset }}
type MlflowModelInput {{ modelId: String }}
type MlflowRunInputs {{ datasetInputs: [MlflowDatasetInput!] modelInputs: [MlflowModelInput!] }}
type MlflowModelOutput {{ modelId: String step: LongString }}
type MlflowRunOutputs {{ modelOutputs: [MlflowModelOutput!] }}
type MlflowModelVersion {{
  name: String version: String creationTimestamp: LongString lastUpdatedTimestamp: LongString
  userId: String currentStage: String description: String source: String runId: String
  status: MlflowModelVersionStatus statusMessage: String tags: [MlflowModelVersionTag!]
  runLink: String aliases: [String] modelId: String
}}
type MlflowRunExtension {{
  info: MlflowRunInfo data: MlflowRunData inputs: MlflowRunInputs outputs: MlflowRunOutputs
  experiment: MlflowExperiment modelVersions: [MlflowModelVersion!]
}}

type MlflowGetExperimentResponse {{ experiment: MlflowExperiment apiError: ApiError }}
type MlflowGetRunResponse {{ run: MlflowRunExtension apiError: ApiError }}
type MlflowSearchRunsResponse {{
  runs: [MlflowRunExtension!] nextPageToken: String apiError: ApiError
}}
type MlflowGetMetricHistoryBulkIntervalResponse {{
  metrics: [MlflowMetricWithRunId!] apiError: ApiError
}}
type MlflowListArtifactsResponse {{
  rootUri: String files: [MlflowFileInfo!] nextPageToken: String apiError: ApiError
}}
type MlflowSearchModelVersionsResponse {{
  modelVersions: [MlflowModelVersion!] nextPageToken: String apiError: ApiError
}}

input MlflowGetExperimentInput {{ experimentId: String }}
input MlflowGetRunInput {{ runId: String runUuid: String }}
input MlflowSearchRunsInput {{
  experimentIds: [String] filter: String runViewType: MlflowViewType maxResults: Int
  orderBy: [String] pageToken: String
}}
input MlflowGetMetricHistoryBulkIntervalInput {{
  runIds: [String] metricKey: String startStep: Int endStep: Int maxResults: Int
}}
input MlflowListArtifactsInput {{
  runId: String runUuid: String path: String pageToken: String
}}
input MlflowSearchModelVersionsInput {{
  filter: String maxResults: LongString orderBy: [String] pageToken: String
}}

type Query {{
  mlflowGetExperiment(input: MlflowGetExperimentInput): MlflowGetExperimentResponse
  mlflowGetRun(input: MlflowGetRunInput): MlflowGetRunResponse
  mlflowSearchRuns(input: MlflowSearchRunsInput): MlflowSearchRunsResponse
  mlflowGetMetricHistoryBulkInterval(
    input: MlflowGetMetricHistoryBulkIntervalInput
  ): MlflowGetMetricHistoryBulkIntervalResponse
  mlflowListArtifacts(input: MlflowListArtifactsInput): MlflowListArtifactsResponse
  mlflowSearchModelVersions(
    input: MlflowSearchModelVersionsInput
  ): MlflowSearchModelVersionsResponse
}}
"""


@functools.cache
def schema() -> GraphQLSchema:
    """The schema. Blocks for some milliseconds, the first time."""
    built = build_schema(SDL)
    number = cast("GraphQLScalarType", built.type_map["LongString"])
    # A schema that is text has no other way.
    for name, convert in (
        *(("serialize", str), ("parse_value", int)),
        # Their names since graphql-core 3.3; MLflow keeps an older one beside it.
        *(("coerce_output_value", str), ("coerce_input_value", int)),
    ):
        setattr(number, name, convert)
    return built


class QueryLimits:
    """Counts what a query asks for, fragments included, and refuses what is too much.

    Args:
        document: The query.
        max_root_fields: Most fields at the top.
        max_aliases: Most aliases.

    Raises:
        GraphQLError: It is too much.
    """

    def __init__(self, document: DocumentNode, max_root_fields: int, max_aliases: int) -> None:
        self._fragments = {
            each.name.value: each
            for each in document.definitions
            if isinstance(each, FragmentDefinitionNode)
        }
        self._selections = 0
        self._aliases = 0
        self._root_fields = 0
        for each in document.definitions:
            if isinstance(each, OperationDefinitionNode):
                self._count(each.selection_set, 1, frozenset())
        _refuse("root fields", self._root_fields, max_root_fields)
        _refuse("aliases", self._aliases, max_aliases)

    def _count(self, selected: SelectionSetNode, depth: int, within: frozenset[str]) -> None:
        _refuse("levels", depth, MAX_DEPTH)
        for node in selected.selections:
            self._selections += 1
            _refuse("fields", self._selections, MAX_SELECTIONS)
            if isinstance(node, FieldNode):
                self._root_fields += depth == 1
                self._aliases += node.alias is not None
                if node.selection_set:
                    self._count(node.selection_set, depth + 1, within)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                # One that contains itself is refused by validation.
                if name in self._fragments and name not in within:
                    fragment = self._fragments[name]
                    self._count(fragment.selection_set, depth, within | {name})
            elif selection_set := getattr(node, "selection_set", None):
                self._count(selection_set, depth, within)


def _refuse(what: str, count: int, most: int) -> None:
    if count > most:
        raise GraphQLError(f"a GraphQL query has at most {most} {what}")


@functools.lru_cache(maxsize=64)
def prepared(query: str, max_root_fields: int, max_aliases: int) -> DocumentNode:
    """A query, parsed and found acceptable. Blocks; the UI's few are remembered.

    Args:
        query: Its text.
        max_root_fields: As of `QueryLimits`.
        max_aliases: As of `QueryLimits`.

    Raises:
        GraphQLError: It is malformed, not of this schema, or too much.
    """
    if len(query) > MAX_LENGTH:
        raise GraphQLError(f"a GraphQL query has at most {MAX_LENGTH} characters")
    try:
        document = parse(query, max_tokens=MAX_TOKENS)
        QueryLimits(document, max_root_fields, max_aliases)
    except RecursionError as error:
        raise GraphQLError("the GraphQL query is nested too deeply") from error
    if errors := validate(schema(), document):
        raise errors[0]
    return document


def field_of(source: Any, info: GraphQLResolveInfo[Any], **_: object) -> Any:
    """The value of a field that has no resolver: of the JSON of MLflow's REST API.

    Names are its own in camel case; a list that is empty is not there.
    """
    if not isinstance(source, Mapping):
        return None
    value = source.get(snake_case(info.field_name))
    kind = info.return_type
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    if value is None and isinstance(kind, GraphQLList):
        return []
    # Not a number, which neither JSON nor GraphQL has.
    if isinstance(value, str) and str(kind) == "Float":
        return None
    return value


def snake_case(name: str) -> str:
    """`runId` as `run_id`."""
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
