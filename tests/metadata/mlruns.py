"""Small trees of MLflow's file store, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def experiment(root: Path, number: int, name: str, **values: Any) -> Path:
    """An experiment; `deleted=True` puts it into the trash."""
    deleted = values.pop("deleted", False)
    directory = root / ".trash" / str(number) if deleted else root / str(number)
    known = {
        "experiment_id": str(number),
        "name": name,
        "artifact_location": f"{root.as_uri()}/{number}",
        "lifecycle_stage": "deleted" if deleted else "active",
        "creation_time": 1000 + number,
        "last_update_time": 2000 + number,
    }
    write(directory / "meta.yaml", yaml.safe_dump(known | values))
    return directory


def run(experiment_: Path, run_id: str, /, **values: Any) -> Path:
    """A run, finished, with one param, one tag and two metrics of three values and one."""
    directory = experiment_ / run_id
    root = experiment_.parent.parent if experiment_.parent.name == ".trash" else experiment_.parent
    known = {
        "run_id": run_id,
        "run_name": f"name of {run_id}",
        "experiment_id": experiment_.name,
        "artifact_uri": f"{root.as_uri()}/{experiment_.name}/{run_id}/artifacts",
        "user_id": "me",
        "status": 3,
        "source_type": 4,
        "source_name": "",
        "source_version": "",
        "entry_point_name": "",
        "start_time": 10,
        "end_time": 20,
        "lifecycle_stage": "active",
        "tags": [],
    }
    write(directory / "meta.yaml", yaml.safe_dump(known | values))
    write(directory / "params" / "solver", "adam")
    write(directory / "tags" / "mlflow.runName", f"name of {run_id}")
    write(directory / "tags" / "deep" / "er", "tag\nof two lines")
    write(directory / "metrics" / "loss", "11 0.5 0\n12 0.25 1\n13 0.125 2\n")
    write(directory / "metrics" / "val" / "acc", "11 nan 0\n")
    return directory


def model(root: Path, name: str, versions: int = 1, **values: Any) -> Path:
    """A registered model with versions from 1, of which the alias `best` names the first."""
    directory = root / "models" / name
    known = {
        "name": name,
        "creation_timestamp": 100,
        "last_updated_timestamp": 200,
        "description": "what it is",
        "aliases": {"best": "1"},
    }
    write(directory / "meta.yaml", yaml.safe_dump(known | values))
    write(directory / "tags" / "team", "a")
    write(directory / "aliases" / "best", "1")
    for version in range(1, versions + 1):
        of_version = {
            "name": name,
            "version": version,
            "creation_timestamp": 100 + version,
            "last_updated_timestamp": 200 + version,
            "current_stage": "Production",
            "description": None,
            "user_id": None,
            "source": f"s3://bucket/{version}",
            "storage_location": f"s3://bucket/{version}",
            "run_id": "r" * 32,
            "run_link": None,
            "status": "READY",
            "status_message": None,
        }
        write(directory / f"version-{version}" / "meta.yaml", yaml.safe_dump(of_version))
        write(directory / f"version-{version}" / "tags" / "checked", "yes")
    return directory
