"""Pages through the history and the runs of a full database; says by how much its memory grew."""

from __future__ import annotations

import asyncio
import json
import resource
import sys

from asyncstore.metadata import MetadataStore

POINTS = 25_000
RUNS = 1_000
RUN_PAGES = 5


def highest_memory() -> int:
    """Bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


async def main(uri: str, run_id: str) -> None:
    async with await MetadataStore.open(uri, "/nowhere") as store:

        async def points(pages: float) -> int:
            count, token = 0, None
            while pages > 0:
                page = await store.get_metric_history(run_id, "loss", POINTS, token)
                count += len(page)
                if (token := page.token) is None:
                    break
                pages -= 1
            return count

        async def runs(pages: int) -> int:
            count, token = 0, None
            for _ in range(pages):
                page = await store.search_runs(["0"], max_results=RUNS, page_token=token)
                count += len(page)
                if (token := page.token) is None:
                    break
            return count

        await points(2)
        await runs(2)
        before = highest_memory()
        found = {"points": await points(float("inf")), "runs": await runs(RUN_PAGES)}
        grown = highest_memory() - before
    sys.stdout.write(json.dumps({**found, "grown": grown}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
