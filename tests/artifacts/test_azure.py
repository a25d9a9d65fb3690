"""Azure Blob Storage, on Azurite."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs

import pytest

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import (
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import Answer, FaultProxy, Request
from tests.artifacts.conftest import LARGE, MIB, QUICK
from tests.servers.azurite import Azurite
from tests.servers.running import running

pytestmark = pytest.mark.anyio
WRONG_KEY = base64.b64encode(b"S3CR3T" * 10).decode()


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    yield from running(Azurite())


@pytest.fixture
def container(azurite: Azurite) -> Iterator[str]:
    container = azurite.create_container()
    yield container
    azurite.discard(container)


@pytest.fixture
def uri(container: str) -> str:
    return f"wasbs://{container}@labaccount.blob.core.windows.net/pre fix%2B+/x"


@pytest.fixture
def variables(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())


@pytest.fixture
def azure_proxy(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The variables lead through this proxy."""
    with FaultProxy(azurite.address) as proxy:
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(proxy.address)
        )
        yield proxy


class RawAzure:
    """A prefix of a container, by Azure's synchronous client."""

    def __init__(self, azurite: Azurite, container: str, prefix: str) -> None:
        self._client = azurite.client().get_container_client(container)
        self._prefix = prefix

    def put(self, path: str, data: bytes) -> None:
        self._client.upload_blob(self._prefix + path, data, overwrite=True)

    def get(self, path: str) -> bytes:
        data: bytes = self._client.download_blob(self._prefix + path, decompress=False).readall()
        return data

    def paths(self) -> list[str]:
        found = self._client.list_blob_names(name_starts_with=self._prefix)
        return sorted(name.removeprefix(self._prefix) for name in found)

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def raw_azure(azurite: Azurite, container: str) -> Iterator[RawAzure]:
    raw = RawAzure(azurite, container, "pre fix%2B+/x/")
    yield raw
    raw.close()


class TestAzurite(ArtifactRepositoryTests):
    storage: ClassVar[str] = "Azure Blob Storage, Data Lake"
    server: ClassVar[str] = "Azurite"

    @pytest.fixture
    def artifact_uri(self, uri: str, variables: None) -> str:
        return uri

    @pytest.fixture
    def raw(self, raw_azure: RawAzure) -> RawStorage:
        return raw_azure

    @pytest.fixture
    def proxy(self, azurite: Azurite) -> Iterator[FaultProxy]:
        with FaultProxy(azurite.address) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, azurite: Azurite, proxy: FaultProxy, uri: str) -> Place:
        return Place(uri, {"connection_string": azurite.connection_string(proxy.address)})

    @pytest.fixture
    def wrong_credentials(self, azurite: Azurite, uri: str) -> Place:
        return Place(uri, {"connection_string": azurite.connection_string(key=WRONG_KEY)})


# URIs


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("wasbs://account.blob.core.windows.net/path", "no name of a container|names no storage"),
        ("wasbs:///path", "names no container"),
        ("wasbs://@account.blob.core.windows.net/x", "names no container"),
        ("wasbs://container/path", "names no storage account"),
        ("wasbs://container@/path", "names no storage account"),
        ("wasbs://container@account/path", "names no storage account"),
        ("wasbs://Container@account.blob.core.windows.net/path", "no name of a container"),
        ("abfss://container@account.dfs.core.windows.net/a/../b", "'..'"),
        ("abfss://container@account.dfs.core.windows.net/a/%2e%2e/b", "'..'"),
        ("az://container/a%2fb", "decodes to a slash"),
        ("az://container/a?b", "no '?'"),
        ("az://container/path", "nobody says whose"),
        ("az:container", "write wasbs://"),
    ],
)
async def test_uris_that_are_no_root(uri: str, reason: str) -> None:
    with pytest.raises(InvalidParameterError, match=reason):
        await ArtifactRepository(uri).open()


@pytest.mark.parametrize(
    "form",
    [
        "wasb://{}@labaccount.blob.core.windows.net/p",
        "abfs://{}@labaccount.dfs.core.windows.net/p",
        "abfss://{}@labaccount.dfs.core.windows.net/p",
        "az://{}/p",
        "wasbs://{}@labaccount.blob.core.usgovcloudapi.net/p",
    ],
)
async def test_every_form_leads_to_the_same(form: str, container: str, variables: None) -> None:
    async with ArtifactRepository(form.format(container)) as repository:
        await repository.write_bytes("x", b"1")
        assert await repository.read_bytes("x") == b"1"
        assert repository.at(form.format("another-container")) is not None
        assert repository.at("az://another") is None or form.startswith("az")
    async with ArtifactRepository(f"az://{container}") as repository:
        assert [entry.path for entry in await repository.list_artifacts()] == ["p"]


async def test_a_container_that_is_not_there(variables: None, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    async with ArtifactRepository("az://no-such-container/p", transfer=QUICK) as repository:
        for call in (repository.list_artifacts(), repository.log_artifact(tmp_path / "x")):
            with pytest.raises(NotFoundError):
                await call


# Credentials


def _who(proxy: FaultProxy) -> set[str]:
    return {
        request.headers.get("authorization", "").partition(":")[0] for request in proxy.requests
    }


async def test_a_connection_string_goes_before_a_key(
    azure_proxy: FaultProxy, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", WRONG_KEY)
    async with ArtifactRepository(uri) as repository:
        await repository.write_bytes("x", b"1")
    assert _who(azure_proxy) == {"SharedKey labaccount"}


async def test_a_key_goes_before_what_the_machine_has(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCESS_KEY", WRONG_KEY)
    async with ArtifactRepository(uri) as repository:
        service = repository._state()[0]._service  # type: ignore[attr-defined]  # Azure's own
        assert service.credential == WRONG_KEY
        assert service.client.url == "https://labaccount.blob.core.windows.net/"


async def test_without_variables_the_machine_is_asked(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    # The identity service of a virtual machine, which is not here.
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.setenv("IDENTITY_HEADER", "x")
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        with pytest.raises(UnauthenticatedError, match="AZURE_STORAGE_CONNECTION_STRING"):
            await repository.read_bytes("x")


async def test_arguments_go_above_variables(
    azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=other;AccountKey=bm8=")
    options = {"connection_string": azurite.connection_string()}
    async with ArtifactRepository(f"az://{container}/p", storage_options=options) as repository:
        await repository.write_bytes("x", b"1")


async def test_no_secret_in_any_word(
    azurite: Azurite, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(key=WRONG_KEY))
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        words = [repr(repository), repr(repository._state()[0])]
        with pytest.raises((UnauthenticatedError, PermissionDeniedError)) as refusal:
            await repository.write_bytes("x", b"1")
        words += [str(refusal.value), repr(refusal.value)]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountKey={WRONG_KEY}")
    with pytest.raises(InvalidParameterError) as malformed:
        await ArtifactRepository(uri).open()
    words += [str(malformed.value), repr(malformed.value)]
    assert WRONG_KEY not in "\n".join(words) + caplog.text


# On the wire


def _named(proxy: FaultProxy, component: str) -> list[Request]:
    return [r for r in proxy.requests if parse_qs(r.query).get("comp") == [component]]


async def test_blocks_go_at_once_and_are_committed_in_order(
    azure_proxy: FaultProxy, uri: str, large: Path, raw_azure: RawAzure
) -> None:
    azure_proxy.latency = 0.02
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        await repository.log_artifact(large)
    blocks = _named(azure_proxy, "block")
    assert sorted(int(r.headers["content-length"]) for r in blocks) == [
        LARGE - 10 * MIB,
        5 * MIB,
        5 * MIB,
    ]
    content = large.read_bytes()
    md5 = base64.b64encode(hashlib.md5(content[: 5 * MIB]).digest()).decode()
    assert md5 in {r.headers["content-md5"] for r in blocks}
    assert len(_named(azure_proxy, "blocklist")) == 1
    assert azure_proxy.peak_requests_in_flight >= 3
    assert raw_azure.get(large.name) == content


async def test_small_files_go_in_one_request_with_their_checksum_and_type(
    azure_proxy: FaultProxy, uri: str, tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_bytes(b"{}")
    async with ArtifactRepository(uri) as repository:
        await repository.log_artifact(tmp_path / "x.json")
    (put,) = azure_proxy.requests
    assert put.method == "PUT"
    assert put.headers["content-md5"] == base64.b64encode(hashlib.md5(b"{}").digest()).decode()
    assert put.headers["x-ms-blob-content-type"] == "application/json"
    assert put.headers["user-agent"].startswith("asyncstore/")


async def test_ranges_are_of_one_content_and_several_at_once(
    azure_proxy: FaultProxy, uri: str, raw_azure: RawAzure, tmp_path: Path
) -> None:
    content = os.urandom(LARGE)
    raw_azure.put("x", content)
    azure_proxy.latency = 0.02
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        local = await repository.download_artifacts("x", tmp_path)
        assert Path(local).read_bytes() == content
        gets = [r for r in azure_proxy.requests if r.method == "GET"]
        assert len({r.headers["x-ms-range"] for r in gets}) == 6
        assert len({r.headers["if-match"] for r in gets}) == 1
        assert azure_proxy.peak_requests_in_flight >= 3


async def test_a_file_that_is_replaced_meanwhile(
    azure_proxy: FaultProxy, uri: str, raw_azure: RawAzure
) -> None:
    raw_azure.put("x", os.urandom(9 * MIB))
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        with pytest.raises(IntegrityError):
            async with repository.open_read("x") as pieces:
                async for _ in pieces:
                    await asyncio.to_thread(raw_azure.put, "x", os.urandom(9 * MIB))


async def test_a_body_that_was_changed_on_the_way_is_refused(
    azure_proxy: FaultProxy, uri: str
) -> None:
    refusal = (
        b'<?xml version="1.0" encoding="utf-8"?><Error><Code>Md5Mismatch</Code>'
        b"<Message>The MD5 value specified in the request did not match.</Message></Error>"
    )
    azure_proxy.faults.append(
        Answer(status=400, body=refusal, headers={"x-ms-error-code": "Md5Mismatch"})
    )
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        with pytest.raises(IntegrityError):
            await repository.write_bytes("x", b"1")


async def test_directories_of_a_hierarchical_account_are_no_files(
    azurite: Azurite, container: str, uri: str, variables: None
) -> None:
    client = azurite.client().get_container_client(container)
    try:
        for name in ("d", "d/e"):
            client.upload_blob(
                f"pre fix%2B+/x/{name}", b"", metadata={"hdi_isfolder": "true"}, overwrite=True
            )
        client.upload_blob("pre fix%2B+/x/d/e/file", b"1")
        async with ArtifactRepository(uri) as repository:
            assert [(e.path, e.is_dir) for e in await repository.list_artifacts()] == [("d", True)]
            assert [(e.path, e.is_dir) for e in await repository.list_artifacts("d")] == [
                ("d/e", True)
            ]
            assert [e.path async for e in repository.walk()] == ["d/e/file"]
            assert (await repository.info("d")).is_dir
            await repository.delete_artifacts("d")
            assert not await repository.exists("d")
        assert list(client.list_blob_names()) == []
    finally:
        client.close()


async def test_no_block_is_left_to_be_seen(
    azure_proxy: FaultProxy, uri: str, large: Path, raw_azure: RawAzure
) -> None:
    azure_proxy.latency = 0.05
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        task = asyncio.ensure_future(repository.log_artifact(large))
        while not _named(azure_proxy, "block"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert raw_azure.paths() == []
        assert not await repository.exists(large.name)
        await repository.log_artifact(large)
    assert raw_azure.get(large.name) == large.read_bytes()
