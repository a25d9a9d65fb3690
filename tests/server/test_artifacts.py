"""Artifacts through the server, on the wire."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from asyncstore.testing.fault_proxy import Answer, FaultProxy, Reset
from tests.server.http import call, eventually, half_a_request, request, sampled
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.base import HOST
from tests.servers.running import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.radosgw import RadosGateway

MIB = 1024 * 1024
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def server() -> Iterator[AsyncstoreServer]:
    """Artifacts are in `mlartifacts` of its directory."""
    yield from running(AsyncstoreServer())


@pytest.fixture(scope="module")
def storage(radosgw: RadosGateway) -> Iterator[FaultProxy]:
    """The way of `s3_server` to its storage."""
    with FaultProxy(radosgw.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bucket(radosgw: RadosGateway) -> str:
    return radosgw.create_bucket()


@pytest.fixture(scope="module")
def s3_server(
    radosgw: RadosGateway, storage: FaultProxy, bucket: str
) -> Iterator[AsyncstoreServer]:
    environment = {**radosgw.environment, "MLFLOW_S3_ENDPOINT_URL": storage.url}
    destination = f"s3://{bucket}/proxied"
    yield from running(
        AsyncstoreServer("--artifacts-destination", destination, environment=environment)
    )


def files(server: AsyncstoreServer) -> list[str]:
    root = server.directory / "mlartifacts"
    return sorted(str(each.relative_to(root)) for each in root.rglob("*") if each.is_file())


@pytest.mark.parametrize("kind", ["server", "s3_server"])
def test_200_mib_go_up_and_down_in_little_memory(
    kind: str, request_fixture: pytest.FixtureRequest
) -> None:
    server: AsyncstoreServer = request_fixture.getfixturevalue(kind)
    path = f"{ARTIFACTS}/1/large.bin"
    piece = os.urandom(MIB)
    request(server.port, "PUT", f"{ARTIFACTS}/1/small.bin", piece)
    assert request(server.port, "GET", f"{ARTIFACTS}/1/small.bin").body == piece
    sent, received = hashlib.sha256(), hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for number in range(200):
            data = number.to_bytes(8, "big") + piece[8:]
            sent.update(data)
            yield data

    with sampled(server) as memory:
        idle = memory.now()
        length = {"Content-Length": str(200 * MIB)}
        assert request(server.port, "PUT", path, pieces(), length).status == 200
        connection = http.client.HTTPConnection(HOST, server.port, timeout=120)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.headers["Content-Length"] == str(200 * MIB)
        while data := answer.read(MIB):
            received.update(data)
        connection.close()
    assert received.digest() == sent.digest()
    assert memory.peak - idle < 64 * MIB
    assert request(server.port, "DELETE", path).json == {}
    assert request(server.port, "GET", path).status == 404


@pytest.fixture
def request_fixture(request: pytest.FixtureRequest) -> pytest.FixtureRequest:
    """`request` is a function here."""
    return request


def test_half_an_upload_leaves_nothing(server: AsyncstoreServer) -> None:
    request(server.port, "PUT", f"{ARTIFACTS}/half/old.bin", b"old")
    before = files(server)
    for name in ("old.bin", "new.bin"):
        path = f"{ARTIFACTS}/half/{name}"
        connection = half_a_request(server.port, "PUT", path, 50 * MIB, bytes(20 * MIB))
        # It is written beside its place.
        eventually(lambda: files(server) != before, "the upload begins")
        connection.close()
        eventually(lambda: files(server) == before, "what came is removed")
    assert request(server.port, "GET", f"{ARTIFACTS}/half/old.bin").body == b"old"
    assert request(server.port, "GET", f"{ARTIFACTS}/half/new.bin").status == 404


def test_half_an_upload_leaves_nothing_on_s3(
    s3_server: AsyncstoreServer, radosgw: RadosGateway, bucket: str
) -> None:
    path = f"{ARTIFACTS}/half/new.bin"
    connection = half_a_request(s3_server.port, "PUT", path, 50 * MIB, bytes(20 * MIB))
    eventually(lambda: len(radosgw.open_multipart_uploads(bucket)) == 1, "the upload begins")
    connection.close()
    eventually(lambda: radosgw.open_multipart_uploads(bucket) == [], "the upload is aborted")
    assert request(s3_server.port, "GET", path).status == 404


def test_a_client_that_goes_away_ends_the_reading(
    s3_server: AsyncstoreServer, storage: FaultProxy
) -> None:
    path = f"{ARTIFACTS}/away/large.bin"
    request(s3_server.port, "PUT", path, bytes(100 * MIB))
    storage.bytes_per_second = 5 * MIB
    try:
        connection = half_a_request(s3_server.port, "GET", path, 0, b"")
        assert connection.recv(1) == b"H"
        eventually(lambda: storage.requests_in_flight == 1, "the file is being read")
        connection.close()
        # At that rate it would take 20 seconds.
        eventually(lambda: storage.requests_in_flight == 0, "the reading ends", timeout=5)
    finally:
        storage.bytes_per_second = None
    assert request(s3_server.port, "GET", "/health").body == b"OK"


@pytest.mark.parametrize("kind", ["server", "s3_server"])
def test_clients_that_do_not_read_keep_nobody_else_waiting(
    kind: str, request_fixture: pytest.FixtureRequest
) -> None:
    server: AsyncstoreServer = request_fixture.getfixturevalue(kind)
    content = os.urandom(20 * MIB)
    large, small = f"{ARTIFACTS}/slow/large.bin", f"{ARTIFACTS}/slow/small.bin"
    request(server.port, "PUT", large, content)
    request(server.port, "PUT", small, b"small")
    # More than a storage may have of requests, and of memory for them.
    slow = [half_a_request(server.port, "GET", large, 0, b"") for _ in range(80)]
    try:
        assert all(each.recv(1, socket.MSG_PEEK) == b"H" for each in slow)
        assert request(server.port, "GET", small).body == b"small"
        assert request(server.port, "PUT", small, b"other").status == 200
        # One that was waiting gets the rest all the same.
        answer = http.client.HTTPResponse(slow[0])
        answer.begin()
        assert answer.read() == content
    finally:
        for each in slow:
            each.close()


def test_a_storage_that_breaks_off_ends_the_connection(
    s3_server: AsyncstoreServer, storage: FaultProxy
) -> None:
    """Half a file must not look like a whole one."""
    path = f"{ARTIFACTS}/broken/large.bin"
    request(s3_server.port, "PUT", path, bytes(20 * MIB))
    fault = Reset(after=5 * MIB, matches=lambda each: each.method == "GET")
    storage.faults.append(fault)
    try:
        with pytest.raises(http.client.IncompleteRead):
            request(s3_server.port, "GET", path)
    finally:
        storage.faults.remove(fault)
    assert fault.count > 0
    assert request(s3_server.port, "GET", path).body == bytes(20 * MIB)


def test_a_storage_that_refuses_says_so(
    s3_server: AsyncstoreServer, storage: FaultProxy, bucket: str, radosgw: RadosGateway
) -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    path = f"{ARTIFACTS}/refused/large.bin"
    request(s3_server.port, "PUT", path, b"small")
    for method, content in (("GET", None), ("PUT", b"changed"), ("PUT", bytes(20 * MIB))):
        fault = Answer(status=403, body=body, matches=lambda each: "refused" in each.path)
        storage.faults.append(fault)
        try:
            answer = request(s3_server.port, method, path, content)
        finally:
            storage.faults.remove(fault)
        assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")
        # Whose keys the server has is nobody's business.
        assert radosgw.environment["AWS_ACCESS_KEY_ID"].encode() not in answer.body
    assert radosgw.open_multipart_uploads(bucket) == []
    assert request(s3_server.port, "GET", path).body == b"small"


OUTSIDE = [
    "../secret.txt",
    "x/../../secret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "..%2fsecret.txt",
    "%252e%252e%252fsecret.txt",
    "%25252e%25252e%25252fsecret.txt",
    "..%5csecret.txt",
    "x%5c..%5c..%5csecret.txt",
    "%2fsecret.txt",
    "C:%5csecret.txt",
    "x%00/../../secret.txt",
    "x%23/../../secret.txt",
    "x%3f/../../secret.txt",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leaves_the_destination(server: AsyncstoreServer, path: str) -> None:
    secret = server.directory / "secret.txt"
    secret.write_text("S3CR3T")
    request(server.port, "PUT", f"{ARTIFACTS}/x/y.txt", b"content")
    before = sorted(server.directory.rglob("*"))
    for method, body in (("GET", None), ("HEAD", None), ("PUT", b"changed"), ("DELETE", None)):
        answer = request(server.port, method, f"{ARTIFACTS}/{path}", body)
        assert answer.status in (400, 404), (method, answer)
        assert b"S3CR3T" not in answer.body
    for below in ("", "%2e%2e"):
        listed = request(server.port, "GET", f"{ARTIFACTS}?path={path.rpartition('s')[0]}{below}")
        assert b"secret" not in listed.body.replace(path.encode(), b"")
    what = "/api/2.0/mlflow-artifacts"
    assert call(server.port, "GET", f"{what}/presigned/{path}").status in (400, 404, 501)
    content = {"path": "x", "num_parts": 1}
    assert call(server.port, "POST", f"{what}/mpu/create/{path}", content).status in (400, 404)
    assert secret.read_text() == "S3CR3T"
    assert sorted(server.directory.rglob("*")) == before


def test_an_overlong_slash_is_no_slash(server: AsyncstoreServer) -> None:
    request(server.port, "PUT", f"{ARTIFACTS}/overlong/..%c0%afsecret.txt", b"content")
    (name,) = [each for each in files(server) if each.startswith("overlong/")]
    assert name == "overlong/..\ufffd\ufffdsecret.txt"


def test_a_link_on_the_storage_leads_nowhere_else(server: AsyncstoreServer) -> None:
    (server.directory / "secret.txt").write_text("S3CR3T")
    # Made by the person whose server it is: links are followed, as everywhere in asyncstore.
    directory = server.directory / "mlartifacts" / "links"
    directory.mkdir(parents=True)
    (directory / "link.txt").symlink_to(server.directory / "secret.txt")
    assert request(server.port, "GET", f"{ARTIFACTS}/links/link.txt").body == b"S3CR3T"
    assert request(server.port, "DELETE", f"{ARTIFACTS}/links").status == 200
    assert (server.directory / "secret.txt").read_text() == "S3CR3T"


@pytest.mark.parametrize("kind", ["server", "s3_server"])
def test_ranges(kind: str, request_fixture: pytest.FixtureRequest) -> None:
    server: AsyncstoreServer = request_fixture.getfixturevalue(kind)
    path = f"{ARTIFACTS}/ranges/ten.bin"
    request(server.port, "PUT", path, b"0123456789")
    whole = request(server.port, "GET", path)
    assert (whole.status, whole.body) == (200, b"0123456789")
    assert whole.headers["Accept-Ranges"] == "bytes"
    for wanted, content, shown in (
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=8-", b"89", "bytes 8-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=-100", b"0123456789", "bytes 0-9/10"),
    ):
        part = request(server.port, "GET", path, headers={"Range": wanted})
        assert (part.status, part.body, part.headers["Content-Range"]) == (206, content, shown)
        assert part.headers["Content-Length"] == str(len(content))
    for wanted in ("bytes=10-", "bytes=-0", "bytes=20-30"):
        none = request(server.port, "GET", path, headers={"Range": wanted})
        assert (none.status, none.headers["Content-Range"]) == (416, "bytes */10")
    for wanted in ("bytes=5-2", "bytes=x", "lines=1-2", "bytes=0-1,3-4", "bytes=-"):
        assert request(server.port, "GET", path, headers={"Range": wanted}).status == 200
    both = {"Range": "bytes=0-3", "If-Range": whole.headers["ETag"]}
    assert request(server.port, "GET", path, headers=both).status == 206
    assert request(server.port, "GET", path, headers={**both, "If-Range": '"x"'}).status == 200


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("notes.txt", "text/plain", "attachment; filename=notes.txt"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("a b.json", "text/plain", 'attachment; filename="a b.json"'),
        ("script.js", "text/plain", "attachment; filename=script.js"),
        ("plot.png", "image/png", "attachment; filename=plot.png"),
        ("page.html", "text/html", "attachment; filename=page.html"),
        ("picture.svg", "image/svg+xml", "attachment; filename=picture.svg"),
        ("model", "application/octet-stream", "attachment; filename=model"),
        (
            "größe.txt",
            "text/plain",
            "attachment; filename=\"groe.txt\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.txt",
        ),
        (
            'a";\r\nX: y.txt',
            "text/plain",
            "attachment; filename=\"a_;__X: y.txt\"; filename*=UTF-8''a%22%3B%0D%0AX%3A%20y.txt",
        ),
    ],
)
def test_no_browser_runs_an_artifact(
    server: AsyncstoreServer, name: str, kind: str, shown: str
) -> None:
    path = f"{ARTIFACTS}/kinds/{quote(name, safe='')}"
    assert request(server.port, "PUT", path, b"<script>alert(1)</script>").status == 200
    for method in ("GET", "HEAD"):
        answer = request(server.port, method, path, headers={"Accept": "text/html"})
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Content-Disposition"] == shown
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Length"] == "25"
        assert answer.headers.get("X") is None
    assert answer.body == b""
    listed = request(server.port, "GET", f"{ARTIFACTS}?path=kinds").json["files"]
    assert {"path": name, "is_dir": False, "file_size": 25} in listed


def test_what_cannot_be_answered(server: AsyncstoreServer) -> None:
    assert request(server.port, "PUT", f"{ARTIFACTS}/odd/empty.bin", b"").status == 200
    assert request(server.port, "GET", f"{ARTIFACTS}/odd/empty.bin").body == b""
    directory = request(server.port, "GET", f"{ARTIFACTS}/odd")
    assert directory.status == 400
    assert directory.json["error_code"] == "INVALID_PARAMETER_VALUE"
    missing = request(server.port, "GET", f"{ARTIFACTS}/odd/missing.bin")
    assert (missing.status, missing.json["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert request(server.port, "GET", f"{ARTIFACTS}?path=odd/missing").json == {}
    assert request(server.port, "PUT", f"{ARTIFACTS}/odd/directory/", b"x").status == 400
    # A file is no directory.
    assert request(server.port, "PUT", f"{ARTIFACTS}/odd/empty.bin/x", b"x").status in (400, 409)
    assert request(server.port, "POST", f"{ARTIFACTS}/odd/empty.bin", b"x").status == 405
