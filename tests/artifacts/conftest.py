"""What the artifact tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncstore.artifacts import TransferOptions
from asyncstore.retry import RetryPolicy

if TYPE_CHECKING:
    from pathlib import Path

    from asyncstore.testing.fault_proxy import FaultProxy

MIB = 1024 * 1024
#: Tries often and waits little.
QUICK = TransferOptions(
    multipart_upload_chunk_size=5 * MIB,
    multipart_download_chunk_size=2 * MIB,
    retry=RetryPolicy(attempts=4, backoff=0.01, max_backoff=5.0),
)
#: Three parts of an upload, six ranges of a download under `QUICK`.
LARGE = 11 * MIB + 7


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that goes in parts."""
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(LARGE))
    return file


@pytest.fixture
def proxy(
    radosgw_proxy: FaultProxy, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> FaultProxy:
    """The variables lead to `radosgw` through this proxy."""
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", radosgw_proxy.url)
    return radosgw_proxy
