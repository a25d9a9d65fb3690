"""Signed URLs of Google Cloud Storage.

The emulator has no uploads in parts of the XML API, which is that of S3: moto stands for it there.
Neither checks signatures; Google's own library says what they are.
"""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.storage._signing import generate_signed_url_v4  # type: ignore[import-untyped]
from google.oauth2 import service_account

from asyncstore import ArtifactRepository
from asyncstore.backends.gcs_presigned import to_sign
from asyncstore.errors import NotFoundError, UnsupportedError
from tests.artifacts.gcs_fixtures import bucket, emulator, gcs_proxy
from tests.artifacts.strangers import request, send_parts

if TYPE_CHECKING:
    from tests.servers.gcs import GcsEmulator
    from tests.servers.moto import Moto

__all__ = ["bucket", "emulator", "gcs_proxy"]
pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
EMAIL = "me@p.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def credentials() -> Any:
    """Of a service account; with a token, as nobody gives one here."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    make: Any = service_account.Credentials.from_service_account_info
    made = make(
        {
            "type": "service_account",
            "private_key_id": "k",
            "private_key": pem,
            "client_email": EMAIL,
            "token_uri": "http://127.0.0.1:1/token",
        }
    )
    made.token = "ya29.x"
    made.expiry = datetime.datetime(2999, 1, 1)  # noqa: DTZ001  google-auth has them so
    return made


@pytest.mark.parametrize("key", ["a/b.txt", "a b/ü~+%&.bin", "x/y=z(1)'!*.t"])
@pytest.mark.parametrize(
    ("method", "query", "headers"),
    [
        ("PUT", {"partNumber": "12", "uploadId": "AB_c+/="}, {}),
        ("PUT", {}, {"Content-Type": "text/html; charset=utf-8"}),
        ("GET", {"response-content-disposition": "attachment; filename*=UTF-8''a%20b"}, {}),
    ],
)
def test_signatures_are_those_of_googles_library(
    key: str, method: str, query: dict[str, str], headers: dict[str, str], credentials: Any
) -> None:
    from urllib.parse import quote

    now = datetime.datetime(2026, 11, 21, 8, 5, 9, tzinfo=datetime.UTC)
    path = f"/bucket/{quote(key, safe='/~')}"
    url, text = to_sign(
        method, f"https://storage.googleapis.com{path}", EMAIL, now, 3600, query, headers
    )
    ours = f"{url}&X-Goog-Signature={credentials.sign_bytes(text).hex()}"
    theirs = generate_signed_url_v4(
        credentials,
        resource=path,
        expiration=3600,
        api_access_endpoint="https://storage.googleapis.com",
        method=method,
        headers=dict(headers),
        query_parameters=dict(query),
        _request_timestamp=now.strftime("%Y%m%dT%H%M%SZ"),
    )
    assert urlsplit(ours).path == urlsplit(theirs).path
    assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(theirs).query)


async def test_an_upload_whose_parts_somebody_else_sends(moto: Moto, credentials: Any) -> None:
    data = os.urandom(11 * MIB)
    bucket = moto.create_bucket()
    options = {"endpoint_url": moto.endpoint_url, "token": credentials}
    async with ArtifactRepository(f"gs://{bucket}/p q", storage_options=options) as repository:
        made = await repository.create_multipart_upload("m odel.bin", 3, "sub")
        assert all("X-Goog-Signature=" in each.url for each in made.credentials)
        parts = await send_parts(made, data, 5 * MIB)
        await repository.complete_multipart_upload("m odel.bin", made.upload_id, parts, "sub")
        assert moto.keys(bucket) == ["p q/sub/m odel.bin"]
        body = moto.client.get_object(Bucket=bucket, Key="p q/sub/m odel.bin")["Body"]
        assert body.read() == data
        made = await repository.create_multipart_upload("other.bin", 2)
        assert moto.open_multipart_uploads(bucket) == ["p q/other.bin"]
        await repository.abort_multipart_upload("other.bin", made.upload_id)
        await repository.abort_multipart_upload("other.bin", made.upload_id)
        assert moto.open_multipart_uploads(bucket) == []


async def test_one_file_by_a_url(emulator: GcsEmulator, bucket: str, credentials: Any) -> None:
    options = {"endpoint_url": emulator.url, "token": credentials}
    async with ArtifactRepository(f"gs://{bucket}/p", storage_options=options) as repository:
        await repository.write_bytes("a/report.html", b"<html>")
        download = await repository.get_download_presigned_url("a/report.html", 60)
        assert (download.file_size, download.headers) == (6, {})
        assert (await request("GET", download.url, {}))[0] == b"<html>"
        asked = parse_qs(urlsplit(download.url).query)
        assert asked["X-Goog-Expires"] == ["60"]
        assert asked["response-content-disposition"] == ["attachment; filename*=UTF-8''report.html"]
        for missing in ("nothing", "a"):
            with pytest.raises(NotFoundError):
                await repository.get_download_presigned_url(missing)
        upload = await repository.create_presigned_upload_url("b.html")
        assert upload.headers == {"Content-Type": "text/html"}


async def test_who_has_no_key_cannot_sign(bucket: str) -> None:
    for options in ({}, {"token": "ya29.access-token"}):
        async with ArtifactRepository(f"gs://{bucket}/p", storage_options=options) as repository:
            with pytest.raises(UnsupportedError):
                await repository.create_multipart_upload("model.bin", 1)
