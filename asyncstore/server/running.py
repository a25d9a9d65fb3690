"""uvicorn as it serves a tracking server."""

from __future__ import annotations

import ssl
from typing import Any

import fastapi  # noqa: F401  is it there, before workers start?
import msgspec  # noqa: F401  as above
import uvicorn

from asyncstore import settings
from asyncstore.server.connections import BoundedProtocol

__all__ = ["UVICORN", "run"]

# Its command line, which knows the types of its options.
UVICORN = uvicorn.main
# Longer than the minute for which proxies keep a connection: who closes first makes no errors.
KEEP_ALIVE_SECONDS = 75
# A worker answers when its interpreter has started, which takes seconds on a busy machine.
HEALTH_SECONDS = 15


def run(
    host: str,
    port: int,
    workers: int,
    *,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    ssl_ca_certs: str | None = None,
    **further: Any,
) -> None:
    """Serve `asyncstore.server.create_app`, which takes its options from variables, until a signal.

    Args:
        host: The address to listen at.
        port: The port; 0 takes a free one.
        workers: Processes.
        ssl_certfile: Path of the certificate; None for no TLS.
        ssl_keyfile: Path of its key; None where it is in the same file.
        ssl_ca_certs: Path of the authorities that sign certificates of clients; None asks for none.
        further: Options of uvicorn, above what stands here.

    Raises:
        SystemExit: The server could not start, or several workers could not.
    """
    options: dict[str, Any] = {
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_worker_healthcheck": HEALTH_SECONDS,
        "timeout_graceful_shutdown": settings.ASYNCSTORE_SERVER_SHUTDOWN_TIMEOUT.get(),
        **further,
    }
    uvicorn.run(
        "asyncstore.server:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        ssl_ca_certs=ssl_ca_certs,
        ssl_cert_reqs=ssl.CERT_REQUIRED if ssl_ca_certs else ssl.CERT_NONE,
        **options,
    )
