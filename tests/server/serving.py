"""Applications behind uvicorn, in a thread of the tests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asyncstore.server.connections import BoundedProtocol
from asyncstore.server.decoding import Request
from asyncstore.server.routing import AsgiRoute, Lookup, Route, Routes
from tests.servers.base import HOST, free_port


async def _no_handler(*_: Any) -> None:
    raise AssertionError("`Echo` answers")


ROUTES = Routes(
    [
        AsgiRoute("GET", "/health", _no_handler),
        AsgiRoute("GET", "/version", _no_handler),
        Route("GET", "/api/2.0/mlflow/runs/get", _no_handler),
        Route("GET", "/api/2.0/mlflow/changes", _no_handler, reads=False),
        Route("POST", "/api/2.0/mlflow/runs/create", _no_handler),
        Route("POST", "/api/2.0/mlflow/runs/search", _no_handler, Request, reads=True),
        AsgiRoute("PUT", "/api/2.0/mlflow-artifacts/artifacts/{path:path}", _no_handler),
        Route("POST", "/api/2.0/mlflow-artifacts/mpu/create/{path:path}", _no_handler),
    ]
)


class Echo:
    """Answers with the length of the body and the user; keeps what became of each request."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ends.append("gone")
                raise ConnectionError("the client has gone")
            length += len(message["body"])
            if not message["more_body"]:
                break
        self.ends.append("whole")
        user = getattr(scope.get("user"), "name", None)
        body = json.dumps({"length": length, "user": user}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def behind(app: ASGIApp, middlewares: Sequence[Middleware]) -> ASGIApp:
    """An application behind `Lookup` and middlewares, the outermost first."""
    for each in reversed(middlewares):
        app = each.cls(app, *each.args, **each.kwargs)
    return Lookup(app, ROUTES, "")


@contextlib.contextmanager
def served(app: ASGIApp, **options: Any) -> Iterator[str]:
    """Serve an application; its URL."""
    port = free_port()
    config = uvicorn.Config(
        app,
        host=HOST,
        port=port,
        http=BoundedProtocol,
        ws="none",
        log_level="error",
        access_log=False,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join()
