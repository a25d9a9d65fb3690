"""What goes over the wire to S3 under each variable, read by a recording proxy."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.errors import AsyncStoreError, InvalidParameterError
from asyncstore.retry import RetryPolicy
from asyncstore.testing.fault_proxy import FaultProxy, Request
from tests.artifacts.conftest import LARGE, MIB, QUICK

if TYPE_CHECKING:
    from tests.servers.moto import Moto
    from tests.servers.radosgw import RadosGateway
    from tests.servers.tls import PrivateAuthority

pytestmark = pytest.mark.anyio


def operation(request: Request) -> str:
    """What S3 calls a request."""
    query = parse_qs(request.query, keep_blank_values=True)
    match request.method:
        case "PUT":
            return "UploadPart" if "partNumber" in query else "PutObject"
        case "POST" if "uploads" in query:
            return "CreateMultipartUpload"
        case "POST" if "uploadId" in query:
            return "CompleteMultipartUpload"
        case "POST" if "delete" in query:
            return "DeleteObjects"
        case "DELETE":
            return "AbortMultipartUpload"
        case "HEAD":
            return "HeadObject"
        case "GET" if "list-type" in query:
            return "ListObjectsV2"
        case "GET":
            return "GetObject"
    raise AssertionError(request)


def operations(proxy: FaultProxy) -> list[str]:
    return [operation(request) for request in proxy.requests]


def only(proxy: FaultProxy, wanted: str) -> list[Request]:
    return [request for request in proxy.requests if operation(request) == wanted]


async def every_operation(uri: str, file: Path, large: Path, **options: Any) -> None:
    async with ArtifactRepository(uri, transfer=QUICK, **options) as repository:
        await repository.log_artifact(file)
        await repository.log_artifact(large)
        await repository.download_artifacts(large.name, file.parent / "down")
        await repository.list_artifacts()
        await repository.delete_artifacts()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.txt"
    file.write_bytes(b"small")
    return file


# Requests: how many, and their bodies


async def test_number_of_requests(proxy: FaultProxy, s3_bucket: str, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / "up" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "up" / str(number)).write_bytes(b"%d" % number)
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        assert proxy.requests == []
        await repository.log_artifact(tmp_path / "up" / "0", "one")
        assert operations(proxy) == ["PutObject"]
        proxy.requests.clear()
        await repository.log_artifacts(tmp_path / "up", "many")
        assert operations(proxy) == ["PutObject"] * 30
        proxy.requests.clear()
        await repository.list_artifacts("many")
        assert operations(proxy) == ["ListObjectsV2"]
        proxy.requests.clear()
        await repository.download_artifacts("many", tmp_path / "down")
        assert operations(proxy).count("GetObject") == 30
        assert set(operations(proxy)) == {"GetObject", "HeadObject", "ListObjectsV2"}
        assert len(proxy.requests) <= 33
        proxy.requests.clear()
        await repository.download_artifacts("many/1", tmp_path / "down")
        assert operations(proxy) == ["HeadObject", "GetObject"]
        proxy.requests.clear()
        await repository.write_bytes("x", b"x")
        await repository.read_bytes("x")
        assert operations(proxy) == ["PutObject", "GetObject"]


async def test_many_files_share_few_connections(
    proxy: FaultProxy, s3_bucket: str, tmp_path: Path
) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    proxy.latency = 0.002
    options = TransferOptions(max_concurrency=7)
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        await repository.log_artifacts(tmp_path)
        assert proxy.peak_requests_in_flight == 7
        assert proxy.connections_opened <= 7


async def test_bodies_carry_md5_and_no_newer_checksum(
    proxy: FaultProxy, s3_bucket: str, small: Path, large: Path
) -> None:
    await every_operation(f"s3://{s3_bucket}/p", small, large)
    content = large.read_bytes()
    expected = [
        hashlib.md5(part).digest()
        for part in (
            small.read_bytes(),
            content[: 5 * MIB],
            content[5 * MIB : 10 * MIB],
            content[10 * MIB :],
        )
    ]
    sent = only(proxy, "PutObject") + sorted(only(proxy, "UploadPart"), key=lambda r: r.query)
    md5s = [base64.b64decode(request.headers["content-md5"]) for request in sent]
    assert md5s == expected
    (delete,) = {request.headers.get("content-md5") for request in only(proxy, "DeleteObjects")}
    assert delete
    for request in proxy.requests:
        assert not [name for name in request.headers if "checksum" in name or "trailer" in name]
        assert "aws-chunked" not in request.headers.get("content-encoding", "")
        assert "expect" not in request.headers


async def test_part_sizes_on_the_wire(
    proxy: FaultProxy, s3_bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(6 * MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(4 * MIB))
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        await repository.log_artifact(large)
        await repository.download_artifacts(large.name, tmp_path / "down")
    sizes = [int(request.headers["content-length"]) for request in only(proxy, "UploadPart")]
    assert sorted(sizes) == [5 * MIB + 7, 6 * MIB]
    ranges = {request.headers.get("range") for request in only(proxy, "GetObject")}
    assert ranges == {
        f"bytes=0-{4 * MIB - 1}",
        f"bytes={4 * MIB}-{8 * MIB - 1}",
        f"bytes={8 * MIB}-{LARGE - 1}",
    }
    assert tmp_path.joinpath("down", large.name).read_bytes() == large.read_bytes()


async def test_a_part_is_never_smaller_than_s3_takes(
    proxy: FaultProxy, s3_bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "1000")
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        await repository.log_artifact(large)
    sizes = [int(request.headers["content-length"]) for request in only(proxy, "UploadPart")]
    assert sorted(sizes) == [MIB + 7, 5 * MIB, 5 * MIB]


@pytest.mark.parametrize(("minimum", "parts"), [(LARGE + 1, 0), (LARGE, 3), (1, 3)])
async def test_the_minimum_for_parts_rules_when_it_is_set(
    minimum: int,
    parts: int,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(minimum))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 * MIB))
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.log_artifact(large)
    assert len(only(proxy, "UploadPart")) == parts
    assert len(only(proxy, "PutObject")) == (0 if parts else 1)
    stored = radosgw.client.get_object(Bucket=s3_bucket, Key=large.name)["Body"].read()
    assert stored == large.read_bytes()


async def test_the_documented_minimum_sends_in_one_request(
    proxy: FaultProxy, s3_bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "524288000")
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE", "524288000")
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.log_artifact(large)
        await repository.download_artifacts(large.name, tmp_path / "down")
    assert operations(proxy) == ["PutObject", "HeadObject", "GetObject"]
    assert "range" not in proxy.requests[2].headers
    assert tmp_path.joinpath("down", large.name).read_bytes() == large.read_bytes()


async def test_a_tiny_minimum_sends_small_files_in_one_part(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, small: Path
) -> None:
    options = TransferOptions(multipart_upload_minimum_file_size=1)
    (small.parent / "empty").touch()
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        await repository.log_artifact(small)
        assert operations(proxy) == [
            "CreateMultipartUpload",
            "UploadPart",
            "CompleteMultipartUpload",
        ]
        await repository.log_artifact(small.parent / "empty")
    assert operations(proxy)[3:] == ["PutObject"]
    assert radosgw.keys(s3_bucket) == ["empty", "small.txt"]


async def test_arguments_go_above_variables(
    proxy: FaultProxy, s3_bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("UPLOAD", "DOWNLOAD"):
        monkeypatch.setenv(f"MLFLOW_MULTIPART_{name}_CHUNK_SIZE", str(100 * MIB))
        monkeypatch.setenv(f"MLFLOW_MULTIPART_{name}_MINIMUM_FILE_SIZE", str(100 * MIB))
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "0")
    options = TransferOptions(
        multipart_upload_chunk_size=6 * MIB,
        multipart_upload_minimum_file_size=7 * MIB,
        multipart_download_chunk_size=6 * MIB,
        multipart_download_minimum_file_size=7 * MIB,
        timeout=-1,
    )
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=options) as repository:
        await repository.log_artifact(large)
        await repository.download_artifacts(large.name, tmp_path / "down")
    assert len(only(proxy, "UploadPart")) == len(only(proxy, "GetObject")) == 2


@pytest.mark.parametrize(
    "name",
    [
        "a.txt", "a.html", "a.json", "a.png", "a.tar.gz", "a.json.gz", "a.csv.bz2", "MLmodel",
        "a.parquet", "a.pkl", "a.yaml", "a.unknown-suffix", "A.PNG",
    ],
)  # fmt: skip
async def test_content_type_is_guessed_as_mlflow_guesses_it(
    name: str, proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"content")
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.log_artifact(tmp_path / name)
        await repository.write_bytes(f"bytes/{name}", b"content")
        local = await repository.download_artifacts(name, tmp_path / "down")
        assert Path(local).read_bytes() == b"content"
    guessed, encoding = mimetypes.guess_type(name)
    for request in only(proxy, "PutObject"):
        assert request.headers.get("content-encoding") == encoding
    head = radosgw.client.head_object(Bucket=s3_bucket, Key=name)
    assert head["ContentType"] == (guessed or "binary/octet-stream")
    assert head.get("ContentEncoding") == encoding


# Variables


async def test_upload_extra_args(
    proxy: FaultProxy,
    s3_bucket: str,
    small: Path,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = {
        "StorageClass": "STANDARD",
        "CacheControl": "no-store",
        "Metadata": {"team": "vision"},
        "ContentType": "application/x-mine",
        "RequestPayer": "requester",
    }
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", json.dumps(extra))
    await every_operation(f"s3://{s3_bucket}", small, large)
    started = only(proxy, "PutObject") + only(proxy, "CreateMultipartUpload")
    assert len(started) == 2
    for request in started:
        assert request.headers["x-amz-storage-class"] == "STANDARD"
        assert request.headers["cache-control"] == "no-store"
        assert request.headers["x-amz-meta-team"] == "vision"
        assert request.headers["content-type"] == "application/x-mine"
    for request in proxy.requests:
        uploads = operation(request) in (
            "PutObject",
            "CreateMultipartUpload",
            "UploadPart",
            "CompleteMultipartUpload",
        )
        assert ("x-amz-request-payer" in request.headers) is uploads


async def test_encryption_with_a_customer_key_is_given_with_every_part(
    proxy: FaultProxy, s3_bucket: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", json.dumps(extra))
    # botocore sends such a key in clear only when told that the endpoint is trusted.
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        await repository.log_artifact(large)
    sent = only(proxy, "CreateMultipartUpload") + only(proxy, "UploadPart")
    assert len(sent) == 4
    for request in sent:
        key = request.headers["x-amz-server-side-encryption-customer-key"]
        assert base64.b64decode(key) == b"k" * 32


@pytest.mark.parametrize("text", ["{", "[]", "ACL=private", '"x"'])
async def test_extra_args_that_are_no_json_object(
    text: str, s3_bucket: str, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", text)
    with pytest.raises(InvalidParameterError, match=r"MLFLOW_S3_UPLOAD_EXTRA_ARGS.*JSON object"):
        await ArtifactRepository(f"s3://{s3_bucket}").open()


async def test_extra_args_that_s3_does_not_have(
    proxy: FaultProxy, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"Acl": "private", "ACL": "private"}')
    with pytest.raises(InvalidParameterError, match=r"MLFLOW_S3_UPLOAD_EXTRA_ARGS.*argument Acl$"):
        await ArtifactRepository(f"s3://{s3_bucket}").open()
    assert proxy.requests == []


async def test_expected_bucket_owner_goes_with_every_request(
    proxy: FaultProxy,
    s3_bucket: str,
    small: Path,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
    await every_operation(f"s3://{s3_bucket}/p", small, large)
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        below = repository.at(f"s3://{s3_bucket}/other")
        assert below is not None
        await below.write_bytes("x", b"")
        async with below.open_read("x") as pieces:
            assert [piece async for piece in pieces] == []
        _ = [entry async for entry in repository.walk()]
        large.write_bytes(large.read_bytes() + b"grown")
        monkeypatch.setattr("asyncstore.files.reading.OpenFile.check_unchanged", _refuse)
        with pytest.raises(AsyncStoreError):
            await repository.log_artifact(large)
    assert set(operations(proxy)) == {
        "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload",
        "AbortMultipartUpload", "HeadObject", "GetObject", "ListObjectsV2", "DeleteObjects",
    }  # fmt: skip
    owners = {request.headers.get("x-amz-expected-bucket-owner") for request in proxy.requests}
    assert owners == {"123456789012"}
    assert {request.status for request in proxy.requests} <= {200, 204, 206, 404}


def _refuse(_: object) -> None:
    raise AsyncStoreError("changed")


async def test_region_is_in_the_signature(
    proxy: FaultProxy, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-somewhere-7")
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.write_bytes("x", b"")
    scope = proxy.requests[0].headers["authorization"].partition("Credential=")[2].split("/")
    assert scope[2:4] == ["eu-somewhere-7", "s3"]


@pytest.mark.parametrize(
    ("style", "in_host"), [("path", False), ("virtual", True), ("auto", False), (None, False)]
)
async def test_addressing_style(
    style: str | None,
    in_host: bool,
    proxy: FaultProxy,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in MLflow, `auto` means the path where the endpoint is a compatible server's."""
    look_up = socket.getaddrinfo

    def below_localhost(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", below_localhost)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.url.replace("127.0.0.1", "localhost"))
    if style:
        monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", style)
    options = TransferOptions(retry=RetryPolicy(attempts=1))
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=options) as repository:
        # This radosgw knows no virtual hosts: what matters is what it was asked.
        try:
            await repository.write_bytes("x", b"")
        except AsyncStoreError:
            assert in_host
    (request,) = proxy.requests
    host = request.headers["host"].partition(":")[0]
    expected = (f"{s3_bucket}.localhost", "/p/x") if in_host else ("localhost", f"/{s3_bucket}/p/x")
    assert (host, request.path) == expected


async def test_bad_addressing_style(
    s3_bucket: str, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "host")
    with pytest.raises(InvalidParameterError, match=r"ADDRESSING_STYLE.*auto, path or virtual"):
        await ArtifactRepository(f"s3://{s3_bucket}").open()


# TLS


async def test_a_private_authority_is_trusted_through_ca_bundle(
    radosgw_tls: FaultProxy,
    private_authority: PrivateAuthority,
    s3_env: dict[str, str],
    s3_bucket: str,
    large: Path,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", radosgw_tls.url)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_authority.bundle))
    await every_operation(f"s3://{s3_bucket}/p", small, large)
    for request in radosgw_tls.requests:
        assert not [name for name in request.headers if "checksum" in name or "trailer" in name]
    assert small.parent.joinpath("down", large.name).read_bytes() == large.read_bytes()


async def test_an_unknown_authority_is_refused_at_once(
    radosgw_tls: FaultProxy,
    s3_env: dict[str, str],
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", radosgw_tls.url)
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        with pytest.raises(AsyncStoreError, match=r"(?i)certificate.*AWS_CA_BUNDLE"):
            await repository.write_bytes("x", b"")
    assert radosgw_tls.requests == []
    assert radosgw_tls.connections_opened <= 1


async def test_ignore_tls(
    radosgw_tls: FaultProxy,
    s3_env: dict[str, str],
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", radosgw_tls.url)
    monkeypatch.setenv("MLFLOW_S3_IGNORE_TLS", "true")
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.write_bytes("x", b"content")
        assert await repository.read_bytes("x") == b"content"


# Credentials


def credential(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


async def test_credentials_from_variables(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway
) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.write_bytes("x", b"")
    assert credential(proxy.requests[0]) == radosgw.access_key


async def test_credentials_from_a_profile(
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n"
        f"[vision]\naws_access_key_id = {radosgw.access_key}\n"
        f"aws_secret_access_key = {radosgw.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "vision")
    async with ArtifactRepository(f"s3://{s3_bucket}") as repository:
        await repository.write_bytes("x", b"")
    monkeypatch.setenv("AWS_PROFILE", "default")
    async with ArtifactRepository(
        f"s3://{s3_bucket}", storage_options={"profile": "vision"}
    ) as repository:
        await repository.write_bytes("x", b"")
    assert [credential(request) for request in proxy.requests] == [radosgw.access_key] * 2


async def test_a_profile_that_is_not_there(
    s3_env: dict[str, str], s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InvalidParameterError, match="nobody"):
        await ArtifactRepository(f"s3://{s3_bucket}").open()


async def test_credentials_from_storage_options(
    proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    options = {
        "key": radosgw.access_key,
        "secret": radosgw.secret_key,
        "endpoint_url": proxy.url,
        "client_kwargs": {"region_name": "from-options"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    async with ArtifactRepository(f"s3://{s3_bucket}", storage_options=options) as repository:
        await repository.write_bytes("x", b"")
    assert credential(proxy.requests[0]) == radosgw.access_key
    assert "/from-options/s3/" in proxy.requests[0].headers["authorization"]


async def test_credentials_from_a_role(
    moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile whose role is assumed with another profile's keys, by a real STS request."""
    (tmp_path / "config").write_text(
        "[profile base]\naws_access_key_id = basekey\naws_secret_access_key = basesecret\n"
        "[profile trainer]\nrole_arn = arn:aws:iam::123456789012:role/trainer\n"
        "source_profile = base\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "trainer")
    bucket = moto.create_bucket()
    async with FaultProxy(moto.address) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.url)
        async with ArtifactRepository(f"s3://{bucket}/p") as repository:
            await repository.write_bytes("x", b"by a role")
            assert await repository.read_bytes("x") == b"by a role"
        sts, *s3 = proxy.requests
    assert "/sts/" in sts.headers["authorization"]
    assert credential(sts) == "basekey"
    assert {credential(request) for request in s3} & {"basekey", ""} == set()
    assert all(request.headers["x-amz-security-token"] for request in s3)


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3:bucket", "s3://bucket/a?versionId=1"])
async def test_uris_that_are_no_root(uri: str, s3_env: dict[str, str]) -> None:
    with pytest.raises(InvalidParameterError, match="s3://bucket/prefix"):
        await ArtifactRepository(uri).open()


async def test_s3a_is_the_same(proxy: FaultProxy, s3_bucket: str, radosgw: RadosGateway) -> None:
    async with ArtifactRepository(f"s3a://{s3_bucket}/p") as repository:
        await repository.write_bytes("x", b"")
        assert repository.at(f"s3://{s3_bucket}") is not None
    assert radosgw.keys(s3_bucket) == ["p/x"]


async def test_the_root_of_a_bucket(s3_bucket: str, s3_env: dict[str, str]) -> None:
    async with ArtifactRepository(f"s3://{s3_bucket}/") as repository:
        assert await repository.list_artifacts() == []
        await repository.write_bytes("a/x", b"1")
        assert [entry.path for entry in await repository.list_artifacts()] == ["a"]
        assert [entry.path async for entry in repository.walk()] == ["a/x"]
        await repository.delete_artifacts()
        assert await repository.list_artifacts() == []


async def test_marks_of_directories_are_no_files_and_go_with_them(
    s3_bucket: str, s3_env: dict[str, str], radosgw: RadosGateway, tmp_path: Path
) -> None:
    for key in ("p/", "p/made/", "p/made/in/", "p/made/in/a"):
        radosgw.client.put_object(Bucket=s3_bucket, Key=key, Body=b"")
    async with ArtifactRepository(f"s3://{s3_bucket}/p") as repository:
        assert [entry.path async for entry in repository.walk()] == ["made/in/a"]
        assert [entry.path for entry in await repository.list_artifacts("made")] == ["made/in"]
        await repository.download_artifacts("made", tmp_path)
        assert (tmp_path / "made" / "in" / "a").is_file()
        await repository.delete_artifacts("made")
        assert not await repository.exists("made")
    assert radosgw.keys(s3_bucket) == ["p/"]
