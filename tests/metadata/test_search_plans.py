"""What does not depend on a run or trace is looked up once in a search."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from asyncstore.entities import Dataset, DatasetInput, Feedback, TraceInfo
from tests.metadata.test_load import executed_by, plan_of

if TYPE_CHECKING:
    from asyncstore.metadata import MetadataStore

pytestmark = pytest.mark.anyio

# A list that SQLite, MariaDB and PostgreSQL make again for each row.
EACH_ROW = re.compile(r"CORRELATED LIST|DEPENDENT|(?<!hashed )SubPlan \d+\)")
# And an EXISTS of SQLite, which is as slow where no index has the whole key.
EACH_RUN = re.compile(EACH_ROW.pattern + "|CORRELATED")
# Few rows, and MariaDB makes a list for each.
MANY = 20
SESSION = "mlflow.trace.session"


async def plan_of_search(store: MetadataStore, search: Any) -> list[str]:
    statements = executed_by(store)
    assert await search
    statement, values = next(each for each in statements if each[0].startswith("SELECT"))
    return await plan_of(store, statement, values)


@pytest.mark.parametrize("key", ["name = 'digits'", "digest IN ('a', 'b')", "context != 'test'"])
async def test_datasets(store: MetadataStore, run_id: str, key: str) -> None:
    dataset = Dataset("digits", "a", "local", "{}")
    await store.log_inputs(run_id, [DatasetInput(dataset, {"mlflow.data.context": "train"})])
    for line in await plan_of_search(store, store.search_runs(["0"], f"dataset.{key}")):
        assert not EACH_RUN.search(line)


@pytest.mark.parametrize("condition", ["f > 0.5", "f = '1.0'", "f IS NOT NULL", "g IS NULL"])
async def test_feedback(store: MetadataStore, condition: str) -> None:
    session = {SESSION: "s"}
    said = Feedback(name="f", value=1.0, metadata=session)
    for number in range(MANY):
        trace = TraceInfo(f"t{number}", "0", number, trace_metadata=session, assessments=(said,))
        await store.start_trace(trace)
    for line in await plan_of_search(store, store.search_traces(["0"], f"feedback.{condition}")):
        assert not EACH_ROW.search(line)
