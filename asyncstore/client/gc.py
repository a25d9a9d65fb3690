"""Deletion for good: artifacts first, then the metadata that says where they are."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from asyncstore.concurrency import task_group
from asyncstore.entities import ArtifactOwner, ArtifactOwnerKind
from asyncstore.errors import AsyncStoreError, InvalidStateError, NotFoundError, UnsupportedError
from asyncstore.uris import redact

if TYPE_CHECKING:
    from asyncstore.client.client import Client
    from asyncstore.metadata import MetadataStore

__all__ = ["Removed", "gc"]

# Runs whose artifacts are removed before their metadata is, and removals under way at once.
RUNS_AT_ONCE = 100
MAX_CONCURRENCY = 16


@dataclass
class Removed:
    """What was removed for good, or with `dry_run` would be.

    Args:
        dry_run: Whether nothing was removed.
        runs: Their ids; also those of the experiments.
        logged_models: Their ids; also those of the experiments.
        traces: How many, all of the experiments.
        experiments: Their ids.
        kept: Why something stays, by its kind and id, such as `run 1a2b`.
    """

    dry_run: bool = False
    runs: list[str] = field(default_factory=list)
    logged_models: list[str] = field(default_factory=list)
    traces: int = 0
    experiments: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


async def gc(
    client: Client,
    *,
    older_than: int = 0,
    run_ids: Sequence[str] | None = None,
    experiment_ids: Sequence[str] | None = None,
    logged_model_ids: Sequence[str] | None = None,
    dry_run: bool = False,
    on_removed: Callable[[str, str], None] | None = None,
) -> Removed:
    """Remove deleted runs, experiments and logged models for good, with their artifacts.

    An experiment goes with its runs, and with its logged models and traces whether they were
    deleted or not. Where artifacts cannot be removed, the metadata stays, so that they can be found
    again; nothing else is kept from being removed. What is restored meanwhile stays, but for the
    artifacts of a run that is restored while they are removed.

    As `mlflow gc`, except that ids which are given are all that is removed: MLflow removes, for
    instance, every deleted experiment when only runs are named.

    Args:
        client: Whose database and storages.
        older_than: Milliseconds since the deletion; what was deleted later stays.
        run_ids: Deleted runs; None for every one, unless other ids are given.
        experiment_ids: Deleted experiments; None for every one, unless other ids are given.
        logged_model_ids: Deleted logged models; None for every one, unless other ids are given.
        dry_run: Whether to say what would be removed and remove nothing.
        on_removed: Gets the kind and the id of whatever was removed, or would be; None for nothing.

    Returns:
        What was removed, and what stays for which reason.

    Raises:
        NotFoundError: Something with an id that was given does not exist. Nothing was removed.
        InvalidStateError: It is not deleted, or not long enough ago (`INVALID_PARAMETER_VALUE`).
            Nothing was removed.
        UnsupportedError: The client is over MLflow's file store, which is only read.

    A cancellation leaves some of them removed, some without artifacts, and the rest whole; run it
    again for the rest.
    """
    collection = _Collection(client, older_than, Removed(dry_run), on_removed)
    ids = (run_ids, logged_model_ids, experiment_ids)
    everything = all(each is None for each in ids)
    await collection.collect(*(None if everything else list(each or ()) for each in ids))
    return collection.removed


class _Collection:
    def __init__(
        self,
        client: Client,
        older_than: int,
        removed: Removed,
        on_removed: Callable[[str, str], None] | None,
    ) -> None:
        self.removed = removed
        self._client = client
        self._older_than = older_than
        self._threshold = time.time_ns() // 1_000_000 - older_than
        self._on_removed = on_removed
        self._listed: set[str] = set()
        self._limiter = anyio.CapacityLimiter(MAX_CONCURRENCY)

    async def collect(
        self,
        run_ids: list[str] | None,
        model_ids: list[str] | None,
        experiment_ids: list[str] | None,
    ) -> None:
        """Remove what is named, or for None what is deleted, once all of it is checked."""
        store = await self._client.get_metadata_store()
        if store.read_only and not self.removed.dry_run:
            raise UnsupportedError(
                "MLflow's file store is only read; move it into a database with asyncstore migrate"
            )
        if run_ids is None:
            run_ids = await store.get_deleted_runs(self._older_than)
        else:
            await self._check(store, "run", run_ids)
        if model_ids is None:
            model_ids = await store.get_deleted_logged_models(self._older_than)
        else:
            await self._check(store, "logged_model", model_ids)
        if experiment_ids is None:
            found = await store.get_deleted_experiments(self._older_than)
            experiment_ids = [each for each in found if await self._has_only_deleted(store, each)]
        else:
            for experiment_id in experiment_ids:
                await self._check_experiment(store, experiment_id)
        await self._remove_runs(store, run_ids)
        await self._remove_models(store, model_ids)
        for experiment_id in experiment_ids:
            await self._remove_experiment(store, experiment_id)

    # What may be removed

    async def _check(
        self, store: MetadataStore, kind: ArtifactOwnerKind, ids: Sequence[str]
    ) -> None:
        found: dict[str, ArtifactOwner] = {}
        for begin in range(0, len(ids), RUNS_AT_ONCE):
            some = ids[begin : begin + RUNS_AT_ONCE]
            found |= {owner.id: owner for owner in await store.get_artifact_owners(kind, some)}
        for each in ids:
            what = f"{_words(kind)} {each}"
            if each not in found:
                raise NotFoundError(f"{what} does not exist")
            self._check_stage(what, found[each].lifecycle_stage, found[each].deleted_time)

    async def _check_experiment(self, store: MetadataStore, experiment_id: str) -> None:
        experiment = await store.get_experiment(experiment_id)
        what = f"experiment {experiment_id}"
        self._check_stage(what, experiment.lifecycle_stage, experiment.last_update_time)
        if not await self._has_only_deleted(store, experiment_id):
            raise _refused(self.removed.kept[what])

    def _check_stage(self, what: str, stage: str, deleted_time: int | None) -> None:
        if stage != "deleted":
            raise _refused(f"{what} is not deleted; delete it first, which can be undone")
        if self._older_than and deleted_time is not None and deleted_time > self._threshold:
            ago = (self._threshold + self._older_than - deleted_time) / 1000
            raise _refused(f"{what} was deleted {ago:.0f} s ago, which is not long enough")

    async def _has_only_deleted(self, store: MetadataStore, experiment_id: str) -> bool:
        after = ""
        while page := await store.get_artifact_owners(
            "run", experiment_id=experiment_id, after=after
        ):
            after = page[-1].id
            for run in page:
                if run.lifecycle_stage != "deleted":
                    self.removed.kept[f"experiment {experiment_id}"] = (
                        f"experiment {experiment_id} is deleted and its run {run.id} is not; "
                        "delete the run or restore the experiment"
                    )
                    return False
        return True

    # Removing it

    async def _remove_runs(self, store: MetadataStore, run_ids: Sequence[str]) -> None:
        for begin in range(0, len(run_ids), RUNS_AT_ONCE):
            some = run_ids[begin : begin + RUNS_AT_ONCE]
            await self._remove_some_runs(store, await store.get_artifact_owners("run", some))
        self._listed.update(run_ids)

    async def _remove_some_runs(self, store: MetadataStore, runs: Sequence[ArtifactOwner]) -> bool:
        """Remove runs; returns whether all of them are gone."""
        gone = await self._bare(self._still_deleted(runs))
        if not self.removed.dry_run:
            gone = await self._hard_delete(store, gone)
        for run in gone:
            # Those of an experiment that would be removed may have been listed already.
            if run.id not in self._listed:
                self._say(self.removed.runs, "run", run.id)
        return len(gone) == len(runs)

    async def _hard_delete(
        self, store: MetadataStore, runs: list[ArtifactOwner]
    ) -> list[ArtifactOwner]:
        """Remove the metadata of all runs but those that were restored meanwhile."""
        while True:
            ids = [run.id for run in runs]
            try:
                await store.hard_delete_runs(ids)
            except InvalidStateError:
                found = await store.get_artifact_owners("run", ids)
                runs = self._still_deleted(found, "while its artifacts were removed")
            else:
                return runs

    def _still_deleted(
        self, owners: Sequence[ArtifactOwner], when: str = "meanwhile"
    ) -> list[ArtifactOwner]:
        """Keep what somebody restored, as it was just read; returns the others."""
        for owner in owners:
            if owner.lifecycle_stage != "deleted":
                what = f"{_words(owner.kind)} {owner.id}"
                self.removed.kept[what] = f"{what} was restored {when}"
        return [owner for owner in owners if owner.lifecycle_stage == "deleted"]

    async def _remove_models(self, store: MetadataStore, model_ids: Sequence[str]) -> None:
        for begin in range(0, len(model_ids), RUNS_AT_ONCE):
            some = await store.get_artifact_owners(
                "logged_model", model_ids[begin : begin + RUNS_AT_ONCE]
            )
            for model in await self._bare(self._still_deleted(some)):
                try:
                    await self._remove(lambda id_=model.id: store.hard_delete_logged_model(id_))  # type: ignore[misc]  # bound at once
                except InvalidStateError as error:
                    self.removed.kept[f"logged model {model.id}"] = str(error)
                else:
                    self._say(self.removed.logged_models, "logged_model", model.id)
        self._listed.update(model_ids)

    async def _remove_experiment(self, store: MetadataStore, experiment_id: str) -> None:
        all_gone = True
        kinds: tuple[ArtifactOwnerKind, ...] = ("run", "logged_model", "trace")
        for kind in kinds:
            after = ""
            while page := await store.get_artifact_owners(
                kind, experiment_id=experiment_id, after=after, max_results=RUNS_AT_ONCE
            ):
                after = page[-1].id
                # Its models and traces do not say that they were restored with it.
                experiment = await store.get_experiment(experiment_id)
                if experiment.lifecycle_stage != "deleted":
                    what = f"experiment {experiment_id}"
                    self.removed.kept[what] = f"{what} was restored meanwhile"
                    return
                if kind == "run":
                    all_gone &= await self._remove_some_runs(store, page)
                    continue
                # Their metadata goes with the experiment's.
                bare = await self._bare(page)
                all_gone &= len(bare) == len(page)
                for owner in bare:
                    if kind == "trace":
                        self.removed.traces += 1
                    elif owner.id not in self._listed:
                        self._say(self.removed.logged_models, kind, owner.id)
        if not all_gone:
            self.removed.kept[f"experiment {experiment_id}"] = "not everything in it was removed"
            return
        try:
            await self._remove(lambda: store.hard_delete_experiment(experiment_id))
        except (InvalidStateError, NotFoundError) as error:
            self.removed.kept[f"experiment {experiment_id}"] = str(error)
        else:
            self._say(self.removed.experiments, "experiment", experiment_id)

    async def _remove(self, call: Callable[[], Awaitable[None]]) -> None:
        if not self.removed.dry_run:
            await call()

    async def _bare(self, owners: Sequence[ArtifactOwner]) -> list[ArtifactOwner]:
        """Remove the artifacts; returns those that have none any more, in the same order."""
        if self.removed.dry_run:
            return list(owners)

        async def remove(owner: ArtifactOwner) -> None:
            async with self._limiter:
                try:
                    await self._remove_artifacts(owner.artifact_uri)
                except NotFoundError:
                    pass  # The storage itself is gone, and the artifacts with it.
                except AsyncStoreError as error:
                    self.removed.kept[f"{_words(owner.kind)} {owner.id}"] = str(error)

        async with task_group() as tasks:
            for owner in owners:
                tasks.start_soon(remove, owner)
        return [
            owner for owner in owners if f"{_words(owner.kind)} {owner.id}" not in self.removed.kept
        ]

    async def _remove_artifacts(self, uri: str | None) -> None:
        if uri is None:
            return
        if is_whole_storage(uri):
            raise _refused(f"its artifacts are at {redact(uri)}, which is a whole storage")
        repository = await self._client.get_artifact_repository(uri)
        await repository.delete_artifacts()

    def _say(self, found: list[str], kind: str, id_: str) -> None:
        found.append(id_)
        if self._on_removed is not None:
            self._on_removed(_words(kind), id_)


def is_whole_storage(uri: str) -> bool:
    """Whether a URI names a bucket or the root of a file system, which no run has for itself."""
    return all(part in ("", ".", "..") for part in urlsplit(uri).path.split("/"))


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _refused(message: str) -> InvalidStateError:
    return InvalidStateError(message, error_code="INVALID_PARAMETER_VALUE")
