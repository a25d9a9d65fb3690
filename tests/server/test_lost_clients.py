"""Clients that vanish, or take their time: nothing half stored, and nothing left of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import SocketAttribute, SocketStream

from asyncstore.server import connections, create_app
from asyncstore.server.connections import BoundedProtocol
from asyncstore.server.state import Server
from tests.servers.base import HOST, free_port

pytestmark = pytest.mark.anyio

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
MIB = 1024 * 1024


class Serving:
    """A server in the loop of the test, and what there is in it."""

    def __init__(self, port: int, server: Server, root: Path) -> None:
        self.port = port
        self._server = server
        self._root = root
        self._idle = asyncio.all_tasks()

    @asynccontextmanager
    async def sent(self, content: bytes) -> AsyncIterator[SocketStream]:
        async with await anyio.connect_tcp(HOST, self.port) as connection:
            await connection.send(content)
            yield connection

    async def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        async with self.sent(head(method, path, len(body), "close") + body) as connection:
            return b"".join([piece async for piece in connection])

    def files(self) -> list[str]:
        """Files and directories of the artifacts."""
        return sorted(str(each.relative_to(self._root)) for each in self._root.rglob("*"))

    async def stored(self) -> tuple[Any, ...]:
        store = self._server.store
        runs = await store.search_runs(["0"], max_results=1000)
        experiments = await store.search_experiments("ALL")
        traces = await store.search_traces(["0"])
        shown = [(run.info.run_id, len(run.data.metrics), run.data.tags) for run in runs]
        return shown, [each.name for each in experiments], [each.trace_id for each in traces]

    async def idle(self) -> None:
        """Wait until nothing of a request is left."""
        with anyio.move_on_after(30):
            while self._busy() != (0, []):
                await anyio.sleep(0.01)
        assert self._busy() == (0, [])

    def _busy(self) -> tuple[int, list[str]]:
        """Connections of the database that are in use, and tasks."""
        more = asyncio.all_tasks() - self._idle - {asyncio.current_task()}
        store: Any = self._server.store
        return store._database.engine.pool.checkedout(), [
            f"{task!r} {task.get_stack()}" for task in more
        ]


def head(method: str, path: str, length: int, connection: str = "keep-alive") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"x-mlflow-experiment-id: 0\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    ).encode()


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    root = tmp_path / "artifacts"
    root.mkdir()
    app = create_app(f"sqlite:///{tmp_path}/db", artifacts_destination=str(root))
    port = free_port()
    config = uvicorn.Config(
        app, host=HOST, port=port, http=BoundedProtocol, log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as group:
        # Without the signals, which are pytest's.
        group.start_soon(server._serve)
        with anyio.fail_after(60):
            while not server.started:
                await anyio.sleep(0.01)
        try:
            yield Serving(port, app.state.server, root)
        finally:
            server.should_exit = True


def batch() -> bytes:
    tags = [{"key": str(number), "value": "x" * 100} for number in range(100)]
    return json.dumps({"run_id": "x", "tags": tags}).encode()


HALF = {
    "head": b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: x\r\nContent-Le",
    "experiment": head("POST", f"{API}/experiments/create", 100) + b'{"name": "half"}',
    "run": head("POST", f"{API}/runs/create", 100) + b'{"experiment_id": "0"}',
    "batch": head("POST", f"{API}/runs/log-batch", 100_000) + batch(),
    "trace": head("POST", f"{API}/traces", 1000) + b'{"experiment_id": "0"}',
    "spans": head("POST", "/v1/traces", 1000) + b'{"resourceSpans": []}',
    "graphql": head("POST", "/graphql", 1000) + b'{"query": "{a}"}',
    "parts": head("POST", "/api/2.0/mlflow-artifacts/mpu/create/x", 1000) + b'{"path": "x"}',
    "artifact": head("PUT", f"{ARTIFACTS}/new/half.bin", 3 * MIB) + bytes(2 * MIB),
    "chunks": head("PUT", f"{ARTIFACTS}/new/half.bin", 0).replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    + b"5\r\nhello\r\n5\r\nwor",
    "no chunk": head("PUT", f"{ARTIFACTS}/new/half.bin", 0).replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    + b"5\r\nhello\r\nnonsense\r\n",
}


@pytest.mark.parametrize("abrupt", [True, False])
async def test_half_a_request_leaves_nothing(tmp_path: Path, abrupt: bool) -> None:
    async with serving(tmp_path) as served:
        created = await served.call("POST", f"{API}/runs/create", b'{"experiment_id": "0"}')
        run_id = json.loads(created.partition(b"\r\n\r\n")[2])["run"]["info"]["run_id"]
        upload = head("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_id={run_id}&path=x", 9)
        before = await served.stored()
        for what, content in {**HALF, "upload": upload + b"half"}.items():
            async with served.sent(content.replace(b'"x"', f'"{run_id}"'.encode(), 1)) as client:
                if abrupt:
                    # Closed with a reset instead of an end.
                    raw = client.extra(SocketAttribute.raw_socket)
                    linger = struct.pack("ii", 1, 0)
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await served.idle()
            assert served.files() == [], what
            assert await served.stored() == before, what
        assert b"200 OK" in await served.call("GET", "/health")


async def test_who_leaves_before_the_answer_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        for _ in range(30):
            await served.call("POST", f"{API}/runs/create", b'{"experiment_id": "0"}')
        searches = [
            ("POST", f"{API}/runs/search", b'{"experiment_ids": ["0"]}'),
            ("POST", f"{API}/experiments/search", b"{}"),
            ("POST", "/graphql", b'{"query": "{mlflowSearchRuns {__typename}}"}'),
            ("GET", f"{ARTIFACTS}?path=", b""),
            ("GET", f"{API}/registered-models/search", b""),
            ("POST", f"{API}/logged-models/search", b'{"experiment_ids": ["0"]}'),
        ]
        for turn in range(60):
            method, path, body = searches[turn % len(searches)]
            async with served.sent(head(method, path, len(body)) + body):
                # Sooner and later in what the server does.
                for _ in range(turn):
                    await anyio.lowlevel.checkpoint()
        await served.idle()
        assert b"200 OK" in await served.call("POST", f"{API}/runs/search", searches[0][2])


async def test_who_leaves_while_a_file_comes_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        content = os.urandom(20 * MIB)
        assert b"200 OK" in await served.call("PUT", f"{ARTIFACTS}/large.bin", content)
        open_before = len(list(Path("/proc/self/fd").iterdir()))
        for wanted in (1, 100_000, 5 * MIB):
            async with served.sent(head("GET", f"{ARTIFACTS}/large.bin", 0)) as client:
                got = 0
                while got < wanted:
                    got += len(await client.receive())
            await served.idle()
        assert len(list(Path("/proc/self/fd").iterdir())) <= open_before
        answer = await served.call("GET", f"{ARTIFACTS}/large.bin")
        assert answer.partition(b"\r\n\r\n")[2] == content


async def test_who_dawdles_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCSTORE_SERVER_CLIENT_TIMEOUT", "1")
    connections._timeout.cache_clear()
    try:
        async with serving(tmp_path) as served:
            before = await served.stored()
            slow = {
                "head": HALF["head"],
                "body": HALF["experiment"],
                "artifact": HALF["artifact"],
                "spans": HALF["spans"],
            }
            for what, content in slow.items():
                async with served.sent(content) as client:
                    with anyio.fail_after(30):
                        answer = await _dripped(
                            client,
                            drips=b"x" if what == "head" else b" " if what == "body" else b"",
                        )
                assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), what
                assert (answer == b"") is (what == "head"), what
                await served.idle()
                assert served.files() == [], what
                assert await served.stored() == before, what
    finally:
        connections._timeout.cache_clear()


async def _dripped(client: SocketStream, *, drips: bytes) -> bytes:
    """What comes back, or nothing, while a byte is sent now and then."""
    answer = b""

    async def drip() -> None:
        try:
            while True:
                await anyio.sleep(0.2)
                await client.send(drips)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async with anyio.create_task_group() as group:
        if drips:
            group.start_soon(drip)
        try:
            async for piece in client:
                answer += piece
        except anyio.BrokenResourceError:
            pass
        group.cancel_scope.cancel()
    return answer
