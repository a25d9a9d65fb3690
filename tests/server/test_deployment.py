"""The files of docs/deployment.md, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from asyncstore.server.users import UserEntry, edit_users, hash_token
from tests.servers.base import HOST, Process, accepts_connections, free_port
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.radosgw import RadosGateway
from tests.servers.running import require
from tests.servers.tls import PrivateAuthority

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
TOKEN = "asyncstore_token"


def _block(kind: str, within: str) -> str:
    (found,) = (
        text
        for text in re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if within in text
    )
    return str(found)


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not installed")
    program = Path(sys.executable).with_name("asyncstore")
    unit = tmp_path / "asyncstore.service"
    unit.write_text(
        _replaced(_block("ini", "[Unit]"), {"/opt/asyncstore/bin/asyncstore": str(program)})
    )
    done = subprocess.run(
        [verify, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    # Of other units of this system it may say more.
    said = [line for line in done.stderr.splitlines() if "asyncstore" in line]
    assert (done.returncode, said) == (0, [])


def test_several_workers_on_postgresql_and_s3_behind_nginx(
    postgresql: PostgreSQL,
    postgresql_uri: str,
    radosgw: RadosGateway,
    s3_bucket: str,
    private_authority: PrivateAuthority,
    tmp_path: Path,
) -> None:
    backend, secure, plain = free_port(), free_port(), free_port()
    certificate = private_authority.certificate_file(tmp_path / "server.pem")
    site = _replaced(
        _block("nginx", "upstream"),
        {
            "server 127.0.0.1:5000;": f"server 127.0.0.1:{backend};",
            "listen 443 ssl;": f"listen {HOST}:{secure} ssl;",
            "listen 80;": f"listen {HOST}:{plain};",
            "mlflow.example.com;": "localhost;",
            "/etc/ssl/certs/mlflow.example.com.pem": str(certificate),
            "/etc/ssl/private/mlflow.example.com.key": str(certificate),
        },
    )
    nginx = Nginx(site, secure)
    require(nginx)

    users = tmp_path / "users"
    token = UserEntry("token", "nightly", "write", hash_token(TOKEN.encode()))
    edit_users(users, lambda _: [token])
    variables = dict(
        line.split("=", 1) for line in _block("sh", "MLFLOW_WORKERS").strip().splitlines()
    )
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(tmp_path),
        **variables,
        **radosgw.environment,
        "MLFLOW_BACKEND_STORE_URI": postgresql_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{s3_bucket}/mlflow",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost",
        "MLFLOW_WORKERS": "2",
        "ASYNCSTORE_SERVER_AUTH_FILE": str(users),
    }
    command = _replaced(
        _block("ini", "[Unit]").partition("ExecStart=")[2].partition("\n")[0],
        {
            "/opt/asyncstore/bin/asyncstore": f"{sys.executable} -m asyncstore.cli",
            "--port 5000": f"--port {backend}",
            "/run/asyncstore/metrics": str(tmp_path / "metrics"),
        },
    )
    server = Process(command.split(), tmp_path / "log", env=environment)
    try:
        server.wait_until(lambda: _answers(backend), "waiting for asyncstore server")
        with nginx:
            _use(f"https://localhost:{secure}", private_authority)
            redirected = httpx.get(f"http://localhost:{plain}/x?y=z")
            assert redirected.headers["location"] == "https://localhost/x?y=z"
    finally:
        server.stop(timeout=60)
    lines = [json.loads(each) for each in server.log.read_text().splitlines() if each[:1] == "{"]
    clients = {each["client"] for each in lines if each["user"]}
    assert clients == {HOST}


def _answers(port: int) -> bool:
    return accepts_connections(port) and httpx.get(f"http://{HOST}:{port}/health").is_success


def _use(url: str, authority: PrivateAuthority) -> None:
    trusted = ssl.create_default_context(cafile=authority.bundle)
    bearer = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "8.8.8.8"}
    with httpx.Client(base_url=url, verify=trusted, headers=bearer, timeout=60) as client:
        # As MLflow's UI in a browser.
        own = {"Origin": url}
        create = "/ajax-api/2.0/mlflow/experiments/create"
        assert client.post(create, json={"name": "mine"}, headers=own).status_code == 200
        evil = {"Origin": "https://evil.example"}
        assert client.post(create, json={"name": "theirs"}, headers=evil).status_code == 403
        content = os.urandom(20 * 2**20)
        path = "/api/2.0/mlflow-artifacts/artifacts/some/file.bin"
        assert client.put(path, content=content).status_code == 200
        assert client.get(path).content == content
        assert client.get("/metrics").status_code == 404
        assert client.get(path, headers={"Authorization": ""}).status_code == 401
