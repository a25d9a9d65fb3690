"""A script of real use gets the same from MLflow on asyncstore as from MLflow alone."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import TYPE_CHECKING

import mlflow
import pytest

from tests.mlflow.conftest import with_driver
from tests.mlflow.used import Printed, differences, used

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.postgresql import PostgreSQL

VERSION_3 = int(mlflow.__version__.partition(".")[0]) >= 3
# What the script does on purpose, in asyncstore's words.
OWN_WORDS = re.compile(r"a param cannot be changed once it is logged: 'a' is|trace tr-\S+ does not")


@pytest.fixture
def use(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Printed]:
    """Runs the script on a tracking URI and an artifact root; `{here}` is its own directory."""

    def run(*uris: str) -> Printed:
        here = tmp_path_factory.mktemp("use")
        return used(here, *(uri.format(here=here) for uri in uris))

    return run


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
    different = differences(ours, theirs)
    assert not different, json.dumps(different, indent=1)
    assert {
        message for message in ours.messages - theirs.messages if not OWN_WORDS.search(message)
    } == set()
    chapters = {name.partition(":")[0] for name, _ in ours.results}
    # Nothing is left out but what this MLflow lacks.
    assert len(chapters) == (13 if VERSION_3 else 12)
    assert ("tracing: spans" in dict(ours.results)) is VERSION_3
