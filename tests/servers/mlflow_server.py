"""MLflow's own tracking server with its UI, as `mlflow server` starts it."""

from __future__ import annotations

import http.client
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, ClassVar

from tests.servers.base import HOST, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping


class MlflowServer(Server):
    """`mlflow server` of this interpreter's environment, with one worker process.

    Args:
        options: More of its command line: `--backend-store-uri`, its value, and so on.
        environment: Variables that it has besides its own; personal ones do not reach it.
    """

    name: ClassVar[str] = "mlflow"
    install_hint: ClassVar[str] = "pip install mlflow"

    def __init__(self, *options: str, environment: Mapping[str, str]) -> None:
        super().__init__()
        self.port = 0
        self._options = options
        self._environment = environment

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec("mlflow") is not None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def boot(self) -> None:
        self.port = free_port()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **self._environment,
        }
        listen = ["--host", HOST, "--port", str(self.port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", *listen, *self._options]
        # Importing MLflow takes seconds, in each of its processes, on a machine that is busy too.
        self.spawn(command, env=environment).wait_until(
            self._healthy, "waiting for mlflow server", timeout=180
        )

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
