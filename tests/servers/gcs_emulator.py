"""Runs gcp-storage-emulator: `python -P gcs_emulator.py PORT`.

Its API stays as it is, but for what is named here: it closes every connection after one answer and
takes one at a time from a queue of five, writes the metadata of all objects anew with each change
though they are in memory, stores what it got of a request that broke off, and knows neither
preconditions nor the end of a resumable upload. What it composes is hashed as no real one is.
"""

from __future__ import annotations

import importlib
import io
import sys
import threading
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any

server: Any = importlib.import_module("gcp_storage_emulator.server")
storage: Any = importlib.import_module("gcp_storage_emulator.storage")
objects: Any = importlib.import_module("gcp_storage_emulator.handlers.objects")
_lock = threading.Lock()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(server.RequestHandler):  # type: ignore[misc]  # it ships no types
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    body: bytes | None = None
    wfile: Any

    def _handle(self) -> None:
        # What it reads of a request must be there before the others wait for it.
        self.body = _read(self)
        if len(self.body or b"") < int(self.headers.get("Content-Length") or 0):
            raise ConnectionError("the request broke off")
        connection = self.wfile
        self.wfile = answer = io.BytesIO()
        try:
            with _lock:
                server.Router(self).handle(self.command)
        finally:
            self.wfile = connection
        connection.write(answer.getvalue())


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._handle)


def _cancel(request: Any, response: Any, store: Any) -> None:
    """https://cloud.google.com/storage/docs/performing-resumable-uploads#cancel-upload."""
    upload_id = request.query.get("upload_id", [""])[0]
    known = store.resumable.pop(upload_id, None)
    response.status = _ClientClosed if known else HTTPStatus.NOT_FOUND


class _ClientClosed:
    value, phrase = 499, "Client Closed Request"


def _compose(request: Any, response: Any, store: Any) -> None:
    """https://cloud.google.com/storage/docs/composite-objects: with CRC32C, and no MD5.

    The emulator's own looks at no generation, copies what it has with each component, and hashes.
    """
    bucket, name = request.params["bucket_name"], request.params["object_id"]
    sources = request.data["sourceObjects"]
    if not 1 <= len(sources) <= 32:
        response.status = HTTPStatus.BAD_REQUEST
        return
    known = store.objects.get(bucket, {})
    for source in sources:
        condition = source.get("objectPreconditions", {}).get("ifGenerationMatch")
        if source["name"] not in known:
            response.status = HTTPStatus.NOT_FOUND
            return
        if condition and known[source["name"]]["generation"] != condition:
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
    content = b"".join(store.get_file(bucket, source["name"]) for source in sources)
    resource = objects._make_object_resource(
        request.base_url, bucket, name, None, str(len(content)), request.data["destination"]
    )
    resource.update(crc32c=objects._crc32c(content), etag=resource["generation"])
    store.create_file(bucket, name, content, resource)
    response.json(resource)


def _checked_download(request: Any, response: Any, store: Any) -> None:
    """https://cloud.google.com/storage/docs/request-preconditions."""
    wanted = request.query.get("ifGenerationMatch")
    found = store.objects.get(request.params["bucket_name"], {}).get(request.params["object_id"])
    if wanted and found and found["generation"] != wanted[0]:
        response.status = HTTPStatus.PRECONDITION_FAILED
        return
    _download(request, response, store)
    if found and not found["md5Hash"] and response.status == HTTPStatus.OK:
        response["X-Goog-Hash"] = f"crc32c={found['crc32c']}"


_download = objects.download
_read = server._read_raw_data


def main(port: int) -> None:
    """Serve on a port of loopback until the process is ended."""
    # Else its threads wait for each other's turn longer than they work.
    sys.setswitchinterval(0.0005)
    storage.Storage._write_config_to_file = lambda _: None
    objects.download = _checked_download
    server._read_raw_data = lambda handler: handler.body
    for pattern, handlers in server.HANDLERS:
        if pattern.startswith("^/upload/"):
            handlers["DELETE"] = _cancel
        if pattern.endswith("/compose$"):
            handlers["POST"] = _compose
    store = storage.Storage(use_memory_fs=True)
    serving = _Server(("127.0.0.1", port), lambda *args: _Handler(store, *args))
    serving.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
