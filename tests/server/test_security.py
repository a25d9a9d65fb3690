from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.types import Message, Receive, Scope, Send

from asyncstore.server import connections, middlewares
from asyncstore.server.limits import BodyLimitMiddleware, RateLimitMiddleware
from asyncstore.server.security import (
    host_allowed,
    origin_allowed,
    origin_pattern,
    parse_host,
)
from tests.server.serving import Echo, behind, served

RUNS, ARTIFACT = "/api/2.0/mlflow/runs/create", "/api/2.0/mlflow-artifacts/artifacts/a/b"


@contextmanager
def _client(*chosen: Middleware, echo: Echo | None = None) -> Iterator[httpx.Client]:
    app = behind(echo or Echo(), chosen)
    with served(app) as url, httpx.Client(base_url=url) as client:
        yield client


@contextmanager
def _standard(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]
) -> Iterator[httpx.Client]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ASYNCSTORE_SERVER_ACCESS_LOG", "false")
    with _client(*middlewares.middlewares()) as client:
        yield client


# Hosts


@pytest.mark.parametrize(
    "header",
    [
        *("localhost", "localhost:5000", "LocalHost:80", "localhost.", "127.0.0.1", "0.0.0.0:5000"),
        *("[::1]", "[::1]:5000", "10.1.2.3:5000", "172.16.0.1", "172.31.9.9", "192.168.0.7:5000"),
        *("[fc00::1]:80", "[fdab::1]"),
    ],
)
def test_loopback_and_private_addresses_are_allowed(header: str) -> None:
    assert host_allowed(header, None)


@pytest.mark.parametrize(
    "header",
    [
        *("evil.example", "localhost.evil.example", "evil.example:5000", "8.8.8.8", "172.32.0.1"),
        *("192.168.0.7.evil.example", "10.evil.example", "127.0.0.1.evil.example", "[2001:db8::1]"),
        *(
            "",
            ":5000",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "a@localhost",
            "localhost/",
        ),
        *("[localhost]", "[::1", "::1", "[127.0.0.1]", "localhost evil", "127.1", "0x7f.1", "."),
        *("a" * 301, "localhost\nevil", "l\u043ecalhost", "2130706433"),
    ],
)
def test_other_hosts_are_refused(header: str) -> None:
    assert not host_allowed(header, None)


@pytest.mark.parametrize(
    ("allowed", "yes", "no"),
    [
        ("mlflow.example.com", ["mlflow.example.com", "MLFLOW.example.com.:80"], ["example.com"]),
        ("mlflow.example.com:80", ["mlflow.example.com:80"], ["mlflow.example.com:81"]),
        ("*.example.com", ["a.example.com", "a.b.example.com:1"], ["example.com", "a.example.org"]),
        ("192.168.*", ["192.168.1.2:5000"], ["192.168.evil.com", "10.0.0.1"]),
        ("10.0.0.*:5000", ["10.0.0.9:5000"], ["10.0.0.9:5001", "10.0.0.evil.com:5000"]),
        ("[::1]:*", ["[::1]:5000"], ["localhost"]),
        ("a.b", ["a.b"], ["axb", "localhost", "127.0.0.1"]),
        ("0.example.com", ["0.example.com"], []),
    ],
)
def test_allowed_hosts_are_names_with_or_without_a_port(
    allowed: str, yes: list[str], no: list[str]
) -> None:
    for header in yes:
        assert host_allowed(header, [allowed]), header
    for header in no:
        assert not host_allowed(header, [allowed]), header


@given(st.text())
@example("[::ffff:10.0.0.1]:1")
def test_any_text_is_a_host_or_none(text: str) -> None:
    host = parse_host(text)
    if host is not None:
        again = parse_host(host.spellings()[1])
        assert again == host
        assert not set(host.name + host.port) & set(" /@?#\\\r\n,")
    host_allowed(text, None)


@given(st.ip_addresses(), st.none() | st.integers(0, 65535))
def test_every_address_is_a_host(address: Any, port: int | None) -> None:
    name = f"[{address}]" if address.version == 6 else str(address)
    host = parse_host(name if port is None else f"{name}:{port}")
    assert host is not None
    assert (host.address, host.port) == (address, "" if port is None else str(port))


def test_a_rebound_name_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with _standard(monkeypatch, {}) as client:
        assert client.get("/api/2.0/mlflow/runs/get").status_code == 200
        refused = client.get("/api/2.0/mlflow/runs/get", headers={"Host": "evil.example"})
        assert refused.status_code == 403
        assert refused.json()["error_code"] == "PERMISSION_DENIED"
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 200
    allowed = {"MLFLOW_SERVER_ALLOWED_HOSTS": "a.example, *.internal"}
    with _standard(monkeypatch, allowed) as client:
        for host, status in (("a.example:1", 200), ("b.internal", 200), ("localhost", 403)):
            assert client.get("/", headers={"Host": host}).status_code == status
    with _standard(monkeypatch, {"MLFLOW_SERVER_ALLOWED_HOSTS": "*"}) as client:
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 200


def test_security_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true"}
    with _standard(monkeypatch, off) as client:
        evil = {"Host": "evil.example", "Origin": "https://evil.example"}
        answer = client.post(RUNS, headers=evil)
        assert answer.status_code == 200
        assert "x-frame-options" not in answer.headers


# Origins


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://localhost:3000", "127.0.0.1:5000", True),
        ("http://127.0.0.1", "a.example", True),
        ("http://[::1]:8888", "a.example", True),
        # The UI of the server itself, also behind a proxy that speaks TLS.
        ("https://a.example", "a.example", True),
        ("http://a.example:5000", "a.example:5000", True),
        ("https://app.example.com", "a.example", True),
        ("https://x.apps.example.com", "a.example", True),
        ("http://app.example.com", "a.example", False),
        ("https://app.example.com.evil.example", "a.example", False),
        ("https://a.example:444", "a.example", False),
        ("http://localhost.evil.example", "a.example", False),
        ("http://localhost@evil.example", "a.example", False),
        ("null", "a.example", False),
        ("", "a.example", False),
        ("https://", "", False),
        ("evil.example", "evil.example", False),
        ("https://app.example.com" + "." * 300, "a.example", False),
        ("https://x" + ".x" * 300 + ".apps.example.com", "a.example", False),
    ],
)
def test_origins_are_this_machine_the_server_itself_or_listed(
    origin: str, host: str, allowed: bool
) -> None:
    listed = origin_pattern(["https://app.example.com", "https://*.apps.example.com"])
    assert origin_allowed(origin, host, listed) is allowed


@given(st.text(), st.text())
def test_no_text_makes_the_check_fail(origin: str, host: str) -> None:
    origin_allowed(origin, host, origin_pattern([]))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_page_of_another_site_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    evil = {"Origin": "https://evil.example"}
    with _standard(monkeypatch, {}) as client:
        refused = client.request(method, RUNS, headers=evil)
        assert refused.status_code == 403
        assert "Cross-origin" in refused.json()["message"]
        assert client.request(method, "/anything", headers=evil).status_code == 403
        assert client.request(method, RUNS).status_code == 200
        own = {"Origin": str(client.base_url)}
        assert client.request(method, RUNS, headers=own).status_code == 200
        # Reading is up to the browser, which needs a header to show the answer.
        read = client.get(RUNS, headers=evil)
        assert read.status_code == 200
        assert "access-control-allow-origin" not in read.headers


def test_listed_origins_may_use_the_server_from_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://app.example.com"}
    with _standard(monkeypatch, listed) as client:
        origin = {"Origin": "https://app.example.com"}
        asked = {**origin, "Access-Control-Request-Method": "POST"}
        preflight = client.options(RUNS, headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
        assert preflight.headers["access-control-allow-credentials"] == "true"
        assert client.post(RUNS, headers=origin).status_code == 200
        evil = {**asked, "Origin": "https://evil.example"}
        assert client.options(RUNS, headers=evil).status_code == 400
    with _standard(monkeypatch, {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*"}) as client:
        answer = client.post(RUNS, headers={"Origin": "https://evil.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


# Headers


def test_answers_are_not_guessed_and_not_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    with _standard(monkeypatch, {}) as client:
        for answer in (client.get("/"), client.post("/", headers={"Origin": "null"})):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        # Notebooks show it in a frame.
        renderer = client.get("/static-files/lib/notebook-trace-renderer/index.html")
        assert "x-frame-options" not in renderer.headers
    with _standard(monkeypatch, {"MLFLOW_SERVER_X_FRAME_OPTIONS": "NONE"}) as client:
        assert "x-frame-options" not in client.get("/").headers


# Bodies


def _bodies(
    max_body: int | None = 1000, max_upload: int | None = None, timeout: float | None = None
) -> Middleware:
    return Middleware(
        BodyLimitMiddleware, max_body=max_body, max_upload=max_upload, timeout=timeout
    )


def _pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * 100


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_has_a_longest_length_and_an_artifact_has_its_own(chunked: bool) -> None:
    def content(length: int) -> bytes | Iterator[bytes]:
        return _pieces(length // 100) if chunked else b"x" * length

    echo = Echo()
    with _client(_bodies(1000, 5000), echo=echo) as client:
        for method, path, limit in (
            ("POST", RUNS, 1000),
            ("POST", "/api/2.0/mlflow-artifacts/mpu/create/a", 1000),
            ("PUT", ARTIFACT, 5000),
        ):
            whole = client.request(method, path, content=content(limit))
            assert (whole.status_code, whole.json()["length"]) == (200, limit)
            refused = client.request(method, path, content=content(limit + 100))
            assert refused.status_code == 413
            assert refused.json()["error_code"] == "INVALID_PARAMETER_VALUE"
            assert str(limit) in refused.json()["message"]
    # One with a length is refused before the application sees it.
    assert echo.ends == (["whole", "gone"] * 3 if chunked else ["whole"] * 3)


def test_artifacts_have_no_longest_length_unless_it_is_set() -> None:
    with _client(_bodies()) as client:
        assert client.put(ARTIFACT, content=_pieces(1000)).json()["length"] == 100_000


class _Raw:
    """A connection on which a test sends what it likes."""

    def __init__(self, url: str | httpx.URL) -> None:
        parts = urlsplit(str(url))
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=20)

    def send(self, text: str) -> None:
        self._socket.sendall(text.replace("\n", "\r\n").encode())

    def close(self) -> None:
        self._socket.close()

    def answer(self) -> str:
        """Everything until the server closes the connection, or breaks it off."""
        parts = []
        with suppress(ConnectionResetError):
            while part := self._socket.recv(65536):
                parts.append(part)
        self.close()
        return b"".join(parts).decode()


def test_a_body_that_does_not_come_ends_the_request() -> None:
    echo = Echo()
    with _client(_bodies(timeout=0.5), echo=echo) as client:
        for method, path in (("POST", RUNS), ("PUT", ARTIFACT)):
            raw = _Raw(client.base_url)
            raw.send(f"{method} {path} HTTP/1.1\nHost: localhost\nContent-Length: 100\n\nxx")
            answer = raw.answer()
            assert answer.startswith("HTTP/1.1 408 ")
            assert "DEADLINE_EXCEEDED" in answer
    assert echo.ends == ["gone", "gone"]


def test_an_artifact_may_take_its_time_piece_by_piece_and_json_not() -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(4):
            yield b"x"
            time.sleep(0.3)

    with _client(_bodies(timeout=0.8)) as client:
        assert client.put(ARTIFACT, content=slowly()).json()["length"] == 4
        assert client.post(RUNS, content=slowly()).status_code == 408


# Connections


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_timeout", lambda: 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("begun", ["", "GET / HT", "GET / HTTP/1.1\nHost: localhost\nX: "])
def test_headers_that_do_not_come_end_the_connection(begun: str) -> None:
    with _client() as client:
        raw = _Raw(client.base_url)
        raw.send(begun)
        assert raw.answer() == ""


@pytest.mark.usefixtures("impatient")
def test_headers_of_a_second_request_are_bounded_too() -> None:
    with _client() as client:
        raw = _Raw(client.base_url)
        raw.send("GET / HTTP/1.1\nHost: localhost\n\n")
        time.sleep(0.3)
        raw.send("GET / HTTP/1.1\n")
        began = time.monotonic()
        assert raw.answer().count("HTTP/1.1 200 OK") <= 1
        assert 0.2 < time.monotonic() - began < 4


@pytest.mark.usefixtures("impatient")
def test_a_request_may_take_longer_than_its_headers() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            time.sleep(1.5)
        await Echo()(scope, receive, send)

    with served(slow) as url:
        assert httpx.get(url, timeout=20).status_code == 200


@pytest.mark.usefixtures("impatient")
def test_a_client_that_does_not_read_is_cut_off() -> None:
    ends: list[float] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await Echo()(scope, receive, send)
            return
        began = time.monotonic()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        part: Message = {"type": "http.response.body", "body": b"x" * 2**20, "more_body": True}
        for _ in range(200):
            await send(part)
        ends.append(time.monotonic() - began)

    with served(endless) as url:
        raw = _Raw(url)
        raw.send("GET / HTTP/1.1\nHost: localhost\n\n")
        deadline = time.monotonic() + 20
        while not ends:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        raw.close()
    assert ends[0] > 0.4


# Rates


def _ticking(times: list[float]) -> Callable[[], float]:
    return lambda: times[-1]


def test_a_client_that_asks_too_often_waits() -> None:
    now = [0.0]
    limit = Middleware(RateLimitMiddleware, rate=20, clock=_ticking(now))
    with _client(limit) as client:
        assert [client.get("/").status_code for _ in range(41)] == [200] * 40 + [429]
        refused = client.get("/")
        assert refused.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
        assert refused.headers["retry-after"] == "1"
        now.append(0.1)
        assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
        now.append(100.0)
        assert [client.get("/").status_code for _ in range(41)] == [200] * 40 + [429]


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 30))
def test_never_more_than_the_rate_and_the_burst(pauses: list[float], rate: int) -> None:
    now = [0.0]
    limit = RateLimitMiddleware(Echo(), rate, clock=_ticking(now))
    passed: list[float] = []
    for pause in pauses:
        now.append(now[-1] + pause)
        if limit._take("client") <= 0:
            passed.append(now[-1])
    for at, first in enumerate(passed):
        for number, last in enumerate(passed[at:], 1):
            assert number <= max(rate * 2, 20) + rate * (last - first) + 1e-6
