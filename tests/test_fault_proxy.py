"""The fault proxy does what it says: each fault in its place, and nothing to other requests."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import itertools
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.testing.fault_proxy import (
    INTERNAL_ERROR,
    Answer,
    Fault,
    FaultProxy,
    Hang,
    Request,
    Reset,
    Truncate,
)
from asyncstore.testing.framing import Framer, FramingError, Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.radosgw import RadosGateway
    from tests.servers.tls import PrivateAuthority

BODY = bytes(range(256)) * 4096


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET /chunked gives BODY in chunks, /close until the end, all else whole; PUT its size."""

    protocol_version = "HTTP/1.1"
    received: list[str]

    def do_GET(self) -> None:
        self.received.append(self.path)
        self.send_response(200)
        if self.path == "/close":
            self.send_header("Connection", "close")
        elif self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.path == "/chunked":
            for start in range(0, len(BODY), 1000):
                piece = BODY[start : start + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\nX-Trailer: yes\r\n\r\n")
        else:
            self.wfile.write(BODY)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def do_PUT(self) -> None:
        self.received.append(self.path)
        size = 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = len(self.rfile.read(int(self.headers["Content-Length"])))
        answer = str(size).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[str] = []
        handler = type("Handler", (_Handler,), {"received": self.received})
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_: object) -> None:
        """Connections break here, that is the point."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: _Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(proxy.address, timeout=30)
    yield client
    client.close()


def fetch(
    client: http.client.HTTPConnection,
    path: str = "/body",
    method: str = "GET",
    body: bytes | Iterator[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    client.request(method, path, body, headers or {})
    response = client.getresponse()
    return response.status, response.read()


def drain(client: socket.socket) -> None:
    while client.recv(1000):
        pass


def read_as_it_comes(response: http.client.HTTPResponse, received: bytearray) -> None:
    while piece := response.read1():
        received += piece


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 10
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What passes


@pytest.mark.parametrize("latency", [0, 0.001])
@pytest.mark.parametrize("path", ["/body", "/chunked", "/close"])
def test_bodies_pass_unchanged(
    path: str, latency: float, proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.latency = latency
    for _ in range(2):
        assert fetch(client, path) == (200, BODY)
    assert [request.status for request in proxy.requests] == [200, 200]


def test_requests_with_length_and_in_chunks_pass(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    pieces = (BODY[start : start + 777] for start in range(0, len(BODY), 777))
    assert fetch(client, "/a", "PUT", BODY) == (200, b"%d" % len(BODY))
    assert fetch(client, "/b", "PUT", pieces) == (200, b"%d" % len(BODY))
    assert fetch(client, "/c", "HEAD") == (200, b"")
    assert fetch(client, "/d", "PUT", b"") == (200, b"0")
    assert fetch(client) == (200, BODY)
    assert [r.method for r in proxy.requests] == ["PUT", "PUT", "HEAD", "PUT", "GET"]
    assert proxy.connections_opened == 1


def test_requests_are_recorded(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    fetch(client, "/a%20b?uploads&x=1?2", headers={"X-Amz-Expected-Bucket-Owner": "123"})
    (request,) = proxy.requests
    assert (request.method, request.path, request.query) == ("GET", "/a%20b", "uploads&x=1?2")
    assert request.headers["x-amz-expected-bucket-owner"] == "123"


def test_connections_and_requests_are_counted(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Hang(matches=lambda request: request.path == "/hang"))
    assert proxy.connections == 0
    fetch(client)
    assert (proxy.connections, proxy.requests_in_flight) == (1, 0)
    hanging = [http.client.HTTPConnection(proxy.address) for _ in range(3)]
    for connection in hanging:
        connection.request("GET", "/hang")
    wait_until(lambda: proxy.requests_in_flight == 3)
    assert proxy.connections == 4
    for connection in hanging:
        connection.close()
    wait_until(lambda: proxy.connections == 1)
    assert (proxy.connections_opened, proxy.requests_in_flight) == (4, 0)
    assert proxy.peak_requests_in_flight == 3


# What is late


def test_latency_delays_each_way(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    fetch(client)
    proxy.latency = 0.05
    start = time.monotonic()
    fetch(client)
    assert time.monotonic() - start >= 0.1


def test_connecting_costs_a_round_trip(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.latency = 0.05
    start = time.monotonic()
    fetch(client)
    assert time.monotonic() - start >= 0.2


def test_a_limited_rate_takes_its_time(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.bytes_per_second = 4 * len(BODY)
    start = time.monotonic()
    assert fetch(client) == (200, BODY)
    assert time.monotonic() - start >= 0.25


# What breaks


def test_every_third_request_gets_the_answer(
    proxy: FaultProxy, server: _Server, client: http.client.HTTPConnection
) -> None:
    fault = Answer(status=503, headers={"Retry-After": "7"}, every=3)
    proxy.faults.append(fault)
    statuses = [fetch(client, f"/{n}")[0] for n in range(7)]
    assert statuses == [200, 200, 503, 200, 200, 503, 200]
    assert server.received == ["/0", "/1", "/3", "/4", "/6"]
    assert fault.count == 2
    assert [request.status for request in proxy.requests] == statuses
    assert proxy.connections_opened == 1


def test_the_first_two_that_match_get_the_answer(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Answer(status=500, first=2, matches=lambda r: r.method == "PUT"))
    assert fetch(client)[0] == 200
    assert [fetch(client, "/p", "PUT", BODY)[0] for _ in range(4)] == [500, 500, 200, 200]


def test_the_answer_carries_its_headers_and_body(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Answer(headers={"Retry-After": "7"}))
    client.request("GET", "/")
    response = client.getresponse()
    assert response.headers["Retry-After"] == "7"
    assert b"<Code>SlowDown</Code>" in response.read()


def test_an_answer_to_head_has_no_body() -> None:
    assert Answer().encode(Request("GET")).endswith(b"</Error>")
    assert Answer().encode(Request("HEAD")).endswith(b"\r\n\r\n")


def test_a_good_status_with_an_error_after_the_server_did_its_work(
    proxy: FaultProxy, server: _Server, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Answer(status=200, body=INTERNAL_ERROR, forward=True, first=1))
    assert fetch(client, "/done") == (200, INTERNAL_ERROR)
    assert server.received == ["/done"]
    assert fetch(client) == (200, BODY)


def test_an_answer_to_a_client_that_waits_for_100_continue(proxy: FaultProxy) -> None:
    proxy.faults.append(Answer())
    host, _, port = proxy.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert client.recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


@pytest.mark.parametrize("latency", [0, 0.005])
@pytest.mark.parametrize("path", ["/body", "/close"])
@pytest.mark.parametrize(("fault", "error"), [(Reset, ConnectionResetError), (Truncate, None)])
def test_an_answer_breaks_off_after_so_many_bytes(
    fault: type[Reset | Truncate],
    error: type[Exception] | None,
    path: str,
    latency: float,
    proxy: FaultProxy,
    client: http.client.HTTPConnection,
) -> None:
    proxy.latency = latency
    proxy.faults.append(fault(after=100_000, first=1))
    client.request("GET", path)
    response = client.getresponse()
    received = bytearray()
    if error is not None:
        with pytest.raises(error):
            read_as_it_comes(response, received)
    else:
        read_as_it_comes(response, received)
        assert bytes(received) == BODY[:100_000]
    # A reset may overtake bytes that the reader has not taken yet.
    assert BODY[:100_000].startswith(bytes(received))
    client.close()
    assert fetch(client) == (200, BODY)


def test_an_answer_breaks_off_before_its_head(
    proxy: FaultProxy, server: _Server, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Reset(first=1))
    with pytest.raises(ConnectionResetError):
        fetch(client, "/lost")
    assert server.received == ["/lost"]


def test_a_request_breaks_off_before_the_server_has_all_of_it(
    proxy: FaultProxy, server: _Server, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Reset(of="request", after=100_000, first=1))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        fetch(client, "/half", "PUT", BODY)
    client.close()
    proxy.faults.append(Reset(of="request", first=1))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        fetch(client, "/none", "PUT", BODY)
    client.close()
    assert fetch(client, "/all", "PUT", BODY) == (200, b"%d" % len(BODY))
    assert server.received == ["/half", "/all"]


def test_a_hanging_request_is_never_answered(
    proxy: FaultProxy, server: _Server, client: http.client.HTTPConnection
) -> None:
    proxy.faults.append(Hang(first=1))
    client.timeout = 0.2
    with pytest.raises(TimeoutError):
        fetch(client, "/hang")
    assert server.received == []


def test_connections_are_refused_and_accepted_again(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    fetch(client)
    proxy.refuse_connections()
    assert fetch(client) == (200, BODY)
    second = http.client.HTTPConnection(proxy.address)
    with pytest.raises(ConnectionRefusedError):
        second.connect()
    proxy.accept_connections()
    assert fetch(second) == (200, BODY)
    second.close()


def test_open_connections_are_reset(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    fetch(client)
    proxy.reset_connections()
    assert proxy.connections == 0
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        fetch(client)


def test_a_server_that_is_down_resets_the_client(server: _Server) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with FaultProxy(f"127.0.0.1:{nobody.getsockname()[1]}") as proxy:
            client = http.client.HTTPConnection(proxy.address)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                fetch(client)
            client.close()


def test_bytes_that_are_not_http_pass_when_told_so(server: _Server) -> None:
    echo = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = echo.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionResetError):
                while data := connection.recv(65536):
                    connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    faults: list[Fault] = [Reset(after=5, every=2)]
    with FaultProxy(f"127.0.0.1:{echo.getsockname()[1]}", http=False, faults=faults) as proxy:
        host, _, port = proxy.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"\x00\r\n\r\nanything")
            assert client.recv(100) == b"\x00\r\n\r\nanything"
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"anything")
            with pytest.raises(ConnectionResetError):
                drain(client)
        assert proxy.requests == []
    echo.shutdown(socket.SHUT_RDWR)
    echo.close()
    thread.join()


# Ways to run it


@pytest.mark.anyio
async def test_it_leaves_no_task_in_the_loop_that_uses_it(server: _Server) -> None:
    before = asyncio.all_tasks()
    async with FaultProxy(server.address, latency=0.01) as proxy:
        assert asyncio.all_tasks() == before
        host, _, port = proxy.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


def test_it_says_that_the_port_is_taken(proxy: FaultProxy) -> None:
    port = int(proxy.address.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        FaultProxy("127.0.0.1:1", port=port).start()


def test_closing_twice_is_the_same_as_once(proxy: FaultProxy) -> None:
    proxy.close()
    proxy.close()
    with pytest.raises(RuntimeError, match="not running"):
        proxy.refuse_connections()


def test_it_runs_from_a_shell(server: _Server) -> None:
    command = [sys.executable, "-m", "asyncstore.testing.fault_proxy", server.address]
    options = ["--status", "503", "--retry-after", "2", "--every", "2"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        client = http.client.HTTPConnection(process.stdout.readline().strip())
        assert [fetch(client)[0] for _ in range(3)] == [200, 503, 200]
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
        response.read()
        client.close()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_tls_with_a_private_authority(server: _Server, private_authority: PrivateAuthority) -> None:
    with private_authority.in_front_of(server.address) as proxy:
        assert proxy.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=private_authority.bundle)
        client = http.client.HTTPSConnection(proxy.address, context=trusting)
        assert fetch(client) == (200, BODY)
        client.close()
        stranger = http.client.HTTPSConnection(proxy.address, context=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            fetch(stranger)
        stranger.close()


def test_radosgw_behind_tls_is_the_same_radosgw(
    radosgw: RadosGateway, radosgw_tls: FaultProxy, private_authority: PrivateAuthority
) -> None:
    import botocore.config
    import botocore.session

    bucket = radosgw.create_bucket()
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=radosgw_tls.url,
        verify=str(private_authority.bundle),
        aws_access_key_id=radosgw.access_key,
        aws_secret_access_key=radosgw.secret_key,
        region_name=radosgw.region,
        # Over TLS botocore would send its checksum in a trailer, which this radosgw does not know.
        config=botocore.config.Config(request_checksum_calculation="when_required"),
    )
    client.put_object(Bucket=bucket, Key="k", Body=BODY)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == BODY
    client.close()
    assert [request.method for request in radosgw_tls.requests] == ["PUT", "GET"]
    assert radosgw.keys(bucket) == ["k"]


WIRE = [
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n\r\n\r\nx",
    (
        b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nab\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
    ),
    b"PUT /d HTTP/1.1\r\nContent-Length: 0\r\nX: 1\r\nx: 2\r\n\r\n",
]


@given(st.lists(st.integers(0, len(b"".join(WIRE)))))
def test_messages_are_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    wire = b"".join(WIRE)
    framer = Framer()
    messages = [b""]
    paths = []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(wire)]):
        for event in framer.feed(wire[start:end]):
            if isinstance(event, Head):
                paths.append(event.start[1])
            if event is None:
                messages.append(b"")
            else:
                messages[-1] += event.raw if isinstance(event, Head) else event
    assert messages == [*WIRE, b""]
    assert paths == ["/a", "/b", "/c", "/d"]


@pytest.mark.parametrize(
    "wire",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 2**19,
    ],
)
def test_bytes_that_are_not_http_are_refused(wire: bytes, proxy: FaultProxy) -> None:
    with pytest.raises(FramingError):
        list(Framer().feed(wire))
    host, _, port = proxy.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(wire)
        with pytest.raises(ConnectionResetError):
            drain(client)


def test_a_fault_counts_only_what_matches() -> None:
    fault = Fault(matches=lambda r: "partNumber" in r.query, every=2, first=4)
    answers = [fault.meets(Request(query=q)) for q in ("partNumber=1", "", "partNumber=2") * 3]
    assert answers == [False, False, True, False, False, True, False, False, False]
