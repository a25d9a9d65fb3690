"""`asyncstore server` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncstore.server.users import UserEntry, edit_users, hash_token
from tests.command_line import Cli
from tests.servers.base import HOST, Process, free_port
from tests.servers.postgresql import PostgreSQL
from tests.servers.tls import PrivateAuthority

COMMAND = (sys.executable, "-m", "asyncstore.cli", "server")
TOKEN = "asyncstore_token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


class Running:
    """A server that answers."""

    def __init__(self, process: Process, port: int, directory: Path, scheme: str) -> None:
        self.process = process
        self.port = port
        self.directory = directory
        self.url = f"{scheme}://{HOST}:{port}"

    def log(self) -> str:
        return self.process.log.read_text()

    def requests(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server in an empty directory, with options and variables."""
    processes: list[Process] = []

    def start(
        *options: str | Path,
        environment: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Running:
        port = free_port()
        command = [*COMMAND, "--port", str(port), *options]
        own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(tmp_path)}
        log = tmp_path / f"log-{len(processes)}"
        process = Process(command, log, env={**own, **(environment or {})})
        processes.append(process)
        running = Running(process, port, tmp_path, "https" if tls else "http")
        process.wait_until(lambda: _answers(running.url, tls), "waiting for asyncstore server")
        return running

    yield start
    for process in processes:
        process.stop()


def _answers(url: str, tls: ssl.SSLContext | None = None) -> bool:
    try:
        return httpx.get(f"{url}/health", verify=tls or True).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    token = UserEntry("token", "nightly", "write", hash_token(TOKEN.encode()))
    edit_users(path, lambda _: [token])
    return path


def _create(client: httpx.Client, name: str) -> str:
    answer = client.post("/api/2.0/mlflow/experiments/create", json={"name": name})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["experiment_id"])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(start: Start, stop: signal.Signals) -> None:
    server = start()
    with httpx.Client(base_url=server.url) as client:
        experiment_id = _create(client, "mine")
        query = {"experiment_id": experiment_id, "token": "s3cr3t"}
        answer = client.get("/api/2.0/mlflow/experiments/get", params=query)
        assert answer.json()["experiment"]["name"] == "mine"
        assert client.put(f"{ARTIFACTS}/a/b.txt", content=b"abc").status_code == 200
    assert (server.directory / "mlartifacts" / "a" / "b.txt").read_bytes() == b"abc"
    assert (server.directory / "mlflow.db").exists()
    os.kill(server.process.pid, stop)
    assert server.process.wait() == 0
    assert "Traceback" not in server.log()
    assert "lifespan" not in server.log()
    # Every line of the access log arrived, and none has a query.
    created, read, sent = [each for each in server.requests() if each["path"] != "/health"]
    assert (created["method"], created["status"]) == ("POST", 200)
    assert (read["path"], read["user"]) == ("/api/2.0/mlflow/experiments/get", None)
    assert (sent["bytes_received"], sent["complete"]) == (3, True)
    assert "s3cr3t" not in server.log()


class _Upload:
    """An artifact of which half has been sent."""

    def __init__(self, server: Running, path: str) -> None:
        self._socket = socket.create_connection((HOST, server.port), timeout=30)
        head = f"PUT {ARTIFACTS}/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n"
        self._socket.sendall(head.encode() + b"half")

    def finish(self) -> None:
        self._socket.sendall(b"half")

    def answer(self) -> str:
        parts = []
        while part := self._socket.recv(65536):
            parts.append(part)
        self._socket.close()
        return b"".join(parts).decode()


def _until_it_stops_listening(server: Running) -> None:
    def refused() -> bool:
        try:
            socket.create_connection((HOST, server.port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        return False

    server.process.wait_until(refused, "waiting until nobody listens")


def test_what_is_in_flight_finishes_before_it_stops(start: Start) -> None:
    server = start()
    upload = _Upload(server, "late.txt")
    os.kill(server.process.pid, signal.SIGTERM)
    _until_it_stops_listening(server)
    upload.finish()
    assert upload.answer().startswith("HTTP/1.1 200 ")
    assert server.process.wait() == 0
    assert (server.directory / "mlartifacts" / "late.txt").read_bytes() == b"halfhalf"


def test_an_upload_whose_client_falls_silent_leaves_nothing(start: Start) -> None:
    server = start(environment={"ASYNCSTORE_SERVER_CLIENT_TIMEOUT": "1"})
    answer = _Upload(server, "never.txt").answer()
    assert answer.startswith("HTTP/1.1 408 ")
    assert _stored(server) == []


def test_what_does_not_finish_in_time_fails_with_an_answer_and_leaves_nothing(
    start: Start,
) -> None:
    server = start(environment={"ASYNCSTORE_SERVER_SHUTDOWN_TIMEOUT": "1"})
    upload = _Upload(server, "never.txt")
    os.kill(server.process.pid, signal.SIGTERM)
    answer = upload.answer()
    assert answer.startswith("HTTP/1.1 503 ")
    assert "TEMPORARILY_UNAVAILABLE" in answer
    assert server.process.wait(30) == 0
    assert _stored(server) == []


def _stored(server: Running) -> list[Path]:
    return [each for each in (server.directory / "mlartifacts").rglob("*") if each.is_file()]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_other_machines_are_let_in_with_users_or_by_name(cli: Cli, host: str) -> None:
    status, _, err = cli("server", "--host", host, "--port", "0")
    assert status == 2
    assert "--auth-file" in err
    assert "--allow-unauthenticated" in err


def test_a_public_address_with_users(start: Start, users: Path) -> None:
    server = start("--host", "0.0.0.0", "--auth-file", users)
    assert "in the open" in server.log()
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert httpx.get(server.url + path).status_code == 401
    assert httpx.get(server.url + path, headers=BEARER).status_code == 200
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait() == 0
    assert [each["user"] for each in server.requests()[-2:]] == [None, "nightly"]
    assert TOKEN not in server.log()


def test_a_public_address_without_users_by_name(start: Start) -> None:
    server = start(
        "--allow-unauthenticated",
        environment={"MLFLOW_HOST": "0.0.0.0", "ASYNCSTORE_SERVER_ACCESS_LOG": "false"},
    )
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert httpx.get(server.url + path).status_code == 200
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait() == 0
    assert server.requests() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--auth-file", "no-such-file"], "server-users add"),
        (["--auth-file", "empty"], "has no users"),
        (["--ssl-certfile", "no-such-file"], "is not a file"),
        (["--ssl-keyfile", "empty"], "need --ssl-certfile"),
        (["--static-prefix", "mlflow"], "begins with a slash"),
        (["--uvicorn-opts", "--port 80 --reload"], "--port, --reload cannot be set here"),
        (["--uvicorn-opts", "--no-such-option"], "No such option"),
        (["--backend-store-uri", "ftp://u:s3cr3t@localhost/x"], "INVALID_PARAMETER_VALUE"),
        (["--port", "65536"], "65535"),
        (["--workers", "2", "--allowed-hosts", ","], "MLFLOW_SERVER_ALLOWED_HOSTS"),
    ],
)
@pytest.mark.usefixtures("in_tmp_path")
def test_what_cannot_work_is_said_before_anything_starts(
    cli: Cli, options: list[str], message: str
) -> None:
    edit_users(Path("empty"), lambda entries: entries)
    status, _, err = cli("server", *options)
    assert status in (1, 2)
    assert message in err
    assert "s3cr3t" not in err
    assert not Path("mlflow.db").exists()


def test_options_go_before_mlflows_variables(start: Start, tmp_path: Path) -> None:
    environment = {
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///from-variable.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "from-variable"),
        "MLFLOW_STATIC_PREFIX": "/ignored",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
        "MLFLOW_UVICORN_OPTS": "--header X-Served-By:test --root-path /",
    }
    server = start(
        *("--backend-store-uri", "sqlite:///from-option.db", "--static-prefix", ""),
        *("--allowed-hosts", "127.0.0.1:*,a.example", "--x-frame-options", "DENY"),
        environment=environment,
    )
    assert (tmp_path / "from-option.db").exists()
    assert not (tmp_path / "from-variable.db").exists()
    assert httpx.put(f"{server.url}{ARTIFACTS}/x", content=b"x").status_code == 200
    assert (tmp_path / "from-variable" / "x").exists()
    answer = httpx.get(server.url + "/version")
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-served-by"] == "test"
    assert "server" not in answer.headers
    for host, status in (("a.example", 404), ("b.example", 403)):
        headers = {"Host": host}
        assert httpx.get(server.url + "/api/no-such", headers=headers).status_code == status


def test_artifacts_only_needs_no_database(start: Start) -> None:
    server = start("--artifacts-only")
    assert httpx.put(f"{server.url}{ARTIFACTS}/x", content=b"x").status_code == 200
    assert httpx.get(f"{server.url}{ARTIFACTS}/x").content == b"x"
    assert httpx.get(f"{server.url}/api/2.0/mlflow/experiments/search").status_code == 404
    assert not (server.directory / "mlflow.db").exists()


def test_tls(start: Start, private_authority: PrivateAuthority, tmp_path: Path) -> None:
    certificate = private_authority.certificate_file(tmp_path / "server.pem")
    trusted = ssl.create_default_context(cafile=private_authority.bundle)
    server = start("--ssl-certfile", certificate, tls=trusted)
    with httpx.Client(base_url=server.url, verify=trusted) as client:
        _create(client, "over TLS")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        httpx.get(server.url + "/health")


def test_tls_with_certificates_of_clients(
    start: Start, private_authority: PrivateAuthority, tmp_path: Path
) -> None:
    certificate = private_authority.certificate_file(tmp_path / "server.pem")
    authorities = private_authority.bundle
    known = ssl.create_default_context(cafile=authorities)
    known.load_cert_chain(certificate)
    server = start("--ssl-certfile", certificate, "--ssl-ca-certs", authorities, tls=known)
    assert httpx.get(server.url + "/version", verify=known).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url + "/version", verify=ssl.create_default_context(cafile=authorities))


def test_several_workers_on_postgresql(
    start: Start, postgresql: PostgreSQL, postgresql_uri: str, users: Path, tmp_path: Path
) -> None:
    server = start(
        *("--backend-store-uri", postgresql_uri, "--workers", "2", "--auth-file", users),
        *("--expose-prometheus", tmp_path / "metrics"),
    )
    password = postgresql_uri.partition("@")[0].rpartition(":")[2]
    with httpx.Client(base_url=server.url, headers=BEARER) as client:
        name = {"experiment_name": _create(client, "shared")}
    answers: list[httpx.Response] = []
    seen = 0
    # A new connection each: the kernel hands them to either worker.
    while seen < 2 and len(answers) < 500:
        answers.append(httpx.get(server.url + "/api/2.0/mlflow/runs/get", headers=BEARER))
        seen = len(list((tmp_path / "metrics").glob("counter_*.db")))
    assert seen == 2
    text = httpx.get(server.url + "/metrics", headers=BEARER).text
    counted = [line for line in text.splitlines() if 'path="/api/2.0/mlflow/runs/get"' in line]
    (total,) = [each for each in counted if each.startswith("mlflow_http_request_total")]
    assert float(total.rpartition(" ")[2]) == len(answers)
    assert httpx.get(server.url + "/metrics").status_code == 401
    assert name
    assert password not in server.log()

    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait() == 0
    assert "Traceback" not in server.log()
    assert postgresql.connection_count(postgresql_uri) == 0


def test_a_worker_that_dies_is_replaced(start: Start) -> None:
    server = start("--workers", "2")
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not say which children a process has")
    started = "Application startup complete"
    server.process.wait_until(lambda: server.log().count(started) == 2, "waiting for both workers")
    for child in children.read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    server.process.wait_until(lambda: server.log().count(started) == 4, "waiting for others")
    with httpx.Client(base_url=server.url) as client:
        _create(client, "again")


def test_workers_are_replaced_without_a_pause(start: Start) -> None:
    server = start("--workers", "2")
    started, finished = "Application startup complete", "Finished server process"
    server.process.wait_until(lambda: server.log().count(started) == 2, "waiting for both workers")
    os.kill(server.process.pid, signal.SIGHUP)

    def replaced() -> bool:
        assert httpx.get(f"{server.url}/version").status_code == 200
        return (server.log().count(started), server.log().count(finished)) == (4, 2)

    server.process.wait_until(replaced, "waiting for other workers")


def test_a_port_that_is_taken_is_an_error(start: Start, tmp_path: Path) -> None:
    first = start()
    for workers in ("1", "2"):
        done = subprocess.run(
            [*COMMAND, "--port", str(first.port), "--workers", workers],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert done.returncode not in (0, None)
        assert "address already in use" in done.stderr.lower()


@pytest.mark.parametrize("library", ["fastapi", "msgspec", "uvicorn"])
def test_a_missing_library_is_named_with_its_extra(library: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None; from asyncstore.cli import main; "
        "sys.exit(main(['server']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert f"needs the library {library}; run: pip install 'asyncstore[server]'" in done.stderr


def test_the_command_line_brings_no_library_of_the_server() -> None:
    code = (
        "import sys, asyncstore.cli.app; print(*{each.partition('.')[0] for each in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"fastapi", "msgspec", "starlette", "uvicorn", "prometheus_client", "opentelemetry"}
    assert not heavy & set(done.stdout.split())
