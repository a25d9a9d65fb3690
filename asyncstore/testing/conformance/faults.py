"""Faults: what a network and a server do on a bad day, and what must come of it."""

# ruff: noqa: S101, D102, PT012  these are tests, with names that say what they are for

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import (
    AsyncStoreError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance.storage import (
    Place,
    RawStorage,
    StorageTests,
    contents,
    files,
    write,
)
from asyncstore.testing.fault_proxy import Answer, FaultProxy, Reset, Truncate

__all__ = ["FaultTests"]

#: Tries often and waits little.
PATIENT = RetryPolicy(attempts=8, backoff=0.01, max_backoff=2.0)
SMALL = {f"small/{number}": b"%d" % number * 500 for number in range(40)}


class FaultTests(StorageTests):
    """Faults: what a network and a server do on a bad day, and what must come of it."""

    @pytest.fixture
    def between(self, proxy: FaultProxy | None, proxied: Place | None) -> FaultProxy:
        """The proxy, without faults so far."""
        if proxy is None or proxied is None:
            pytest.skip("needs a server with a proxy before it")
        return proxy

    @pytest.fixture
    def between_http(self, between: FaultProxy) -> FaultProxy:
        """The proxy of a storage that speaks HTTP."""
        if not between.http:
            pytest.skip("needs a server that speaks HTTP")
        return between

    @pytest.fixture
    async def distant(
        self, proxied: Place | None, between: FaultProxy
    ) -> AsyncIterator[ArtifactRepository]:
        """An open repository behind the proxy, that tries often."""
        assert proxied is not None
        options = dataclasses.replace(self.options, retry=PATIENT)
        async with ArtifactRepository(
            proxied.uri, storage_options=proxied.storage_options, transfer=options
        ) as repository:
            yield repository

    def reset(self, proxy: FaultProxy) -> Reset:
        """Break a part of what goes through a proxy."""
        # Where the proxy does not read HTTP, a connection counts as one request.
        return Reset(after=1_000, every=5) if proxy.http else Reset(after=100_000, first=4)

    async def test_uploads_survive_resets(
        self, between: FaultProxy, distant: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        write(tmp_path / "up", SMALL)
        fault = self.reset(between)
        between.faults.append(fault)
        await distant.log_artifacts(tmp_path / "up")
        assert raw.paths() == sorted(SMALL)
        assert {path: raw.get(path) for path in SMALL} == SMALL
        content = os.urandom(self.large)
        (tmp_path / "large").write_bytes(content)
        try:
            await distant.log_artifact(tmp_path / "large")
        except AsyncStoreError:
            # One stream cannot be taken up in the middle: then nothing of it may be there.
            assert not distant.capabilities.parallel_parts
            between.faults.clear()
            assert raw.paths() == sorted(SMALL)
            await distant.log_artifact(tmp_path / "large")
        assert raw.get("large") == content
        assert raw.paths() == sorted([*SMALL, "large"])
        assert fault.count

    async def test_downloads_survive_resets(
        self, between: FaultProxy, distant: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        tree = {**SMALL, "large": os.urandom(self.large)}
        for path, data in tree.items():
            raw.put(path, data)
        fault = self.reset(between)
        between.faults.append(fault)
        await distant.download_artifacts(None, tmp_path / "down")
        assert contents(tmp_path / "down") == tree
        assert fault.count

    async def test_downloads_survive_truncated_answers(
        self, between_http: FaultProxy, distant: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        tree = {**SMALL, "large": os.urandom(self.large)}
        for path, data in tree.items():
            raw.put(path, data)
        fault = Truncate(after=400, every=4, matches=lambda request: request.method == "GET")
        between_http.faults.append(fault)
        await distant.download_artifacts(None, tmp_path / "down")
        assert contents(tmp_path / "down") == tree
        assert fault.count

    async def test_uploads_wait_as_they_are_told(
        self, between_http: FaultProxy, distant: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        tree = {**SMALL, "large": os.urandom(self.large)}
        write(tmp_path / "up", tree)
        fault = Answer(status=503, headers={"Retry-After": "1"}, every=9, first=30)
        between_http.faults.append(fault)
        await distant.log_artifacts(tmp_path / "up")
        assert raw.paths() == sorted(tree)
        assert {path: raw.get(path) for path in tree} == tree
        assert fault.count

    async def test_downloads_wait_as_they_are_told(
        self, between_http: FaultProxy, distant: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        for path, data in SMALL.items():
            raw.put(path, data)
        fault = Answer(status=503, headers={"Retry-After": "1"}, every=9, first=30)
        between_http.faults.append(fault)
        await distant.download_artifacts(None, tmp_path / "down")
        assert contents(tmp_path / "down") == SMALL
        assert fault.count

    async def test_an_error_in_an_answer_that_begins_well(
        self,
        error_in_200: Answer | None,
        between_http: FaultProxy,
        distant: ArtifactRepository,
        raw: RawStorage,
        tmp_path: Path,
    ) -> None:
        if error_in_200 is None:
            pytest.skip("needs a storage that answers 200 and then an error")
        content = os.urandom(self.large)
        (tmp_path / "large").write_bytes(content)
        error_in_200.first = 1
        between_http.faults.append(error_in_200)
        await distant.log_artifact(tmp_path / "large")
        assert error_in_200.count == 1
        assert raw.get("large") == content
        assert raw.paths() == ["large"]

    async def test_a_slow_server(
        self, between: FaultProxy, distant: ArtifactRepository, raw: RawStorage, tmp_path: Path
    ) -> None:
        between.latency = 0.02
        between.bytes_per_second = 4 * 1024 * 1024
        tree = {**SMALL, "larger": os.urandom(1_000_000)}
        if self.writable:
            write(tmp_path / "up", tree)
            await distant.log_artifacts(tmp_path / "up")
        else:
            for path, data in tree.items():
                raw.put(path, data)
        await distant.download_artifacts(None, tmp_path / "down")
        assert contents(tmp_path / "down") == tree

    async def test_idle_connections_that_the_server_closed(
        self, between: FaultProxy, distant: ArtifactRepository, raw: RawStorage
    ) -> None:
        raw.put("x", b"content")
        for _ in range(3):
            assert await distant.read_bytes("x") == b"content"
            assert await distant.exists("x")
            assert [entry.path for entry in await distant.list_artifacts()] == ["x"]
            between.reset_connections()

    async def test_a_server_that_is_down_and_comes_back(
        self, between: FaultProxy, proxied: Place, raw: RawStorage, tmp_path: Path
    ) -> None:
        raw.put("x", b"content")
        retry = RetryPolicy(attempts=2, backoff=0.01, max_backoff=0.01)
        async with ArtifactRepository(
            proxied.uri,
            storage_options=proxied.storage_options,
            transfer=dataclasses.replace(self.options, retry=retry),
        ) as repository:
            assert await repository.read_bytes("x") == b"content"
            between.refuse_connections()
            between.reset_connections()
            with anyio.fail_after(60):
                for call in (
                    repository.read_bytes("x"),
                    repository.info("x"),
                    repository.list_artifacts(),
                    repository.download_artifacts("x", tmp_path / "down"),
                ):
                    with pytest.raises(UnavailableError):
                        await call
                if self.writable:
                    with pytest.raises(UnavailableError):
                        await repository.write_bytes("y", b"new")
            between.accept_connections()
            assert await repository.read_bytes("x") == b"content"
        assert files(tmp_path / "down") == set()
        assert raw.paths() == ["x"]

    async def test_wrong_credentials(
        self, wrong_credentials: Place | None, raw: RawStorage, tmp_path: Path
    ) -> None:
        if wrong_credentials is None:
            pytest.skip("needs a server that knows its users")
        raw.put("x", b"content")
        (tmp_path / "y").write_bytes(b"new")
        refused = (UnauthenticatedError, PermissionDeniedError)
        with pytest.raises(refused):
            async with ArtifactRepository(
                wrong_credentials.uri, storage_options=wrong_credentials.storage_options
            ) as repository:
                calls: list[Any] = [repository.list_artifacts(), repository.info("x")]
                if self.writable:
                    calls.append(repository.log_artifact(tmp_path / "y"))
                for call in calls:
                    with pytest.raises(refused):
                        await call
                await repository.read_bytes("x")
        assert raw.paths() == ["x"]

    async def test_read_only(self, repository: ArtifactRepository, raw: RawStorage) -> None:
        if self.writable:
            pytest.skip("needs a storage that is read only")
        raw.put("x", b"content")
        for call in (repository.write_bytes("y", b""), repository.delete_artifacts("x")):
            with pytest.raises(UnsupportedError, match="read"):
                await call
        assert raw.paths() == ["x"]

    async def test_capabilities(
        self, repository: ArtifactRepository, record_property: Any, artifact_uri: str
    ) -> None:
        stated: Mapping[str, Any] = dataclasses.asdict(repository.capabilities)
        assert stated["writable"] is self.writable
        assert stated["directories"] is self.directories
        record_property("capabilities", stated)
        record_property("uri", artifact_uri)
