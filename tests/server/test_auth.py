from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware

from asyncstore.errors import UnavailableError
from asyncstore.server import app, auth, users
from asyncstore.server.auth import Authenticator, AuthMiddleware, User
from asyncstore.server.routing import reads
from asyncstore.server.users import UserEntry, edit_users, hash_password, hash_token
from tests.server.serving import Echo, behind, served

TOKEN = "asyncstore_token"
WRITER, READER = ("writer", "open:sesame"), ("reader", "öffne dich")
GET, CREATE, SEARCH = (
    ("GET", "/api/2.0/mlflow/runs/get"),
    ("POST", "/api/2.0/mlflow/runs/create"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search"),
)


def _user(name: str, role: users.Role, password: str, n: int = 2) -> UserEntry:
    return UserEntry("user", name, role, hash_password(password.encode(), n=n))


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    entries = [
        _user("writer", "write", WRITER[1]),
        _user("reader", "read", READER[1]),
        UserEntry("token", "nightly", "read", hash_token(TOKEN.encode())),
    ]
    edit_users(path, lambda _: entries)
    return path


@pytest.fixture
def client(users_file: Path) -> Iterator[httpx.Client]:
    guarded = behind(Echo(), [Middleware(AuthMiddleware, authenticator=Authenticator(users_file))])
    with served(guarded) as url, httpx.Client(base_url=url) as client:
        yield client


def _basic(name: str, password: str) -> dict[str, str]:
    credentials = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_who_is_nobody_is_asked_who_they_are(client: httpx.Client) -> None:
    answer = client.get(GET[1])
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Basic realm="mlflow"')
    assert answer.json()["error_code"] == "UNAUTHENTICATED"
    assert "MLFLOW_TRACKING_TOKEN" in answer.json()["message"]


@pytest.mark.parametrize("path", ["/health", "/version"])
def test_a_load_balancer_needs_no_user(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    for other in (f"{path}/", f"/{path}", f"{path}x", path.upper()):
        assert client.get(other).status_code == 401


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (_basic(*WRITER), "writer"),
        (_basic(*READER), "reader"),
        (_bearer(TOKEN), "nightly"),
        ({"Authorization": f"bearer  {TOKEN}"}, "nightly"),
    ],
)
def test_users_are_known_by_password_or_token(
    client: httpx.Client, headers: dict[str, str], name: str
) -> None:
    answer = client.get(GET[1], headers=headers)
    assert (answer.status_code, answer.json()["user"]) == (200, name)


@pytest.mark.parametrize(
    "headers",
    [
        _basic("writer", "open"),
        _basic("writer", ""),
        _basic("nobody", WRITER[1]),
        # A token is no password, and a password no token.
        _basic("nightly", TOKEN),
        _bearer(WRITER[1]),
        _bearer(hash_token(TOKEN.encode())),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"writer").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
        {"Authorization": "Digest username=writer"},
        {"Authorization": ""},
    ],
)
def test_other_credentials_are_nobody(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.get(GET[1], headers=headers).status_code == 401


def test_two_headers_are_refused(client: httpx.Client) -> None:
    twice = [*_basic(*WRITER).items(), *_bearer("x").items()]
    assert client.get(GET[1], headers=twice).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        (*GET, True),
        (*SEARCH, True),
        (*CREATE, False),
        ("GET", "/api/2.0/mlflow/changes", False),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/a/b", False),
        # What is not in the table: the UI, and what nobody serves.
        ("GET", "/", True),
        ("POST", "/", False),
        ("DELETE", "/api/2.0/mlflow/runs/get", False),
        ("POST", "//api/2.0/mlflow/runs/search", False),
        ("POST", "/api/2.0/mlflow/runs/search/", False),
    ],
)
def test_a_reader_may_do_what_only_reads(
    client: httpx.Client, method: str, path: str, allowed: bool
) -> None:
    answer = client.request(method, path, headers=_basic(*READER))
    if allowed:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 403
        assert answer.json()["error_code"] == "PERMISSION_DENIED"
        assert answer.json()["message"].startswith("reader may only read: ")
    assert client.request(method, path, headers=_basic(*WRITER)).status_code == 200


def test_a_changed_file_counts_at_once_and_a_broken_one_lets_nobody_in(
    client: httpx.Client, users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "FILE_SECONDS", 0)

    def status(headers: dict[str, str]) -> int:
        return client.get(GET[1], headers=headers).status_code

    assert (status(_bearer(TOKEN)), status(_basic(*WRITER))) == (200, 200)
    edit_users(users_file, lambda entries: [_user("writer", "write", "new"), *entries[1:2]])
    assert status(_bearer(TOKEN)) == 401
    # Remembered a moment ago.
    assert status(_basic(*WRITER)) == 401
    assert status(_basic("writer", "new")) == 200

    users_file.chmod(0o644)
    answer = client.get(GET[1], headers=_basic("writer", "new"))
    assert answer.status_code == 503
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert answer.headers["retry-after"] == "5"
    assert str(users_file) not in answer.text
    users_file.chmod(0o600)
    assert status(_basic("writer", "new")) == 200
    users_file.unlink()
    assert status(_basic("writer", "new")) == 503


def test_the_file_is_not_looked_at_for_each_request(
    client: httpx.Client, users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "FILE_SECONDS", 3600)
    assert client.get(GET[1], headers=_bearer(TOKEN)).status_code == 200
    users_file.unlink()
    assert client.get(GET[1], headers=_bearer(TOKEN)).status_code == 200


def _count_hashing(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    hashed: list[bytes] = []

    def counted(password: bytes, against: str) -> bool:
        hashed.append(password)
        return users.password_matches(password, against)

    monkeypatch.setattr(auth, "password_matches", counted)
    return hashed


def test_a_password_that_was_verified_is_not_hashed_again_for_a_while(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = _count_hashing(monkeypatch)
    for _ in range(3):
        assert client.get(GET[1], headers=_basic(*WRITER)).status_code == 200
    assert len(hashed) == 1
    for _ in range(2):
        assert client.get(GET[1], headers=_basic("writer", "wrong")).status_code == 401
    assert len(hashed) == 3

    monkeypatch.setattr(auth, "PASSWORD_SECONDS", 0)
    for _ in range(2):
        assert client.get(GET[1], headers=_basic(*READER)).status_code == 200
    assert len(hashed) == 5


def test_many_requests_at_once_pay_for_few_hashes(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = _count_hashing(monkeypatch)
    with ThreadPoolExecutor(20) as threads:
        answers = list(
            threads.map(lambda _: client.get(GET[1], headers=_basic(*WRITER)), range(20))
        )
    assert {each.status_code for each in answers} == {200}
    assert len(hashed) <= 2


@pytest.mark.anyio
async def test_an_unknown_user_costs_a_hash_too(
    users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = _count_hashing(monkeypatch)
    authenticator = Authenticator(users_file)
    nobody = _basic("nobody", "x")["Authorization"].encode()
    assert await authenticator.authenticate(nobody) is None
    assert hashed == [b"x"]


@pytest.mark.anyio
async def test_passwords_that_would_wait_for_long_are_refused(users_file: Path) -> None:
    authenticator = Authenticator(users_file)
    refused: list[UnavailableError] = []

    async def guess(number: int) -> None:
        header = _basic("writer", f"guess {number}")["Authorization"].encode()
        try:
            assert await authenticator.authenticate(header) is None
        except UnavailableError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(guess, number)
    assert refused
    assert {each.retry_after for each in refused} == {1}
    header = _basic(*WRITER)["Authorization"].encode()
    assert await authenticator.authenticate(header) == User("writer", "write")


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda each: b"Basic " + each))
def test_any_header_is_nobody(header: bytes) -> None:
    async def ask() -> None:
        authenticator = Authenticator(Path("/dev/null"))
        authenticator._read_until = float("inf")
        authenticator._nobody = hash_password(b"", n=2)
        assert await authenticator.authenticate(header) is None

    anyio.run(ask)


def test_what_readers_may_post_is_known_to_change_nothing() -> None:
    others = [route for route in app.ROUTES if route.method not in ("GET", "HEAD", "POST")]
    assert not [route for route in others if reads(route)]
    posted = {route.path for route in app.ROUTES if route.method == "POST" and reads(route)}
    assert posted == {
        "/api/2.0/mlflow/artifacts/presigned-download-url",
        "/api/2.0/mlflow/experiments/search",
        "/api/2.0/mlflow/experiments/search-datasets",
        "/api/2.0/mlflow/logged-models/search",
        "/api/2.0/mlflow/registered-models/get-latest-versions",
        "/api/2.0/mlflow/runs/search",
        "/api/3.0/mlflow/traces/batchGetInfos",
        "/api/3.0/mlflow/traces/search",
        # Queries only, and a place where the UI's reports end.
        "/graphql",
        "/ajax-api/3.0/mlflow/ui-telemetry",
    }
