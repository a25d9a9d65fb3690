"""The servers that the other tests stand on: each boots and keeps what it is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.servers.base import Process, Server, ServerError, accepts_connections, free_port
from tests.servers.postgresql import PostgreSQL
from tests.servers.rclone import Rclone
from tests.servers.running import require

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway
    from tests.servers.s3 import S3Server


def test_postgresql_gives_an_empty_database(postgresql: PostgreSQL, postgresql_uri: str) -> None:
    name = postgresql_uri.rpartition("/")[2]
    assert postgresql.query("SELECT count(*) FROM pg_stat_user_tables", name) == "0"
    postgresql.query("CREATE TABLE t AS SELECT 42 AS answer", name)
    assert postgresql.query("SELECT answer FROM t", name) == "42"
    assert postgresql.query("SHOW fsync") == "on"


def test_postgresql_counts_the_clients_of_one_database(
    postgresql: PostgreSQL, postgresql_uri: str
) -> None:
    psycopg = pytest.importorskip("psycopg")
    assert postgresql.connection_count(postgresql_uri) == 0
    with psycopg.connect(postgresql_uri), psycopg.connect(postgresql_uri):
        assert postgresql.connection_count(postgresql_uri) == 2
        postgresql.disconnect_clients(postgresql_uri)
        assert postgresql.connection_count(postgresql_uri) == 0


def test_postgresql_keeps_what_was_committed_when_it_crashes() -> None:
    require(PostgreSQL())
    with PostgreSQL() as server:
        server.query("CREATE TABLE t AS SELECT 42 AS answer")
        server.kill()
        with pytest.raises(ServerError):
            server.query("SELECT 1")
        server.restart()
        assert server.query("SELECT answer FROM t") == "42"


@pytest.mark.parametrize("name", ["radosgw", "moto", "rclone"])
def test_s3_server_keeps_objects(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = server.create_bucket()
    body = bytes(range(256)) * 8192
    for key in ("a", "folder/b c+d.txt"):
        server.client.put_object(Bucket=bucket, Key=key, Body=body)
    assert server.keys(bucket) == ["a", "folder/b c+d.txt"]
    assert server.client.get_object(Bucket=bucket, Key="a")["Body"].read() == body


@pytest.mark.parametrize("name", ["radosgw", "moto"])
def test_s3_server_lists_open_multipart_uploads(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = server.create_bucket()
    assert server.open_multipart_uploads(bucket) == []
    server.client.create_multipart_upload(Bucket=bucket, Key="half")
    assert server.open_multipart_uploads(bucket) == ["half"]


def test_radosgw_refuses_wrong_keys(radosgw: RadosGateway) -> None:
    import botocore.exceptions
    import botocore.session

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=radosgw.endpoint_url,
        aws_access_key_id=radosgw.access_key,
        aws_secret_access_key="wrong",
        region_name=radosgw.region,
    )
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()
    client.close()


def test_every_bucket_is_new(radosgw: RadosGateway) -> None:
    assert radosgw.create_bucket() != radosgw.create_bucket()


def test_discard_frees_large_objects(radosgw: RadosGateway) -> None:
    bucket = radosgw.create_bucket()
    radosgw.client.put_object(Bucket=bucket, Key="large", Body=bytes(3 * 2**20))
    radosgw.client.put_object(Bucket=bucket, Key="small", Body=b"x")
    radosgw.discard(bucket)
    assert radosgw.keys(bucket) == ["small"]


def test_a_stopped_server_leaves_nothing() -> None:
    server = Rclone()
    require(server)
    with server:
        directory, port = server.directory, server.port
        (process,) = server.processes
        assert accepts_connections(port)
    assert not process.running
    assert not directory.exists()
    assert not accepts_connections(port)
    server.stop()


def test_a_stopped_server_leaves_no_child_of_its_own(tmp_path: Path) -> None:
    script = "import os, time; print(os.fork(), flush=True); time.sleep(600)"
    process = Process([sys.executable, "-c", script], tmp_path / "log")
    process.wait_until(lambda: process.log.read_text().count("\n") == 2, "waiting for the fork")
    process.stop()
    (child,) = set(process.log.read_text().split()) - {"0"}
    deadline = time.monotonic() + 30
    while _runs(int(child)):
        assert time.monotonic() < deadline, "the child outlived the server"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return state.stdout.strip()[:1] not in (b"", b"Z")


def test_a_server_that_dies_at_once_is_started_again_with_other_ports() -> None:
    class Unlucky(Server):
        name = "unlucky"
        install_hint = "none"
        ports: ClassVar[list[int]] = []

        @classmethod
        def available(cls) -> bool:
            return True

        def boot(self) -> None:
            self.ports.append(free_port())
            code = f"import sys; print('no luck with', {len(self.ports)}); sys.exit(3)"
            self.spawn([sys.executable, "-c", code]).wait_for_port(self.ports[-1])

    server = Unlucky()
    with pytest.raises(ServerError, match=r"(?s)status 3.*no luck with 3"):
        server.start()
    assert len(set(server.ports)) == 3
    with pytest.raises(ServerError, match="not running"):
        _ = server.directory


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_the_interpreter_that_started_them(how: signal.Signals) -> None:
    require(Rclone())
    script = """
        import signal, time
        from tests.servers.rclone import Rclone
        # Whoever starts the tests in the background may have it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        server = Rclone()
        server.start()
        print(server.port, server.directory, flush=True)
        time.sleep(600)
    """
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as child:
        assert child.stdout is not None
        port, directory = child.stdout.readline().split()
        assert accepts_connections(int(port))
        child.send_signal(how)
        child.wait()
    deadline = time.monotonic() + 30
    while accepts_connections(int(port)) or Path(directory).exists():
        assert time.monotonic() < deadline, "the server outlived its interpreter"
        time.sleep(0.05)
