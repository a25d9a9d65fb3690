"""Files on a web server."""

from __future__ import annotations

import asyncio
import gzip
import os
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.artifacts import ArtifactRepository
from asyncstore.backends.http_listing import children
from asyncstore.entities import FileInfo
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import Answer, FaultProxy, Request, Reset, Truncate
from tests.artifacts.conftest import LARGE, MIB, QUICK
from tests.artifacts.raw import RawDirectory
from tests.servers.http import PlainWebServer, WebServer
from tests.servers.running import running

if TYPE_CHECKING:
    from tests.servers.tls import PrivateAuthority

pytestmark = pytest.mark.anyio

SECRET = "p@ss/w%rd S3CR3T"
QUOTED = "p%40ss%2Fw%25rd%20S3CR3T"


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    yield from running(WebServer())


@pytest.fixture(scope="module")
def plain() -> Iterator[PlainWebServer]:
    yield from running(PlainWebServer())


@pytest.fixture(scope="module")
def guarded() -> Iterator[WebServer]:
    yield from running(WebServer(("ada@lab", SECRET)))


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("web", "plain", "guarded"):
        if name in request.fixturenames:
            clear(request.getfixturevalue(name).files)


def clear(directory: Path) -> None:
    for child in directory.iterdir():
        if child.is_dir():
            clear(child)
            child.rmdir()
        else:
            child.unlink()


@pytest.fixture
def web_proxy(web: WebServer) -> Iterator[FaultProxy]:
    with FaultProxy(web.address) as proxy:
        yield proxy


@pytest.fixture
def plain_proxy(plain: PlainWebServer) -> Iterator[FaultProxy]:
    with FaultProxy(plain.address) as proxy:
        yield proxy


class Scripted:
    """A server that answers as a test says, and remembers what it was asked."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        seen = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append((self.command, self.path, headers))
                answer(self)

            do_HEAD = do_GET  # noqa: N815  the name that http.server asks for

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[Scripted]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def say(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


# The suite


def basic(password: str) -> dict[str, Any]:
    """Options with credentials; in a URI they would warn."""
    encoded = b64encode(f"ada@lab:{password}".encode()).decode()
    return {"headers": {"Authorization": f"Basic {encoded}"}}


class _WebServerTests(ArtifactRepositoryTests):
    storage = "HTTP(S)"
    writable = False

    @pytest.fixture
    def artifact_uri(self, web_server: WebServer) -> str:
        return f"{web_server.url}/ro%20ot%2B"

    @pytest.fixture
    def raw(self, web_server: WebServer) -> RawStorage:
        (web_server.files / "ro ot+").mkdir()
        return RawDirectory(web_server.files / "ro ot+")

    @pytest.fixture
    def proxy(self, web_server: WebServer) -> Iterator[FaultProxy]:
        with FaultProxy(web_server.address) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(
        self,
        proxy: FaultProxy,
        web_server: WebServer,
        artifact_uri: str,
        storage_options: dict[str, Any] | None,
    ) -> Place:
        return Place(artifact_uri.replace(web_server.url, proxy.url), storage_options)


class TestServerWithRanges(_WebServerTests):
    server = "aiohttp, with ranges"

    @pytest.fixture
    def web_server(self, guarded: WebServer) -> WebServer:
        return guarded

    @pytest.fixture
    def storage_options(self) -> dict[str, Any]:
        return basic(SECRET)

    @pytest.fixture
    def wrong_credentials(self, artifact_uri: str) -> Place:
        return Place(artifact_uri, basic("guessed"))


class TestServerWithoutRanges(_WebServerTests):
    server = "python -m http.server, without ranges"

    @pytest.fixture
    def web_server(self, plain: PlainWebServer) -> WebServer:
        return plain


def gets(proxy: FaultProxy, path: str) -> list[Request]:
    return [r for r in proxy.requests if r.method == "GET" and r.path == path]


# Ranges


async def test_ranges_of_a_large_file_are_received_at_once(
    web: WebServer, web_proxy: FaultProxy, tmp_path: Path
) -> None:
    content = os.urandom(LARGE)
    (web.files / "x").write_bytes(content)
    web_proxy.latency = 0.01
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        local = await repository.download_artifacts("x", tmp_path)
        assert repository.capabilities.ranges
    assert Path(local).read_bytes() == content
    ranges = sorted(int(r.headers["range"][6:].partition("-")[0]) for r in gets(web_proxy, "/x"))
    assert ranges == [0, *range(0, LARGE, 2 * MIB)][1:]
    assert {r.status for r in gets(web_proxy, "/x")} == {206}
    assert web_proxy.peak_requests_in_flight == len(ranges)
    # One and the same content, or none.
    assert {r.headers.get("if-match", "")[:1] for r in gets(web_proxy, "/x")} == {'"'}


async def test_a_server_without_ranges_sends_a_large_file_once(
    plain: PlainWebServer, plain_proxy: FaultProxy, tmp_path: Path
) -> None:
    contents = {name: os.urandom(LARGE) for name in ("x", "y")}
    for name, content in contents.items():
        (plain.files / name).write_bytes(content)
    async with ArtifactRepository(plain_proxy.url, transfer=QUICK) as repository:
        for name, content in contents.items():
            local = await repository.download_artifacts(name, tmp_path)
            assert Path(local).read_bytes() == content
        assert not repository.capabilities.ranges
    # One byte of the first was asked for, to learn it.
    assert [r.headers.get("range") for r in gets(plain_proxy, "/x")] == ["bytes=0-0", None]
    assert [r.headers.get("range") for r in gets(plain_proxy, "/y")] == [None]


async def test_a_server_that_claims_ranges_and_sends_everything_is_cut(
    web: WebServer, web_proxy: FaultProxy
) -> None:
    content = os.urandom(5000)
    (web.files / "x").write_bytes(content)
    web_proxy.faults.append(Answer(status=200, body=content, matches=lambda r: r.method == "GET"))
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        await repository.info("x")
        assert repository.capabilities.ranges
        async with repository.open_read("x", start=10, end=4000) as pieces:
            assert b"".join([piece async for piece in pieces]) == content[10:4000]
        assert not repository.capabilities.ranges


async def test_another_range_than_the_one_asked_is_an_error(
    web: WebServer, web_proxy: FaultProxy
) -> None:
    (web.files / "x").write_bytes(bytes(100))
    wrong = {"Content-Range": "bytes 0-9/100"}
    web_proxy.faults.append(
        Answer(status=206, headers=wrong, body=bytes(10), matches=lambda r: r.method == "GET")
    )
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        with pytest.raises(AsyncStoreError, match="another range"):
            async with repository.open_read("x", start=10, end=20) as pieces:
                _ = [piece async for piece in pieces]


@pytest.mark.parametrize("accept", ["none", ""])
async def test_sizes_that_a_server_does_not_tell(accept: str, tmp_path: Path) -> None:
    content = os.urandom(3 * MIB)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path != "/x":
            say(handler, 404)
            return
        headers = {"Accept_Ranges": accept, "Content_Length": "", "Transfer_Encoding": "chunked"}
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (MIB, content[start : start + MIB])
            for start in range(0, 3 * MIB, MIB)
        )
        with_end = chunks + b"0\r\n\r\n"
        # Whoever wants a byte only hangs up.
        try:
            say(handler, 200, with_end, **headers)
        except ConnectionError:
            handler.close_connection = True

    with Scripted(answer).serving() as server:
        async with ArtifactRepository(server.url, transfer=QUICK) as repository:
            assert await repository.info("x") == FileInfo("x", False, None)
            assert await repository.read_bytes("x") == content
            local = await repository.download_artifacts("x", tmp_path)
            async with repository.open_read("x", start=MIB + 5, end=MIB + 9) as pieces:
                assert b"".join([piece async for piece in pieces]) == content[MIB + 5 : MIB + 9]
    assert Path(local).read_bytes() == content


async def test_what_is_compressed_stays_so(tmp_path: Path) -> None:
    content = gzip.compress(bytes(5000))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        say(handler, 200, content, Content_Encoding="gzip")

    with Scripted(answer).serving() as server:
        async with ArtifactRepository(server.url, transfer=QUICK) as repository:
            local = await repository.download_artifacts("x.gz", tmp_path)
    assert Path(local).read_bytes() == content
    assert {headers["accept-encoding"] for _, _, headers in server.requests} == {"identity"}


async def test_a_server_without_head(web: WebServer, web_proxy: FaultProxy, tmp_path: Path) -> None:
    (web.files / "d").mkdir()
    content = {"d/empty": b"", "d/x": b"12345", "d/large": os.urandom(LARGE)}
    for name, data in content.items():
        (web.files / name).write_bytes(data)
    web_proxy.faults.append(Answer(status=405, body=b"", matches=lambda r: r.method == "HEAD"))
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        assert await repository.info("d/x") == FileInfo("d/x", False, 5)
        assert await repository.info("d/empty") == FileInfo("d/empty", False, 0)
        assert await repository.info("d") == FileInfo("d", True, None)
        assert not await repository.exists("d/y")
        await repository.download_artifacts(None, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in content} == content
    assert web_proxy.faults[0].count == 1


# Versions


async def test_a_file_that_is_replaced_between_its_ranges(
    web: WebServer, web_proxy: FaultProxy, tmp_path: Path
) -> None:
    (web.files / "x").write_bytes(b"a" * LARGE)
    asked = 0

    def replaces(request: Request) -> bool:
        nonlocal asked
        asked += request.method == "GET"
        if asked == 2:
            (tmp_path / "new").write_bytes(b"b" * LARGE)
            (tmp_path / "new").replace(web.files / "x")
        return False

    web_proxy.faults.append(Answer(matches=replaces))
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        with pytest.raises(IntegrityError):
            await repository.download_artifacts("x", tmp_path / "down")
    assert [path for path in (tmp_path / "down").rglob("*") if path.is_file()] == []


async def test_a_file_that_is_replaced_where_only_its_date_is_known(
    plain: PlainWebServer, plain_proxy: FaultProxy, tmp_path: Path
) -> None:
    (plain.files / "x").write_bytes(b"a" * 100)
    os.utime(plain.files / "x", (1_000_000_000, 1_000_000_000))

    def replaces(request: Request) -> bool:
        if request.method == "GET":
            (plain.files / "x").write_bytes(b"b" * 100)
        return False

    plain_proxy.faults.append(Answer(matches=replaces))
    async with ArtifactRepository(plain_proxy.url, transfer=QUICK) as repository:
        with pytest.raises(IntegrityError, match="changed while it was being read"):
            await repository.download_artifacts("x", tmp_path / "down")


# Listings

PAGE = """<html><body><a href="../">..</a> <a href="/">root</a> <a href="?C=M;O=A">sort</a>
<A HREF='plain.txt'>plain</A> <a class="x" href="two%20words%25.txt">w</a> <a href="sub/">s</a>
<a href="./dot.txt">d</a> <a href="/a/dir/absolute.txt">a</a> <a href="deep/er/x">deep</a>
<a href="http://127.0.0.1/a/dir/full.txt">f</a> <a href="http://127.0.0.1/a/other/x">o</a>
<a href="http://elsewhere/a/dir/x">e</a> <a href="https://127.0.0.1/a/dir/x">s</a>
<a href="ftp://127.0.0.1/a/dir/x">f</a> <a href="mailto:x@y">m</a> <a href="#part">p</a>
<a href="..%2fescape">e</a> <a href="%2e%2e/escape">e</a> <a href="a%2fb">e</a>
<a href="%2e%2e">e</a> <a href="..">e</a> <a href=".">e</a> <a href="">e</a> <a>none</a>
<a href="//elsewhere/x">e</a> <a href="http://[bad">b</a> <a href="%ff.txt">not utf-8</a>
<a href="x?download=1">q</a> <a href="amp&amp;ersand.txt">&amp;</a> <a href="nul%00">n</a>
<a href="/a/dirty">prefix</a> <a href="plain.txt">again</a> <img src="picture.png">
http://127.0.0.1/a/dir/no-link.txt</body></html>"""


def test_the_links_of_a_page() -> None:
    assert children(PAGE, "http://127.0.0.1/a/dir/") == [
        ("plain.txt", False),
        ("two words%.txt", False),
        ("sub", True),
        ("dot.txt", False),
        ("absolute.txt", False),
        ("deep", True),
        ("full.txt", False),
        ("amp&ersand.txt", False),
    ]
    assert ("dir", True) in children(PAGE, "http://127.0.0.1/a/")
    assert ("absolute.txt", False) in children(PAGE, "http://127.0.0.1/%61/d%69r/")


@given(st.lists(st.text(max_size=30)), st.sampled_from(["/", "/a/", "/a%20b/c/"]))
def test_no_link_leads_outside(links: list[str], path: str) -> None:
    page = "".join(f'<a href="{link}">' for link in links) + '<a href="honest">'
    for name, _ in children(page, f"http://host{path}"):
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert "\0" not in name


async def test_links_to_nothing_and_pages_that_are_none(
    web: WebServer, web_proxy: FaultProxy
) -> None:
    (web.files / "d").mkdir()
    (web.files / "d" / "gone").touch()
    (web.files / "d" / "x").touch()
    web_proxy.faults.append(
        Answer(status=404, matches=lambda r: r.method == "HEAD" and r.path == "/d/gone")
    )
    json = Answer(status=200, body=b"{}", headers={"Content-Type": "application/json"})
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        assert [entry.path for entry in await repository.list_artifacts("d")] == ["d/x"]
        web_proxy.faults[:] = [json]
        assert await repository.list_artifacts("d") == []
        web_proxy.faults[:] = [Answer(status=403, body=b"")]
        with pytest.raises(PermissionDeniedError, match="403 Forbidden"):
            await repository.list_artifacts("d")


async def test_a_root_with_escapes(web: WebServer, plain: PlainWebServer, tmp_path: Path) -> None:
    for server in (web, plain):
        (server.files / "a b%41" / "ü").mkdir(parents=True)
        (server.files / "a b%41" / "ü" / "x").write_bytes(b"x")
        for path in ("/a%20b%2541/", "/a%20b%2541//", "/a b%2541"):
            async with ArtifactRepository(f"{server.url}{path}") as repository:
                assert await repository.read_bytes("ü/x") == b"x"
                other = repository.at(f"{server.url}/a%20b%2541/%C3%BC")
                assert other is not None
                assert await other.list_artifacts() == [FileInfo("x", False, 1)]
                assert repository.at(server.url.replace("127.0.0.1", "localhost")) is None
                assert repository.at(server.url.replace("http:", "https:")) is None


# Writing


@pytest.mark.parametrize("size", [10, LARGE])
async def test_it_is_read_only(size: int, web: WebServer, tmp_path: Path) -> None:
    (web.files / "x").write_bytes(b"x")
    (tmp_path / "new").write_bytes(bytes(size))
    async with ArtifactRepository(web.url, transfer=QUICK) as repository:
        assert not repository.capabilities.writable
        for call in (
            repository.log_artifact(tmp_path / "new"),
            repository.log_artifacts(tmp_path),
            repository.write_bytes("x", b"y"),
            repository.delete_artifacts("x"),
            repository.delete_artifacts(),
        ):
            with pytest.raises(UnsupportedError, match="HTTP is read only") as raised:
                await call
            assert raised.value.error_code == "NOT_IMPLEMENTED"
    assert (web.files / "x").read_bytes() == b"x"


# Credentials


async def test_basic_authentication_from_the_uri(guarded: WebServer) -> None:
    (guarded.files / "x").write_bytes(b"x")
    uri = guarded.url.replace("://", f"://ada%40lab:{QUOTED}@")
    with pytest.warns(UserWarning, match=r"ada%40lab:\*\*\*@.* in the clear"):
        repository = await ArtifactRepository(uri).open()
    assert await repository.read_bytes("x") == b"x"
    assert [entry.path for entry in await repository.list_artifacts()] == ["x"]
    assert repository.at(guarded.url) is None
    assert repository.at(f"{uri}/below") is not None
    await repository.aclose()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize("how", ["headers", "client headers"])
async def test_credentials_as_fsspec_names_them(how: str, guarded: WebServer) -> None:
    (guarded.files / "x").write_bytes(b"x")
    basic = f"Basic {b64encode(f'ada@lab:{SECRET}'.encode()).decode()}"
    ways: dict[str, dict[str, Any]] = {
        "headers": {"headers": {"Authorization": basic}},
        "client headers": {"client_kwargs": {"headers": {"Authorization": basic}}},
    }
    async with ArtifactRepository(guarded.url, storage_options=ways[how]) as repository:
        assert await repository.read_bytes("x") == b"x"


async def test_wrong_credentials_and_no_secret_in_any_message(
    guarded: WebServer, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    shown: list[str] = []
    for uri in (
        guarded.url,
        guarded.url.replace("://", f"://nobody:{QUOTED}@"),
        guarded.url.replace("://", f"://nobody:{QUOTED}@") + "/a%2fb",
        f"http://nobody:{QUOTED}@127.0.0.1:0/",
        f"http://nobody:{QUOTED}@127.0.0.1:1/",
        f"http://nobody:{QUOTED}@no..host/",
    ):
        repository = ArtifactRepository(uri, transfer=QUICK)
        shown.append(repr(repository))
        try:
            async with repository:
                for call in (
                    repository.read_bytes("x"),
                    repository.list_artifacts(),
                    repository.info("x"),
                ):
                    with pytest.raises(AsyncStoreError) as raised:
                        await call
                    shown += [str(raised.value), repr(raised.value), repr(raised.value.__cause__)]
                    if guarded.address in uri:
                        assert isinstance(raised.value, UnauthenticatedError)
        except InvalidParameterError as error:
            shown += [str(error), repr(error.__cause__)]
    shown += caplog.messages + [str(warning.message) for warning in recwarn]
    assert len(shown) > 20
    for secret in ("S3CR3T", SECRET, QUOTED, b64encode(SECRET.encode()).decode()[4:20]):
        assert not [text for text in shown if secret in text]


# Redirects

OWN: dict[str, Any] = {
    "headers": {"Authorization": "Bearer S3CR3T", "X-Api-Key": "S3CR3T", "Cookie": "a=S3CR3T"},
    "client_kwargs": {"headers": {"X-Other-Key": "S3CR3T"}},
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_takes_credentials_to_the_same_host_only(status: int) -> None:
    def there(handler: BaseHTTPRequestHandler) -> None:
        say(handler, 200, b"content", ETag='"1"')

    with Scripted(there).serving() as other:

        def here(handler: BaseHTTPRequestHandler) -> None:
            if handler.path == "/near":
                say(handler, status, b"see there", Location="/moved/near?x=1")
            elif handler.path == "/far":
                say(handler, status, b"see there", Location=f"{other.url}/moved/far?sig=%2B")
            else:
                say(handler, 200, b"content")

        with Scripted(here).serving() as server:
            async with ArtifactRepository(server.url, storage_options=OWN) as repository:
                for path in ("near", "far"):
                    assert await repository.info(path) == FileInfo(path, False, 7)
                    assert await repository.read_bytes(path) == b"content"
            moved = [headers for _, path, headers in server.requests if "moved" in path]
            assert moved
            for headers in moved:
                assert headers["authorization"] == "Bearer S3CR3T"
                assert headers["x-other-key"] == headers["x-api-key"] == "S3CR3T"
    assert {path for _, path, _ in other.requests} == {"/moved/far?sig=%2B"}
    assert len(other.requests) == 2
    assert not [
        text for _, _, headers in other.requests for text in headers.values() if "S3CR3T" in text
    ]


@pytest.mark.parametrize(
    ("location", "message"),
    [("/again", "more than 10 redirects"), ("ftp://127.0.0.1/x", "not of HTTP"), ("", "302")],
)
async def test_redirects_that_lead_nowhere(location: str, message: str) -> None:
    with Scripted(lambda handler: say(handler, 302, Location=location)).serving() as server:
        async with ArtifactRepository(server.url, transfer=QUICK) as repository:
            with pytest.raises(AsyncStoreError, match=message):
                await repository.read_bytes("x")


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        Reset(after=MIB, matches=lambda r: r.method == "GET", every=2, first=6),
        Truncate(after=MIB, matches=lambda r: r.method == "GET", every=2, first=6),
        Reset(every=3, first=9),
        Answer(status=503, headers={"Retry-After": "0"}, every=3, first=9),
        Answer(status=429, every=3, first=9),
    ],
)
@pytest.mark.parametrize("kind", ["web", "plain"])
async def test_a_download_survives(
    kind: str, fault: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: WebServer = request.getfixturevalue(kind)
    contents = {f"d/{number}": os.urandom(100) for number in range(20)} | {
        "d/large": os.urandom(LARGE)
    }
    (server.files / "d").mkdir()
    for name, data in contents.items():
        (server.files / name).write_bytes(data)
    fault.count = fault._seen = 0
    with FaultProxy(server.address, faults=[fault]) as proxy:
        async with ArtifactRepository(proxy.url, transfer=QUICK) as repository:
            await repository.download_artifacts(None, tmp_path)
        assert fault.count
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents
    clear(server.files)


async def test_a_stream_that_breaks_off_goes_on_where_it_was(
    web: WebServer, web_proxy: FaultProxy, tmp_path: Path
) -> None:
    content = os.urandom(LARGE)
    (web.files / "x").write_bytes(content)
    web_proxy.faults.append(Truncate(after=3 * MIB, first=1, matches=lambda r: r.method == "GET"))
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        repository._state()[0].capabilities = repository.capabilities.__class__(ranges=False)
        await repository.download_artifacts("x", tmp_path)
    assert (tmp_path / "x").read_bytes() == content
    first, second = gets(web_proxy, "/x")
    assert "range" not in first.headers
    assert MIB < int(second.headers["range"][6:-1]) <= 3 * MIB


async def test_a_server_that_is_down_and_comes_back(web: WebServer) -> None:
    (web.files / "x").write_bytes(b"x")
    async with ArtifactRepository(web.url, transfer=QUICK) as repository:
        assert await repository.read_bytes("x") == b"x"
        await anyio.to_thread.run_sync(web.halt)
        with pytest.raises(UnavailableError, match=web.address):
            await repository.read_bytes("x")
        await anyio.to_thread.run_sync(web.serve)
        assert await repository.read_bytes("x") == b"x"


async def test_tls_needs_a_certificate_that_is_trusted(
    web: WebServer, private_authority: PrivateAuthority
) -> None:
    (web.files / "x").write_bytes(b"x")
    with private_authority.in_front_of(web.address) as proxy:
        trusting = {"ssl": ssl.create_default_context(cafile=str(private_authority.bundle))}
        async with ArtifactRepository(proxy.url, storage_options=trusting) as repository:
            assert await repository.read_bytes("x") == b"x"
        opened = proxy.connections_opened
        async with ArtifactRepository(proxy.url, transfer=QUICK) as repository:
            with pytest.raises(AsyncStoreError, match="certificate") as raised:
                await repository.read_bytes("x")
            assert not isinstance(raised.value, UnavailableError)
        # It was not tried again.
        assert proxy.connections_opened <= opened + 1


async def test_cancelled_and_closed_it_leaves_nothing(
    web: WebServer, web_proxy: FaultProxy, tmp_path: Path
) -> None:
    (web.files / "x").write_bytes(os.urandom(LARGE))
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    web_proxy.bytes_per_second = MIB
    async with ArtifactRepository(web_proxy.url, transfer=QUICK) as repository:
        with anyio.move_on_after(0.15) as scope:
            await repository.download_artifacts("x", tmp_path / "down")
        assert scope.cancelled_caught
        assert asyncio.all_tasks() == tasks
        web_proxy.bytes_per_second = None
        await repository.info("x")
        assert web_proxy.connections >= 1
    with anyio.fail_after(10):
        while web_proxy.connections:
            await anyio.sleep(0.01)
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() <= threads + 8
    assert not [path for path in (tmp_path / "down").rglob("*") if path.is_file()]


# Bad input


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http:x", "write https://host/path"),
        ("http:///x", "names no host"),
        ("https://", "names no host"),
        ("http://host:port/x", "port"),
        ("http://host:0/x", "port"),
        ("http://@host/x", "no user before it"),
        ("http://user@/x", "names a user and no host"),
        ("http://host/a/../b", r"'\.\.'"),
        ("http://host/%2e%2e/b", r"'\.\.'"),
        ("http://host/a%2fb", "decodes to a slash"),
        ("http://host/a%252fb", "decodes to a slash"),
        ("http://host/a%5cb", "backslash"),
        ("http://host/a?token=S3CR3T", r"no '\?'"),
        ("http://host/a#b", "no '#'"),
    ],
)
async def test_bad_uris(uri: str, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message) as raised:
        await ArtifactRepository(uri).open()
    assert "S3CR3T" not in str(raised.value)


@pytest.mark.parametrize("options", [{"client_kwargs": {"nonsense": 1}}, {"client_kwargs": 3}])
async def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match="open http://host"):
        await ArtifactRepository("http://host", storage_options=options).open()


async def test_a_directory_is_no_file(web: WebServer, plain: PlainWebServer) -> None:
    for server in (web, plain):
        (server.files / "d").mkdir()
        async with ArtifactRepository(server.url) as repository:
            with pytest.raises(InvalidParameterError, match="is a directory"):
                await repository.read_bytes("d")
            with pytest.raises(NotFoundError):
                await repository.read_bytes("d/missing")
