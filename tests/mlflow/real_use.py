"""A data scientist's day with MLflow: what it returned, as JSON that can be compared.

python -m tests.mlflow.real_use TRACKING_URI ARTIFACT_ROOT [CHAPTER TO LEAVE OUT]...

Only MLflow's public API. What an older MLflow lacks is left out.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType

from tests.mlflow.comparable import Day, fails, tree
from tests.mlflow.real_use_models import (
    DATA,
    autologging,
    evaluation_datasets,
    models,
    prompts,
    registry,
    tracing,
)


def experiments(day: Day) -> None:
    client = MlflowClient()
    for name in ("alpha", "beta", "gamma"):
        created = mlflow.create_experiment(
            name, artifact_location=f"{day.root}/{name}", tags={"team": name[:1], "kind": "real"}
        )
        day.got("created", created)
    # Where artifacts are when nobody says it.
    day.got("no place", mlflow.get_experiment(mlflow.create_experiment("no place")))
    day.got("by name", mlflow.get_experiment_by_name("beta"))
    day.got("not there", mlflow.get_experiment_by_name("delta"))
    day.got("set", mlflow.set_experiment("alpha"))
    mlflow.set_experiment_tag("note", "Ünïcode ✓")
    mlflow.set_experiment_tags({"a": 1, "b": "two"})
    beta, gamma = (mlflow.get_experiment_by_name(name).experiment_id for name in ("beta", "gamma"))
    client.rename_experiment(gamma, "gamma 2")
    if hasattr(client, "delete_experiment_tag"):
        client.delete_experiment_tag(gamma, "kind")
    day.got("all", mlflow.search_experiments(order_by=["name ASC"]))
    for query in ("name LIKE '%a%'", "tags.team = 'b'", "name ILIKE 'ALPHA'", "tags.kind != 'x'"):
        found = mlflow.search_experiments(filter_string=query, order_by=["name DESC"])
        day.got(query, [each.name for each in found])
    mlflow.delete_experiment(beta)
    day.got("deleted", mlflow.get_experiment(beta).lifecycle_stage)
    found = mlflow.search_experiments(view_type=ViewType.DELETED_ONLY)
    day.got("all deleted", [each.name for each in found])
    day.tried("set a deleted one", mlflow.set_experiment, "beta")
    day.tried("run in a deleted one", client.create_run, beta)
    client.restore_experiment(beta)
    day.got("restored", mlflow.get_experiment(beta).lifecycle_stage)
    day.tried("twice", mlflow.create_experiment, "alpha")
    day.tried("no name", mlflow.create_experiment, "")
    day.tried("unknown", mlflow.get_experiment, "123456")
    day.tried("filter", mlflow.search_experiments, filter_string="nonsense = 'x'")


def runs(day: Day) -> None:
    # MLflow's REST client takes no numbers.
    one: Any = "1" if mlflow.get_tracking_uri().startswith("http") else 1
    with mlflow.start_run(run_name="parent", description="the day", tags={"k": one}) as parent:
        mlflow.log_param("alpha", 0.5)
        day.got("params", mlflow.log_params({"depth": 3, "none": None, "text": "Ünï", "l": [1]}))
        day.tried("a param changes", mlflow.log_param, "alpha", 0.6)
        day.tried("a key", mlflow.log_param, "a//b", 1)
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"f1": 0.25, "auc": 1, "nan": math.nan, "inf": math.inf}, step=7)
        mlflow.log_metric("same step", 1.0, step=1)
        mlflow.log_metric("same step", 2.0, step=1)
        day.tried("a metric", mlflow.log_metric, "loss", "much")
        mlflow.set_tag("stage", "draft")
        mlflow.set_tags({"a.b": "c", "number": 5, "long": "x" * 4000})
        mlflow.delete_tag("a.b")
        day.tried("delete no tag", mlflow.delete_tag, "a.b")
        for number in range(2):
            with mlflow.start_run(run_name=f"child {number}", nested=True) as child:
                mlflow.log_metric("loss", number)
                mlflow.log_param("number", number)
                parent_run = mlflow.get_parent_run(child.info.run_id)
                day.got("parent of a child", parent_run.info.run_name)
    day.got("active", mlflow.active_run())
    day.got("last", mlflow.last_active_run().info.run_name)
    day.got("parent", mlflow.get_run(parent.info.run_id))
    with suppress(ZeroDivisionError), mlflow.start_run(run_name="broken"):
        day.got("never", 1 / 0)
    day.got("broken", mlflow.last_active_run().info.status)
    with mlflow.start_run(run_id=parent.info.run_id):
        mlflow.set_tag("resumed", "yes")
    day.got("resumed", mlflow.get_run(parent.info.run_id).data.tags["resumed"])
    day.tried("resume nobody", mlflow.start_run, run_id="f" * 32)
    with mlflow.start_run() as unnamed:
        pass
    tags = mlflow.get_run(unnamed.info.run_id).data.tags
    # MLflow gives a name at random.
    day.got(
        "a name", [bool(tags["mlflow.runName"]), tags["mlflow.runName"] == unnamed.info.run_name]
    )
    mlflow.delete_run(unnamed.info.run_id)


def low_level(day: Day) -> None:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("alpha").experiment_id
    run = client.create_run(experiment, start_time=1000, tags={"t": "1"}, run_name="by hand")
    run_id = run.info.run_id
    client.log_batch(
        run_id,
        metrics=[Metric("m", value / 8, 100 + value, value % 3) for value in range(20)],
        params=[Param(f"p{number}", str(number)) for number in range(5)],
        tags=[RunTag("batch", "yes")],
    )
    client.log_metric(run_id, "m", -1, timestamp=50, step=-2)
    client.log_param(run_id, "late", "x")
    client.update_run(run_id, name="by hand 2")
    day.got("running", client.get_run(run_id))
    client.set_terminated(run_id, status="KILLED", end_time=5000)
    day.got("ended", client.get_run(run_id).info)
    day.got("history", client.get_metric_history(run_id, "m"))
    day.got("no history", client.get_metric_history(run_id, "none"))
    day.tried("history of nobody", client.get_metric_history, "f" * 32, "m")
    many = [Metric("m", 1, 1, 1)] * 1001
    day.tried("too many", client.log_batch, run_id, metrics=many)
    day.tried("twice", client.log_batch, run_id, params=[Param("a", "1"), Param("a", "2")])
    day.tried("nobody", client.get_run, "f" * 32)
    day.tried("status", client.set_terminated, run_id, status="PERHAPS")
    client.delete_run(run_id)
    day.got("deleted", client.get_run(run_id).info.lifecycle_stage)
    day.tried("log to a deleted one", client.log_metric, run_id, "m", 1)
    client.restore_run(run_id)
    day.got("restored", client.get_run(run_id).info.lifecycle_stage)


def artifacts(day: Day) -> None:
    client = MlflowClient()
    with mlflow.start_run(run_name="artifacts") as run, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in ("one.txt", "sub/two.bin", "sub/Ünï cödé.txt", "sub/deep/empty"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(path.encode() * 3 if path != "sub/deep/empty" else b"")
        mlflow.log_artifact(str(folder / "one.txt"))
        mlflow.log_artifact(str(folder / "one.txt"), "in here")
        mlflow.log_artifacts(str(folder), "all")
        mlflow.log_text("some text ✓", "text/notes.md")
        mlflow.log_dict({"b": [1, 2], "a": None}, "config.yaml")
        mlflow.log_dict({"b": [1, 2]}, "config.json")
        mlflow.log_table({"q": ["a", "b"], "n": [1, 2]}, "table.json")
        mlflow.log_table(pd.DataFrame({"q": ["c"], "n": [3]}), "table.json")
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([1, 2])
        mlflow.log_figure(figure, "plots/line.png")
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "plots/black.png")
        day.got("uri", mlflow.get_artifact_uri())
        of_one = mlflow.get_artifact_uri("text/notes.md")
        day.got("uri of one", of_one)
        day.got("text of one", mlflow.artifacts.load_text(of_one))
    run_id = run.info.run_id
    day.got("tree", sorted(tree(client, run_id, None)))
    for path in ("no/such", "one.txt"):
        day.got(f"list {path}", client.list_artifacts(run_id, path))
    day.got("text", mlflow.artifacts.load_text(f"runs:/{run_id}/text/notes.md"))
    day.got("yaml", mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.yaml"))
    day.got("dict", mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/config.json"))
    day.got("image", mlflow.artifacts.load_image(f"{run.info.artifact_uri}/plots/line.png").size)
    day.got("table", mlflow.load_table("table.json", run_ids=[run_id], extra_columns=["run_id"]))
    listed = mlflow.artifacts.list_artifacts(run_id=run_id, artifact_path="all/sub")
    day.got("list", [(each.path, each.is_dir, each.file_size) for each in listed])
    with tempfile.TemporaryDirectory() as name:
        for path in ("all", "one.txt", "all/sub/deep/empty", ""):
            got = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=path, dst_path=name
            )
            day.got(f"download {path}", str(Path(got).relative_to(name)))
        day.got("downloaded", _contents(Path(name)))
    day.got("download", _contents(Path(client.download_artifacts(run_id, "all"))))
    missing = f"runs:/{run_id}/no/such"
    day.got("missing", fails(mlflow.artifacts.download_artifacts, missing))
    day.got("outside", fails(client.download_artifacts, run_id, "../../x"))
    day.got("log what is not there", fails(client.log_artifact, run_id, "/no/such/file"))


def _contents(path: Path) -> dict[str, str]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()[:40].decode("latin-1")
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def searches(day: Day) -> None:
    for experiment in ("beta", "gamma 2"):
        mlflow.set_experiment(experiment)
        for number in range(4):
            with mlflow.start_run(run_name=f"{experiment} {number}"):
                mlflow.log_params({"n": number, "word": "ab"[number % 2]})
                mlflow.log_metrics({"score": number / 4, "odd": number % 2})
                if number == 3:
                    mlflow.log_metric("only here", 3)
    found = mlflow.search_runs(
        experiment_names=["beta", "gamma 2"], order_by=["metrics.score DESC", "attributes.run_name"]
    )
    day.got("all", found)
    for query in (
        "metrics.score > 0.3 AND params.word = 'b'",
        "metrics.`only here` = 3",
        "params.word LIKE 'A%'",
        "params.word ILIKE 'A%'",
        "params.n IN ('1', '3')",
        "tags.mlflow.runName = 'beta 2'",
        "attributes.status = 'FINISHED' and attributes.run_name != 'beta 1'",
        "run_name LIKE 'gamma%'",
        "start_time > 0",
        "params.none = 'x'",
    ):
        day.tried(query, _found, filter_string=query)
    client = MlflowClient()
    both = [mlflow.get_experiment_by_name(name).experiment_id for name in ("beta", "gamma 2")]
    names, token, pages = [], None, 0
    while pages == 0 or token:
        page = client.search_runs(
            both, max_results=3, order_by=["params.n DESC", "run_name"], page_token=token
        )
        names += [run.info.run_name for run in page]
        token, pages = page.token, pages + 1
    day.got("pages", [names, pages])
    day.got("list", mlflow.search_runs(both, "metrics.odd = 1", output_format="list")[0].data)
    day.got("nothing", mlflow.search_runs(both, "metrics.score > 9"))
    deleted = mlflow.search_runs(
        search_all_experiments=True, run_view_type=ViewType.DELETED_ONLY, output_format="list"
    )
    day.got("deleted", [run.info.lifecycle_stage for run in deleted])
    for query in ("metrics.score > 'x'", "params.n > 1", "nonsense", "foo.bar = 1"):
        day.tried(query, mlflow.search_runs, both, query)
    day.tried("order", mlflow.search_runs, both, order_by=["nonsense.x"])
    day.tried("page", client.search_runs, both, max_results=100_000)


def _found(**asked: Any) -> list[str]:
    runs = mlflow.search_runs(
        search_all_experiments=True,
        order_by=["attributes.run_name"],
        output_format="list",
        **asked,
    )
    return [run.info.run_name for run in runs]


def datasets(day: Day) -> None:
    mlflow.set_experiment("alpha")
    source = Path("data.csv")
    DATA.to_csv(source, index=False)
    dataset = mlflow.data.from_pandas(DATA, source=str(source), name="points", targets="y")
    with mlflow.start_run(run_name="datasets") as run:
        mlflow.log_input(dataset, context="training", tags={"split": "first"})
        mlflow.log_input(mlflow.data.from_numpy(DATA.to_numpy(), name="array"), context="test")
        mlflow.log_input(dataset, context="training")
    # Their order is that of random ids.
    inputs = sorted(mlflow.get_run(run.info.run_id).inputs.dataset_inputs, key=_dataset_name)
    day.got("inputs", inputs)
    again = mlflow.data.get_source(inputs[-1].dataset)
    day.got("source", Path(again.load()).read_text())
    for query in ("dataset.name = 'points'", "datasets.name = 'none'", "dataset.context = 'test'"):
        day.tried(query, _found, filter_string=query)


def _dataset_name(logged: Any) -> str:
    return str(logged.dataset.name)


def asynchronous(day: Day) -> None:
    client = MlflowClient()
    with mlflow.start_run(run_name="asynchronous") as run:
        for step in range(300):
            mlflow.log_metric("loss", step / 4, step=step, timestamp=step, synchronous=False)
        mlflow.log_params({"a": 1, "b": 2}, synchronous=False)
        mlflow.set_tags({"t": "u"}, synchronous=False)
        handle = mlflow.log_metrics({"x": 1.0}, step=1, synchronous=False)
        handle.wait()
        mlflow.flush_async_logging()
        data = client.get_run(run.info.run_id).data
        day.got("flushed", [data.metrics, data.params, data.tags["t"]])
        wrong = mlflow.log_param("a", "other", synchronous=False)
        day.tried("a param changes", wrong.wait)
    history = client.get_metric_history(run.info.run_id, "loss")
    day.got("history", [(each.step, each.value, each.timestamp) for each in history])
    mlflow.config.enable_async_logging()
    with mlflow.start_run(run_name="all asynchronous") as run:
        mlflow.log_metric("m", 5)
        mlflow.log_param("p", 5)
        mlflow.set_tag("t", 5)
    mlflow.config.enable_async_logging(False)
    mlflow.flush_async_logging()
    data = client.get_run(run.info.run_id).data
    day.got("enabled", [data.metrics, data.params, data.tags["t"]])


@contextmanager
def _quiet() -> Iterator[None]:
    """Results alone on standard output: MLflow prints there too."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def main() -> None:
    tracking_uri, root, *left_out = sys.argv[1:]
    mlflow.set_tracking_uri(tracking_uri)
    day = Day(root)
    chapters = [experiments, runs, low_level, artifacts, searches, datasets, models, autologging]
    chapters += [registry, prompts, tracing, asynchronous]
    if hasattr(mlflow, "genai") and hasattr(mlflow.genai, "datasets"):
        chapters.append(evaluation_datasets)
    with _quiet():
        for chapter in chapters:
            if chapter.__name__ not in left_out:
                day.chapter(chapter.__name__)
                chapter(day)
    print(json.dumps(day.results))


if __name__ == "__main__":
    main()
