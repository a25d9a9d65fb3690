"""asyncstore's tracking server in a process of its own, served by uvicorn."""

from __future__ import annotations

import http.client
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, ClassVar

from tests.servers.base import HOST, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

# As `mlflow server` names its options, and hands them to its workers.
_VARIABLES = {
    "--backend-store-uri": "_MLFLOW_SERVER_FILE_STORE",
    "--registry-store-uri": "_MLFLOW_SERVER_REGISTRY_STORE",
    "--default-artifact-root": "_MLFLOW_SERVER_ARTIFACT_ROOT",
    "--artifacts-destination": "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
}


class AsyncstoreServer(Server):
    """The server of this interpreter's environment, with one worker process.

    Args:
        options: As of `MlflowServer`: `--backend-store-uri`, its value, and so on. Without any, a
            new database and its artifacts are in the server's directory.
        environment: Variables that it has besides its own; personal ones do not reach it.
    """

    name: ClassVar[str] = "asyncstore"
    install_hint: ClassVar[str] = "pip install 'asyncstore[server]'"

    def __init__(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.port = 0
        self._options = options
        self._environment = dict(environment or {})

    @classmethod
    def available(cls) -> bool:
        return all(map(importlib.util.find_spec, ("fastapi", "uvicorn", "msgspec")))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def boot(self) -> None:
        self.port = free_port()
        names = [_VARIABLES[option] for option in self._options[::2]]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            **dict(zip(names, self._options[1::2], strict=True)),
            **self._environment,
        }
        factory = ["--factory", "asyncstore.server:create_app"]
        listen = ["--host", HOST, "--port", str(self.port), "--no-access-log"]
        # The working directory of a process is the server's own.
        code = "import os, sys; os.chdir(sys.argv.pop(1)); import uvicorn; uvicorn.main()"
        command = [sys.executable, "-c", code, str(self.directory), *listen, *factory]
        self.spawn(command, env=environment).wait_until(
            self._healthy, "waiting for asyncstore's server", timeout=60
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
