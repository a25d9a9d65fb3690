"""Requests as bytes on a socket, which no client library mends."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.base import HOST, Server


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request whose path stays as it is written, and read the answer whole."""
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def call(port: int, method: str, path: str, content: Mapping[str, Any] | None = None) -> Answer:
    """Send JSON."""
    body = None if content is None else json.dumps(content).encode()
    return request(port, method, path, body, {"Content-Type": "application/json"})


def half_a_request(port: int, method: str, path: str, length: int, sent: bytes) -> socket.socket:
    """Promise a body of `length` bytes and send its beginning."""
    connection = socket.create_connection((HOST, port), timeout=60)
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + sent)
    return connection


def eventually(holds: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not after {timeout:g} s"
        time.sleep(0.01)


class Memory:
    """The most that a server's process held, in bytes."""

    def __init__(self, server: Server) -> None:
        self._status = Path(f"/proc/{server.processes[0].pid}/status")
        self.peak = self.now()

    def now(self) -> int:
        (line,) = [each for each in self._status.read_text().splitlines() if "VmRSS" in each]
        return int(line.split()[1]) * 1024


@contextmanager
def sampled(server: Server) -> Iterator[Memory]:
    """Look at a server's memory every few milliseconds of a block."""
    memory = Memory(server)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.005):
            memory.peak = max(memory.peak, memory.now())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
