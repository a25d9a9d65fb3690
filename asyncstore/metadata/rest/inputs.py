"""Datasets, and what runs read and make, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from asyncstore.entities import DatasetInput, DatasetSummary, LoggedModelInput, LoggedModelOutput
from asyncstore.metadata import validation
from asyncstore.metadata.rest.base import API, UI_API, RestBase, chunks
from asyncstore.rest.json_fields import messages, optional_text, text
from asyncstore.rest.json_tracking import dataset_input_to_json

__all__ = ["RestInputs"]

# MLflow's server takes no more experiments at once.
EXPERIMENTS_AT_ONCE = 20
MAX_DATASET_SUMMARIES = 1000


class RestInputs(RestBase):
    """The methods of a store that concern datasets, and what runs read and make."""

    @override
    async def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[LoggedModelInput] | None = None,
    ) -> None:
        validation.run_id(run_id)
        for dataset in datasets or ():
            validation.dataset_input(dataset)
        wanted = {
            "run_id": run_id,
            "datasets": [dataset_input_to_json(dataset) for dataset in datasets or ()],
            "models": [{"model_id": model.model_id} for model in models or ()],
        }
        await self._post(f"{API}/runs/log-inputs", wanted, repeatable=True)

    @override
    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        validation.run_id(run_id)
        wanted = {
            "run_id": run_id,
            "models": [{"model_id": model.model_id, "step": model.step} for model in models],
        }
        await self._post(f"{API}/runs/outputs", wanted, repeatable=True)

    @override
    async def search_datasets(self, experiment_ids: Sequence[str]) -> list[DatasetSummary]:
        summaries: list[DatasetSummary] = []
        for some in chunks(experiment_ids, EXPERIMENTS_AT_ONCE):
            wanted = {"experiment_ids": list(some)}
            found = await self._post(
                f"{UI_API}/experiments/search-datasets", wanted, repeatable=True
            )
            summaries.extend(
                DatasetSummary(
                    text(each, "experiment_id"),
                    text(each, "name"),
                    text(each, "digest"),
                    optional_text(each, "context") or None,
                )
                for each in messages(found, "dataset_summaries")
            )
        return summaries[:MAX_DATASET_SUMMARIES]
