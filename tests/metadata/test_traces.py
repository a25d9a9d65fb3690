"""Traces, spans and assessments."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from typing import Any

import pytest

from asyncstore.entities import (
    Assessment,
    AssessmentError,
    AssessmentSource,
    Expectation,
    Feedback,
    Span,
    SpanEvent,
    TraceInfo,
)
from asyncstore.errors import (
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnsupportedError,
)
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.sql.previews import preview
from asyncstore.metadata.sql.schema.management import create_database
from asyncstore.metadata.sql.schema.tables import SNAPSHOTS
from asyncstore.metadata.sql.span_totals import SpanNode, total_cost, total_usage
from tests.metadata.test_load import executed_by

pytestmark = pytest.mark.anyio


def new_id() -> str:
    return f"tr-{uuid.uuid4().hex}"


def info(trace_id: str | None = None, **values: Any) -> TraceInfo:
    values.setdefault("state", "OK")
    values.setdefault("request_time", 1000)
    return TraceInfo(trace_id or new_id(), values.pop("experiment_id", "0"), **values)


def span(trace_id: str, number: int, parent: int | None = None, **values: Any) -> Span:
    values.setdefault("name", f"span {number}")
    return Span(
        trace_id,
        f"{number:016x}",
        start_time_ns=number * 1_000_000_000,
        end_time_ns=(number + 1) * 1_000_000_000,
        parent_id=None if parent is None else f"{parent:016x}",
        **values,
    )


async def test_a_trace_from_its_beginning_to_its_end(store: MetadataStore) -> None:
    given = info(
        request_preview="question",
        response_preview="answer",
        client_request_id="c1",
        execution_duration=7,
        trace_metadata={
            "mlflow.trace.session": "s1",
            "mlflow.trace.tokenUsage": '{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}',
            "user": "me",
        },
        tags={"mlflow.traceName": "predict", "team": "a"},
        assessments=(Feedback(name="good", value=True),),
    )
    started = await store.start_trace(given)
    found = await store.get_trace_info(given.trace_id)
    assert found == started
    location = f"/traces/{given.trace_id}/artifacts"
    assert found.tags.pop("mlflow.artifactLocation").endswith(location)
    assert found.trace_metadata.pop("mlflow.trace.infoFinalized") == "true"
    (assessment,) = found.assessments
    assert (assessment.name, assessment.value, assessment.trace_id) == (
        "good",
        True,
        given.trace_id,
    )
    assert dataclasses.replace(found, assessments=()) == dataclasses.replace(given, assessments=())
    await store.set_trace_tag(given.trace_id, "team", "b")
    await store.set_trace_tag(given.trace_id, "mlflow.traceName", "renamed")
    await store.delete_trace_tag(given.trace_id, "team")
    for key in ("team", "nothing"):
        with pytest.raises(NotFoundError, match=key):
            await store.delete_trace_tag(given.trace_id, key)
    tags = (await store.get_trace_info(given.trace_id)).tags
    assert (tags["mlflow.traceName"], "team" in tags) == ("renamed", False)
    with pytest.raises(UnsupportedError, match="artifacts"):
        await store.get_trace(given.trace_id)
    assert await store.delete_traces("0", trace_ids=[given.trace_id]) == 1
    for call in (
        store.get_trace_info(given.trace_id),
        store.get_trace(given.trace_id),
        store.set_trace_tag(given.trace_id, "a", "b"),
        store.delete_trace_tag(given.trace_id, "a"),
    ):
        with pytest.raises(NotFoundError, match=given.trace_id):
            await call


async def test_spans_make_a_trace(store: MetadataStore) -> None:
    trace_id = new_id()
    root = span(
        trace_id,
        1,
        name="root",
        span_type="CHAIN",
        inputs={"messages": [{"role": "user", "content": "Grüße?"}]},
        outputs="fine",
        status="OK",
        attributes={"mlflow.traceTag.team": "a", "session.id": "s1", "n": 1},
        events=(SpanEvent("started", 5, {"a": "b"}),),
    )
    child = span(
        trace_id,
        2,
        1,
        span_type="LLM",
        status="ERROR",
        status_message="no answer",
        attributes={"mlflow.chat.tokenUsage": {"input_tokens": 3, "total_tokens": 3}},
    )
    assert await store.log_spans("0", [child, root]) == [child, root]
    trace = await store.get_trace(trace_id)
    assert trace.data.spans == (root, child)
    found = trace.info
    assert (found.state, found.request_time, found.execution_duration) == ("OK", 1000, 2000)
    assert (found.request_preview, found.response_preview) == ("Grüße?", "fine")
    assert found.tags["team"] == "a"
    assert found.trace_metadata["mlflow.trace.session"] == "s1"
    usage = json.loads(found.trace_metadata["mlflow.trace.tokenUsage"])
    assert usage == {"input_tokens": 3, "total_tokens": 3}
    # Another batch adds to it; a span that comes again replaces itself.
    more = span(
        trace_id,
        4,
        1,
        attributes={"mlflow.chat.tokenUsage": {"input_tokens": 4, "total_tokens": 4}},
    )
    await store.log_spans("0", [more, dataclasses.replace(child, status="OK")])
    trace = await store.get_trace(trace_id)
    assert [each.status for each in trace.data.spans] == ["OK", "OK", "UNSET"]
    assert trace.info.execution_duration == 4000
    usage = json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"])
    assert usage == {"input_tokens": 7, "total_tokens": 7}
    # What `start_trace` says goes before what spans say.
    await store.start_trace(info(trace_id, request_time=5, execution_duration=6, state="ERROR"))
    await store.log_spans("0", [span(trace_id, 9, 1)])
    found = await store.get_trace_info(trace_id)
    assert (found.state, found.request_time, found.execution_duration) == ("ERROR", 5, 6)


async def test_spans_logged_at_once(store: MetadataStore) -> None:
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 1}}
    spans, started = new_id(), new_id()
    await asyncio.gather(
        store.start_trace(info(started, tags={"a": "b"})),
        *(
            store.log_spans("0", [span(trace_id, number, 1 if number > 1 else None, **values)])
            for number in range(1, 13)
            for trace_id, values in ((started, {}), (spans, {"attributes": usage}))
        ),
    )
    for trace_id in (started, spans):
        trace = await store.get_trace(trace_id)
        assert [each.name for each in trace.data.spans] == [f"span {n}" for n in range(1, 13)]
    assert (await store.get_trace_info(started)).tags["a"] == "b"
    # The root says it for all below it.
    metadata = (await store.get_trace_info(spans)).trace_metadata
    assert json.loads(metadata["mlflow.trace.tokenUsage"]) == {"input_tokens": 1}
    apart = new_id()
    await asyncio.gather(
        *(
            store.log_spans("0", [span(apart, number, 99, attributes=usage)])
            for number in range(1, 13)
        )
    )
    metadata = (await store.get_trace_info(apart)).trace_metadata
    assert json.loads(metadata["mlflow.trace.tokenUsage"]) == {"input_tokens": 12}


async def test_a_trace_that_is_not_whole(store: MetadataStore) -> None:
    trace_id = new_id()
    stats = {"mlflow.trace.sizeStats": json.dumps({"num_spans": 2})}
    await store.start_trace(info(trace_id, trace_metadata=stats))
    await store.log_spans("0", [span(trace_id, 1)])
    assert len((await store.get_trace(trace_id, allow_partial=True)).data.spans) == 1
    assert await store.batch_get_traces([trace_id]) == []
    waiting = asyncio.ensure_future(store.get_trace(trace_id))
    await store.log_spans("0", [span(trace_id, 2, 1)])
    assert len((await waiting).data.spans) == 2
    whole = new_id()
    await store.log_spans("0", [span(whole, 1)])
    traces = await store.batch_get_traces([whole, "nothing", trace_id])
    assert [trace.info.trace_id for trace in traces] == [whole, trace_id]
    other = await store.create_experiment("other")
    assert await store.batch_get_trace_infos([whole], experiment_ids=[other]) == []


async def test_spans_are_refused(store: MetadataStore) -> None:
    trace_id = new_id()
    assert await store.log_spans("0", []) == []
    with pytest.raises(NotFoundError, match="77"):
        await store.log_spans("77", [span(trace_id, 1)])
    with pytest.raises(InvalidParameterError, match="16 hexadecimal"):
        await store.log_spans("0", [dataclasses.replace(span(trace_id, 1), span_id="x")])
    with pytest.raises(InvalidParameterError, match="serializable"):
        await store.log_spans("0", [span(trace_id, 1, inputs=object())])
    gone = await store.create_experiment("gone")
    await store.delete_experiment(gone)
    for call in (
        store.log_spans(gone, [span(trace_id, 1)]),
        store.start_trace(info(experiment_id=gone)),
    ):
        with pytest.raises(InvalidStateError, match="deleted"):
            await call
    await store.log_spans("0", [span(trace_id, 1)])
    await store.set_trace_tag(trace_id, "mlflow.trace.spansLocation", "ARCHIVE_REPO")
    with pytest.raises(InvalidStateError, match="archived"):
        await store.log_spans("0", [span(trace_id, 2)])
    with pytest.raises(NotFoundError):
        await store.get_trace_info("nothing")


def test_totals() -> None:
    def node(name: str, parent: str | None, **said: Any) -> SpanNode:
        return SpanNode(name, parent, said.get("usage"), said.get("cost"))

    nodes = [
        node("a", None),
        node("b", "a", usage={"input_tokens": 5}, cost={"total_cost": 0.5}),
        # Below one that says it for all.
        node("c", "b", usage={"input_tokens": 2}, cost={"total_cost": 0.2}),
        node("d", "a", usage={"input_tokens": 1, "cache_read_input_tokens": 4}),
        node("e", "missing", usage={"output_tokens": 2}),
        node("f", "f"),
    ]
    assert total_usage(nodes) == {
        "input_tokens": 6,
        "output_tokens": 2,
        "cache_read_input_tokens": 4,
    }
    assert total_cost(nodes) == {"total_cost": 0.5}
    assert total_usage([node("a", None)]) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("x" * 1001, "x" * 997 + "..."),
        ({"a": 1}, '{"a": 1}'),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            "a",
        ),
        ({"choices": [{"message": {"role": "assistant", "content": "c"}}]}, "c"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "t"}]}]}, "t"),
        ({"messages": "none"}, '{"messages": "none"}'),
    ],
)
def test_previews(value: Any, text: str | None) -> None:
    assert preview(value, "assistant") == text


async def test_search(store: MetadataStore, run_id: str) -> None:
    other = await store.create_experiment("other")
    ids = {}
    for number, name in enumerate(("Alpha", "beta", "gamma")):
        trace_id = ids[name] = new_id()
        await store.start_trace(
            info(
                trace_id,
                request_time=1000 + number,
                execution_duration=None if number == 2 else number,
                state="ERROR" if number else "OK",
                client_request_id=f"c{number}",
                tags={"mlflow.traceName": name, "team": name[0]},
                trace_metadata={"user": f"u{number}", "mlflow.trace.session": f"s{number % 2}"},
                assessments=(
                    Feedback(name="score", value=number / 2),
                    Expectation(name="expected", value="yes" if number else "no"),
                ),
            )
        )
        await store.log_spans(
            "0",
            [
                span(trace_id, 1, name="root", inputs={"question": f"what is {name}"}),
                span(
                    trace_id,
                    2,
                    1,
                    name=f"tool {number}",
                    span_type="TOOL",
                    attributes={"model": f"m{number}"},
                ),
            ],
        )
    await store.start_trace(info(experiment_id=other, tags={"mlflow.traceName": "elsewhere"}))
    await store.link_traces_to_run([ids["beta"]], run_id)
    await store.link_traces_to_run([ids["beta"], ids["beta"]], run_id)

    async def names(filter_string: str | None = None, **options: Any) -> list[str]:
        options.setdefault("order_by", ["timestamp ASC"])
        found = await store.search_traces(["0"], filter_string, **options)
        return [each.tags["mlflow.traceName"] for each in found]

    for text, expected in (
        (None, ["Alpha", "beta", "gamma"]),
        ("status = 'ERROR'", ["beta", "gamma"]),
        ("trace.status != 'ERROR'", ["Alpha"]),
        ("timestamp_ms > 1000 AND timestamp < 1002", ["beta"]),
        ("execution_time >= 0", ["Alpha", "beta"]),
        ("end_time = 1001.0", []),
        ("attributes.end_time >= 1002", ["beta", "gamma"]),
        (f"request_id IN ('{ids['beta']}', 'x')", ["beta"]),
        ("client_request_id = 'c2'", ["gamma"]),
        ("name = 'Alpha'", ["Alpha"]),
        ("name LIKE '%a' AND tags.team = 'g'", ["gamma"]),
        ("name ILIKE 'ALPHA'", ["Alpha"]),
        ("name RLIKE '^[Ab]'", ["Alpha", "beta"]),
        ("name RLIKE '^B'", []),
        ("tag.team IS NOT NULL", ["Alpha", "beta", "gamma"]),
        ("tags.nothing IS NULL AND name = 'beta'", ["beta"]),
        ("metadata.user = 'u1'", ["beta"]),
        ("request_metadata.user LIKE 'u%'", ["Alpha", "beta", "gamma"]),
        ("metadata.`mlflow.trace.session` = 's0'", ["Alpha", "gamma"]),
        ("metadata.mlflow.trace.session != 's0'", ["beta"]),
        (f"run_id = '{run_id}'", ["beta"]),
        ("span.name = 'tool 1'", ["beta"]),
        ("span.type = 'TOOL' AND span.name LIKE 'tool%'", ["Alpha", "beta", "gamma"]),
        ("span.type = 'TOOL' AND span.name = 'root'", []),
        ("span.attributes.model = 'm2'", ["gamma"]),
        ("span.attributes.model LIKE '%m1%'", ["beta"]),
        ("trace.text LIKE '%what is gamma%'", ["gamma"]),
        ("span.content ILIKE '%WHAT IS ALPHA%'", ["Alpha"]),
        ("feedback.score > 0.4", ["beta", "gamma"]),
        ("feedback.score = '1.0'", ["gamma"]),
        ("feedback.score = '1'", []),
        ("feedback.score RLIKE '^[01].0$'", ["Alpha", "gamma"]),
        ("expectation.expected RLIKE 'Y'", []),
        ("expectation.expected = 'no'", ["Alpha"]),
        ("expectation.expected != 'no'", ["beta", "gamma"]),
        ("expectation.expected LIKE 'y%'", ["beta", "gamma"]),
        ("feedback.nothing IS NULL", ["Alpha", "beta", "gamma"]),
        ("feedback.score IS NOT NULL", ["Alpha", "beta", "gamma"]),
        ("issue.id = 'iss-1'", []),
        ("prompt = 'ask/1'", []),
    ):
        assert await names(text) == expected, text
    assert await names(order_by=["name DESC"]) == ["gamma", "beta", "Alpha"]
    assert await names(order_by=["execution_time DESC"]) == ["beta", "Alpha", "gamma"]
    assert await names(order_by=["tags.team", "timestamp DESC"]) == ["Alpha", "beta", "gamma"]
    assert await names(order_by=["metadata.user DESC"]) == ["gamma", "beta", "Alpha"]
    assert await names(order_by=None) == ["gamma", "beta", "Alpha"]
    first = await store.search_traces(locations=["0", other], max_results=3)
    second = await store.search_traces(
        locations=["0", other], max_results=3, page_token=first.token
    )
    assert (len(first), len(second), second.token) == (3, 1, None)
    for text, words in (
        ("nothing = 'x'", "column 1"),
        ("timestamp > 'x'", "number"),
        ("status > 'x'", "does not allow >"),
        ("span.nothing = 'x'", "span has no 'nothing'"),
        ("prompt != 'x'", "does not allow !="),
        ("feedback.score > 'x'", "column 18: score takes a number"),
        ("feedback.score = 1.0", "column 18: score takes a quoted text"),
        ("feedback.score IN ('1')", "does not allow IN"),
        ("name IN ('beta')", "does not allow IN"),
        ("run_id NOT IN ('a')", "does not allow NOT IN"),
        ("name = 'a' AND name RLIKE '('", "column 27: not a regular expression"),
        ("text LIKE '%a%'", "column 1: text has a prefix, such as trace.text"),
        ("prompt = 'ask'", "name and version"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            await names(text)
    with pytest.raises(InvalidParameterError, match="twice"):
        await names(order_by=["name", "name"])
    await store.start_trace(info("of a model", trace_metadata={"mlflow.modelId": "m-1"}))
    found = await store.search_traces(["0"], None, 10, None, None, "m-1")
    assert [each.trace_id for each in found] == ["of a model"]
    await store.delete_traces("0", trace_ids=["of a model"])
    everywhere = await store.search_traces(filter_string="feedback.nothing IS NULL")
    assert len(everywhere) == 4
    bad: tuple[tuple[dict[str, Any], str], ...] = (
        ({"experiment_ids": ["0"], "locations": ["0"]}, "locations"),
        ({"max_results": None}, "max_results"),
        ({"max_results": "5"}, "max_results"),
        ({"filter_string": 5}, "filter_string must be text"),
    )
    for options, words in bad:
        with pytest.raises(InvalidParameterError, match=words):
            await store.search_traces(**options)
    with pytest.raises(InvalidParameterError, match="100"):
        await store.link_traces_to_run(["t"] * 101, run_id)
    with pytest.raises(NotFoundError, match="nothing"):
        await store.link_traces_to_run(["t"], "nothing")


async def test_deletion_by_age(store: MetadataStore) -> None:
    ids = [new_id() for _ in range(5)]
    for number, trace_id in enumerate(ids):
        await store.start_trace(info(trace_id, request_time=number))
        await store.log_spans("0", [span(trace_id, 1)])
    assert await store.delete_traces("0", max_timestamp_millis=3, max_traces=2) == 2
    left = await store.search_traces(["0"])
    assert {each.trace_id for each in left} == set(ids[2:])
    assert await store.delete_traces("0", max_timestamp_millis=3) == 2
    assert await store.delete_traces("0", trace_ids=ids) == 1
    assert await store.delete_traces("0", trace_ids=ids) == 0
    for options in (
        {},
        {"max_timestamp_millis": 1, "trace_ids": ["x"]},
        {"trace_ids": ["x"], "max_traces": 1},
        {"max_timestamp_millis": 1, "max_traces": 0},
    ):
        with pytest.raises(InvalidParameterError, match=r"max_|trace_ids"):
            await store.delete_traces("0", **options)


async def test_assessments(store: MetadataStore) -> None:
    trace_id = new_id()
    await store.start_trace(info(trace_id))
    human = AssessmentSource("HUMAN", "me")
    first = await store.create_assessment(
        Feedback(
            name="good",
            value=0.5,
            trace_id=trace_id,
            source=human,
            rationale="why",
            metadata={"a": "b"},
        )
    )
    assert first.assessment_id is not None
    assert await store.get_assessment(trace_id, first.assessment_id) == first
    second = await store.create_assessment(
        Feedback(
            name="good",
            trace_id=trace_id,
            error=AssessmentError("E", "message"),
            overrides=first.assessment_id,
        )
    )
    assert second.assessment_id is not None
    assert not (await store.get_assessment(trace_id, first.assessment_id)).valid
    changed = await store.update_assessment(
        trace_id,
        second.assessment_id,
        name="better",
        feedback=Feedback(name="x", value=[1, {"a": None}]),
        rationale="because",
        metadata={"c": "d"},
    )
    assert isinstance(changed, Feedback)
    assert (changed.name, changed.value, changed.error) == ("better", [1, {"a": None}], None)
    found = await store.get_assessment(trace_id, second.assessment_id)
    assert found == changed
    assert (found.rationale, found.metadata) == ("because", {"c": "d"})
    await store.delete_assessment(trace_id, second.assessment_id)
    await store.delete_assessment(trace_id, second.assessment_id)
    await store.delete_assessment("nothing", second.assessment_id)
    assert (await store.get_assessment(trace_id, first.assessment_id)).valid
    expected = await store.create_assessment(
        Expectation(name="answer", value={"x": 1}, trace_id=trace_id, span_id="1")
    )
    assert expected in (await store.get_trace_info(trace_id)).assessments
    for call in (
        store.update_assessment(trace_id, str(expected.assessment_id), feedback=Feedback(name="x")),
        store.update_assessment(
            trace_id,
            first.assessment_id,
            expectation=Expectation(name="x"),
            feedback=Feedback(name="x"),
        ),
        store.create_assessment(Feedback(name="x")),
        store.create_assessment(Assessment(name="x", trace_id=trace_id)),
    ):
        with pytest.raises(InvalidParameterError):
            await call
    for missing in (
        store.get_assessment(trace_id, "a-0"),
        store.get_assessment("nothing", "a-0"),
        store.update_assessment(trace_id, "a-0", name="x"),
        store.create_assessment(Feedback(name="x", trace_id="nothing")),
        store.create_assessment(Feedback(name="x", trace_id=trace_id, overrides="a-0")),
    ):
        with pytest.raises(NotFoundError):
            await missing


@pytest.mark.parametrize("version", SNAPSHOTS)
async def test_traces_on_every_schema(metadata_uri: str, version: str) -> None:
    await create_database(metadata_uri, version)
    async with await MetadataStore.open(metadata_uri, "/nowhere") as store:
        trace_id = new_id()
        tags = {"mlflow.traceName": "n", "t": "v"}
        metadata = {"mlflow.trace.session": "s", "user": "u"}
        started = await store.start_trace(info(trace_id, tags=tags, trace_metadata=metadata))
        assert started.tags.items() >= tags.items()
        assert started.trace_metadata.items() >= metadata.items()
        found = await store.search_traces(
            ["0"],
            "name = 'n' AND metadata.`mlflow.trace.session` = 's' AND tags.t = 'v'",
            order_by=["name", "metadata.`mlflow.trace.session`"],
        )
        assert [each.trace_id for each in found] == [trace_id]
        await store.set_trace_tag(trace_id, "mlflow.traceName", "m")
        await store.delete_trace_tag(trace_id, "mlflow.traceName")
        if version.startswith("2."):
            with pytest.raises(UnsupportedError, match="spans"):
                await store.log_spans("0", [span(trace_id, 1)])
        else:
            usage = {"mlflow.chat.tokenUsage": {"input_tokens": 1}}
            await store.log_spans("0", [span(trace_id, 1, attributes=usage)])
            trace = await store.get_trace(trace_id)
            assert "input_tokens" in trace.info.trace_metadata["mlflow.trace.tokenUsage"]
            await store.create_assessment(Feedback(name="f", value=1, trace_id=trace_id))
        assert await store.delete_traces("0", trace_ids=[trace_id]) == 1


async def test_search_by_what_was_said_of_a_session(store: MetadataStore) -> None:
    other = await store.create_experiment("other")
    metadata = {"mlflow.trace.session": "s"}
    of_session = Feedback(name="polite", value=True, metadata=metadata)
    of_trace = Feedback(name="short", value=True)
    for trace_id, experiment_id, said in (
        ("assessed", "0", (of_session, of_trace)),
        ("sibling", "0", ()),
        ("elsewhere", other, ()),
    ):
        await store.start_trace(
            TraceInfo(trace_id, experiment_id, 1, trace_metadata=metadata, assessments=said)
        )
    await store.start_trace(info("another"))

    async def found(filter_string: str, *experiment_ids: str) -> set[str]:
        return {each.trace_id for each in await store.search_traces(experiment_ids, filter_string)}

    assert await found("feedback.polite = 'true'", "0") == {"assessed", "sibling"}
    assert await found("feedback.short = 'true'", "0") == {"assessed"}
    assert await found("feedback.polite IS NULL", "0") == {"another"}
    # Sessions are those of the experiments that are searched, as in MLflow.
    assert await found("feedback.polite = 'true'", other) == set()
    everywhere = await found("feedback.polite IS NOT NULL", "0", other)
    assert everywhere == {"assessed", "sibling", "elsewhere"}


async def test_spans_of_many_traces_are_a_handful_of_statements(store: MetadataStore) -> None:
    ids = [new_id() for _ in range(30)]
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}
    statements = executed_by(store)
    await store.log_spans("0", [span(each, 1, name="root", status="OK") for each in ids])
    children = [span(each, 2, 1, attributes=usage) for each in ids[:20]]
    await store.log_spans("0", children)
    # MySQL's driver has a statement for each row that is changed.
    assert len([each for each in statements if each[0].startswith("SELECT")]) < 12
    infos = {each.trace_id: each for each in await store.batch_get_trace_infos(ids)}
    for number, trace_id in enumerate(ids):
        trace = await store.get_trace(trace_id)
        assert trace.info == infos[trace_id]
        assert [each.name for each in trace.data.spans] == ["root", "span 2"][: 1 + (number < 20)]
        assert trace.info.execution_duration == 1000 * (1 + (number < 20))
        assert ("mlflow.trace.tokenUsage" in trace.info.trace_metadata) == (number < 20)
        assert trace.info.state == "OK"


async def test_spans_of_many_traces_at_once(store: MetadataStore) -> None:
    ids = [new_id() for _ in range(10)]
    await asyncio.gather(
        *(
            store.log_spans("0", [span(each, number) for each in ids[number % 3 :]])
            for number in range(1, 13)
        )
    )
    for place, trace in enumerate(await store.batch_get_traces(ids)):
        assert len(trace.data.spans) == (4, 8, 12)[min(place, 2)]
