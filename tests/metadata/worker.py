"""Run as a process of its own by the tests: does one thing to a database and says how it went."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from asyncstore.entities import Metric, Param
from asyncstore.errors import AsyncStoreError
from asyncstore.metadata import MetadataStore


async def main(what: str, uri: str, number: int, argument: str) -> None:
    ready, go = Path(argument), Path(argument).parent / "go"
    if what != "log":
        await start_together(ready, go)
    async with await MetadataStore.open(uri, "/nowhere") as store:
        if what == "create":
            experiment = await store.get_or_create_experiment("shared", tags={"a": "b"})
            try:
                await store.create_experiment("contested")
                result = "created"
            except AsyncStoreError as error:
                result = error.error_code
            print(experiment.experiment_id, result, flush=True)
        elif what == "write":
            await write_much(store, number)
        elif what == "log":
            step = 0
            while True:
                await store.log_metric(argument, Metric("m", 1.0, step, step))
                print(step, flush=True)
                step += 1


async def start_together(ready: Path, go: Path) -> None:
    ready.touch()
    while not go.exists():
        await asyncio.sleep(0.001)


async def write_much(store: MetadataStore, number: int) -> None:
    """Half of it all at once, half of it in a row; one param that only one process can win."""
    (run,) = await store.search_runs(["0"])
    run_id = run.info.run_id
    await asyncio.gather(
        *(
            store.log_metric(run_id, Metric(f"m{step % 5}", float(step), number, step))
            for step in range(100)
        )
    )
    for step in range(100, 150):
        await store.log_metric(run_id, Metric(f"m{step % 5}", float(step), number, step))
        await store.set_tag(run_id, f"t{step % 5}", f"{number} {step}")
    try:
        await store.log_param(run_id, Param("winner", str(number)))
        print("won", number, flush=True)
    except AsyncStoreError as error:
        print(error.error_code, number, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
