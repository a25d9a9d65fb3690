"""Fixtures for every test: a clean environment, and real servers, started when first asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncstore.testing.fault_proxy import FaultProxy
from tests.command_line import cli, in_tmp_path
from tests.servers.mariadb import MariaDB
from tests.servers.moto import Moto
from tests.servers.postgresql import PostgreSQL
from tests.servers.radosgw import RadosGateway
from tests.servers.rclone import Rclone
from tests.servers.running import running
from tests.servers.tls import PrivateAuthority
from tests.storages_page import StoragesPage

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cli", "in_tmp_path"]

PERSONAL = (
    *("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "GCSFS_", "STORAGE_EMULATOR_", "SSH_", "HADOOP_"),
    *("KRB5", "OSS_", "OCI_", "HF_", "ASYNCSTORE_", "SLURM_", "KUBERNETES_", "RAY_", "DASK_"),
    "DATABRICKS_",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-storages-page", action="store_true", help="write docs/storages.md")


def pytest_configure(config: pytest.Config) -> None:
    write = config.getoption("--write-storages-page")
    config.pluginmanager.register(StoragesPage(write=bool(write)))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test sees the variables, keys, profiles or proxies of the person who runs it."""
    for name in os.environ:
        if name.startswith(PERSONAL) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    nowhere = tmp_path_factory.getbasetemp() / "no-such-file"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
    # Without keys botocore would ask the network for a role of this machine.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    yield from running(PostgreSQL())


@pytest.fixture
def postgresql_uri(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty database: `postgresql://user:password@127.0.0.1:port/name`."""
    uri = postgresql.create_database()
    yield uri
    postgresql.drop_database(uri)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    yield from running(MariaDB())


@pytest.fixture
def mariadb_uri(mariadb: MariaDB) -> Iterator[str]:
    """An empty database: `mysql://user:password@127.0.0.1:port/name`."""
    uri = mariadb.create_database()
    yield uri
    mariadb.drop_database(uri)


@pytest.fixture(scope="session")
def radosgw() -> Iterator[RadosGateway]:
    yield from running(RadosGateway())


@pytest.fixture
def s3_bucket(radosgw: RadosGateway) -> Iterator[str]:
    """The name of an empty bucket on `radosgw`."""
    bucket = radosgw.create_bucket()
    yield bucket
    radosgw.discard(bucket)


@pytest.fixture
def s3_env(radosgw: RadosGateway, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Sets the variables that lead to `radosgw`; returns them."""
    for name, value in radosgw.environment.items():
        monkeypatch.setenv(name, value)
    return radosgw.environment


@pytest.fixture(scope="session")
def private_authority(tmp_path_factory: pytest.TempPathFactory) -> PrivateAuthority:
    """Signs certificates for loopback that no system trusts."""
    return PrivateAuthority(tmp_path_factory.mktemp("private-authority"))


@pytest.fixture
def radosgw_tls(radosgw: RadosGateway, private_authority: PrivateAuthority) -> Iterator[FaultProxy]:
    """`radosgw` behind TLS at `.url`; `private_authority.bundle` makes it trusted."""
    with private_authority.in_front_of(radosgw.address) as proxy:
        yield proxy


@pytest.fixture
def radosgw_proxy(radosgw: RadosGateway) -> Iterator[FaultProxy]:
    """A recording proxy in front of `radosgw`, at `.url`, with no faults yet."""
    with FaultProxy(radosgw.address) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    yield from running(Moto())


@pytest.fixture(scope="session")
def rclone() -> Iterator[Rclone]:
    yield from running(Rclone())
