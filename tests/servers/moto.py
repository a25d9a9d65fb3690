"""moto: S3 in memory, for what Ceph lacks. It takes any keys and is slow."""

from __future__ import annotations

import importlib.util
import sys
from typing import ClassVar

from tests.servers.base import HOST, free_port
from tests.servers.s3 import S3Server


class Moto(S3Server):
    """moto's server in a process of its own."""

    name: ClassVar[str] = "moto"
    install_hint: ClassVar[str] = "pip install 'moto[server]'"

    @classmethod
    def available(cls) -> bool:
        return all(importlib.util.find_spec(module) for module in ("moto", "flask"))

    def boot(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]
        self.spawn(command).wait_for_port(self.port)
