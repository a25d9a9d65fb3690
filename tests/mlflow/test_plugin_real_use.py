"""A script of real use gets the same from MLflow on asyncstore as from MLflow alone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import pytest

from tests.mlflow.conftest import with_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.postgresql import PostgreSQL

ROOT = Path(__file__).parents[2]
VERSION_3 = int(mlflow.__version__.partition(".")[0]) >= 3
WATCHDOG = 300
# What the script does on purpose, in asyncstore's words.
OWN_WORDS = re.compile(r"a param cannot be changed once it is logged: 'a' is|trace tr-\S+ does not")


class Printed(NamedTuple):
    results: list[Any]
    messages: set[str]


@pytest.fixture
def use(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Printed]:
    """Runs the script on a tracking URI and an artifact root; `{here}` is its own directory."""

    def run(*uris: str) -> Printed:
        here = tmp_path_factory.mktemp("use")
        done = subprocess.run(
            [sys.executable, "-m", "tests.mlflow.real_use", *(u.format(here=here) for u in uris)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            },
            cwd=here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WATCHDOG,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Printed(json.loads(done.stdout), _messages(done.stderr))

    return run


def _messages(stderr: str) -> set[str]:
    """What was printed but for news, without numbers and ids."""
    lines = [line for line in stderr.splitlines() if not re.search(r"\bINFO\b", line)]
    return {re.sub(r"[0-9a-f]{8,}|[0-9]+", "#", line) for line in lines if line.strip()}


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest) -> str:
    if request.param == "local":
        return "file://{here}/artifacts"
    for library in ("s3fs", "boto3"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    request.getfixturevalue("s3_env")
    return f"s3://{request.getfixturevalue('s3_bucket')}/some/where"


@pytest.fixture(params=["sqlite", "postgresql"])
def tracking_uris(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Two empty databases of one kind: of MLflow alone, and of asyncstore."""
    if request.param == "sqlite":
        # Each use has a directory of its own.
        yield ("sqlite:///{here}/mlflow.db",) * 2
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    uris = server.create_database(), server.create_database()
    yield with_driver(uris[0]), uris[1]
    for uri in uris:
        server.drop_database(uri)


def test_a_day_of_real_use(
    use: Callable[[str, str], Printed], tracking_uris: tuple[str, str], root: str
) -> None:
    theirs = use(tracking_uris[0], f"{root}/alone")
    ours = use(f"asyncstore+{tracking_uris[1]}", f"asyncstore+{root}/ours")
    assert [name for name, _ in ours.results] == [name for name, _ in theirs.results]
    different = [
        (name, got, wanted)
        for (name, got), (_, wanted) in zip(ours.results, theirs.results, strict=True)
        if got != wanted
    ]
    assert not different, json.dumps(different, indent=1)
    assert {
        message for message in ours.messages - theirs.messages if not OWN_WORDS.search(message)
    } == set()
    chapters = {name.partition(":")[0] for name, _ in ours.results}
    # Nothing is left out but what this MLflow lacks.
    assert len(chapters) == (13 if VERSION_3 else 12)
    assert ("tracing: spans" in dict(ours.results)) is VERSION_3
