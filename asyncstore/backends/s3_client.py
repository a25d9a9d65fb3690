"""The S3 client: s3fs's, set up by MLflow's variables and for many requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiobotocore
from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header
from s3fs import S3FileSystem

from asyncstore import __version__, settings
from asyncstore.backends.checksums import md5_base64
from asyncstore.backends.s3_presigned import register
from asyncstore.backends.s3_uris import S3Location
from asyncstore.sockets import Sockets

__all__ = ["MAX_CONNECTIONS", "connect"]

MAX_CONNECTIONS = 64


def connect(storage_options: Mapping[str, Any], location: S3Location) -> tuple[Any, Any, Sockets]:
    """Make a filesystem and its client from the variables. Blocks: call it in a worker thread.

    Args:
        storage_options: Arguments of `s3fs.S3FileSystem`; they go above the URI and the variables.
        location: What the URI says of the server goes above the variables.

    Returns:
        The filesystem, its aiobotocore client and the client's sockets; no request was sent yet.
    """
    sockets = Sockets()
    options = _filesystem_options(storage_options, location, sockets)
    session = AioSession(profile=options.pop("profile", None))
    factory = session.get_component("response_parser_factory")
    # botocore's own parser guesses the format, which takes longer than the rest of a response.
    factory.set_parser_defaults(timestamp_parser=_timestamp)
    # Waiting for "100 Continue" costs every upload a round trip.
    session.unregister("before-call.s3", add_expect_header)
    session.register("before-sign.s3.DeleteObjects", _sign_with_md5)
    register(session)
    fs = S3FileSystem(session=session, **options)
    # The client awaits nothing but its credentials, and binds to a loop with its first request;
    # making it takes a tenth of a second of the processor.
    return fs, asyncio.run(fs.set_session()), sockets


def _filesystem_options(
    storage_options: Mapping[str, Any], location: S3Location, sockets: Sockets
) -> dict[str, Any]:
    options = dict(storage_options)
    config = {
        "max_pool_connections": MAX_CONNECTIONS,
        "connect_timeout": 10,
        "read_timeout": 60,
        # One place retries: the scheduler, which knows the deadline.
        "retries": {"total_max_attempts": 1},
        # A fixed string: botocore puts its own together anew for every request.
        "user_agent": f"asyncstore/{__version__} aiobotocore/{aiobotocore.__version__}",
        # Many compatible servers do not know the trailing checksums that botocore sends by default
        # since 2025; Content-MD5, which all of them check, is sent instead.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        **options.pop("config_kwargs", {}),
    }
    config["connector_args"] = {
        "socket_factory": sockets.make,
        **config.get("connector_args", {}),
    }
    config["s3"] = {
        "addressing_style": (
            location.addressing_style or settings.MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE.get()
        ),
        # Signing the payload would hash it on the event loop. Its MD5 is computed in a worker
        # thread and is part of what is signed.
        "payload_signing_enabled": False,
        **config.get("s3", {}),
    }
    client = dict(options.pop("client_kwargs", {}))
    if settings.MLFLOW_S3_IGNORE_TLS.get():
        client.setdefault("verify", False)
    if location.region:
        client.setdefault("region_name", location.region)
    if endpoint := location.endpoint_url or settings.MLFLOW_S3_ENDPOINT_URL.get():
        options.setdefault("endpoint_url", endpoint)
    return options | {
        "asynchronous": True,
        "skip_instance_cache": True,
        "client_kwargs": client,
        "config_kwargs": config,
    }


def _sign_with_md5(request: Any, **_: Any) -> None:
    """Replace the newer checksum that DeleteObjects demands by the one that every server knows."""
    for header in list(request.headers):
        if header.lower().startswith(("x-amz-checksum-", "x-amz-sdk-checksum-")):
            del request.headers[header]
    request.headers["Content-MD5"] = md5_base64(request.data)


def _timestamp(text: str | int | float) -> datetime:
    """A date of S3: ISO 8601 in a listing, RFC 5322 in a header."""
    if isinstance(text, str):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return parsedate_to_datetime(text)
    return datetime.fromtimestamp(text, UTC)
