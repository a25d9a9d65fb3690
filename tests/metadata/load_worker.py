"""One of many processes that log to one database: 16 tasks, calls cancelled in between.

Says, a line of JSON each: what was logged for sure, and that its connections are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from pathlib import Path

from asyncstore.entities import Metric
from asyncstore.metadata import MetadataStore
from tests.metadata.worker import start_together

TASKS = 16
CALLS = 12


async def main(uri: str, run_id: str, number: int, mark: str) -> None:
    await start_together(Path(mark), Path(mark).parent / "go")
    returned: list[list[int]] = []
    runs: list[str] = []
    async with await MetadataStore.open(uri, "/nowhere") as store:

        async def log(task: int) -> None:
            writer = number * TASKS + task
            chance = random.Random(writer)
            runs.append((await store.create_run("0", run_name=f"run {writer}")).info.run_id)
            for step in range(CALLS):
                call = store.log_metric(run_id, Metric("m", float(writer), 1, step))
                if chance.random() < 0.3:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(chance.random() * 0.02):
                            await call
                            returned.append([writer, step])
                    continue
                await call
                returned.append([writer, step])
            await store.set_tag(run_id, f"t{writer}", "done")
            await store.get_run(run_id)

        await asyncio.gather(*(log(task) for task in range(TASKS)))
    sys.stdout.write(json.dumps({"returned": returned, "runs": runs}) + "\n")
    sys.stdout.flush()
    # Until it has been counted that no connection is left.
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
