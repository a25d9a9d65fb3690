"""Requests to a tracking server: what goes out, what comes back, and when it is asked again."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import pytest
from yarl import URL

from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
    UnavailableError,
)
from asyncstore.rest.connection import MAX_CONNECTIONS, Connection
from asyncstore.rest.transport import same_server
from asyncstore.testing.fault_proxy import Fault, FaultProxy, Hang, Reset, Truncate
from tests.rest.scripted import Answer, Asked, Scripted, answering, silent

if TYPE_CHECKING:
    from tests.servers.tls import PrivateAuthority

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("home", "no_waits")]

RUN = "/api/2.0/mlflow/runs/get"


async def test_a_call_sends_json_and_a_query_and_takes_json() -> None:
    with answering(Answer(content={"run": {"n": 1}})) as server:
        connection = Connection(f"{server.url}/behind/a%20proxy/")
        found = await connection.call(
            "POST",
            RUN,
            json={"run_id": "ä", "n": [1]},
            params={"q": "a b&c", "ids": ["1", "2"], "all": True, "n": 5, "none": None},
        )
        await connection.aclose()
    assert found == {"run": {"n": 1}}
    (asked,) = server.asked
    assert asked.method == "POST"
    assert urlsplit(asked.path).path == f"/behind/a%20proxy{RUN}"
    assert parse_qs(urlsplit(asked.path).query) == {
        "q": ["a b&c"],
        "ids": ["1", "2"],
        "all": ["true"],
        "n": ["5"],
    }
    assert json.loads(asked.body) == {"run_id": "ä", "n": [1]}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("asyncstore/")


async def test_a_large_body_goes_out_whole_and_again_after_a_redirect() -> None:
    said = {"text": "x" * 3_000_000}
    with answering(Answer(307, headers={"Location": "/there"}), Answer()) as server:
        connection = Connection(server.url)
        await connection.call("POST", "/x", json=said)
        await connection.aclose()
    assert [json.loads(asked.body) == said for asked in server.asked] == [True, True]


@pytest.mark.parametrize("content", [b"", b"200 OK", b" \n"])
async def test_an_empty_answer_is_an_empty_object(content: bytes) -> None:
    with answering(Answer(content=content)) as server:
        connection = Connection(server.url)
        assert await connection.call("DELETE", "/x") == {}
        await connection.aclose()


async def test_a_large_answer_is_read_whole() -> None:
    said = {"text": "x" * 2_000_000}
    with answering(Answer(content=said)) as server:
        connection = Connection(server.url)
        assert await connection.call("GET", "/x") == said
        await connection.aclose()


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"[1]", b"\xff"])
async def test_what_is_no_json_object_is_said_to_be_none(content: bytes) -> None:
    with answering(Answer(content=content)) as server:
        connection = Connection(server.url)
        with pytest.raises(AsyncStoreError, match=r"no JSON object; is it a tracking server"):
            await connection.call("GET", "/x")
        await connection.aclose()


async def test_the_servers_own_error_comes_out_at_once() -> None:
    said = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run 'r' not found"}
    with answering(Answer(404, said)) as server:
        connection = Connection(server.url.replace("//", "//me:S3CR3T@"))
        with pytest.raises(NotFoundError, match=r"GET http://127.*/x: Run 'r' not found") as raised:
            await connection.call("GET", "/x")
        await connection.aclose()
    assert len(server.asked) == 1
    assert "S3CR3T" not in str(raised.value)


async def test_the_beginning_of_a_long_error_is_enough() -> None:
    with answering(Answer(400, b"x" * 10_000_000)) as server:
        connection = Connection(server.url)
        with pytest.raises(InvalidParameterError):
            await connection.call("GET", "/x")
        await connection.aclose()


class TestRepeating:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    async def test_what_may_pass_is_asked_again(self, status: int) -> None:
        with answering(Answer(status), Answer(status), Answer(content={"a": 1})) as server:
            connection = Connection(server.url)
            assert await connection.call("GET", "/x") == {"a": 1}
            await connection.aclose()
        assert len(server.asked) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
    async def test_what_will_not_pass_is_not(self, status: int) -> None:
        with answering(Answer(status)) as server:
            connection = Connection(server.url)
            with pytest.raises(AsyncStoreError):
                await connection.call("GET", "/x")
            await connection.aclose()
        assert len(server.asked) == 1

    async def test_the_last_error_comes_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        said = {"error_code": "INTERNAL_ERROR", "message": "the database is gone"}
        with answering(Answer(500, said)) as server:
            connection = Connection(server.url)
            with pytest.raises(AsyncStoreError, match="the database is gone") as raised:
                await connection.call("GET", "/x")
            await connection.aclose()
        assert len(server.asked) == 3
        assert raised.value.error_code == "INTERNAL_ERROR"

    @pytest.mark.parametrize(
        ("status", "asked"), [(429, 2), (503, 2), (408, 1), (500, 1), (502, 1), (504, 1)]
    )
    async def test_a_post_that_may_have_been_done_is_not_repeated(
        self, status: int, asked: int
    ) -> None:
        with answering(Answer(status), Answer()) as server:
            connection = Connection(server.url)
            if asked == 1:
                with pytest.raises(AsyncStoreError):
                    await connection.call("POST", "/x", json={})
            else:
                await connection.call("POST", "/x", json={})
            await connection.aclose()
        assert len(server.asked) == asked

    async def test_a_post_whose_connection_broke_is_not_repeated(self) -> None:
        with answering(Answer(hang_up=True), Answer()) as server:
            connection = Connection(server.url)
            with pytest.raises(UnavailableError):
                await connection.call("POST", "/x", json={})
            assert len(server.asked) == 1
            await connection.aclose()

    @pytest.mark.parametrize("lost", [Answer(hang_up=True), Answer(500), Answer(504)])
    async def test_a_post_that_may_be_done_twice_is_repeated(self, lost: Answer) -> None:
        with answering(lost, Answer()) as server:
            connection = Connection(server.url)
            await connection.call("POST", "/x", json={}, idempotent=True)
            await connection.aclose()
        assert [asked.body for asked in server.asked] == [b"{}", b"{}"]

    async def test_a_get_whose_connection_broke_is_repeated(self) -> None:
        with answering(Answer()) as server, FaultProxy(f"127.0.0.1:{server.port}") as proxy:
            proxy.faults = [Reset(first=2)]
            connection = Connection(proxy.url)
            assert await connection.call("GET", "/x") == {}
            await connection.aclose()

    async def test_a_post_is_repeated_while_nobody_listens(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0.3")
        with answering(Answer()) as server, FaultProxy(f"127.0.0.1:{server.port}") as proxy:
            proxy.refuse_connections()
            connection = Connection(proxy.url)

            async def come_back() -> None:
                await anyio.sleep(0.1)
                await anyio.to_thread.run_sync(proxy.accept_connections)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(come_back)
                assert await connection.call("POST", "/x", json={}) == {}
            await connection.aclose()
        assert len(server.asked) == 1

    async def test_nobody_listens_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        connection = Connection(f"http://127.0.0.1:{port}")
        with pytest.raises(UnavailableError, match=rf"GET http://127.0.0.1:{port}/x: .*connect"):
            await connection.call("GET", "/x")
        await connection.aclose()

    async def test_a_wait_is_as_long_as_the_server_asks(self) -> None:
        busy = Answer(429, headers={"Retry-After": "1"})
        with answering(busy, Answer()) as server:
            connection = Connection(server.url)
            begun = time.monotonic()
            await connection.call("GET", "/x")
            assert 0.9 < time.monotonic() - begun < 10
            await connection.aclose()

    async def test_a_date_that_the_server_names_is_waited_for(self) -> None:
        busy = Answer(503, headers={"Retry-After": formatdate(time.time() + 2, usegmt=True)})
        with answering(busy, Answer()) as server:
            connection = Connection(server.url)
            begun = time.monotonic()
            await connection.call("GET", "/x")
            assert 0.5 < time.monotonic() - begun < 10
            await connection.aclose()

    @pytest.mark.parametrize("asked", ["soon", "-1", "1e9", ""])
    async def test_an_odd_wish_of_the_server_is_none(self, asked: str) -> None:
        with answering(Answer(429, headers={"Retry-After": asked}), Answer()) as server:
            connection = Connection(server.url)
            with anyio.fail_after(10):
                await connection.call("GET", "/x")
            await connection.aclose()

    async def test_a_server_that_is_not_to_be_waited_for_is_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
        with answering(Answer(429, headers={"Retry-After": "60"}), Answer()) as server:
            connection = Connection(server.url)
            with anyio.fail_after(10):
                await connection.call("GET", "/x")
            await connection.aclose()

    async def test_no_answer_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        with silent() as url:
            connection = Connection(url)
            begun = time.monotonic()
            with pytest.raises(UnavailableError, match=r"within 1 s.*MLFLOW_HTTP_REQUEST_TIMEOUT"):
                await connection.call("GET", "/x")
            assert 1.9 < time.monotonic() - begun < 10
            await connection.aclose()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "11"),
            ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "-1"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon"),
        ],
    )
    async def test_a_variable_that_is_wrong_says_so(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        connection = Connection("http://127.0.0.1:1")
        with pytest.raises(InvalidParameterError, match=name):
            await connection.call("GET", "/x")
        await connection.aclose()


class TestStreams:
    async def test_up_and_down_in_pieces(self) -> None:
        data = bytes(range(256)) * 4096

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 100_000):
                yield data[start : start + 100_000]

        with Scripted(lambda asked, _: Answer(content=asked.body)).serving() as server:
            connection = Connection(server.url)
            headers = {"Content-Length": str(len(data)), "Content-Type": "image/png"}
            async with connection.request("PUT", "/f", headers=headers, body=pieces()) as response:
                found = b"".join([piece async for piece in response.content.iter_any()])
            await connection.aclose()
        assert found == data
        assert server.asked[0].headers["content-type"] == "image/png"
        assert server.asked[0].body == data

    async def test_an_error_comes_out_once(self) -> None:
        with answering(Answer(503)) as server:
            connection = Connection(server.url)
            with pytest.raises(UnavailableError):
                async with connection.request("GET", "/f"):
                    pass
            await connection.aclose()
        assert len(server.asked) == 1

    @pytest.mark.parametrize("fault", [Reset(after=100_000), Truncate(after=100_000)])
    async def test_an_answer_that_breaks_off_is_an_error(self, fault: Fault) -> None:
        with (
            answering(Answer(content=b"x" * 1_000_000)) as server,
            FaultProxy(f"127.0.0.1:{server.port}", faults=[fault]) as proxy,
        ):
            connection = Connection(proxy.url)
            with pytest.raises(UnavailableError):
                async with connection.request("GET", "/f") as response:
                    async for _ in response.content.iter_any():
                        pass
            await connection.aclose()


class TestRedirects:
    async def test_on_the_same_server_it_is_followed(self) -> None:
        moved = Answer(307, headers={"Location": "/there?x=1#y"})
        with answering(moved, Answer(content={"a": 1})) as server:
            connection = Connection(server.url.replace("//", "//me:key@"))
            assert await connection.call("POST", "/here", json={"b": 2}) == {"a": 1}
            await connection.aclose()
        first, second = server.asked
        assert (second.method, second.path, second.body) == ("POST", "/there?x=1", first.body)
        assert second.headers["authorization"] == first.headers["authorization"]

    async def test_to_another_server_nothing_is_sent(self) -> None:
        with answering(Answer()) as other:
            for target in (other.url, f"http://localhost:{other.port}", "//127.0.0.1:9/x"):
                moved = Answer(302, headers={"Location": f"{target}/x?token=S3CR3T"})
                with answering(moved) as server:
                    connection = Connection(server.url.replace("//", "//me:key@"))
                    with pytest.raises(InvalidParameterError, match="redirects to") as raised:
                        await connection.call("GET", "/here")
                    await connection.aclose()
                assert "S3CR3T" not in str(raised.value)
        assert other.asked == []

    @pytest.mark.parametrize("status", [301, 302, 303])
    async def test_a_post_does_not_become_a_get(self, status: int) -> None:
        with answering(Answer(status, headers={"Location": "/there"})) as server:
            connection = Connection(server.url)
            with pytest.raises(InvalidParameterError, match="a POST cannot follow"):
                await connection.call("POST", "/here", json={})
            await connection.aclose()
        assert len(server.asked) == 1

    async def test_a_stream_is_not_sent_twice(self) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"

        with answering(Answer(307, headers={"Location": "/there"})) as server:
            connection = Connection(server.url)
            with pytest.raises(InvalidParameterError, match="a PUT cannot follow"):
                async with connection.request(
                    "PUT", "/here", body=pieces(), headers={"Content-Length": "1"}
                ):
                    pass
            await connection.aclose()

    @pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "http://[::1", "data:,x"])
    async def test_to_what_is_no_url_of_http(self, target: str) -> None:
        with answering(Answer(302, headers={"Location": target})) as server:
            connection = Connection(server.url)
            with pytest.raises(InvalidParameterError, match=r"redirect"):
                await connection.call("GET", "/here")
            await connection.aclose()

    async def test_in_a_circle(self) -> None:
        with answering(Answer(302, headers={"Location": "/again"})) as server:
            connection = Connection(server.url)
            with pytest.raises(AsyncStoreError, match="more than 10 redirects"):
                await connection.call("GET", "/here")
            await connection.aclose()

    async def test_where_none_is_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_ALLOW_HTTP_REDIRECTS", "false")
        with answering(Answer(302, headers={"Location": "/there"})) as server:
            connection = Connection(server.url)
            with pytest.raises(InvalidParameterError, match="MLFLOW_ALLOW_HTTP_REDIRECTS"):
                await connection.call("GET", "/here")
            await connection.aclose()
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("here", "there", "same"),
    [
        ("http://h:5000", "http://h:5000", True),
        ("http://h", "http://h:80", True),
        ("http://h", "https://h", True),
        ("http://h:5000", "https://h:5000", True),
        ("https://h", "http://h", False),
        ("http://h:5000", "https://h", False),
        ("http://h:5000", "http://h:5001", False),
        ("http://h", "http://h.example", False),
        ("http://h", "https://g", False),
    ],
)
def test_which_server_is_the_same(here: str, there: str, same: bool) -> None:
    assert same_server(URL(here).origin(), URL(there).origin()) is same


class TestTLS:
    @pytest.fixture
    def files(self, private_authority: PrivateAuthority, tmp_path: Path) -> dict[str, Path]:
        return {
            "own": private_authority.certificate_file(tmp_path / "own.pem"),
            "trusted": private_authority.bundle,
        }

    def context(self, files: dict[str, Path], *, ask: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files["own"])
        if ask:
            context.load_verify_locations(files["trusted"])
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def test_a_certificate_that_nobody_trusts(self, files: dict[str, Path]) -> None:
        with answering(Answer(), context=self.context(files)) as server:
            connection = Connection(server.url)
            with pytest.raises(AsyncStoreError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"):
                await connection.call("GET", "/x")
            await connection.aclose()
        assert server.asked == []

    async def test_a_certificate_that_a_variable_trusts(
        self, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(files["trusted"]))
        with answering(Answer(), context=self.context(files)) as server:
            connection = Connection(server.url)
            assert await connection.call("GET", "/x") == {}
            await connection.aclose()

    async def test_no_certificate_is_checked(
        self, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with answering(Answer(), context=self.context(files)) as server:
            connection = Connection(server.url)
            assert await connection.call("GET", "/x") == {}
            await connection.aclose()

    @pytest.mark.parametrize("insecure", [False, True])
    async def test_the_clients_own_certificate(
        self, insecure: bool, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if insecure:
            monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        else:
            monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(files["trusted"]))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with answering(Answer(), context=self.context(files, ask=True)) as server:
            connection = Connection(server.url)
            with pytest.raises(AsyncStoreError):
                await connection.call("GET", "/x")
            await connection.aclose()
            monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(files["own"]))
            connection = Connection(server.url)
            assert await connection.call("GET", "/x") == {}
            await connection.aclose()

    async def test_variables_that_contradict_each_other(
        self, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(files["trusted"]))
        connection = Connection("https://127.0.0.1:1")
        with pytest.raises(InvalidParameterError, match="set one of them"):
            await connection.call("GET", "/x")
        await connection.aclose()

    @pytest.mark.parametrize(
        "name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"]
    )
    async def test_a_file_that_is_no_certificate(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        empty = tmp_path / "empty.pem"
        empty.touch()
        for path in (tmp_path / "none.pem", empty):
            monkeypatch.setenv(name, str(path))
            connection = Connection("https://127.0.0.1:1")
            with pytest.raises(InvalidParameterError, match=name):
                await connection.call("GET", "/x")
            await connection.aclose()


async def test_requests_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(Answer(content={"a": 1})) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:key@"))
        connection = Connection("http://tracking.example:5000")
        assert await connection.call("GET", "/x") == {"a": 1}
        await connection.aclose()
    (asked,) = proxy.asked
    assert asked.path == "http://tracking.example:5000/x"
    assert asked.headers["proxy-authorization"].startswith("Basic ")


async def test_connections_are_kept_and_bounded() -> None:
    with answering(Answer()) as server, FaultProxy(f"127.0.0.1:{server.port}") as proxy:
        connection = Connection(proxy.url)
        for _ in range(5):
            await connection.call("GET", "/x")
        assert proxy.connections_opened == 1
        async with anyio.create_task_group() as tasks:
            for _ in range(3 * MAX_CONNECTIONS):
                tasks.start_soon(connection.call, "GET", "/x")
        assert proxy.peak_requests_in_flight <= MAX_CONNECTIONS
        assert proxy.connections_opened <= MAX_CONNECTIONS
        await connection.aclose()
        await eventually(lambda: proxy.connections == 0)


async def eventually(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not holds():
            await anyio.sleep(0.01)


@pytest.mark.parametrize("how", ["scope", "task"])
@pytest.mark.parametrize("what", ["call", "request"])
async def test_a_cancelled_call_leaves_nothing(how: str, what: str) -> None:
    with answering(Answer()) as server, FaultProxy(f"127.0.0.1:{server.port}") as proxy:
        proxy.faults = [Hang()]
        connection = Connection(proxy.url)

        async def work() -> None:
            if what == "call":
                await connection.call("POST", "/x", json={})
            else:
                async with connection.request("GET", "/x"):
                    raise AssertionError

        before = asyncio.all_tasks()
        if how == "scope":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work)
                await eventually(lambda: proxy.requests_in_flight == 1)
                tasks.cancel_scope.cancel()
        else:
            task = asyncio.create_task(work())
            await eventually(lambda: proxy.requests_in_flight == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == before
        await eventually(lambda: proxy.connections == 0)
        proxy.faults = []
        assert await connection.call("GET", "/x") == {}
        await connection.aclose()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_upload_to_a_server_that_takes_nothing_in_leaves_no_connection(
    streamed: bool,
) -> None:
    size = 50_000_000

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(size // 50)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = Connection(f"http://127.0.0.1:{listening.getsockname()[1]}")
        body = pieces() if streamed else bytes(size)
        headers = {"Content-Length": str(size)}
        with anyio.move_on_after(0.5):
            async with connection.request("PUT", "/x", body=body, headers=headers):
                raise AssertionError
        await eventually(lambda: not connection._sockets._open())
        await connection.aclose()


class TestClosing:
    async def test_what_is_closed_says_so(self) -> None:
        with answering(Answer()) as server:
            connection = Connection(server.url)
            await connection.call("GET", "/x")
            await connection.aclose()
            await connection.aclose()
            with pytest.raises(InvalidStateError, match="closed"):
                await connection.call("GET", "/x")
        unused = Connection(server.url)
        await unused.aclose()
        with pytest.raises(InvalidStateError, match="closed"):
            await unused.call("GET", "/x")

    async def test_calls_under_way_come_to_their_end(self) -> None:
        release = threading.Event()

        def answer(_: Asked, __: int) -> Answer:
            release.wait(10)
            return Answer(content={"a": 1})

        with Scripted(answer).serving() as server:
            connection = Connection(server.url)
            found: list[Any] = []

            async def work() -> None:
                found.append(await connection.call("GET", "/x"))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work)
                await eventually(lambda: len(server.asked) == 1)
                tasks.start_soon(connection.aclose)
                await anyio.wait_all_tasks_blocked()
                release.set()
            assert found == [{"a": 1}]

    def test_it_belongs_to_one_event_loop(self) -> None:
        with answering(Answer()) as server:
            connection = Connection(server.url)

            async def use() -> None:
                await connection.call("GET", "/x")

            with asyncio.Runner() as first, asyncio.Runner() as second:
                first.run(use())
                with pytest.raises(InvalidStateError, match="event loop"):
                    second.run(use())
                first.run(connection.aclose())


@pytest.mark.parametrize("path", ["/a b", "/ä", "/a\nb"])
async def test_a_path_that_is_not_encoded_is_refused(path: str) -> None:
    connection = Connection("http://127.0.0.1:1")
    with pytest.raises(InvalidParameterError, match="not encoded"):
        await connection.call("GET", path)
    await connection.aclose()
