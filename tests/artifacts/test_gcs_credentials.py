"""Credentials of Google Cloud Storage: their order, their renewal, and that none is ever shown."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.auth.credentials
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.testing.fault_proxy import Answer, FaultProxy, Reset
from tests.artifacts.conftest import LARGE, QUICK
from tests.artifacts.gcs_fixtures import bucket, emulator, gcs_proxy, of, query, refusal

__all__ = ["bucket", "emulator", "gcs_proxy"]

pytestmark = pytest.mark.anyio

REFRESH_TOKEN = "1//0-refresh-S3CR3T"
CLIENT_SECRET = "client-S3CR3T"


class TokenServer:
    """Gives tokens on loopback: to service accounts, to people, and as a metadata server."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.status = 200
        self.answer: dict[str, Any] | None = None
        self.hangs = False
        self.let_go = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                sent = parse_qs(self.rfile.read(size).decode())
                outer.asked.append({name: values[0] for name, values in sent.items()})
                if outer.hangs:
                    outer.let_go.wait(30)
                self._give("token")

            def do_GET(self) -> None:
                if "/token" in self.path:
                    self._give("metadata")
                else:
                    self._answer(200, {"email": "x", "scopes": ["s"], "aliases": ["default"]})

            def _give(self, kind: str) -> None:
                token = f"ya29.{kind}-S3CR3T-{len(outer.given)}"
                good = {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
                if outer.status == 200 and outer.answer is None:
                    outer.given.append(token)
                self._answer(outer.status, outer.answer or good)

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    return

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    server = TokenServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def service_account(tokens: TokenServer, private_key: str, tmp_path: Path) -> Path:
    """The file of a service account whose tokens come from `tokens`."""
    file = tmp_path / "service-account.json"
    content = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "k",
        "private_key": private_key,
        "client_email": "me@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"http://{tokens.address}/token",
    }
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gcloud, and not a machine of Google's."""
    from google.auth.compute_engine import _metadata

    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True)
    monkeypatch.setattr(_metadata, "_GCE_PRODUCT_NAME_FILE", str(tmp_path / "none"))


@pytest.fixture
def real(gcs_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options that lead to the emulator as to a real server: with credentials."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    return {"endpoint_url": gcs_proxy.url}


def authorizations(proxy: FaultProxy) -> set[str | None]:
    return {request.headers.get("authorization") for request in proxy.requests}


def gcloud_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: TokenServer) -> None:
    (tmp_path / "gcloud").mkdir()
    (tmp_path / "gcloud" / "application_default_credentials.json").write_text(
        json.dumps(
            {
                "type": "authorized_user",
                "client_id": "c",
                "client_secret": CLIENT_SECRET,
                "refresh_token": REFRESH_TOKEN,
                "quota_project_id": "who-pays",
            }
        )
    )
    endpoint = f"http://{tokens.address}/token"
    monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", endpoint)


def metadata_server(monkeypatch: pytest.MonkeyPatch, tokens: TokenServer) -> None:
    from google.auth.compute_engine import _metadata

    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", False)
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", tokens.address)
    monkeypatch.setenv("GCE_METADATA_IP", tokens.address)


async def test_a_service_account(
    real: dict[str, Any],
    gcs_proxy: FaultProxy,
    bucket: str,
    tokens: TokenServer,
    service_account: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One token for all requests, whichever they are; and a new one when it expires."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    up = tmp_path / "up"
    up.mkdir()
    (up / "large").write_bytes(os.urandom(LARGE))
    for number in range(50):
        (up / f"{number}.txt").write_bytes(b"x")
    async with ArtifactRepository(
        f"gs://{bucket}", storage_options=real, transfer=QUICK
    ) as repository:
        # Opening asks nobody anything.
        assert not gcs_proxy.requests
        assert not tokens.asked
        await repository.log_artifacts(up)
        await repository.download_artifacts(None, tmp_path / "down")
        assert len(tokens.given) == 1
        assert authorizations(gcs_proxy) == {f"Bearer {tokens.given[0]}"}
        backend: Any = repository._state()[0]
        google_credentials = backend.client.credentials._credentials
        google_credentials.expiry = google_credentials.expiry.replace(year=2001)
        gcs_proxy.requests.clear()
        await repository.log_artifacts(up)
        assert len(tokens.given) == 2
        assert authorizations(gcs_proxy) == {f"Bearer {tokens.given[1]}"}
    claims = tokens.asked[0]["assertion"].split(".")[1]
    claimed = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert claimed["scope"] == "https://www.googleapis.com/auth/devstorage.full_control"


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"variable", "gcloud", "metadata"}, "jwt-bearer"),
        ({"gcloud", "metadata"}, "refresh_token"),
        ({"metadata"}, "metadata"),
        (set(), None),
        ({"variable", "emulator"}, None),
    ],
)
async def test_the_order_of_credentials(
    there: set[str],
    expected: str | None,
    real: dict[str, Any],
    gcs_proxy: FaultProxy,
    bucket: str,
    tokens: TokenServer,
    service_account: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "variable" in there:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    if "gcloud" in there:
        gcloud_login(tmp_path, monkeypatch, tokens)
    if "metadata" in there:
        metadata_server(monkeypatch, tokens)
    if "emulator" in there:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_proxy.address)
        real = {}
    async with ArtifactRepository(f"gs://{bucket}", storage_options=real) as repository:
        await repository.write_bytes("x", b"1")
    if expected is None:
        assert authorizations(gcs_proxy) == {None}
        assert tokens.given == []
        return
    kind = "metadata" if expected == "metadata" else "token"
    assert authorizations(gcs_proxy) == {f"Bearer ya29.{kind}-S3CR3T-0"}
    assert (tokens.asked[0]["grant_type"] if tokens.asked else "metadata").endswith(expected)
    if expected == "refresh_token":
        assert gcs_proxy.requests[0].headers["x-goog-user-project"] == "who-pays"


@pytest.mark.parametrize("how", ["text", "file", "dictionary", "credentials", "emulator", "anon"])
async def test_a_token_of_storage_options(
    how: str,
    real: dict[str, Any],
    gcs_proxy: FaultProxy,
    bucket: str,
    service_account: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from google.oauth2.credentials import Credentials

    made: Any = Credentials
    options: dict[str, Any] = {
        "text": {"token": "ya29.own"},
        "emulator": {"token": "ya29.own"},
        "file": {"token": str(service_account)},
        "dictionary": {"token": json.loads(service_account.read_text())},
        "credentials": {"token": made("ya29.own")},
        "anon": {"token": "anon"},
    }[how]
    if how == "emulator":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_proxy.address)
        real = {}
    if how == "anon":
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    async with ArtifactRepository(
        f"gs://{bucket}", storage_options={**real, **options}
    ) as repository:
        await repository.write_bytes("x", b"1")
    expected = {"anon": None, "file": "Bearer ya29.token-S3CR3T-0"}
    expected["dictionary"] = expected["file"]
    assert authorizations(gcs_proxy) == {expected.get(how, "Bearer ya29.own")}


async def test_tokens_are_renewed_in_a_worker_thread(
    real: dict[str, Any], gcs_proxy: FaultProxy, bucket: str
) -> None:
    threads = []

    class Own(google.auth.credentials.Credentials):
        def refresh(self, request: Any) -> None:
            threads.append(threading.current_thread())
            self.token = "ya29.own"

    credentials: Any = Own
    options = {**real, "token": credentials()}
    async with ArtifactRepository(f"gs://{bucket}", storage_options=options) as repository:
        await asyncio.gather(*(repository.write_bytes(f"{n}", b"1") for n in range(10)))
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    assert authorizations(gcs_proxy) == {"Bearer ya29.own"}


@pytest.mark.parametrize("content", [None, "not json", "{}", '{"type": "service_account"}'])
async def test_a_variable_that_names_no_credentials(
    content: str | None,
    real: dict[str, Any],
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not passed over: who set it wants it."""
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    repository = ArtifactRepository(f"gs://{bucket}", storage_options=real)
    with pytest.raises(UnauthenticatedError, match=r"GOOGLE_APPLICATION_CREDENTIALS.*mine\.json"):
        await repository.open()


async def test_a_login_of_gcloud_that_is_broken(
    real: dict[str, Any], bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "gcloud").mkdir()
    (tmp_path / "gcloud" / "application_default_credentials.json").write_text("{}")
    repository = ArtifactRepository(f"gs://{bucket}", storage_options=real)
    with pytest.raises(UnauthenticatedError, match="application_default_credentials"):
        await repository.open()


async def test_google_default_wants_credentials(real: dict[str, Any], bucket: str) -> None:
    options = {**real, "token": "google_default"}
    repository = ArtifactRepository(f"gs://{bucket}", storage_options=options)
    with pytest.raises(UnauthenticatedError, match="gcloud auth application-default login"):
        await repository.open()


async def test_without_credentials_where_they_are_needed(
    real: dict[str, Any], gcs_proxy: FaultProxy, bucket: str
) -> None:
    body = refusal(401, "Anonymous caller does not have storage.objects.create access")
    gcs_proxy.faults.append(Answer(status=401, body=body))
    async with ArtifactRepository(
        f"gs://{bucket}", storage_options=real, transfer=QUICK
    ) as repository:
        with pytest.raises(
            UnauthenticatedError, match=r"Anonymous caller.*GOOGLE_APPLICATION_CREDENTIALS"
        ):
            await repository.write_bytes("x", b"")
    # Not worth a second try.
    assert len(gcs_proxy.requests) == 1


@pytest.mark.parametrize("token", ["/no/such/key-S3CR3T", "S3CR3T.json", "browser", "", 7, {}])
async def test_a_token_that_is_none(token: Any, real: dict[str, Any], bucket: str) -> None:
    options = {**real, "token": token}
    repository = ArtifactRepository(f"gs://{bucket}", storage_options=options)
    with pytest.raises(InvalidParameterError) as raised:
        await repository.open()
    assert "S3CR3T" not in str(raised.value)


async def test_a_token_server_that_refuses(
    real: dict[str, Any],
    bucket: str,
    tokens: TokenServer,
    service_account: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    tokens.status = 400
    tokens.answer = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    async with ArtifactRepository(
        f"gs://{bucket}", storage_options=real, transfer=QUICK
    ) as repository:
        with pytest.raises(UnauthenticatedError, match="Invalid JWT Signature"):
            await repository.write_bytes("x", b"")
    assert len(tokens.asked) == 1


async def test_a_token_server_that_is_down(
    real: dict[str, Any],
    bucket: str,
    tokens: TokenServer,
    service_account: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    async with ArtifactRepository(
        f"gs://{bucket}", storage_options=real, transfer=QUICK
    ) as repository:
        tokens.status = 503
        with pytest.raises(UnavailableError):
            await repository.write_bytes("x", b"")
        tokens.close()
        with pytest.raises(UnavailableError, match="no token"):
            await repository.write_bytes("x", b"")


async def test_cancelled_while_a_token_is_fetched(
    real: dict[str, Any],
    bucket: str,
    tokens: TokenServer,
    service_account: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its thread does not stay behind, and the next request asks anew."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    tokens.hangs = True
    tasks = asyncio.all_tasks()
    async with ArtifactRepository(f"gs://{bucket}", storage_options=real) as repository:
        writing = asyncio.ensure_future(repository.write_bytes("x", b""))
        while not tokens.asked:
            await asyncio.sleep(0.001)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        assert not tokens.let_go.is_set()
        assert asyncio.all_tasks() <= tasks
        tokens.hangs = False
        await repository.write_bytes("x", b"1")


async def test_requester_pays(
    real: dict[str, Any], gcs_proxy: FaultProxy, bucket: str, large: Path, tmp_path: Path
) -> None:
    options = {**real, "token": "anon", "requester_pays": "who-pays"}
    async with ArtifactRepository(
        f"gs://{bucket}", storage_options=options, transfer=QUICK
    ) as repository:
        await repository.log_artifact(large)
        await repository.download_artifacts(None, tmp_path / "down")
        await repository.delete_artifacts()
    assert {query(request)["userProject"] for request in gcs_proxy.requests} == {"who-pays"}


async def test_nothing_secret_is_shown(
    real: dict[str, Any],
    gcs_proxy: FaultProxy,
    bucket: str,
    tokens: TokenServer,
    service_account: Path,
    private_key: str,
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    gcloud_login(tmp_path, monkeypatch, tokens)
    # The address of a resumable upload is a secret too.
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(10**9))

    async def tried(options: dict[str, Any]) -> None:
        try:
            async with ArtifactRepository(
                f"gs://{bucket}", storage_options=options, transfer=QUICK
            ) as repository:
                shown.append(f"{repository!r} {repository._state()!r} {repository.fs!r}")
                for work in (
                    lambda: repository.write_bytes("x", b"1"),
                    lambda: repository.log_artifact(large),
                    lambda: repository.read_bytes("x"),
                    lambda: repository.list_artifacts(),
                    lambda: repository.delete_artifacts("x"),
                ):
                    try:
                        await work()
                    except AsyncStoreError as error:
                        shown.append("".join(traceback.format_exception(error)) + repr(error))
        except AsyncStoreError as error:
            shown.append("".join(traceback.format_exception(error)) + repr(error))

    faults = [
        Answer(status=401, body=refusal(401, "Invalid Credentials")),
        Answer(status=403, body=refusal(403, "no")),
        Answer(status=503, body=b""),
        Answer(matches=of("chunk"), status=400, body=refusal(400, "no")),
        Reset(),
    ]
    ways: list[dict[str, Any]] = [
        real,
        {**real, "token": "ya29.given-S3CR3T"},
        {**real, "token": str(service_account)},
        {**real, "token": json.loads(service_account.read_text())},
    ]
    for options in ways:
        for fault in faults:
            gcs_proxy.faults[:] = [fault]
            await tried(options)
    # A token server that says too much.
    gcs_proxy.faults.clear()
    tokens.answer = {"id_token": "id-S3CR3T", "refresh_token": "another-S3CR3T"}
    await tried(real)
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    tokens.status = 500
    await tried(real)

    assert len(shown) > 50
    everything = "\n".join([*shown, caplog.text, *map(repr, caplog.records)])
    assert "S3CR3T" not in everything
    assert private_key.splitlines()[3] not in everything
    assert "upload_id" not in everything
