"""MLflow's plugins inside asyncstore, by `await`.

    pip install asyncstore PACKAGES_WITH_PLUGINS
    asyncstore plugins
    python examples/mlflow_plugins_in_asyncstore.py SCHEME://SOME/WHERE

Run context providers that are installed tag each run, and a scheme that asyncstore does not have is
served by the artifact plugin that has it, many files at once. Nothing is registered and nothing is
imported for that here: the packages' entry points say it, as they do for MLflow. MLflow itself has
to be installed only if a plugin needs it.

Two small plugins are in this repository:

    pip install ./tests/plugins/workshop ./tests/plugins/cellar
    python examples/mlflow_plugins_in_asyncstore.py cellar:///tmp/cellar
"""

from __future__ import annotations

import sys

import anyio

import asyncstore


async def main(artifact_location: str) -> str:
    """Log a run whose artifacts a plugin keeps; returns its id."""
    async with asyncstore.Client(artifact_location=artifact_location) as client:
        async with client.start_run(experiment_name="plugins") as run:
            await run.log_metrics({"loss": 0.5})
            async with anyio.create_task_group() as uploads:
                for number in range(3):
                    uploads.start_soon(run.log_text, f"part {number}\n", f"parts/{number}.txt")

        run_id = run.run_id
        for key, value in sorted((await client.get_run(run_id)).data.tags.items()):
            print(f"{key} = {value}")
        for entry in await client.list_artifacts(run_id, "parts"):
            print(f"{entry.path}: {entry.file_size} bytes")
        return run_id


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
