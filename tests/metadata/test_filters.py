from __future__ import annotations

import math
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncstore.errors import InvalidParameterError
from asyncstore.metadata import page_tokens
from asyncstore.metadata.filters import (
    EXPERIMENTS,
    RUNS,
    Comparison,
    Ordering,
    parse_filter,
    parse_order_by,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.acc > 0.5", Comparison("metric", "acc", ">", 0.5)),
        ("metric.acc<=-1e3", Comparison("metric", "acc", "<=", -1000.0)),
        ("metrics.a.b = .5", Comparison("metric", "a.b", "=", 0.5)),
        ('metrics."val loss" != 1', Comparison("metric", "val loss", "!=", 1)),
        ("metrics.`a/b` < 1", Comparison("metric", "a/b", "<", 1)),
        ("`metrics`.`a` < 1", Comparison("metric", "a", "<", 1)),
        ("params.lr = '0.1'", Comparison("param", "lr", "=", "0.1")),
        ('param.lr = "0.1"', Comparison("param", "lr", "=", "0.1")),
        ("parameter.lr != 'it''s'", Comparison("param", "lr", "!=", "it's")),
        ('parameters.lr = "it\'s"', Comparison("param", "lr", "=", "it's")),
        ('params.lr = "say ""a"""', Comparison("param", "lr", "=", 'say "a"')),
        ("params.lr = 'C:\\'", Comparison("param", "lr", "=", "C:\\")),
        ("params.like LIKE '%x_'", Comparison("param", "like", "LIKE", "%x_")),
        ("tags.and ilike 'A%'", Comparison("tag", "and", "ILIKE", "A%")),
        ("tag.mlflow.source.name = 'x'", Comparison("tag", "mlflow.source.name", "=", "x")),
        ("tags.x IS  NOT\nNULL", Comparison("tag", "x", "IS NOT NULL", None)),
        ("params.x is null", Comparison("param", "x", "IS NULL", None)),
        ("status = 'FINISHED'", Comparison("attribute", "status", "=", "FINISHED")),
        ("attr.run_id IN ('a')", Comparison("attribute", "run_id", "IN", ("a",))),
        (
            "run.run_id not in ('a', \"b\",)",
            Comparison("attribute", "run_id", "NOT IN", ("a", "b")),
        ),
        ("attributes.`Run name` = 'x'", Comparison("attribute", "run_name", "=", "x")),
        ("`run name` = 'x'", Comparison("attribute", "run_name", "=", "x")),
        ("Created >= 12", Comparison("attribute", "start_time", ">=", 12)),
        ("end_time < 1.5", Comparison("attribute", "end_time", "<", 1.5)),
        ("datasets.name IN ('a', 'b')", Comparison("dataset", "name", "IN", ("a", "b"))),
        ("dataset.context = 'train'", Comparison("dataset", "context", "=", "train")),
    ],
)
def test_comparisons_of_runs(text: str, expected: Comparison) -> None:
    assert parse_filter(text, RUNS) == [expected]


def test_and_joins() -> None:
    found = parse_filter(" metrics.a > 1 and params.b = ' and ' AND tags.c is null ", RUNS)
    assert [comparison.key for comparison in found] == ["a", "b", "c"]
    assert parse_filter(None, RUNS) == parse_filter("  ", RUNS) == []


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("metrics.a > 1 OR metrics.b > 2", 15, "OR is not possible"),
        ("metrics.a > ", 13, "a number"),
        ("metrics.a", 10, "an operator"),
        ("metrics.a > 'x'", 13, "a number, without quotes"),
        ("params.a = 1", 12, "a quoted text"),
        ("params.a = 'x", 12, "not closed"),
        ("params.a = x", 12, "a quoted text"),
        ("params.a > 'x'", 1, "does not allow >"),
        ("params.a IN ('x')", 1, "does not allow IN"),
        ("metrics.a LIKE 'x'", 16, "a number"),
        ("metrics.a IS NULL", 1, "does not allow IS NULL"),
        ("nothing.a = 'x'", 1, "no prefix 'nothing'"),
        ("nothing = 'x'", 1, "no attribute 'nothing'"),
        ("attributes.lifecycle_stage = 'x'", 1, "no attribute"),
        ("attributes.status IN ('x')", 1, "does not allow IN"),
        ("datasets.profile = 'x'", 1, "no dataset"),
        ("run_id IN ()", 12, "a quoted text"),
        ("run_id IN ('a' 'b')", 16, "a closing parenthesis"),
        ("run_id IN 'a'", 11, "a list"),
        ("metrics.a-b > 1", 10, "an operator"),
        ("metrics.a > 1 metrics.b > 1", 15, "AND"),
        ("AND", 4, "an operator"),
        ("metrics.a > 1 AND", 18, "a key"),
        ("(metrics.a > 1)", 1, "a key"),
        ("metrics.a == 1", 12, "a number"),
        ("metrics.a > 1x", 13, "a number"),
        ("start_time = '1'", 14, "a number"),
        ("metrics.a > 1;", 14, "AND"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, words: str) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        parse_filter(text, RUNS)
    message, line, caret = caught.value.message.split("\n")
    assert message.startswith(f"filter_string, column {column}: ")
    assert words in message
    assert line[4:] == text
    assert caret.index("^") - 4 == column - 1


@pytest.mark.parametrize(
    "text",
    [
        "metrics.a > 1",
        "tag.a IN ('x')",
        "experiment_id = 1",
        "experiment_id LIKE '1'",
        "name IN ('x')",
        "name > 'x'",
        "creation_time = 1.5",
        "creation_time = 99999999999999999999",
        "attributes.name = 'x'",
        "name IS NULL",
    ],
)
def test_what_experiments_do_not_allow(text: str) -> None:
    with pytest.raises(InvalidParameterError, match="filter_string, column"):
        parse_filter(text, EXPERIMENTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.a", Ordering("metric", "a", ascending=True)),
        ("metrics.`a b` DESC", Ordering("metric", "a b", ascending=False)),
        (" param.a asc ", Ordering("param", "a", ascending=True)),
        ("tags.desc desc", Ordering("tag", "desc", ascending=False)),
        ("Created DESC", Ordering("attribute", "start_time", ascending=False)),
        ("run_name", Ordering("attribute", "run_name", ascending=True)),
    ],
)
def test_order_by(text: str, expected: Ordering) -> None:
    assert parse_order_by(text, RUNS) == expected


@pytest.mark.parametrize(
    "text",
    ["", "a", "metrics.a DOWN", "metrics.a ASC DESC", "datasets.name", "`Run name`", "a.b.c"],
)
def test_bad_order_by(text: str) -> None:
    with pytest.raises(InvalidParameterError, match="order_by, column"):
        parse_order_by(text, RUNS)


keys = st.text(min_size=1).filter(lambda key: "`" not in key)
texts = st.text()
floats = st.floats(allow_nan=False, allow_infinity=False)


def quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, quote * 2) + quote


def words(*choices: str) -> st.SearchStrategy[str]:
    cased = [case(choice) for choice in choices for case in (str.upper, str.lower)]
    return st.sampled_from(cased)


comparisons = st.one_of(
    st.builds(
        lambda prefix, key, operator, value, space: (
            f"{prefix}.`{key}`{space}{operator}{space}{value!r}",
            Comparison("metric", key, operator, value),
        ),
        st.sampled_from(["metric", "metrics"]),
        keys,
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.one_of(floats, st.integers(-(2**63), 2**63 - 1)),
        st.sampled_from(["", " ", "\n "]),
    ),
    st.builds(
        lambda prefix, key, operator, value, quote: (
            f"{prefix[0]}.`{key}` {operator} {quoted(value, quote)}",
            Comparison(prefix[1], key, operator.upper(), value),
        ),
        st.sampled_from([("param", "param"), ("parameters", "param"), ("tags", "tag")]),
        keys,
        words("=", "!=", "like", "ilike"),
        texts,
        st.sampled_from(["'", '"']),
    ),
    st.builds(
        lambda operator, values: (
            f"run_id {operator} ({', '.join(quoted(value, chr(39)) for value in values)})",
            Comparison("attribute", "run_id", operator.upper(), tuple(values)),
        ),
        words("in", "not in"),
        st.lists(texts, min_size=1),
    ),
)


@given(st.lists(comparisons, min_size=1, max_size=5))
def test_whatever_is_written_is_read_back(parts: list[tuple[str, Comparison]]) -> None:
    text = " AND ".join(text for text, _ in parts)
    found = parse_filter(text, RUNS)
    assert found == [comparison for _, comparison in parts]
    for ours, (_, theirs) in zip(found, parts, strict=True):
        if isinstance(theirs.value, float):
            assert math.copysign(1, theirs.value) == math.copysign(1, float(str(ours.value)))


pieces = st.sampled_from(
    [
        *("metrics.a", "params.", "tags", ".", "`", '"', "'", "(", ")", ",", "=", "!=", "<", "-"),
        *(
            "LIKE",
            "IN",
            "NOT",
            "IS",
            "NULL",
            "AND",
            "OR",
            "1",
            "1e999",
            "9" * 5000,
            " ",
            "\n",
            "\\",
        ),
        *("run_id", "start_time", "'x'", "\0", "é", "\ud800"),
    ]
)


@given(st.one_of(st.text(), st.text(string.printable), st.lists(pieces).map("".join)))
@example("start_time = " + "9" * 5000)
@example("metrics.a = 1e999999")
@example("start_time = 1e999")
def test_nothing_else_than_our_error(text: str) -> None:
    for vocabulary in (RUNS, EXPERIMENTS):
        for parse in (parse_filter, parse_order_by):
            try:
                parse(text, vocabulary)
            except InvalidParameterError as error:
                assert "column" in error.message  # noqa: PT017  the error is allowed, not required


@given(st.integers(1, 2**63 - 1))
def test_offsets_survive(offset: int) -> None:
    assert page_tokens.read_offset(page_tokens.write_offset(offset)) == offset


@given(st.one_of(st.text(), st.binary().map(lambda some: some.decode("latin-1"))))
def test_other_tokens_are_refused(token: str) -> None:
    for read in (page_tokens.read_offset, page_tokens.read_metric):
        if token:
            with pytest.raises(InvalidParameterError, match="page_token"):
                read(token)
