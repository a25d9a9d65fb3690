"""Credentials and headers of requests, as requests and MLflow use them."""

from __future__ import annotations

import base64
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

import asyncstore
from asyncstore import request_auth
from asyncstore.errors import AsyncStoreError, InvalidParameterError, UnauthenticatedError
from asyncstore.request_auth import RequestAuth
from asyncstore.request_headers import RequestHeaders


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    request_auth._forget()


def header() -> str:
    request = requests.Request("GET", "http://localhost/").prepare()
    RequestAuth().get_auth()(request)
    return str(request.headers["Authorization"])


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def command(code: str, *words: str | Path) -> str:
    """A command line that runs Python."""
    return shlex.join([sys.executable, "-S", "-c", code, *map(str, words)])


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """A file that `COUNTING` adds a line to."""
    path = tmp_path / "count er"
    path.touch()
    return path


COUNTING = """
import sys
with open(sys.argv[1], "a+") as file:
    file.write("x\\n")
    file.seek(0)
    print("token%d" % len(file.readlines()))
"""


class TestVariables:
    def test_the_name(self) -> None:
        assert RequestAuth().get_name() == "asyncstore"

    def test_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "ab.c-1~/+==")
        assert header() == "Bearer ab.c-1~/+=="

    def test_user_and_password_go_before_the_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        assert header() == "Bearer abc"
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pä:ss")
        assert header() == basic("me:pä:ss")

    def test_nothing_is_set(self) -> None:
        with pytest.raises(UnauthenticatedError, match="set ASYNCSTORE_AUTH_FILE"):
            header()

    def test_credentials_that_the_request_has_already(self) -> None:
        request = requests.Request("GET", "http://x/", headers={"Authorization": "Bearer own"})
        prepared = RequestAuth().get_auth()(request.prepare())
        assert prepared.headers["Authorization"] == "Bearer own"

    @pytest.mark.parametrize("token", ["S3CR3T\r\nX: y", "S3CR3T S3CR3T", "S3CR3Té"])
    def test_what_is_no_token(self, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        with pytest.raises(InvalidParameterError, match=r"^MLFLOW_TRACKING_TOKEN: ") as raised:
            header()
        assert_silent(raised.value)


def assert_silent(error: BaseException) -> None:
    """Nothing that a log would show of an error holds a secret."""
    assert "S3CR3T" not in "".join(traceback.format_exception(error))


class TestFile:
    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("ASYNCSTORE_AUTH_FILE", str(tmp_path / "token"))
        # Of less weight.
        monkeypatch.setenv("ASYNCSTORE_AUTH_COMMAND", command("print('from-the-command')"))
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "from-the-variable")
        return tmp_path / "token"

    def test_it_is_read_again_when_it_changes(self, file: Path, tmp_path: Path) -> None:
        auth = RequestAuth().get_auth()

        def now() -> str:
            request = auth(requests.Request("GET", "http://x/").prepare())
            return str(request.headers["Authorization"])

        file.write_text("first\n")
        stamp = file.stat()
        assert now() == "Bearer first"
        # As long, and as old.
        file.write_text("other\n")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert now() == "Bearer other"
        (tmp_path / "new").write_text("me:third")
        (tmp_path / "new").rename(file)
        assert now() == basic("me:third")

    def test_while_it_is_rewritten_the_last_one_counts(self, file: Path) -> None:
        file.write_text("first")
        assert header() == "Bearer first"
        file.write_text("\n")
        assert header() == "Bearer first"
        file.unlink()
        assert header() == "Bearer first"

    def test_the_last_one_of_another_file_does_not(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file.write_text("first")
        assert header() == "Bearer first"
        monkeypatch.setenv("ASYNCSTORE_AUTH_FILE", str(tmp_path / "another"))
        with pytest.raises(UnauthenticatedError, match=r"another holds no .*: No such file"):
            header()

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (b"", UnauthenticatedError),
            (b"S3CR3T\nS3CR3T\n", InvalidParameterError),
            (b"S3CR3T\xff", InvalidParameterError),
            (b"S3CR3T S3CR3T", InvalidParameterError),
        ],
    )
    def test_what_is_no_credentials(
        self, content: bytes, kind: type[AsyncStoreError], file: Path
    ) -> None:
        file.write_bytes(content)
        with pytest.raises(kind, match=r"^ASYNCSTORE_AUTH_FILE: ") as raised:
            header()
        assert_silent(raised.value)


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "from-the-variable")

        def set_command(line: str) -> None:
            monkeypatch.setenv("ASYNCSTORE_AUTH_COMMAND", line)

        return set_command

    def test_it_runs_without_a_shell(self, run: Any, tmp_path: Path) -> None:
        run(command("import sys; print(':'.join(sys.argv[1:]))", "a b", f"$HOME;>{tmp_path}/x"))
        assert header() == basic(f"a b:$HOME;>{tmp_path}/x")
        assert list(tmp_path.iterdir()) == []

    def test_what_it_printed_counts_for_a_while(
        self, run: Any, counter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(command(COUNTING, counter))
        now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        assert [header(), header()] == ["Bearer token1"] * 2
        now += 299.9
        assert header() == "Bearer token1"
        now += 0.1
        assert header() == "Bearer token2"
        monkeypatch.setenv("ASYNCSTORE_AUTH_COMMAND_LIFETIME", "0")
        assert [header(), header()] == ["Bearer token3", "Bearer token4"]
        monkeypatch.setenv("ASYNCSTORE_AUTH_COMMAND_LIFETIME", "-1")
        now += 1e9
        assert header() == "Bearer token4"

    def test_another_command_is_run(self, run: Any, counter: Path) -> None:
        run(command(COUNTING, counter))
        assert header() == "Bearer token1"
        run(command("print('another')"))
        assert header() == "Bearer another"

    def test_threads_share_one_run(self, run: Any, counter: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "gate")
        run(
            command("import sys; open(sys.argv[2]).read()\n" + COUNTING, counter, tmp_path / "gate")
        )
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(header())) for _ in range(8)]
        for thread in threads:
            thread.start()
        (tmp_path / "gate").write_text("")
        for thread in threads:
            thread.join()
        assert found == ["Bearer token1"] * 8

    @pytest.mark.parametrize(
        ("line", "trouble"),
        [
            (command("import sys; sys.exit('S3CR3T')"), "it ended with status 1"),
            (command("", "S3CR3T"), "it printed nothing"),
            ("/no/such/S3CR3T", "it cannot be started: No such file"),
            ("tool 'S3CR3T", "its quotes do not match"),
        ],
    )
    def test_what_goes_wrong(self, line: str, trouble: str, run: Any) -> None:
        run(line)
        with pytest.raises(UnauthenticatedError, match=f"^ASYNCSTORE_AUTH_.*{trouble}") as raised:
            header()
        assert_silent(raised.value)

    @pytest.mark.parametrize(
        "code", ["print('S3CR3T'); print('S3CR3T')", "open(1, 'wb').write(b'S3CR3T\\xff')"]
    )
    def test_what_is_no_credentials(self, code: str, run: Any) -> None:
        run(command(code))
        with pytest.raises(InvalidParameterError, match=r"^ASYNCSTORE_AUTH_COMMAND: ") as raised:
            header()
        assert_silent(raised.value)

    def test_it_has_a_limited_time(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request_auth, "COMMAND_WITHIN", 0.1)
        run(command("import time; time.sleep(600)", "S3CR3T"))
        with pytest.raises(UnauthenticatedError, match=r"took more than 0\.1 s") as raised:
            header()
        assert_silent(raised.value)

    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_a_fork_while_it_runs(self, run: Any, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "gate")
        run(command("import sys; print(open(sys.argv[1]).read())", tmp_path / "gate"))
        thread = threading.Thread(target=header)
        thread.start()
        with (tmp_path / "gate").open("w") as gate:
            # The command runs, and its lock is held.
            child = os.fork()
            if child == 0:
                end = 1
                # A child that waits for ever is ended, which is another status.
                signal.alarm(30)
                try:
                    os.environ["ASYNCSTORE_AUTH_COMMAND"] = command("print('of-the-child')")
                    end = 0 if header() == "Bearer of-the-child" else 1
                finally:
                    os._exit(end)
            _, status = os.waitpid(child, 0)
            gate.write("of-the-parent")
        thread.join()
        assert status == 0
        assert header() == "Bearer of-the-parent"


class Guarded(BaseHTTPRequestHandler):
    """Lets in who has the token of the day."""

    token = "token1"

    def do_GET(self) -> None:
        right = self.headers["Authorization"] == f"Bearer {self.token}"
        self.send_response(200 if right else 401)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_a_refusal_has_the_command_run_again(
    server: str, counter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCSTORE_AUTH_COMMAND", command(COUNTING, counter))

    def status() -> int:
        return requests.get(server, auth=RequestAuth().get_auth(), timeout=30).status_code

    assert [status(), status()] == [200, 200]
    monkeypatch.setattr(Guarded, "token", "token2")
    assert [status(), status(), status()] == [401, 200, 200]


def test_headers_say_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = RequestHeaders()
    assert provider.in_context()
    assert provider.request_headers() == {
        "User-Agent": f"asyncstore/{asyncstore.__version__}",
        "X-Asyncstore-Version": asyncstore.__version__,
    }
    monkeypatch.setenv("ASYNCSTORE_REQUEST_HEADERS", '{"X-Team": "vision", "user-agent": "mine"}')
    assert provider.request_headers() == {
        "X-Asyncstore-Version": asyncstore.__version__,
        "X-Team": "vision",
        "user-agent": "mine",
    }
    monkeypatch.setenv("ASYNCSTORE_REQUEST_HEADERS", '{"X-Team": "S3CR3T\\r\\nX: y"}')
    with pytest.raises(InvalidParameterError, match=r"^ASYNCSTORE_REQUEST_HEADERS: ") as raised:
        provider.request_headers()
    assert_silent(raised.value)
