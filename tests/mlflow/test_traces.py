"""Traces, spans and assessments through MLflow and through asyncstore, on one database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities import AssessmentSource, Expectation, Feedback, TraceInfo, TraceLocation
from mlflow.entities.span import Span as MlflowSpan
from mlflow.entities.trace_state import TraceState
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from asyncstore import entities
from asyncstore.metadata import MetadataStore
from asyncstore.rest.json_spans import span_to_json
from tests.mlflow.error_codes import different_codes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

Both = tuple[MetadataStore, SqlAlchemyStore]


@pytest.fixture
async def both(shared_uri: str, tmp_path: Path) -> AsyncIterator[Both]:
    theirs = SqlAlchemyStore(shared_uri, str(tmp_path))
    async with await MetadataStore.open(shared_uri) as ours:
        yield ours, theirs


def trace_id(number: int) -> str:
    return f"tr-{number:032x}"


def span(number: int, span_number: int, **values: Any) -> entities.Span:
    start = 1_700_000_000_000_000_000 + span_number
    return entities.Span(
        trace_id(number),
        f"{span_number:016x}",
        f"span {span_number}",
        start,
        start + 5_000_000,
        None if span_number == 1 else f"{1:016x}",
        **values,
    )


def theirs_of(ours: entities.Span) -> MlflowSpan:
    return MlflowSpan.from_dict(span_to_json(ours))


def info_as_dict(info: Any) -> dict[str, Any]:
    names = ("trace_id", "experiment_id", "request_time", "execution_duration", "request_preview")
    return {
        **{name: getattr(info, name) for name in (*names, "response_preview", "client_request_id")},
        "state": str(getattr(info.state, "value", info.state)),
        "tags": dict(info.tags),
        "metadata": dict(info.trace_metadata),
        "assessments": sorted(
            (each.name, repr(each.value), each.source.source_type, each.rationale)
            for each in info.assessments
        ),
    }


def span_as_dict(one: Any) -> dict[str, Any]:
    status = one.status if isinstance(one.status, str) else one.status.status_code.value
    return {
        "names": (one.name, one.span_id, one.parent_id, one.span_type),
        "times": (one.start_time_ns, one.end_time_ns),
        "values": (one.inputs, one.outputs, status),
        "events": [(event.name, event.timestamp) for event in one.events],
    }


def spans_of(number: int) -> list[entities.Span]:
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}}
    return [
        span(
            number,
            1,
            inputs={"question": f"Grüße {number}"},
            outputs=["a", 1, None],
            status="OK",
            span_type="CHAIN",
            attributes={"session.id": f"s{number % 2}", "mlflow.traceTag.root": "yes"},
            events=(entities.SpanEvent("e", 7, {"k": "v"}),),
        ),
        span(number, 2, span_type="LLM", status="ERROR", attributes=usage),
    ]


async def fill(ours: MetadataStore, theirs: SqlAlchemyStore) -> None:
    """Traces by both in turn: even numbers by asyncstore, odd ones by MLflow."""
    for number in range(6):
        tags = {"mlflow.traceName": f"Trace {number}", "team": "ab"[number % 2]}
        metadata = {"user": f"u{number}", "mlflow.trace.session": f"s{number % 3}"}
        shared: dict[str, Any] = {
            "request_time": 1000 + number,
            "execution_duration": None if number == 5 else number,
            "client_request_id": f"c{number}",
            "request_preview": "q",
            "response_preview": "r",
        }
        state = "ERROR" if number > 2 else "OK"
        if number % 2:
            theirs.start_trace(
                TraceInfo(
                    trace_id=trace_id(number),
                    trace_location=TraceLocation.from_experiment_id("0"),
                    state=TraceState(state),
                    tags=tags,
                    trace_metadata=metadata,
                    assessments=[
                        Feedback(
                            name="score",
                            value=number / 2,
                            source=AssessmentSource("HUMAN", "me"),
                            rationale="why",
                        )
                    ],
                    **shared,
                )
            )
            theirs.log_spans("0", [theirs_of(each) for each in spans_of(number)])
            theirs.create_assessment(
                Expectation(name="expected", value="yes", trace_id=trace_id(number))
            )
        else:
            feedback = entities.Feedback(
                name="score",
                value=number / 2,
                source=entities.AssessmentSource("HUMAN", "me"),
                rationale="why",
            )
            await ours.start_trace(
                entities.TraceInfo(
                    trace_id(number),
                    "0",
                    state=state,  # type: ignore[arg-type]  # one of the states
                    tags=tags,
                    trace_metadata=metadata,
                    assessments=(feedback,),
                    **shared,
                )
            )
            await ours.log_spans("0", spans_of(number))
            expectation = entities.Expectation(
                name="expected", value="no", trace_id=trace_id(number)
            )
            await ours.create_assessment(expectation)
    # And traces that nobody started.
    await ours.log_spans("0", spans_of(10))
    theirs.log_spans("0", [theirs_of(each) for each in spans_of(11)])


async def test_each_reads_what_the_other_wrote(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    for number in (*range(6), 10, 11):
        mine, other = await ours.get_trace(trace_id(number)), theirs.get_trace(trace_id(number))
        assert info_as_dict(mine.info) == info_as_dict(other.info), number
        assert [span_as_dict(each) for each in mine.data.spans] == [
            span_as_dict(each) for each in other.data.spans
        ]
        assert [span_as_dict(each) for each in mine.data.spans] == [
            span_as_dict(each) for each in spans_of(number)
        ]
    # What each makes of the same spans is the same.
    made = [info_as_dict(await ours.get_trace_info(trace_id(number))) for number in (10, 11)]
    for one in made:
        one.pop("trace_id")
        one["tags"].pop("mlflow.artifactLocation")
        one.pop("request_preview")
    made[0]["metadata"]["mlflow.trace.session"] = made[1]["metadata"]["mlflow.trace.session"]
    assert made[0] == made[1]


SEARCHES: list[tuple[str | None, list[str]]] = [
    (None, []),
    ("status = 'ERROR'", ["timestamp ASC"]),
    ("trace.status != 'ERROR'", ["name DESC"]),
    ("timestamp_ms > 1001 AND timestamp <= 1004", []),
    ("execution_time >= 2", ["execution_time ASC"]),
    ("end_time > 1004", []),
    ("client_request_id IN ('c1', 'c4')", []),
    ("name = 'Trace 3'", []),
    ("name LIKE 'Trace%' AND tags.team = 'a'", ["tags.team", "timestamp ASC"]),
    ("name ILIKE 'TRACE 2'", []),
    ("name RLIKE '^Trace [12]$'", []),
    ("tags.team IS NOT NULL", ["metadata.user DESC"]),
    ("tags.team IS NULL", []),
    ("metadata.user != 'u1'", []),
    ("request_metadata.user LIKE 'u%'", []),
    ("metadata.`mlflow.trace.session` = 's0'", []),
    ("span.name = 'span 2' AND span.type = 'LLM'", []),
    ("span.status = 'ERROR'", []),
    ("span.name = 'span 1' AND span.type = 'LLM'", []),
    ("trace.text LIKE '%Grüße 4%'", []),
    ("span.content ILIKE '%QUESTION%'", []),
    ("feedback.score > 1", []),
    ("feedback.score = '0.5'", []),
    ("expectation.expected = 'yes'", []),
    ("expectation.expected != 'yes'", []),
    ("feedback.score = '2'", []),
    ("feedback.score != '2.0'", []),
    ("feedback.score RLIKE '^2'", []),
    ("feedback.nothing IS NULL", []),
    ("expectation.expected IS NOT NULL", []),
]


async def test_searches_find_the_same(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    for text, order in SEARCHES:
        mine = await ours.search_traces(["0"], text, order_by=order)
        other, _ = theirs.search_traces(["0"], text, order_by=order)
        assert [info_as_dict(each) for each in mine] == [info_as_dict(each) for each in other], text


async def test_bad_calls_get_the_same_error_codes(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    one = trace_id(1)
    calls: list[tuple[Any, Any]] = [
        (lambda: ours.get_trace_info("tr-x"), lambda: theirs.get_trace_info("tr-x")),
        (
            lambda: ours.set_trace_tag(one, "a//b", "b"),
            lambda: theirs.set_trace_tag(one, "a//b", "b"),
        ),
        (lambda: ours.delete_trace_tag(one, "x"), lambda: theirs.delete_trace_tag(one, "x")),
        (lambda: ours.delete_traces("0"), lambda: theirs.delete_traces("0")),
        (
            lambda: ours.delete_traces("0", max_timestamp_millis=1, trace_ids=["x"]),
            lambda: theirs.delete_traces("0", max_timestamp_millis=1, trace_ids=["x"]),
        ),
        (
            lambda: ours.delete_traces("0", max_timestamp_millis=1, max_traces=0),
            lambda: theirs.delete_traces("0", max_timestamp_millis=1, max_traces=0),
        ),
        (lambda: ours.get_assessment(one, "a-x"), lambda: theirs.get_assessment(one, "a-x")),
        (lambda: ours.delete_assessment(one, "a-x"), lambda: theirs.delete_assessment(one, "a-x")),
        (
            lambda: ours.link_traces_to_run(["x"] * 101, "r"),
            lambda: theirs.link_traces_to_run(["x"] * 101, "r"),
        ),
    ]
    bad = (
        *("nothing = 'x'", "status > 'x'", "timestamp = 'x'", "span.x = 'y'", "prompt != 'x'"),
        *("prompt = 'x'", "text LIKE '%x%'", "name IN ('x')", "run_id NOT IN ('x')"),
        *("feedback.score = 2", "feedback.score > '2'", "expectation.expected IN ('yes')"),
    )
    calls += [
        (
            lambda t=text: ours.search_traces(["0"], t),
            lambda t=text: theirs.search_traces(["0"], t),
        )
        for text in bad
    ]
    assert await different_codes(calls) == []


async def test_deletion_is_the_same(both: Both) -> None:
    ours, theirs = both
    await fill(ours, theirs)
    assert await ours.delete_traces("0", max_timestamp_millis=1002, max_traces=2) == 2
    assert theirs.delete_traces("0", max_timestamp_millis=1002) == 1
    left, _ = theirs.search_traces(["0"], "timestamp < 2000")
    assert {each.trace_id for each in left} == {trace_id(number) for number in (3, 4, 5)}
    now = int(time.time() * 1000)
    assert await ours.delete_traces("0", max_timestamp_millis=now) == 5
