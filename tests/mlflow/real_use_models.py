"""The chapters of `real_use` on models, the registry, prompts and traces."""

from __future__ import annotations

import json
import time
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, SpanType
from sklearn.linear_model import LogisticRegression

from tests.mlflow.comparable import Day, fails, tree

__all__ = ["DATA", "autologging", "evaluation_datasets", "models", "prompts", "registry", "tracing"]

V3 = int(mlflow.__version__.partition(".")[0]) >= 3
DATA = pd.DataFrame({"x": [-2.0, -1.0, 1.0, 2.0], "y": [0.5, -0.5, 0.5, -0.5]})
LABELS = [0, 0, 1, 1]


def _name(name: str) -> dict[str, str]:
    return {"name" if V3 else "artifact_path": name}


def models(day: Day) -> None:
    model = LogisticRegression().fit(DATA, LABELS)
    with mlflow.start_run(run_name="models") as run:
        logged = mlflow.sklearn.log_model(
            model,
            **_name("classifier"),
            signature=mlflow.models.infer_signature(DATA, model.predict(DATA)),
            input_example=DATA.head(2),
            registered_model_name="classifier",
            # Inferring them takes a process of its own.
            pip_requirements=["scikit-learn"],
            metadata={"made": "today"},
        )
        mlflow.log_metric("accuracy", model.score(DATA, LABELS))
    day.got("uri", logged.model_uri)
    for uri in (logged.model_uri, f"runs:/{run.info.run_id}/classifier", "models:/classifier/1"):
        day.got("predicted", mlflow.sklearn.load_model(uri).predict(DATA))
    loaded = mlflow.pyfunc.load_model("models:/classifier/latest")
    day.got("pyfunc", loaded.predict(DATA))
    day.got("refuses a wrong column", fails(loaded.predict, pd.DataFrame({"z": [1.0]})))
    day.got("flavors", sorted(loaded.metadata.flavors))
    info = mlflow.models.get_model_info(logged.model_uri)
    day.got("info", [info.signature.to_dict(), info.metadata, info.run_id, info.artifact_path])
    tags = mlflow.get_run(run.info.run_id).data.tags
    day.got(
        "history",
        [each["flavors"].keys() for each in json.loads(tags.get("mlflow.log-model.history", "[]"))],
    )
    listed = mlflow.artifacts.list_artifacts(artifact_uri=logged.model_uri)
    day.got("files", [(each.path, each.is_dir) for each in listed])
    day.got("no model", fails(mlflow.sklearn.load_model, "models:/classifier/7"))
    if V3:
        logged_models(day, run.info.run_id, logged.model_id)


def logged_models(day: Day, run_id: str, model_id: str) -> None:
    client = MlflowClient()
    day.got("logged", mlflow.get_logged_model(model_id))
    day.got("outputs", mlflow.get_run(run_id).outputs)
    mlflow.set_logged_model_tags(model_id, {"kind": "linear", "old": "x"})
    mlflow.delete_logged_model_tag(model_id, "old")
    mlflow.log_model_params({"C": "1.0"}, model_id=model_id)
    points = mlflow.data.from_pandas(DATA, name="points")
    with mlflow.start_run(run_name="evaluated"):
        mlflow.log_metric("f1", 0.75, step=2, model_id=model_id, dataset=points)
        mlflow.log_metric("f1", 0.5, step=3, model_id=model_id)
    day.got("with metrics", mlflow.get_logged_model(model_id))
    outside = mlflow.create_external_model(
        name="outside", tags={"where": "there"}, params={"a": "1"}
    )
    day.got("external", outside)
    pending = mlflow.initialize_logged_model(name="pending", model_type="agent")
    day.got("pending", pending.status)
    day.got("failed", mlflow.finalize_logged_model(pending.model_id, "FAILED").status)
    for query in ("metrics.f1 >= 0.5", "tags.kind = 'linear'", "name LIKE '%i%'", "params.a = '1'"):
        found = mlflow.search_logged_models(
            filter_string=query, order_by=[{"field_name": "name"}], output_format="list"
        )
        day.got(query, [each.name for each in found])
    day.got("pandas", sorted(mlflow.search_logged_models().columns))
    client.delete_logged_model(pending.model_id)
    day.tried("deleted", client.get_logged_model, pending.model_id)
    day.tried("twice", client.delete_logged_model, "m-" + "f" * 32)


def autologging(day: Day) -> None:
    mlflow.sklearn.autolog(log_input_examples=True, silent=True)
    try:
        with mlflow.start_run(run_name="autolog"):
            LogisticRegression(C=0.5, max_iter=50).fit(DATA, LABELS)
        run = mlflow.last_active_run()
    finally:
        mlflow.sklearn.autolog(disable=True)
    day.got("run", run)
    client = MlflowClient()
    day.got("files", sorted(path for path, _ in tree(client, run.info.run_id, None)))


def registry(day: Day) -> None:
    client = MlflowClient()
    day.got("created", client.create_registered_model("tree", {"team": "x"}, "a tree"))
    day.tried("twice", client.create_registered_model, "tree")
    source = mlflow.search_runs(["1"], "tags.mlflow.runName = 'models'", output_format="list")[
        0
    ].info
    for number in range(3):
        version = client.create_model_version(
            "tree",
            f"{source.artifact_uri}/classifier",
            source.run_id,
            tags={"n": str(number)},
            description=f"number {number}",
        )
        day.got("version", version)
    client.set_registered_model_tag("tree", "owner", "me")
    client.delete_registered_model_tag("tree", "team")
    client.set_model_version_tag("tree", "1", "checked", "yes")
    client.delete_model_version_tag("tree", "1", "n")
    client.update_registered_model("tree", "a big tree")
    client.update_model_version("tree", "2", "the second")
    client.set_registered_model_alias("tree", "champion", "2")
    client.set_registered_model_alias("tree", "old", "1")
    client.set_registered_model_alias("tree", "champion", "3")
    client.delete_registered_model_alias("tree", "old")
    day.got("champion", client.get_model_version_by_alias("tree", "champion"))
    day.tried("no alias", client.get_model_version_by_alias, "tree", "old")
    client.transition_model_version_stage("tree", "1", "Production")
    client.transition_model_version_stage("tree", "2", "Production", archive_existing_versions=True)
    day.tried("no stage", client.transition_model_version_stage, "tree", "2", "Nowhere")
    latest = client.get_latest_versions("tree")
    day.got("latest", sorted((each.current_stage, each.version) for each in latest))
    model = client.get_registered_model("tree")
    for version in model.latest_versions:
        # MLflow leaves out the aliases of versions here, asyncstore has them everywhere.
        version._aliases = []
    day.got("model", model)
    day.got("copied", client.copy_model_version("models:/classifier/1", "copies"))
    day.got("copy", mlflow.sklearn.load_model("models:/copies/1").predict(DATA))
    day.got("where", client.get_model_version_download_uri("tree", "1"))
    for query in ("name LIKE '%e%'", "name = 'tree'", "tags.owner = 'me'"):
        found = client.search_registered_models(query, order_by=["name DESC"])
        day.got(query, [each.name for each in found])
    for query in ("name = 'tree'", "tags.checked = 'yes'", f"run_id = '{source.run_id}'"):
        found = client.search_model_versions(query, order_by=["name ASC", "version_number DESC"])
        day.got(query, [(each.name, each.version, each.current_stage) for each in found])
    page = client.search_registered_models(max_results=1, order_by=["name ASC"])
    rest = client.search_registered_models(page_token=page.token, order_by=["name ASC"])
    day.got("pages", [each.name for each in [*page, *rest]])
    client.delete_model_version("tree", "3")
    day.tried("a deleted version", client.get_model_version, "tree", "3")
    client.rename_registered_model("tree", "oak")
    day.tried("the old name", client.get_registered_model, "tree")
    day.tried("a taken name", client.rename_registered_model, "oak", "copies")
    client.delete_registered_model("copies")
    day.got("left", [each.name for each in client.search_registered_models()])
    day.tried("filter", client.search_registered_models, "nonsense = 1")


def prompts(day: Day) -> None:
    api = mlflow.genai if V3 else mlflow
    day.got("first", api.register_prompt("greet", "Hello {{name}}", "begin", tags={"a": "b"}))
    api.register_prompt("greet", "Hi {{name}}, {{word}}")
    api.set_prompt_alias("greet", "live", 1)
    day.got("by alias", api.load_prompt("prompts:/greet@live").format(name="you"))
    day.got("by version", api.load_prompt("prompts:/greet/2").template)
    day.got("models", [each.name for each in MlflowClient().search_registered_models()])
    if V3:
        day.got("search", [each.name for each in api.search_prompts()])
        day.got("nobody", api.load_prompt("nobody", allow_missing=True))
        api.delete_prompt_alias("greet", "live")
        day.got("tags", MlflowClient().get_prompt("greet").tags)


def evaluation_datasets(day: Day) -> None:
    """An area that asyncstore does not serve: MLflow's own methods, beside it."""
    kept = mlflow.genai.datasets.create_dataset("questions", experiment_id="1", tags={"v": "1"})
    kept.merge_records(
        [{"inputs": {"q": text}, "expectations": {"a": text.upper()}} for text in ("one", "two")]
    )
    again = mlflow.genai.datasets.get_dataset(dataset_id=kept.dataset_id)
    day.got("records", sorted(map(str, again.to_df()["inputs"])))
    found = mlflow.genai.datasets.search_datasets(experiment_ids=["1"])
    day.got("search", [(each.name, each.tags) for each in found])


@mlflow.trace(span_type=SpanType.CHAIN, attributes={"team": "x"})  # type: ignore[untyped-decorator]  # MLflow has no types here
def answer(question: str) -> str:
    with mlflow.start_span("retrieve", span_type=SpanType.RETRIEVER) as span:
        span.set_inputs({"query": question})
        span.set_outputs([{"page_content": "text", "metadata": {"n": 1}}])
    mlflow.update_current_trace(tags={"word": question})
    return str(shout(question))


@mlflow.trace(name="shout")  # type: ignore[untyped-decorator]  # MLflow has no types here
def shout(text: str) -> str:
    if text == "bad":
        raise ValueError(text)
    return text.upper()


def tracing(day: Day) -> None:
    mlflow.set_experiment("gamma 2")
    ids = []
    for question in ("one", "two", "bad", "three"):
        try:
            answer(question)
        except ValueError:
            day.got("raised", question)
        ids.append(mlflow.get_last_active_trace_id())
        # The next one starts in another millisecond, or they have no order.
        time.sleep(0.002)
    with mlflow.start_run(run_name="traced") as run:
        answer("in a run")
    mlflow.flush_trace_async_logging()
    if ids == [None] * len(ids):
        # MLflow 2's traces need an older OpenTelemetry than it asks for.
        day.got("traces are broken", ids)
        return
    trace = mlflow.get_trace(ids[0])
    day.got("info", trace.info)
    day.got("spans", [_span(span, trace) for span in trace.data.spans])
    failed = mlflow.get_trace(ids[2])
    day.got("failed", [failed.info.status, [_span(span, failed) for span in failed.data.spans]])
    client = MlflowClient()
    client.set_trace_tag(ids[1], "checked", "yes")
    client.set_trace_tag(ids[1], "gone", "yes")
    client.delete_trace_tag(ids[1], "gone")
    if V3:
        assessments(day, ids)
    queries = ["tags.word = 'one'", "status = 'ERROR'", "tags.checked = 'yes'", "timestamp_ms > 0"]
    if V3:
        queries += ["name = 'answer'", "feedback.good = 'true'", "span.name = 'shout'"]
    for query in queries:
        day.tried(query, _words, filter_string=query, order_by=["timestamp_ms ASC"])
    day.got("of a run", _words(run_id=run.info.run_id))
    frame = mlflow.search_traces(order_by=["timestamp_ms ASC"])
    day.got("pandas", [sorted(frame.columns), list(frame["request"]), list(frame["response"])])
    page = client.search_traces([_id("gamma 2")], max_results=2, order_by=["timestamp_ms DESC"])
    day.got("page", [[each.info.tags["word"] for each in page], bool(page.token)])
    day.got("removed", client.delete_traces(_id("gamma 2"), **{_TRACE_IDS: ids[:2]}))
    day.got("gone", mlflow.get_trace(ids[0]))
    day.tried("gone", client.get_trace, ids[0])


_TRACE_IDS = "trace_ids" if V3 else "request_ids"


def _words(**asked: Any) -> list[str | None]:
    found = mlflow.search_traces(return_type="list", **asked)
    return [each.info.tags.get("word") for each in found]


def _id(name: str) -> str:
    return str(mlflow.get_experiment_by_name(name).experiment_id)


def _span(span: Any, trace: Any) -> dict[str, Any]:
    parents = {each.span_id: each.name for each in trace.data.spans}
    return {
        "name": span.name,
        "type": span.span_type,
        "parent": parents.get(span.parent_id),
        "status": span.status.status_code,
        "inputs": span.inputs,
        "outputs": span.outputs,
        "attributes": sorted(span.attributes),
        "events": [event.name for event in span.events],
    }


def assessments(day: Day, ids: list[str]) -> None:
    person = AssessmentSource(source_type="HUMAN", source_id="me")
    good = mlflow.log_feedback(
        trace_id=ids[0], name="good", value=True, source=person, rationale="so", metadata={"m": "1"}
    )
    day.got("feedback", good)
    mlflow.log_feedback(trace_id=ids[1], name="scores", value={"a": 1.5, "b": [1, "x", None]})
    mlflow.log_expectation(trace_id=ids[0], name="wanted", value="ONE", source=person)
    better = mlflow.override_feedback(
        trace_id=ids[0], assessment_id=good.assessment_id, value=False, rationale="no"
    )
    day.got("overridden", mlflow.get_assessment(ids[0], good.assessment_id).valid)
    mlflow.delete_assessment(trace_id=ids[0], assessment_id=better.assessment_id)
    day.got("again", mlflow.get_assessment(ids[0], good.assessment_id).valid)
    for trace_id in ids[:2]:
        found = mlflow.get_trace(trace_id).info.assessments
        day.got("assessments", sorted(day.comparable(found), key=str))
    day.tried("no trace", mlflow.log_feedback, trace_id="tr-" + "f" * 32, name="x", value=1)
    day.tried("no assessment", mlflow.get_assessment, ids[0], "a-" + "f" * 32)
