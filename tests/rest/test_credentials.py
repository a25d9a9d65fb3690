"""What a request to a tracking server carries to say who asks, as seen by a server."""

from __future__ import annotations

import hashlib
import sys
import textwrap
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncstore import plugins, request_auth
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)
from asyncstore.rest.connection import Connection
from asyncstore.rest.credentials import server_of
from tests.rest.scripted import Answer, Asked, Scripted, answering

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("home", "no_waits")]


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with answering(Answer()) as running:
        yield running


async def sent(uri: str, server: Scripted, body: bytes | None = None) -> Asked:
    """The request that a call on the URI sends to the server."""
    connection = Connection(uri)
    try:
        await connection.call("POST" if body else "GET", "/x", body=body)
    finally:
        await connection.aclose()
    return server.asked[-1]


class TestVariables:
    async def test_nobody(self, server: Scripted) -> None:
        assert "authorization" not in (await sent(server.url, server)).headers

    async def test_the_token(self, server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a.b:c/+==")
        assert (await sent(server.url, server)).headers["authorization"] == "Bearer a.b:c/+=="

    async def test_user_and_password_go_before_it(
        self, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        assert (await sent(server.url, server)).headers["authorization"] == "Bearer token"
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pä:ss%")
        assert (await sent(server.url, server)).headers["authorization"] == basic("ada:pä:ss%")

    async def test_the_uri_goes_before_both(
        self, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other")
        uri = server.url.replace("//", "//me%40lab:p%40ss%2Fw%25rd@")
        asked = await sent(uri, server)
        assert asked.headers["authorization"] == basic("me@lab:p@ss/w%rd")
        assert asked.headers["host"] == f"127.0.0.1:{server.port}"

    async def test_what_changes_counts_for_the_next_request(
        self, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = Connection(server.url)
        for token in ("one", "two"):
            monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
            await connection.call("GET", "/x")
        await connection.aclose()
        assert [asked.headers["authorization"] for asked in server.asked] == [
            "Bearer one",
            "Bearer two",
        ]

    async def test_the_file_of_mlflow_gives_what_the_variables_do_not(
        self, server: Scripted, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = home / ".mlflow" / "credentials"
        stored.parent.mkdir()
        stored.write_text(
            "[mlflow]\nmlflow_tracking_username = filed\nmlflow_tracking_password = 100%sure\n"
        )
        assert (await sent(server.url, server)).headers["authorization"] == basic("filed:100%sure")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        assert (await sent(server.url, server)).headers["authorization"] == basic("ada:100%sure")
        stored.write_text("no section")
        with pytest.raises(InvalidParameterError, match="credentials cannot be read"):
            await sent(server.url, server)

    @pytest.mark.parametrize("token", ["a\nX-Other: b", "a\r\nb", "käse€"])
    async def test_a_token_that_is_no_header_is_refused(
        self, token: str, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        with pytest.raises(InvalidParameterError, match="Authorization") as raised:
            await sent(server.url, server)
        assert token not in str(raised.value)
        assert server.asked == []


class TestAsyncstoresProvider:
    @pytest.fixture(autouse=True)
    def chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        request_auth._forget()
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "asyncstore")

    async def test_a_file_is_read_for_each_request(
        self, server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "token"
        monkeypatch.setenv("ASYNCSTORE_AUTH_FILE", str(path))
        connection = Connection(server.url)
        for token in ("one", "two"):
            path.write_text(token)
            await connection.call("GET", "/x")
        await connection.aclose()
        assert [asked.headers["authorization"] for asked in server.asked] == [
            "Bearer one",
            "Bearer two",
        ]

    async def test_a_refused_command_runs_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = tmp_path / "count"
        code = (
            "import pathlib,sys; p = pathlib.Path(sys.argv[1]); "
            "n = len(p.read_text()) + 1 if p.exists() else 1; p.write_text('x' * n); print(f't{n}')"
        )
        program = tmp_path / "program.py"
        program.write_text(code)
        monkeypatch.setenv("ASYNCSTORE_AUTH_COMMAND", f"{sys.executable} -S {program} {count}")
        with answering(Answer(), Answer(401), Answer()) as server:
            connection = Connection(server.url)
            await connection.call("GET", "/x")
            with pytest.raises(UnauthenticatedError):
                await connection.call("GET", "/x")
            await connection.call("GET", "/x")
            await connection.aclose()
        said = [asked.headers["authorization"] for asked in server.asked]
        assert said == ["Bearer t1", "Bearer t1", "Bearer t2"]

    async def test_no_credentials_at_all(self, server: Scripted) -> None:
        with pytest.raises(UnauthenticatedError, match="there are no credentials"):
            await sent(server.url, server)
        assert server.asked == []


PLUGIN = """
import hashlib
import threading

threads = []
seen = []


class Signing:
    def get_name(self):
        return "signing"

    def get_auth(self):
        def sign(request):
            threads.append(threading.get_ident())
            digest = hashlib.sha256(request.body or b"").hexdigest()
            request.headers["authorization"] = f"Signed {request.method} {digest}"
            request.headers.update({"X-Url": request.url})
            request.register_hook("response", lambda answer, **_: seen.append(answer.status_code))
            return request

        return sign


class Pair:
    def get_name(self):
        return "pair"

    def get_auth(self):
        return "ada", "secret"


class Failing:
    def get_name(self):
        return "failing"

    def get_auth(self):
        raise RuntimeError("S3CR3T")


class Headers:
    def in_context(self):
        threads.append(threading.get_ident())
        return True

    def request_headers(self):
        return {"X-Team": "vision", "User-Agent": "team/1", "Content-Type": "text/odd"}
"""


class TestPlugins:
    @pytest.fixture(autouse=True)
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        site = tmp_path / "site"
        about = site / "asyncstore_test_signing-1.0.dist-info"
        about.mkdir(parents=True)
        (site / "asyncstore_test_signing.py").write_text(PLUGIN)
        about.joinpath("METADATA").write_text("Name: asyncstore-test-signing\nVersion: 1.0\n")
        about.joinpath("entry_points.txt").write_text(
            textwrap.dedent("""
            [mlflow.request_auth_provider]
            signing = asyncstore_test_signing:Signing
            pair = asyncstore_test_signing:Pair
            failing = asyncstore_test_signing:Failing
            [mlflow.request_header_provider]
            team = asyncstore_test_signing:Headers
            """)
        )
        monkeypatch.syspath_prepend(site)
        plugins._providers.cache_clear()
        yield
        plugins._providers.cache_clear()
        sys.modules.pop("asyncstore_test_signing", None)

    async def test_an_auth_object_sees_the_request_and_its_answer_off_the_loop(
        self, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "signing")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
        asked = await sent(server.url.replace("//", "//me:key@"), server, b'{"a": 1}')
        digest = hashlib.sha256(b'{"a": 1}').hexdigest()
        assert asked.headers["authorization"] == f"Signed POST {digest}"
        assert asked.headers["x-url"] == f"{server.url}/x"
        module = sys.modules["asyncstore_test_signing"]
        assert module.seen == [200]
        assert threading.get_ident() not in module.threads

    async def test_a_pair_is_user_and_password(
        self, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "pair")
        assert (await sent(server.url, server)).headers["authorization"] == basic("ada:secret")

    async def test_headers_are_there_unless_the_request_has_its_own(self, server: Scripted) -> None:
        connection = Connection(server.url)
        await connection.call("POST", "/x", json={})
        await connection.aclose()
        headers = server.asked[0].headers
        assert headers["x-team"] == "vision"
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"].endswith("team/1")

    @pytest.mark.parametrize(
        ("name", "error"), [("failing", UnauthenticatedError), ("nobody", InvalidParameterError)]
    )
    async def test_without_the_credentials_that_were_asked_for_nothing_is_sent(
        self,
        name: str,
        error: type[AsyncStoreError],
        server: Scripted,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", name)
        with pytest.raises(error, match=name) as raised:
            await sent(server.url, server)
        assert "S3CR3T" not in str(raised.value)
        assert server.asked == []


class TestDatabricks:
    @pytest.fixture
    def profiles(self, home: Path, server: Scripted) -> Path:
        path = home / ".databrickscfg"
        path.write_text(
            textwrap.dedent(f"""
            [DEFAULT]
            host = {server.url}/
            token = of-default
            [lab]
            host = {server.url}
            token = of%lab
            [old]
            host = {server.url}
            username = ada
            password = se%cret
            [hostless]
            token = x
            [tokenless]
            host = https://example.com
            client_id = x
            """)
        )
        return path

    @pytest.mark.parametrize(
        ("uri", "authorization"),
        [
            ("databricks", "Bearer of-default"),
            ("databricks://lab", "Bearer of%lab"),
            ("databricks://old", basic("ada:se%cret")),
            ("databricks://DEFAULT", "Bearer of-default"),
        ],
    )
    async def test_a_profile(
        self, uri: str, authorization: str, profiles: Path, server: Scripted
    ) -> None:
        asked = await sent(uri, server)
        assert asked.headers["authorization"] == authorization
        assert asked.path == "/x"

    async def test_the_variables_name_file_and_profile(
        self, profiles: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moved = profiles.rename(profiles.with_name("elsewhere"))
        monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(moved))
        monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "lab")
        asked = await sent("databricks", server)
        assert asked.headers["authorization"] == "Bearer of%lab"

    async def test_host_and_token_go_before_the_file_but_not_before_a_profile_by_name(
        self, profiles: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATABRICKS_HOST", server.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", "of-variables")
        asked = await sent("databricks", server)
        assert asked.headers["authorization"] == "Bearer of-variables"
        asked = await sent("databricks://lab", server)
        assert asked.headers["authorization"] == "Bearer of%lab"

    async def test_credentials_of_a_tracking_server_do_not_go_there(
        self, profiles: Path, server: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "asyncstore")
        asked = await sent("databricks", server)
        assert asked.headers["authorization"] == "Bearer of-default"

    @pytest.mark.parametrize(
        ("uri", "error", "says"),
        [
            ("databricks://nobody", NotFoundError, "no profile nobody"),
            ("databricks://hostless", InvalidParameterError, "names no host"),
            ("databricks://tokenless", UnauthenticatedError, "has no token"),
            ("databricks://scope:prefix", UnsupportedError, "databricks://profile"),
            ("databricks://", InvalidParameterError, "names no profile"),
            ("databricks:///", InvalidParameterError, "names no profile"),
        ],
    )
    async def test_what_cannot_be(
        self,
        uri: str,
        error: type[AsyncStoreError],
        says: str,
        profiles: Path,
        server: Scripted,
    ) -> None:
        with pytest.raises(error, match=says):
            await sent(uri, server)

    async def test_there_is_no_file(self, server: Scripted) -> None:
        with pytest.raises(NotFoundError, match="DATABRICKS_HOST"):
            await sent("databricks", server)

    def test_a_host_without_a_scheme_is_https(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABRICKS_HOST", "adb-1.azuredatabricks.net")
        monkeypatch.setenv("DATABRICKS_TOKEN", "t")
        assert server_of("databricks").url == "https://adb-1.azuredatabricks.net"
        assert "Bearer" not in repr(server_of("databricks"))


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("http://host", "http://host"),
        ("HTTPS://host:8443/a/b/", "https://host:8443/a/b"),
        ("http://u:p@[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_uris_and_servers(uri: str, url: str) -> None:
    assert server_of(uri).url == url


@pytest.mark.parametrize(
    "uri",
    ["http://", "http:///x", "http://h:0", "http://h/?a=b", "ftp://h", "sqlite:///x", "host:5000"],
)
def test_what_is_no_server(uri: str) -> None:
    with pytest.raises(InvalidParameterError):
        server_of(uri)
