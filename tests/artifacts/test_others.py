"""Storages whose servers cannot be had here: what asyncstore makes of their URIs and variables."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

import asyncstore
from asyncstore.artifacts import ArtifactRepository
from asyncstore.backends import open_backend, threaded, threaded_protocols, threaded_upload
from asyncstore.errors import AsyncStoreError, InvalidParameterError
from tests.artifacts.conftest import LARGE, MIB, QUICK

if TYPE_CHECKING:
    from asyncstore.testing.fault_proxy import FaultProxy
    from tests.servers.radosgw import RadosGateway
    from tests.servers.tls import PrivateAuthority

pytestmark = pytest.mark.anyio

R2 = "r2://models@0123abcd.r2.cloudflarestorage.com"
B2 = "b2://models@s3.us-west-004.backblazeb2.com"


# Cloudflare R2 and Backblaze B2


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3CR3T")
    # Neither is for them, as in MLflow.
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.mark.parametrize(
    ("uri", "region", "url"),
    [
        (
            f"{R2}/a/b/",
            "auto",
            "https://models.0123abcd.r2.cloudflarestorage.com/a/b/x",
        ),
        (f"{R2}:443", "auto", "https://models.0123abcd.r2.cloudflarestorage.com:443/x"),
        (
            f"{B2}/a%2Bb",
            "us-west-004",
            "https://s3.us-west-004.backblazeb2.com/models/a%252Bb/x",
        ),
        ("b2://models@gateway.local:8443/", "eu-central-1", "https://gateway.local:8443/models/x"),
    ],
)
async def test_the_uri_names_the_server(uri: str, region: str, url: str, keys: None) -> None:
    backend: Any = await open_backend(uri)
    try:
        client = backend._client
        assert client.meta.region_name == region
        key = backend.key("x")
        signed = await client.generate_presigned_url(
            "get_object", Params={"Bucket": backend.bucket, "Key": key}
        )
        assert signed.partition("?")[0] == url
        other = backend.at(f"{uri.rstrip('/')}/below")
        assert other.key("x") == "/".join(
            filter(None, [key.removesuffix("x").strip("/"), "below/x"])
        )
        for elsewhere in ("s3://models/a", f"{R2.replace('0123', '9999')}/a", "memory://models"):
            assert backend.at(elsewhere) is None
    finally:
        await backend.aclose()


async def test_options_go_above_the_uri(keys: None) -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    backend: Any = await open_backend(R2, options)
    try:
        client = backend._client
        assert client.meta.endpoint_url == "http://127.0.0.1:9"
        assert client.meta.region_name == "us-east-1"
        assert client.meta.config.s3["addressing_style"] == "path"
    finally:
        await backend.aclose()


async def test_b2_against_a_server_with_tls(
    radosgw: RadosGateway,
    radosgw_tls: FaultProxy,
    s3_bucket: str,
    s3_env: dict[str, str],
    private_authority: PrivateAuthority,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_authority.bundle))
    await round_trip(f"b2://{s3_bucket}@{radosgw_tls.address}/pre fix", None, tmp_path)
    assert radosgw.keys(s3_bucket, "pre fix/") == ["pre fix/up/large", "pre fix/up/small"]
    assert {request.path.split("/")[1] for request in radosgw_tls.requests} == {s3_bucket}
    scopes = {r.headers["authorization"].split("/")[2] for r in radosgw_tls.requests}
    assert scopes == {radosgw.region}


async def test_r2_against_a_server_by_path(
    radosgw: RadosGateway, s3_bucket: str, s3_env: dict[str, str], tmp_path: Path
) -> None:
    options = {
        "endpoint_url": radosgw.endpoint_url,
        # Its own style needs a name in the DNS for every bucket.
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    await round_trip(f"r2://{s3_bucket}@0123.r2.cloudflarestorage.com/prefix", options, tmp_path)
    assert radosgw.keys(s3_bucket, "prefix/") == ["prefix/up/large", "prefix/up/small"]


async def round_trip(uri: str, options: dict[str, Any] | None, tmp_path: Path) -> None:
    content = {"small": b"small", "large": os.urandom(LARGE)}
    (tmp_path / "up").mkdir()
    for name, data in content.items():
        (tmp_path / "up" / name).write_bytes(data)
    async with ArtifactRepository(uri, storage_options=options, transfer=QUICK) as repository:
        await repository.log_artifacts(tmp_path / "up", "up")
        await repository.download_artifacts("up", tmp_path / "down")
        assert [entry.path for entry in await repository.list_artifacts()] == ["up"]
    assert {name: (tmp_path / "down" / "up" / name).read_bytes() for name in content} == content


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3:bucket", "names no bucket"),
        ("s3://bucket/a/../../other", r"'\.\.'"),
        ("s3://bucket/%2e%2e/other", r"'\.\.'"),
        ("s3://bucket/a%2fb", "decodes to a slash"),
        ("s3://bucket/a%255cb", "backslash"),
        ("s3://bucket/a?versionId=1", r"no '\?'"),
        ("s3://key:S3CR3T@bucket/a", "no place in an S3 URI"),
        ("r2://models/a", "names no bucket before '@'"),
        ("r2://@0123.r2.cloudflarestorage.com/a", "no user before it"),
        ("r2://models@/a", "no host"),
        ("r2:models", "write r2://bucket@account"),
        ("b2://models@host:port/a", "port"),
        ("b2://key:S3CR3T@host/a", "the bucket alone"),
        ("b2://a%2fb@host/a", "names no bucket"),
        ("b2://models@host/%2e%2e/a", r"'\.\.'"),
        ("b2://models@host/a%2Fb", "decodes to a slash"),
        ("oss://", "write oss://bucket/path"),
        ("oss:///path", "write oss://bucket/path"),
        ("oss:bucket", "write oss://"),
        ("oss://key:S3CR3T@bucket/path", "write oss://bucket/path"),
        ("oss://bucket/../path", r"'\.\.'"),
        ("oci://bucket/path", "write oci://bucket@namespace/path"),
        ("oci://@namespace/path", "write oci://bucket@namespace/path"),
        ("oci://bucket@namespace/a%2fb", "decodes to a slash"),
        ("hf://", "write hf://owner/repository/path"),
        ("hf://owner", "write hf://owner/repository/path"),
        ("hf://owner/name/%2e%2e/x", r"'\.\.'"),
    ],
)
async def test_bad_uris(uri: str, message: str, keys: None) -> None:
    with pytest.raises(InvalidParameterError, match=message) as raised:
        await ArtifactRepository(uri).open()
    assert "S3CR3T" not in str(raised.value)


# Aliyun OSS, Oracle Object Storage, Hugging Face


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the filesystem was made with; it works in memory."""
    seen: dict[str, Any] = {}

    def url_to_fs(uri: str, **options: Any) -> tuple[Any, str]:
        seen.update(options, uri=uri)
        return Store(), "/" + uri.partition("://")[2]

    monkeypatch.setattr("fsspec.url_to_fs", url_to_fs)
    return seen


class Store(MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """Remembers how files were stored."""

    protocol = ("oss", "oci", "hf")
    store: dict[str, Any] = {}  # noqa: RUF012  as in the base class
    pseudo_dirs: list[str] = [""]  # noqa: RUF012  as in the base class
    calls: list[str] = []  # noqa: RUF012  shared, as the store is
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.partition("://")[2] or path)
        return stripped

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        self.calls.append("put_file")
        self.store[rpath] = None
        super().pipe_file(rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self.calls.append("pipe_file")
        super().pipe_file(path, value)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError("an object store has no directories to make")

    def rmdir(self, path: str) -> None:
        raise AssertionError("what is empty is gone, and a bucket is not to be removed")


async def test_oss_takes_the_variables(
    opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ArtifactRepository("oss://bucket/path"):
        pass
    assert opened == {"uri": "oss://bucket/path", "skip_instance_cache": True}
    opened.clear()
    monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", "https://oss-cn-hangzhou.aliyuncs.com")
    monkeypatch.setenv("MLFLOW_OSS_KEY_ID", "id")
    monkeypatch.setenv("MLFLOW_OSS_KEY_SECRET", "S3CR3T")
    async with ArtifactRepository("oss://bucket/path", storage_options={"key": "mine"}):
        pass
    assert opened == {
        "uri": "oss://bucket/path",
        "skip_instance_cache": True,
        "endpoint": "https://oss-cn-hangzhou.aliyuncs.com",
        "key": "mine",
        "secret": "S3CR3T",
    }


async def test_oss_makes_the_filesystem_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """ossfs connects when it is used, so that much of it can be seen."""
    monkeypatch.setenv("MLFLOW_OSS_ENDPOINT_URL", "https://oss-cn-hangzhou.aliyuncs.com")
    monkeypatch.setenv("MLFLOW_OSS_KEY_ID", "the-id")
    monkeypatch.setenv("MLFLOW_OSS_KEY_SECRET", "S3CR3T")
    async with ArtifactRepository("oss://bucket/path") as repository:
        fs = repository.fs
        assert type(fs).__module__.startswith("ossfs")
        assert fs._endpoint == "https://oss-cn-hangzhou.aliyuncs.com"
        credentials = fs._auth.credentials_provider.get_credentials()
        assert credentials.access_key_id == "the-id"
        assert credentials.access_key_secret == "S3CR3T"
        backend = repository._state()[0]
        assert fs.split_path(backend.full_path("a/b")) == ("bucket", "path/a/b")
        below = repository.at("oss://other/x")
        assert below is not None
        assert fs.split_path(below._state()[0].full_path("y")) == ("other", "x/y")


async def test_hugging_face_by_its_own_library() -> None:
    async with ArtifactRepository(
        "hf://datasets/owner/name@main/models", storage_options={"token": "hf_S3CR3T"}
    ) as repository:
        assert type(repository.fs).__name__ == "HfFileSystem"
        assert repository.fs.token == "hf_S3CR3T"
        assert repository._state()[0].full_path("x") == "datasets/owner/name@main/models/x"
        assert "S3CR3T" not in repr(repository)


async def test_oci_by_its_own_library(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "config").write_text(
        "[DEFAULT]\nuser=ocid1.user.oc1..aaaa\nfingerprint=aa:aa:aa:aa:aa:aa:aa:aa:aa:aa:aa:aa:aa:aa:aa:aa\n"
        f"tenancy=ocid1.tenancy.oc1..aaaa\nregion=eu-frankfurt-1\nkey_file={tmp_path / 'key.pem'}\n"
    )
    options = {"config": str(tmp_path / "config"), "iam_type": "api_key"}
    async with ArtifactRepository(
        "oci://bucket@namespace/path", storage_options=options
    ) as repository:
        assert type(repository.fs).__name__ == "OCIFileSystem"
        assert "eu-frankfurt-1" in repository.fs.oci_client.base_client.endpoint
        assert repository._state()[0].full_path("x") == "bucket@namespace/path/x"


@pytest.mark.parametrize("scheme", ["oss", "oci", "hf"])
async def test_files_are_stored_in_one_step(
    scheme: str, opened: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{scheme}://b@n/r/{scheme}" if scheme == "oci" else f"{scheme}://b/r/{scheme}"
    Store.calls.clear()
    await round_trip(uri, None, tmp_path)
    assert sorted(Store.calls) == ["pipe_file", "put_file"]
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        await repository.delete_artifacts()
        assert await repository.list_artifacts() == []


@pytest.mark.parametrize(
    ("scheme", "library", "uri"),
    [
        ("oss", "ossfs", "oss://bucket/path"),
        ("oci", "ocifs", "oci://bucket@namespace/path"),
        ("hf", "huggingface_hub", "hf://owner/name"),
        ("http", "aiohttp", "http://host/path"),
    ],
)
def test_a_library_that_is_missing(scheme: str, library: str, uri: str) -> None:
    code = f"""
import asyncio, sys
sys.modules[{library!r}] = None
from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import MissingDependencyError
async def main():
    try:
        await ArtifactRepository({uri!r}).open()
    except MissingDependencyError as error:
        print(error)
asyncio.run(main())
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(asyncstore.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert f"pip install 'asyncstore[{scheme}]'" in done.stdout
    assert library in done.stdout


def test_every_known_protocol_has_its_extra() -> None:
    pyproject = (Path(asyncstore.__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    for scheme in threaded_protocols.KNOWN:
        assert f"\n{scheme} = [" in pyproject


# Any other protocol of fsspec


class Plain(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A directory of this machine, with what a test gives it of the rest."""

    protocol = "plain"
    closed = 0
    size_known = True

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.partition("://")[2].strip("/") if "://" in path else path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        local = Path(path)
        size = 0 if local.is_dir() else local.stat().st_size
        kind = "directory" if local.is_dir() else "file"
        return {"name": path, "type": kind, "size": size if self.size_known else None}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        if not Path(path).is_dir():
            return [self.info(path)]
        return [self.info(f"{path}/{child.name}") for child in Path(path).iterdir()]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        Path(path).mkdir(parents=True, exist_ok=exist_ok)

    def rm_file(self, path: str) -> None:
        Path(path).unlink()

    def rmdir(self, path: str) -> None:
        Path(path).rmdir()

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return Path(path).open(mode)

    def close(self) -> None:
        type(self).closed += 1


class Careful(Plain):
    """Renames, but never onto something, as many servers do."""

    protocol = "careful"

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        if Path(path2).exists():
            raise FileExistsError(path2)
        Path(path1).rename(path2)


class Copying(Plain):
    """Cannot rename, only copy."""

    protocol = "copying"

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        Path(path2).write_bytes(Path(path1).read_bytes())


class Buffered(Plain):
    """Stores when the file is closed, as most of fsspec's filesystems of object stores do."""

    protocol = "buffered"

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return BufferedFile(self, path, mode) if mode == "wb" else Path(path).open(mode)


class BufferedFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec ships no types
    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.parts.append(self.buffer.getvalue())
        if final:
            Path(self.path).write_bytes(b"".join(self.parts))
        return True


class BufferedAndCareful(Buffered, Careful):
    protocol = "bufferedandcareful"


@pytest.fixture(params=[Plain, Careful, Copying, Buffered, BufferedAndCareful])
def plain(request: pytest.FixtureRequest) -> type[Plain]:
    kind: type[Plain] = request.param
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
    kind.closed = 0
    return kind


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


async def test_files_appear_whole_whatever_the_filesystem_can(
    plain: type[Plain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = b"old", os.urandom(LARGE)
    (tmp_path / "x").write_bytes(new)
    place = tmp_path / "st[or]e*"
    async with ArtifactRepository(f"{plain.protocol}://{place}", transfer=QUICK) as repository:
        await repository.write_bytes("d/x", old)
        # In the middle of an upload.
        seen: list[bytes] = []
        upload_part = threaded_upload.StreamUpload.upload_part

        async def watched(self: Any, part: Any, data: Any) -> None:
            await upload_part(self, part, data)
            if part.number == 2:
                seen.append((place / "d" / "x").read_bytes())
                assert [entry.path for entry in await repository.list_artifacts("d")] == ["d/x"]

        monkeypatch.setattr(threaded_upload.StreamUpload, "upload_part", watched)
        await repository.log_artifact(tmp_path / "x", "d")
        assert (place / "d" / "x").read_bytes() == new
        assert names(place) == {"x"}
        if plain is not Plain:
            assert seen == [old]

        async def failing(self: Any, part: Any, data: Any) -> None:
            await upload_part(self, part, data)
            raise AsyncStoreError("no more")

        monkeypatch.setattr(threaded_upload.StreamUpload, "upload_part", failing)
        (tmp_path / "x").write_bytes(os.urandom(LARGE))
        with contextlib.suppress(AsyncStoreError):
            await repository.log_artifact(tmp_path / "x", "d")
            pytest.fail("it was stored")
        # Nothing holds the file of that upload any more, and its finalizer closes it.
        gc.collect()
        # A filesystem that has nothing to make a file appear by loses what was there.
        assert names(place) == (set() if plain is Plain else {"x"})
        if plain is not Plain:
            assert (place / "d" / "x").read_bytes() == new
    assert plain.closed == 1


async def test_ranges_are_read_at_once_in_a_few_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("plain", Plain, clobber=True)
    (tmp_path / "x").write_bytes(os.urandom(40 * MIB))
    for number in range(40):
        (tmp_path / f"s{number}").write_bytes(b"x")
    loop_thread, wrong = threading.get_ident(), 0
    lock, now, most, full = threading.Lock(), 0, 0, threading.Event()
    expected = threaded.MAX_CONCURRENCY

    def cat_file(self: Any, path: str, start: int, end: int, **_: Any) -> bytes:
        nonlocal now, most, wrong
        wrong += threading.get_ident() == loop_thread
        with lock:
            now += 1
            most = max(most, now)
            if now == expected:
                full.set()
        assert full.wait(30)
        with lock:
            now -= 1
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    monkeypatch.setattr(Plain, "cat_file", cat_file)
    options = dataclasses.replace(QUICK, max_memory=256 * MIB)
    async with ArtifactRepository(f"plain://{tmp_path}", transfer=options) as repository:
        for name in ("x", None):
            full.clear()
            await repository.download_artifacts(name, tmp_path.parent / "down")
            assert most == expected
    assert wrong == 0
    assert (tmp_path.parent / "down" / "x").read_bytes() == (tmp_path / "x").read_bytes()


async def test_a_file_whose_size_nobody_knows_is_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("plain", Plain, clobber=True)
    monkeypatch.setattr(Plain, "size_known", False)
    monkeypatch.setattr(Plain, "cat_file", lambda *_, **__: pytest.fail("all of it at once"))
    content = os.urandom(LARGE)
    (tmp_path / "x").write_bytes(content)
    async with ArtifactRepository(f"plain://{tmp_path}", transfer=QUICK) as repository:
        assert await repository.read_bytes("x") == content
        local = await repository.download_artifacts("x", tmp_path / "down")
        assert Path(local).read_bytes() == content
        async with repository.open_read("x", start=3 * MIB + 1) as pieces:
            read = [piece async for piece in pieces]
        assert b"".join(read) == content[3 * MIB + 1 :]
