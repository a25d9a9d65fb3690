"""Files whose content comes piece by piece, single files to a path, and `asyncstore+` URIs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncstore import ArtifactRepository
from asyncstore.backends import known_schemes, plugins
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.conftest import QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PART = 5 * MIB


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for first in range(0, len(data), size):
        yield data[first : first + size]


@pytest.mark.parametrize(
    ("length", "size", "parts"),
    [
        (0, 1, 0),
        (1, 1, 0),
        (PART, 100_000, 0),
        (PART + 1, PART + 1, 2),
        (2 * PART, 300_000, 2),
        (2 * PART + 7, 300_000, 3),
    ],
)
async def test_a_stream_in_as_few_requests_as_its_length_takes(
    length: int, size: int, parts: int, proxy: FaultProxy, s3_bucket: str
) -> None:
    data = os.urandom(length)
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        await repository.write_stream("a/b.json", pieces(data, size))
        sent = [request for request in proxy.requests if request.method == "PUT"]
        assert [("partNumber" in request.query) for request in sent] == [True] * parts or (
            parts == 0 and len(sent) == 1
        )
        assert await repository.read_bytes("a/b.json") == data


async def test_a_stream_that_breaks_leaves_the_file_that_was_there(
    s3_env: dict[str, str], s3_bucket: str, radosgw: RadosGateway
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 * PART + 1)
        raise ConnectionResetError("gone")

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (2 * PART + 1)
        started.set()
        await anyio.sleep_forever()

    started = anyio.Event()
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        await repository.write_bytes("file", b"old")
        with pytest.raises(ConnectionResetError):
            await repository.write_stream("file", broken())
        assert radosgw.open_multipart_uploads(s3_bucket) == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(repository.write_stream, "file", endless())
            await started.wait()
            tasks.cancel_scope.cancel()
        assert radosgw.open_multipart_uploads(s3_bucket) == []
        assert await repository.read_bytes("file") == b"old"
        for path in ("", "../x"):
            with pytest.raises(InvalidParameterError):
                await repository.write_stream(path, pieces(b"x", 1))


async def test_a_slow_stream_does_not_hold_up_others(tmp_path: Path) -> None:
    """Memory is counted while a part is sent, not while it comes in."""
    waiting = anyio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (QUICK.multipart_upload_chunk_size or 0)
        waiting.set()
        await go_on.wait()

    go_on = anyio.Event()
    async with ArtifactRepository(tmp_path, transfer=QUICK) as repository:
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(repository.write_stream, f"slow-{number}", slow())
            await waiting.wait()
            await repository.write_bytes("quick", b"x" * MIB)
            go_on.set()
        assert len(await repository.list_artifacts()) == 41


async def test_one_file_to_a_path(tmp_path: Path) -> None:
    async with ArtifactRepository(tmp_path / "root") as repository:
        data = os.urandom(3 * MIB)
        await repository.write_bytes("a/b.bin", data)
        await repository.download_file("a/b.bin", tmp_path / "new" / "c.bin")
        assert (tmp_path / "new" / "c.bin").read_bytes() == data
        with pytest.raises(InvalidParameterError):
            await repository.download_file("a", tmp_path / "d")
        with pytest.raises(NotFoundError):
            await repository.download_file("nothing", tmp_path / "d")
        assert not (tmp_path / "d").exists()


async def test_the_prefix_that_mlflow_needs_changes_nothing(tmp_path: Path) -> None:
    async with ArtifactRepository(f"asyncstore+{tmp_path.as_uri()}") as repository:
        await repository.write_bytes("a", b"content")
        below = repository.at(f"asyncstore+{tmp_path.as_uri()}/below")
        assert below is not None
        await below.write_bytes("b", b"content")
    assert (tmp_path / "below" / "b").read_bytes() == b"content"
    with pytest.raises(InvalidParameterError, match="once"):
        await ArtifactRepository(f"asyncstore+asyncstore+{tmp_path.as_uri()}").open()
    with pytest.raises(InvalidParameterError):
        await ArtifactRepository("asyncstore+nonsense://x").open()


def test_asyncstore_inside_mlflow_is_no_plugin_of_somebody_else() -> None:
    assert not any(scheme.startswith("asyncstore+") for scheme in plugins.schemes())
    assert plugins.find_mlflow("asyncstore+s3") is None
    assert {"s3", "file", "github"} <= set(known_schemes())
