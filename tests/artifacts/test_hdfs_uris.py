"""Which cluster of HDFS a URI names, as whom, and what goes wrong."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.backends.hdfs_uris import parse, read_configuration
from asyncstore.errors import InvalidParameterError, UnavailableError
from asyncstore.retry import RetryPolicy
from tests.artifacts.conftest import QUICK
from tests.servers.hdfs import HDFS, write_site
from tests.servers.running import require

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("hdfs:path", "write hdfs://"),
        ("hdfs://", "write hdfs://"),
        ("hdfs:///path", "no default one"),
        ("hdfs:/path", "no default one"),
        ("hdfs://host:90x/p", "not a number"),
        ("hdfs://user@/p", "a user and no host"),
        ("hdfs://user@host/p", "takes no user"),
        ("hdfs://host/a/../b", "'..'"),
        ("hdfs://host/a%2fb", "decodes to a slash"),
        ("hdfs://host/a:b", "colon"),
        ("viewfs:///p", "write viewfs://"),
        ("viewfs://table:8020/p", "write viewfs://"),
    ],
)
async def test_uris_that_are_no_root(uri: str, reason: str) -> None:
    with pytest.raises(InvalidParameterError, match=reason):
        await ArtifactRepository(uri).open()


def test_what_a_uri_names(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = {
        "fs.defaultFS": "hdfs://names",
        "dfs.ha.namenodes.names": "a,b,c",
    }
    cluster, root = parse("hdfs://host/a%41//b/", {}, {})
    assert (cluster.url, root, cluster.retries) == ("hdfs://host:8020", "/a%41/b", 0)
    cluster, root = parse("hdfs:/a", {}, configuration)
    assert (cluster.url, root, cluster.retries) == ("hdfs://names", "/a", 2)
    assert parse("hdfs:///a", {}, configuration) == (cluster, root)
    assert parse("viewfs://table/a", {}, {})[0].url == "viewfs://table"
    monkeypatch.setenv("MLFLOW_KERBEROS_USER", "ada@LAB")
    monkeypatch.setenv("MLFLOW_KERBEROS_TICKET_CACHE", "/tmp/krb5cc_1")
    monkeypatch.setenv("MLFLOW_PYARROW_EXTRA_CONF", "dfs.replication=2,dfs.blocksize=1048576")
    cluster, _ = parse("hdfs://host/a", {"dfs.replication": 1}, {})
    assert (cluster.user, cluster.ticket_cache) == ("ada@LAB", "/tmp/krb5cc_1")
    assert cluster.properties == {"dfs.replication": "1", "dfs.blocksize": "1048576"}
    cluster, _ = parse("hdfs://host/a", {"user": "bob", "kerb_ticket": "/t"}, {})
    assert (cluster.user, cluster.ticket_cache) == ("bob", "/t")
    with pytest.raises(InvalidParameterError, match="'replication' is none"):
        parse("hdfs://host/a", {"replication": 1}, {})
    monkeypatch.setenv("MLFLOW_PYARROW_EXTRA_CONF", "dfs.replication")
    with pytest.raises(InvalidParameterError, match="MLFLOW_PYARROW_EXTRA_CONF"):
        parse("hdfs://host/a", {}, {})


def test_configuration_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_configuration() == {}
    write_site(tmp_path / "core-site.xml", {"fs.defaultFS": "hdfs://a&b"})
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    assert read_configuration() == {"fs.defaultFS": "hdfs://a&b"}


async def test_the_default_namenode_a_restart_and_few_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(150):
        (tmp_path / "up" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "up" / str(number)).write_bytes(b"%d" % number)
    server = HDFS()
    require(server)
    with server:
        monkeypatch.setenv("HADOOP_CONF_DIR", str(server.configuration))
        async with ArtifactRepository("hdfs:///root", transfer=QUICK) as repository:
            await repository.log_artifacts(tmp_path / "up")
            assert threading.active_count() < 120
            await repository.download_artifacts(None, tmp_path / "down")
        assert len(list((tmp_path / "down").iterdir())) == 150
        retry = RetryPolicy(attempts=3, backoff=0.05)
        async with ArtifactRepository(
            f"{server.uri}/root", transfer=TransferOptions(retry=retry)
        ) as repository:
            assert await repository.read_bytes("1") == b"1"
            await asyncio.to_thread(server.halt_namenode)
            with pytest.raises(UnavailableError):
                await repository.read_bytes("1")
            await asyncio.to_thread(server.run_namenode)
            retry = RetryPolicy(attempts=40, backoff=0.25, max_backoff=0.25)
            # It answers first and knows where the blocks are a little later.
            content = await retry.run(lambda: repository.read_bytes("1"))
            assert content == b"1"
