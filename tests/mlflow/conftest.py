"""MLflow and asyncstore on one database."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

collect_ignore_glob: list[str] = []
try:
    with warnings.catch_warnings():
        # MLflow's own warnings are not ours to mend.
        warnings.simplefilter("ignore")
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  warns once, here
except ImportError:
    # `tox -e mlflow` has it; the environment of the other tests is free of it.
    collect_ignore_glob.append("test_*.py")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.mariadb import MariaDB
    from tests.servers.postgresql import PostgreSQL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/mlflow" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def shared_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, by a URI that both take."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    uri: str = request.getfixturevalue(f"{request.param}_uri")
    return with_driver(uri)


@pytest.fixture
def another_uri(shared_uri: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Another empty database of the same kind."""
    if shared_uri.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/another.db"
        return
    name = "postgresql" if shared_uri.startswith("postgresql") else "mariadb"
    server: PostgreSQL | MariaDB = request.getfixturevalue(name)
    uri = server.create_database()
    yield with_driver(uri)
    server.drop_database(uri)


def with_driver(uri: str) -> str:
    """A server's URI with the driver that MLflow works with."""
    # SQLAlchemy 2.1 takes `postgresql:` for psycopg 3, earlier ones for psycopg2; MLflow brings
    # neither driver of MySQL.
    return uri.replace("postgresql:", "postgresql+psycopg2:").replace("mysql:", "mysql+pymysql:")
