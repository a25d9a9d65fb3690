"""gcp-storage-emulator: Google Cloud Storage in memory. It knows no credentials."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from tests.servers.base import HOST, Server, free_port


class GcsEmulator(Server):
    """The emulator in a process of its own, see `gcs_emulator.py`."""

    name: ClassVar[str] = "gcp-storage-emulator"
    install_hint: ClassVar[str] = "pip install gcp-storage-emulator"

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._buckets = itertools.count(1)

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec("gcp_storage_emulator") is not None

    def boot(self) -> None:
        self.port = self.port or free_port()
        program = Path(__file__).with_name("gcs_emulator.py")
        self.spawn([sys.executable, "-P", program, str(self.port)]).wait_for_port(self.port)

    def stop(self) -> None:
        super().stop()
        self.port = 0

    def restart(self) -> None:
        """Start anew on the same port, with nothing in it."""
        self.processes.pop().stop()
        self.boot()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        """The variable that leads a client here."""
        return {"STORAGE_EMULATOR_HOST": self.url}

    def create_bucket(self, name: str | None = None) -> str:
        """Create an empty bucket, which keeps nothing of what is deleted, and return its name."""
        bucket = name or f"test-bucket-{next(self._buckets)}"
        policy = {"softDeletePolicy": {"retentionDurationSeconds": "0"}}
        self.send("POST", "/storage/v1/b", json.dumps({"name": bucket, **policy}).encode())
        self.send("PATCH", f"/storage/v1/b/{bucket}", json.dumps(policy).encode())
        return bucket

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object."""
        if data:
            query = urlencode({"uploadType": "media", "name": key})
            self.send("POST", f"/upload/storage/v1/b/{bucket}/o?{query}", data, "image/x-test")
            return
        # An empty one breaks the emulator's other way.
        query = urlencode({"uploadType": "multipart", "name": key})
        empty = b"--x\r\n\r\n{}\r\n--x\r\n\r\n\r\n--x--\r\n"
        kind = "multipart/related; boundary=x"
        self.send("POST", f"/upload/storage/v1/b/{bucket}/o?{query}", empty, kind)

    def get(self, bucket: str, key: str) -> bytes:
        """The content of an object."""
        return self.send("GET", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media")

    def resource(self, bucket: str, key: str) -> dict[str, Any]:
        """What the server says of an object."""
        found: dict[str, Any] = json.loads(
            self.send("GET", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}")
        )
        return found

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All names of a bucket below `prefix`, sorted."""
        query = urlencode({"prefix": prefix})
        page = json.loads(self.send("GET", f"/storage/v1/b/{bucket}/o?{query}"))
        return sorted(item["name"] for item in page.get("items", ()))

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self.send("DELETE", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}")

    def wipe(self) -> None:
        """Forget every bucket."""
        self.send("GET", "/wipe")

    def send(
        self, method: str, path: str, data: bytes | None = None, kind: str = "application/json"
    ) -> bytes:
        """Send a request and return the content of its answer, which must be a good one."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            headers = {"Content-Type": kind, "Connection": "close"} if data is not None else {}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return content
