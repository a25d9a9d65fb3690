"""A server that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ssl


class Asked(NamedTuple):
    """A request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What comes back; `hang_up` closes the connection instead."""

    status: int = 200
    content: bytes | dict[str, Any] = b"{}"
    headers: dict[str, str] = {}  # noqa: RUF012  nobody writes into it
    hang_up: bool = False


class Scripted:
    """Python's own HTTP server on loopback.

    Args:
        answer: What a request gets, by itself and how many came before it.
        context: Makes it speak TLS.
    """

    def __init__(
        self, answer: Callable[[Asked, int], Answer], context: ssl.SSLContext | None = None
    ) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Asked(self.command, self.path, headers, body)
                number = len(outer.asked)
                outer.asked.append(request)
                said = answer(request, number)
                if said.hang_up:
                    self.close_connection = True
                    return
                content = said.content
                data = json.dumps(content).encode() if isinstance(content, dict) else content
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  its names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if context is None else "https"
        self.port = self._server.server_port
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[Scripted]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@contextmanager
def answering(*answers: Answer, context: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """A server with these answers, one after the other; the last one for all that follow."""
    server = Scripted(lambda _, number: answers[min(number, len(answers) - 1)], context)
    with server.serving():
        yield server


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
