"""Web servers over a directory: one that knows ranges, and Python's own, which does not.

Run as a program, this file is the first one: `python http.py DIRECTORY PORT [USER PASSWORD]`.
"""

from __future__ import annotations

import importlib.util
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if __name__ != "__main__":
    from tests.servers.base import HOST, Server, free_port
else:
    HOST = "127.0.0.1"
    Server = object  # type: ignore[misc, assignment]  # the program needs only the handler

if TYPE_CHECKING:
    from aiohttp import web


class WebServer(Server):
    """aiohttp's own file responses: ranges, strong ETags, If-Match; directories as pages of links.

    Args:
        user: Name and password that every request must have; None lets everybody in.
    """

    name: ClassVar[str] = "aiohttp"
    install_hint: ClassVar[str] = "pip install aiohttp"

    def __init__(self, user: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.port = 0
        self._user = user

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec("aiohttp") is not None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def files(self) -> Path:
        """The directory that is served."""
        return self.directory / "files"

    def boot(self) -> None:
        self.port = self.port or free_port()
        self.files.mkdir()
        self.serve()

    def serve(self) -> None:
        """Start the process."""
        program = Path(__file__).resolve()
        arguments = [sys.executable, program, self.files, str(self.port), *(self._user or ())]
        self.spawn(arguments).wait_for_port(self.port)

    def halt(self) -> None:
        """End the process; `serve` starts another one on the same port."""
        self.processes.pop().stop()


class PlainWebServer(WebServer):
    """`python -m http.server`: no ranges, no ETag."""

    name: ClassVar[str] = "http.server"

    def serve(self) -> None:
        self.spawn(
            [
                *(sys.executable, "-m", "http.server", "--protocol", "HTTP/1.1"),
                *("--bind", HOST, "--directory", self.files, str(self.port)),
            ]
        ).wait_for_port(self.port)


def application(root: Path, user: tuple[str, str] | None) -> web.Application:
    import html
    from urllib.parse import quote

    from aiohttp import web

    expected = f"Basic {b64encode(':'.join(user).encode()).decode()}" if user else None

    async def answer(request: web.Request) -> web.StreamResponse:
        if expected and request.headers.get("Authorization") != expected:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="files"'})
        name = request.match_info["path"]
        path = root / name
        if path.is_dir():
            if name and not name.endswith("/"):
                raise web.HTTPMovedPermanently(f"/{quote(name)}/")
            return page(path)
        if not path.is_file() or name.endswith("/"):
            raise web.HTTPNotFound
        return web.FileResponse(path, chunk_size=256 * 1024)

    def page(directory: Path) -> web.Response:
        names = sorted(
            child.name + ("/" if child.is_dir() else "") for child in directory.iterdir()
        )
        rows = [
            f'<tr><td><a href="{html.escape(quote(name))}">{html.escape(name)}</a></td></tr>'
            for name in names
        ]
        head = '<a href="../">Parent</a> <a href="?C=N;O=D">Name</a> <a href="/">Root</a>'
        text = f"<html><body>{head}<table>{''.join(rows)}</table></body></html>"
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    return app


def main(directory: str, port: str, *user: str) -> None:
    from aiohttp import web

    account: Any = user or None
    web.run_app(application(Path(directory), account), host=HOST, port=int(port), print=None)


if __name__ == "__main__":
    # Its own directory has a module named `http`, which must not hide Python's.
    sys.path.pop(0)
    main(*sys.argv[1:])
