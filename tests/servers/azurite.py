"""Azurite, Microsoft's own server of Azure Blob Storage for tests."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Any, ClassVar

from tests.servers.base import HOST, Server, free_port

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class Azurite(Server):
    """Azurite's blob service, in memory, with one account."""

    name: ClassVar[str] = "azurite"
    install_hint: ClassVar[str] = "scripts/install_azurite.sh"

    def __init__(self) -> None:
        super().__init__()
        self.account = "labaccount"
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()

    @classmethod
    def available(cls) -> bool:
        return _installed() is not None

    def boot(self) -> None:
        installed = _installed()
        assert installed is not None
        self.port = free_port()
        node = (installed / "ready").read_text().strip()
        program = installed / "node_modules/azurite/dist/src/blob/main.js"
        self.spawn(
            [
                *(node, str(program), "--blobHost", HOST, "--blobPort", str(self.port)),
                *("--inMemoryPersistence", "--silent"),
                *("--skipApiVersionCheck", "--disableTelemetry"),
            ],
            env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"},
        ).wait_for_port(self.port)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def connection_string(self, address: str | None = None, key: str | None = None) -> str:
        """Leads here, or through a proxy at `address`; with another key than the right one."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};"
            f"AccountKey={key or self.key};"
            f"BlobEndpoint=http://{address or self.address}/{self.account};"
        )

    def client(self) -> Any:
        """Azure's own synchronous client."""
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string())

    def create_container(self) -> str:
        name = f"lab-{secrets.token_hex(6)}"
        with self.client() as client:
            client.create_container(name)
        return name

    def discard(self, container: str) -> None:
        with self.client() as client:
            client.delete_container(container)


def _installed() -> Path | None:
    found = sorted((_CACHE / "asyncstore-servers").glob("azurite-*/ready"))
    return found[-1].parent if found else None
