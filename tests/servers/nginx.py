"""nginx with a configuration that a test gives it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import ClassVar

from tests.servers.base import Server

# What Debian has around a site, and nothing outside the server's directory.
_AROUND = """\
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{site}
}}
"""


class Nginx(Server):
    """nginx.

    Args:
        site: What stands in `http`.
        port: Where it listens.
    """

    name: ClassVar[str] = "nginx"
    install_hint: ClassVar[str] = "apt-get install nginx-light (macOS: brew install nginx)"

    def __init__(self, site: str, port: int) -> None:
        super().__init__()
        self._site = site
        self._port = port

    @classmethod
    def available(cls) -> bool:
        return _program() is not None

    def boot(self) -> None:
        program = _program()
        assert program is not None
        configuration = self.directory / "nginx.conf"
        # Only root can become somebody else.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration.write_text(
            _AROUND.format(user=user, directory=self.directory, site=self._site)
        )
        log = self.directory / "start.log"
        command = [program, "-p", str(self.directory), "-e", str(log), "-c", str(configuration)]
        subprocess.run([*command, "-t"], check=True, capture_output=True)
        self.spawn([*command, "-g", "daemon off;"]).wait_for_port(self._port)


def _program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
