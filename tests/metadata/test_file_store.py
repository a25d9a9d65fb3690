"""MLflow's file store, read: what is in it, and what is broken in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncstore.entities import Metric, Param
from asyncstore.errors import InvalidParameterError, NotFoundError, UnsupportedError
from asyncstore.metadata import MetadataStore
from asyncstore.metadata.file_store import FileStore
from asyncstore.metadata.file_store.entries import Entry
from tests.metadata import mlruns


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "mlruns"


class Reader:
    """A file store read to its end."""

    def __init__(self, root: Path) -> None:
        self.warnings: list[str] = []
        self.store = FileStore(root, self.warnings.append)
        self.experiments = list(self.store.experiments())
        self.runs = [run for each in self.experiments for run in self.store.runs(each)]
        self.metrics = {run.name: list(self.store.metrics(run)) for run in self.runs}
        self.models = list(self.store.registered_models())

    @property
    def names(self) -> list[str]:
        return [each.name for each in (*self.experiments, *self.runs, *self.models)]


def only(entry: Entry, table: str) -> dict[str, Any]:
    (row,) = entry.rows[table]
    return row


def pairs(entry: Entry, table: str) -> dict[str, str]:
    return {row["key"]: row["value"] for row in entry.rows[table]}


def test_everything(root: Path) -> None:
    first = mlruns.experiment(root, 1, "first")
    mlruns.write(first / "tags" / "team", "a")
    mlruns.run(first, "a" * 32)
    mlruns.model(root, "model", versions=2)
    found = Reader(root)
    assert found.warnings == []
    assert found.names == ["first", "a" * 32, "model"]
    assert only(found.experiments[0], "experiments") == {
        "experiment_id": 1,
        "name": "first",
        "artifact_location": f"{root.as_uri()}/1",
        "lifecycle_stage": "active",
        "creation_time": 1001,
        "last_update_time": 2001,
    }
    assert pairs(found.experiments[0], "experiment_tags") == {"team": "a"}
    run = only(found.runs[0], "runs")
    assert run["run_uuid"] == "a" * 32
    assert run["name"] == f"name of {'a' * 32}"
    assert (run["status"], run["source_type"], run["user_id"]) == ("FINISHED", "LOCAL", "me")
    assert (run["start_time"], run["end_time"], run["deleted_time"]) == (10, 20, None)
    assert pairs(found.runs[0], "params") == {"solver": "adam"}
    assert pairs(found.runs[0], "tags") == {
        "deep/er": "tag\nof two lines",
        "mlflow.runName": f"name of {'a' * 32}",
    }
    assert [
        (row["key"], row["value"], row["timestamp"], row["step"], row["is_nan"])
        for row in found.metrics["a" * 32]
    ] == [
        ("loss", 0.5, 11, 0, False),
        ("loss", 0.25, 12, 1, False),
        ("loss", 0.125, 13, 2, False),
        ("val/acc", 0.0, 11, 0, True),
    ]
    model = found.models[0]
    assert only(model, "registered_models")["description"] == "what it is"
    assert pairs(model, "registered_model_tags") == {"team": "a"}
    assert [row["source"] for row in model.rows["model_versions"]] == [
        "s3://bucket/1",
        "s3://bucket/2",
    ]
    assert only(model, "registered_model_aliases")["version"] == 1


def test_deleted_ones(root: Path) -> None:
    kept = mlruns.experiment(root, 1, "kept")
    mlruns.run(kept, "a" * 32, lifecycle_stage="deleted", deleted_time=30)
    gone = mlruns.experiment(root, 2, "gone", deleted=True)
    mlruns.run(gone, "b" * 32, lifecycle_stage="deleted", deleted_time=40)
    found = Reader(root)
    stages = [only(each, "experiments")["lifecycle_stage"] for each in found.experiments]
    assert stages == ["active", "deleted"]
    runs = [only(run, "runs") for run in found.runs]
    assert [(run["lifecycle_stage"], run["deleted_time"]) for run in runs] == [
        ("deleted", 30),
        ("deleted", 40),
    ]
    # The artifacts of a deleted experiment were moved with it.
    assert runs[0]["artifact_uri"] == f"{root.as_uri()}/1/{'a' * 32}/artifacts"
    assert runs[1]["artifact_uri"] == f"{root.as_uri()}/.trash/2/{'b' * 32}/artifacts"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "has no meta.yaml"),
        ("", "meta.yaml is empty"),
        ("- a\n- b\n", "meta.yaml is not a mapping"),
        ("name: 'cut o", "meta.yaml cannot be read"),
        ("a: [1, 2\nname: x", "meta.yaml cannot be read"),
        ("a: \x00\x01", "meta.yaml cannot be read"),
        ("a: !!python/object:os.system {}\n", "meta.yaml cannot be read"),
        ("unrelated: 1\n", "says that it is|has no"),
    ],
)
def test_broken_meta_files(root: Path, text: str | None, reason: str) -> None:
    first = mlruns.experiment(root, 1, "first")
    mlruns.run(first, "a" * 32)
    mlruns.model(root, "model", versions=2)
    broken = {
        "experiment": root / "7",
        "run": first / ("b" * 32),
        "registered model": root / "models" / "broken",
        "model version": root / "models" / "model" / "version-2",
        "logged model": first / "models" / "m-1",
    }
    for directory in broken.values():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "meta.yaml").unlink(missing_ok=True)
        if text is not None:
            (directory / "meta.yaml").write_text(text)
    found = Reader(root)
    assert found.names == ["first", "a" * 32, "model"]
    assert [row["version"] for row in found.models[0].rows["model_versions"]] == [1]
    assert list(found.store.logged_models(found.experiments[0])) == []
    assert len(found.warnings) == len(broken)
    for kind, directory in broken.items():
        (warning,) = (each for each in found.warnings if each.startswith(f"{kind} {directory}:"))
        assert any(word in warning for word in reason.split("|")), warning
        assert warning.endswith("left out")


@pytest.mark.parametrize(
    "values",
    [
        {"status": 99},
        {"status": "DREAMING"},
        {"status": [1]},
        {"start_time": "yesterday"},
        {"start_time": 2**70},
        {"end_time": float("inf")},
        {"lifecycle_stage": "undead"},
        {"run_id": "another"},
        {"experiment_id": "2"},
        {"artifact_uri": ["a"]},
    ],
)
def test_meta_files_that_make_no_sense(root: Path, values: dict[str, Any]) -> None:
    first = mlruns.experiment(root, 1, "first")
    mlruns.run(first, "a" * 32)
    broken = mlruns.run(first, "b" * 32, **values)
    found = Reader(root)
    assert [run.name for run in found.runs] == ["a" * 32]
    (warning,) = found.warnings
    assert str(broken) in warning


@pytest.mark.parametrize(
    "line",
    ["", "12", "12 x 1", "a 0.5 1", "12 0.5 1.5", f"{2**70} 0.5 1", f"12 0.5 {2**70}"],
)
def test_broken_values_of_metrics(root: Path, line: str) -> None:
    run = mlruns.run(mlruns.experiment(root, 1, "first"), "a" * 32)
    broken = mlruns.write(run / "metrics" / "broken", line)
    mlruns.write(run / "metrics" / "half", f"12 0.5 1\n{line}\n13 0.5 2")
    found = Reader(root)
    rows = found.metrics["a" * 32]
    assert [row["step"] for row in rows if row["key"] == "half"] == [1, 2]
    assert [row for row in rows if row["key"] == "broken"] == []
    assert str(broken) in found.warnings[0]
    # A line with nothing in it is no value; a file with nothing in it is what a kill leaves.
    assert len(found.warnings) == (2 if line else 1)


def test_older_lines_of_metrics(root: Path) -> None:
    run = mlruns.run(mlruns.experiment(root, 1, "first"), "a" * 32)
    mlruns.write(run / "metrics" / "loss", "1 0.5\n2 -inf 3\n3 1e400 4\n4 1 5 iris abc\n")
    rows = [row for row in Reader(root).metrics["a" * 32] if row["key"] == "loss"]
    assert [(row["value"], row["step"]) for row in rows] == [
        (0.5, 0),
        (-1.7976931348623157e308, 3),
        (1.7976931348623157e308, 4),
        (1.0, 5),
    ]


def test_texts_that_are_none(root: Path) -> None:
    run = mlruns.run(mlruns.experiment(root, 1, "first"), "a" * 32)
    (run / "params" / "bytes").write_bytes(b"\xff\xfe\x00")
    (run / "params" / "dangling").symlink_to(run / "nowhere")
    found = Reader(root)
    assert pairs(found.runs[0], "params") == {"solver": "adam"}
    assert sorted(warning.split(":")[0] for warning in found.warnings) == [
        str(run / "params" / "bytes"),
        str(run / "params" / "dangling"),
    ]


def test_meta_files_of_mlflow_1(root: Path) -> None:
    """No name, no times, the id a number, the status missing, its id called run_uuid."""
    first = mlruns.experiment(root, 0, "Default")
    old = {"experiment_id": 0, "name": "Default", "artifact_location": "./mlruns/0"}
    mlruns.write(first / "meta.yaml", yaml.safe_dump(old))
    run = mlruns.run(first, "a" * 32)
    values = {"run_uuid": "a" * 32, "experiment_id": 0, "artifact_uri": "mlruns/0/x/artifacts"}
    mlruns.write(run / "meta.yaml", yaml.safe_dump(values))
    found = Reader(root)
    assert found.warnings == []
    experiment, row = only(found.experiments[0], "experiments"), only(found.runs[0], "runs")
    assert experiment["artifact_location"] == str(root.parent / "mlruns" / "0")
    assert experiment["creation_time"] is None
    assert row["artifact_uri"] == str(root.parent / "mlruns" / "0" / "x" / "artifacts")
    assert (row["status"], row["source_type"]) == ("RUNNING", "UNKNOWN")
    assert row["name"] == f"name of {'a' * 32}"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("/abs/olute", "/abs/olute"),
        ("file:///abs/olute", "file:///abs/olute"),
        ("rel/ative", "{base}/rel/ative"),
        ("./rel/ative", "{base}/rel/ative"),
        ("file:rel/ative", "file://{base}/rel/ative"),
        ("mlflow-artifacts:/1/2", "mlflow-artifacts:/1/2"),
    ],
)
def test_artifact_uris(root: Path, written: str, read: str) -> None:
    run = mlruns.run(mlruns.experiment(root, 1, "first"), "a" * 32, artifact_uri=written)
    found = Reader(root)
    assert only(found.runs[0], "runs")["artifact_uri"] == read.format(base=root.parent)
    assert run.exists()


def test_inputs_and_outputs(root: Path) -> None:
    first = mlruns.experiment(root, 1, "first")
    run = mlruns.run(first, "a" * 32)
    dataset = {"name": "iris", "digest": "d", "source_type": "local", "source": "s"}
    mlruns.write(first / "datasets" / "x1" / "meta.yaml", yaml.safe_dump(dataset))
    for name, values in {
        "i1": {"source_type": "DATASET", "source_id": "x1", "tags": {"context": "train"}},
        "i2": {"source_type": "MODEL", "source_id": "m-1", "tags": {}},
        "i3": {"source_type": "DATASET", "source_id": "gone", "tags": {}},
        "i4": {"source_type": "DATASET", "source_id": "../../../etc", "tags": {}},
        "i5": {"source_type": "DREAM", "source_id": "x1"},
    }.items():
        mlruns.write(run / "inputs" / name / "meta.yaml", yaml.safe_dump(values))
    mlruns.write(run / "outputs" / "m-2" / "meta.yaml", "step: 4\n")
    found = Reader(root)
    rows = found.runs[0].rows
    (known,) = rows["datasets"]
    assert (known["name"], known["digest"], known["experiment_id"]) == ("iris", "d", 1)
    ends = [
        (row["source_type"], row["source_id"], row["destination_type"], row["destination_id"])
        for row in rows["inputs"]
    ]
    assert ends == [
        ("DATASET", known["dataset_uuid"], "RUN", "a" * 32),
        ("RUN_INPUT", "a" * 32, "MODEL_INPUT", "m-1"),
        ("RUN_OUTPUT", "a" * 32, "MODEL_OUTPUT", "m-2"),
    ]
    assert rows["inputs"][2]["step"] == 4
    assert only(found.runs[0], "input_tags")["input_uuid"] == rows["inputs"][0]["input_uuid"]
    assert [Path(warning.split(":")[0]).name for warning in found.warnings] == ["i3", "i4", "i5"]
    # The same ids each time, or a second migration would bring everything twice.
    assert Reader(root).runs[0].rows["inputs"] == rows["inputs"]


def test_aliases_of_nothing(root: Path) -> None:
    model = mlruns.model(root, "model")
    mlruns.write(model / "aliases" / "future", "7")
    mlruns.write(model / "aliases" / "broken", "one")
    found = Reader(root)
    assert [row["alias"] for row in found.models[0].rows["registered_model_aliases"]] == ["best"]
    assert len(found.warnings) == 2


def test_what_is_no_file_store(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        FileStore(tmp_path / "nowhere", print)
    with pytest.raises(InvalidParameterError, match="not a directory of MLflow's file store"):
        FileStore(tmp_path, print)
    file = mlruns.write(tmp_path / "file", "x")
    with pytest.raises(InvalidParameterError, match="not a directory"):
        FileStore(file, print)


def test_nothing_is_changed(root: Path) -> None:
    first = mlruns.experiment(root, 1, "first")
    mlruns.run(first, "a" * 32)
    before = {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}
    Reader(root)
    assert {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))} == before


@pytest.fixture
async def opened(root: Path) -> AsyncIterator[MetadataStore]:
    first = mlruns.experiment(root, 7, "first")
    mlruns.run(first, "a" * 32)
    mlruns.run(first, "b" * 32, lifecycle_stage="deleted", deleted_time=30)
    async with await MetadataStore.open(str(root)) as store:
        yield store


@pytest.mark.anyio
async def test_open_to_read(opened: MetadataStore) -> None:
    found = await opened.search_experiments("ALL")
    assert [(each.experiment_id, each.name) for each in found] == [("7", "first")]
    (run,) = await opened.search_runs(["7"], "metrics.loss < 0.2 AND params.solver = 'adam'")
    assert run.info.run_id == "a" * 32
    history = await opened.get_metric_history("a" * 32, "loss")
    assert [metric.value for metric in history] == [0.5, 0.25, 0.125]
    assert await opened.get_deleted_runs() == ["b" * 32]


@pytest.mark.anyio
async def test_writes_are_refused(opened: MetadataStore, root: Path) -> None:
    run_id = "a" * 32
    for write in (
        opened.create_experiment("new"),
        opened.create_run("7"),
        opened.log_metric(run_id, Metric("loss", 1.0, 1)),
        opened.log_param(run_id, Param("new", "1")),
        opened.set_tag(run_id, "new", "1"),
        opened.delete_tag(run_id, "deep/er"),
        opened.update_run_info(run_id, "FAILED"),
        opened.delete_run(run_id),
        opened.delete_experiment("7"),
        opened.hard_delete_run("b" * 32),
    ):
        with pytest.raises(UnsupportedError, match=f"asyncstore migrate {root}"):
            await write
    assert (await opened.get_run(run_id)).info.status == "FINISHED"


@pytest.mark.anyio
async def test_open_by_uri(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlruns.experiment(root, 7, "first")
    monkeypatch.chdir(root.parent)
    for uri in ("mlruns", "./mlruns", root.as_uri(), "file:mlruns"):
        async with await MetadataStore.open(uri) as store:
            assert (await store.get_experiment("7")).name == "first"
    with pytest.raises(NotFoundError):
        await MetadataStore.open("./nowhere")
    with pytest.raises(InvalidParameterError, match="not a directory of MLflow's file store"):
        await MetadataStore.open(".")
    assert sorted(path.name for path in root.parent.iterdir()) == ["mlruns"]
