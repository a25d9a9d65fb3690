"""SFTP, on OpenSSH's server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.backends import sftp, sftp_client
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.files.writing import STAGED_SUFFIX
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.conftest import LARGE, QUICK
from tests.artifacts.raw import RawDirectory
from tests.servers.base import HOST
from tests.servers.running import running
from tests.servers.sshd import SSHD

pytestmark = pytest.mark.anyio
SECRET = "S3CR3T-p@ss/word"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def sshd() -> Iterator[SSHD]:
    yield from running(SSHD())


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the keys and hosts of the person who runs it."""
    home = tmp_path_factory.mktemp("home", numbered=True)
    (home / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def root(sshd: SSHD) -> Path:
    root = sshd.directory / f"root-{next(_numbers)} ü"
    root.mkdir()
    return root


@pytest.fixture
def options(sshd: SSHD) -> Mapping[str, Any]:
    return {"client_keys": [str(sshd.key)], "known_hosts": str(sshd.known_hosts), "config": None}


def uri_of(root: Path, address: str, user: str) -> str:
    return f"sftp://{user}@{address}{str(root).replace(' ', '%20')}"


@pytest.fixture
def uri(sshd: SSHD, root: Path) -> str:
    return uri_of(root, f"{HOST}:{sshd.port}", sshd.user)


class TestSFTP(ArtifactRepositoryTests):
    storage: ClassVar[str] = "SFTP"
    server: ClassVar[str] = "OpenSSH"
    directories = True
    many = 1_050

    @pytest.fixture
    def artifact_uri(self, uri: str) -> str:
        return uri

    @pytest.fixture
    def storage_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return options

    @pytest.fixture
    def raw(self, root: Path) -> RawStorage:
        return RawDirectory(root)

    @pytest.fixture
    def proxy(self, sshd: SSHD) -> Iterator[FaultProxy]:
        with FaultProxy(f"{HOST}:{sshd.port}", http=False) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(
        self, proxy: FaultProxy, sshd: SSHD, root: Path, options: Mapping[str, Any]
    ) -> Place:
        known = sshd.directory / f"known-{proxy.address}"
        key = (sshd.directory / "host_key.pub").read_text()
        known.write_text(f"[{HOST}]:{proxy.address.rpartition(':')[2]} {key}")
        return Place(uri_of(root, proxy.address, sshd.user), {**options, "known_hosts": str(known)})

    @pytest.fixture
    def wrong_credentials(self, sshd: SSHD, uri: str, options: Mapping[str, Any]) -> Place:
        key = sshd.directory / "stranger"
        if not key.exists():
            sshd.new_key("stranger")
        return Place(uri, {**options, "client_keys": [str(key)]})


async def works(uri: str, options: Mapping[str, Any] | None = None) -> None:
    async with ArtifactRepository(uri, storage_options=options, transfer=QUICK) as repository:
        await repository.write_bytes("x", b"content")
        assert await repository.read_bytes("x") == b"content"


# URIs


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sftp:///path", "names no host"),
        ("sftp:host/path", "write sftp://user@host:port/path"),
        ("sftp://user@/path", "a user and no host"),
        ("sftp://@host/path", "no user before it"),
        (f"sftp://u:{SECRET.replace('/', '%2F')}@h:22x/p", "not a number"),
        ("sftp://host:0/path", "not a number"),
        ("sftp://host:65536/path", "not a number"),
        ("sftp://host/a/../b", "'..'"),
        ("sftp://host/a/%2e%2e/b", "'..'"),
        ("sftp://host/a%2Fb", "decodes to a slash"),
        ("sftp://host/a%252Fb", "decodes to a slash"),
        ("sftp://host/a?b", "no '?'"),
        ("sftp://host/a#b", "no '#'"),
        ("sftp://host/a%00b", "NUL"),
    ],
)
async def test_uris_that_are_no_root(uri: str, reason: str) -> None:
    with pytest.raises(InvalidParameterError, match=reason) as refusal:
        await ArtifactRepository(uri).open()
    assert "S3CR3T" not in str(refusal.value)


async def test_ssh_is_the_same(uri: str, options: Mapping[str, Any], root: Path) -> None:
    await works(uri.replace("sftp:", "ssh:"), options)
    assert (root / "x").read_bytes() == b"content"


async def test_an_option_that_nobody_has(uri: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match="no_such_option"):
        await works(uri, {**options, "no_such_option": 1})


async def test_at_is_for_the_same_server_and_user(uri: str, options: Mapping[str, Any]) -> None:
    async with ArtifactRepository(uri, storage_options=options) as repository:
        assert repository.at(f"{uri}/below") is not None
        assert repository.at(uri.replace("sftp://", "sftp://another-")) is None
        assert repository.at("sftp://elsewhere/x") is None


# Who logs in


async def test_ssh_config_has_the_host(sshd: SSHD, root: Path, home: Path) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host shelf\n  HostName {HOST}\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.key}\n  UserKnownHostsFile {sshd.known_hosts}\n"
    )
    await works(f"sftp://shelf{str(root).replace(' ', '%20')}")
    assert (root / "x").exists()


async def test_ssh_config_has_the_way_there(sshd: SSHD, root: Path, home: Path) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host shelf door\n  HostName {HOST}\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.key}\n  UserKnownHostsFile {sshd.known_hosts}\n"
        "Host shelf\n  ProxyJump door\n"
    )
    before = len(asyncio.all_tasks())
    await works(f"sftp://shelf{str(root).replace(' ', '%20')}")
    assert (root / "x").exists()
    with anyio.fail_after(10):
        while len(asyncio.all_tasks()) > before:
            await anyio.sleep(0.01)


async def test_ciphers_are_the_quick_ones_unless_somebody_chose(
    uri: str, home: Path, options: Mapping[str, Any]
) -> None:
    async def cipher(**own: Any) -> str:
        async with ArtifactRepository(uri, storage_options={**options, **own}) as repository:
            backend = repository._state()[0]
            assert isinstance(backend, sftp.SFTPBackend)
            async with backend._pool.connection() as session:
                return str(session.connection.get_extra_info("send_cipher"))

    assert "gcm" in await cipher()
    assert await cipher(encryption_algs=["aes128-ctr"]) == "aes128-ctr"
    (home / ".ssh" / "config").write_text("Host *\n  Ciphers aes192-ctr\n")
    assert await cipher(config=()) == "aes192-ctr"


async def test_a_key_file_that_is_not_there(uri: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match="/no/such/key"):
        await works(uri, {**options, "client_keys": ["/no/such/key"]})


async def test_a_default_key(uri: str, sshd: SSHD, home: Path) -> None:
    (home / ".ssh" / "id_ed25519").write_bytes(sshd.key.read_bytes())
    (home / ".ssh" / "id_ed25519").chmod(0o600)
    (home / ".ssh" / "known_hosts").write_bytes(sshd.known_hosts.read_bytes())
    await works(uri)


async def test_a_key_with_a_passphrase(uri: str, sshd: SSHD, options: Mapping[str, Any]) -> None:
    key = sshd.new_key(f"locked-{next(_numbers)}", SECRET)
    sshd.authorize(key)
    locked = {**options, "client_keys": [str(key)]}
    await works(uri, {**locked, "passphrase": SECRET})
    for wrong in ({}, {"passphrase": "another"}):
        with pytest.raises(AsyncStoreError) as refusal:
            await works(uri, {**locked, **wrong})
        assert isinstance(refusal.value, (UnauthenticatedError, InvalidParameterError))


async def test_the_agent(uri: str, sshd: SSHD, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = home / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert agent.poll() is None
            await asyncio.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        key = sshd.new_key(f"held-{next(_numbers)}")
        sshd.authorize(key)
        subprocess.run(["ssh-add", "-q", key], check=True)
        key.unlink()
        await works(uri, {"known_hosts": str(sshd.known_hosts)})
    finally:
        agent.terminate()
        agent.wait()


@pytest.fixture
def password_user(sshd: SSHD) -> tuple[str, str]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a user with a password")
    return sshd.password_user()


async def test_a_password_works_and_warns_once(
    sshd: SSHD, password_user: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    user, password = password_user
    home = sshd.directory / user
    uri = f"sftp://{user}:{password}@{HOST}:{sshd.port}{home}/artifacts"
    for _ in range(2):
        await works(uri, {"known_hosts": str(sshd.known_hosts), "client_keys": None})
    warnings = [r for r in caplog.records if r.name == sftp_client.LOGGER.name]
    assert len(warnings) == 1
    assert warnings[0].levelno == logging.WARNING
    assert password not in caplog.text


async def test_no_secret_in_any_word(
    sshd: SSHD, options: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    encoded = SECRET.replace("@", "%40").replace("/", "%2F")
    uri = f"sftp://nobody:{encoded}@{HOST}:{sshd.port}/x"
    repository = ArtifactRepository(uri, storage_options={**options, "client_keys": None})
    words = [repr(repository)]
    async with repository:
        words += [repr(repository), repr(repository._state()[0]), str(vars(repository))]
        backend = repository._state()[0]
        assert isinstance(backend, sftp.SFTPBackend)
        words += [backend.shown("x"), repr(backend._server)]
        words += [repr(sftp_client.Server(backend._server.location, {"passphrase": SECRET}))]
        with pytest.raises(UnauthenticatedError) as refusal:
            await repository.read_bytes("x")
        words += [str(refusal.value), repr(refusal.value), str(refusal.value.__cause__)]
    text = "\n".join(words[:1] + words[1:3] + words[4:]) + caplog.text
    assert SECRET not in text
    assert encoded not in text


# Who is trusted


@pytest.mark.parametrize("content", [None, "", "elsewhere ssh-ed25519 AAAA\n"])
async def test_an_unknown_host_is_refused(
    content: str | None, uri: str, sshd: SSHD, home: Path, options: Mapping[str, Any]
) -> None:
    known = home / ".ssh" / "known_hosts"
    if content is not None:
        known.write_text(content)
    with pytest.raises(PermissionDeniedError) as refusal:
        await works(uri, {**options, "known_hosts": ()})
    assert f"ssh-keyscan -p {sshd.port} {HOST} >> {known}" in str(refusal.value)
    assert "known_hosts': None" in str(refusal.value)


async def test_what_a_refusal_advises_works(
    uri: str, sshd: SSHD, home: Path, options: Mapping[str, Any]
) -> None:
    known = home / ".ssh" / "known_hosts"
    another = sshd.new_key(f"another-{next(_numbers)}").with_suffix(".pub")
    known.write_text(f"[{HOST}]:{sshd.port} {another.read_text()}")
    mine = {**options, "known_hosts": ()}
    with pytest.raises(PermissionDeniedError) as refusal:
        await works(uri, mine)
    assert f"ssh-keygen -R '[{HOST}]:{sshd.port}' -f {known}" in str(refusal.value)
    forget = ["ssh-keygen", "-R", f"[{HOST}]:{sshd.port}", "-f", str(known)]
    subprocess.run(forget, check=True, capture_output=True)
    with pytest.raises(PermissionDeniedError, match="ssh-keyscan"):
        await works(uri, mine)
    scanned = subprocess.run(
        ["ssh-keyscan", "-p", str(sshd.port), HOST], check=True, capture_output=True
    )
    known.write_bytes(scanned.stdout)
    await works(uri, mine)


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
async def test_a_changed_host_key_is_refused(
    kind: str, uri: str, sshd: SSHD, options: Mapping[str, Any]
) -> None:
    another = sshd.new_key(f"another-{next(_numbers)}", kind=kind)
    known = another.with_suffix(".known")
    known.write_text(f"[{HOST}]:{sshd.port} {another.with_suffix('.pub').read_text()}")
    with pytest.raises(PermissionDeniedError, match="shows another host key") as refusal:
        await works(uri, {**options, "known_hosts": str(known)})
    assert str(known) in str(refusal.value)


async def test_keys_of_a_file_that_is_not_there(uri: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(PermissionDeniedError, match="/no/such/file"):
        await works(uri, {**options, "known_hosts": "/no/such/file"})


@pytest.mark.parametrize("file", ["none", "/dev/null"])
async def test_ssh_config_does_not_switch_the_check_off(
    file: str, uri: str, sshd: SSHD, home: Path, options: Mapping[str, Any]
) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host *\n  UserKnownHostsFile {file}\n  StrictHostKeyChecking no\n"
    )
    with pytest.raises(PermissionDeniedError, match="ssh-keyscan"):
        await works(uri, {"client_keys": options["client_keys"]})


async def test_hosts_by_a_hash_and_keys_given_as_bytes(
    uri: str, sshd: SSHD, home: Path, options: Mapping[str, Any]
) -> None:
    known = home / "hashed"
    known.write_bytes(sshd.known_hosts.read_bytes())
    subprocess.run(["ssh-keygen", "-H", "-f", str(known)], check=True, capture_output=True)
    assert HOST not in known.read_text()
    await works(uri, {**options, "known_hosts": [str(known), "/no/such/file"]})
    await works(uri, {**options, "known_hosts": known.read_bytes()})


async def test_the_way_out_has_a_name(uri: str, options: Mapping[str, Any]) -> None:
    await works(uri, {**options, "known_hosts": None})


# Connections


def _sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


async def test_few_connections_serve_many_files_and_closing_leaves_nothing(
    sshd: SSHD, root: Path, options: Mapping[str, Any], tmp_path: Path
) -> None:
    for number in range(1000):
        (tmp_path / "up" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "up" / str(number)).write_bytes(b"%d" % number)
    before = _sockets(), len(asyncio.all_tasks())
    with FaultProxy(f"{HOST}:{sshd.port}", http=False) as proxy:
        uri = uri_of(root, proxy.address, sshd.user)
        async with ArtifactRepository(
            uri, storage_options={**options, "known_hosts": None}
        ) as repository:
            await repository.log_artifacts(tmp_path / "up")
            await repository.download_artifacts(None, tmp_path / "down")
            await repository.delete_artifacts()
            assert 1 < proxy.connections_opened <= sftp.CONNECTIONS
        assert len(asyncio.all_tasks()) == before[1]
        with anyio.fail_after(10):
            while proxy.connections:
                await anyio.sleep(0.01)
    with anyio.fail_after(10):
        while _sockets() > before[0]:
            await anyio.sleep(0.01)
    assert len(list((tmp_path / "down").iterdir())) == 1000


async def test_who_leaves_a_transfer_leaves_its_connection_to_others(
    sshd: SSHD, root: Path, options: Mapping[str, Any]
) -> None:
    content = os.urandom(LARGE)
    (root / "large").write_bytes(content)
    with FaultProxy(f"{HOST}:{sshd.port}", http=False, latency=0.005) as proxy:
        uri = uri_of(root, proxy.address, sshd.user)
        async with ArtifactRepository(
            uri, storage_options={**options, "known_hosts": None}, transfer=QUICK
        ) as repository:
            assert await repository.read_bytes("large") == content
            opened = proxy.connections_opened
            for moment in range(1, 15):
                with anyio.move_on_after(moment * 0.004):
                    await repository.read_bytes("large")
                with anyio.move_on_after(moment * 0.004):
                    await repository.write_bytes("mine", content)
                async with repository.open_read("large") as pieces:
                    async for piece in pieces:
                        assert content.startswith(piece)
                        break
            assert proxy.connections_opened == opened
            assert await repository.read_bytes("large") == content
            with anyio.fail_after(10):
                while sshd.open_files(root):
                    await anyio.sleep(0.01)
    assert {path.name for path in root.iterdir()} <= {"large", "mine"}


async def test_a_server_that_cannot_rename_over_a_file(tmp_path: Path, large: Path) -> None:
    server = SSHD("-P posix-rename")
    if not server.available():
        pytest.skip(server.install_hint)
    with server:
        root = server.directory / "root"
        uri = uri_of(root, f"{HOST}:{server.port}", server.user)
        own = {"client_keys": [str(server.key)], "known_hosts": str(server.known_hosts)}
        async with ArtifactRepository(uri, storage_options=own, transfer=QUICK) as repository:
            for content in (b"1", b"2"):
                await repository.write_bytes("x", content)
                assert (root / "x").read_bytes() == content
                await repository.log_artifact(large)
            assert (root / large.name).read_bytes() == large.read_bytes()
            with pytest.raises(InvalidParameterError):
                await repository.write_bytes("x/y", b"")
            (root / "directory").mkdir()
            with pytest.raises(AsyncStoreError):
                await repository.write_bytes("directory", b"")
        assert {path.name for path in root.iterdir()} == {"x", large.name, "directory"}


async def test_parts_go_over_several_connections(
    sshd: SSHD, root: Path, options: Mapping[str, Any], large: Path
) -> None:
    with FaultProxy(f"{HOST}:{sshd.port}", http=False, latency=0.01) as proxy:
        uri = uri_of(root, proxy.address, sshd.user)
        async with ArtifactRepository(
            uri, storage_options={**options, "known_hosts": None}, transfer=QUICK
        ) as repository:
            await repository.log_artifact(large)
            assert proxy.peak_requests_in_flight >= 3
    assert (root / large.name).stat().st_size == LARGE
    assert [path.name for path in root.iterdir()] == [large.name]


async def test_it_comes_back_with_the_server(options: Mapping[str, Any], tmp_path: Path) -> None:
    with SSHD() as server:
        root = server.directory / "root"
        uri = f"sftp://{server.user}@{HOST}:{server.port}{root}"
        own = {"client_keys": [str(server.key)], "known_hosts": str(server.known_hosts)}
        retry = RetryPolicy(attempts=3, backoff=0.01)
        async with ArtifactRepository(
            uri, storage_options={**options, **own}, transfer=TransferOptions(retry=retry)
        ) as repository:
            await repository.write_bytes("x", b"1")
            await asyncio.to_thread(server.halt)
            with pytest.raises(UnavailableError):
                await repository.read_bytes("x")
            await asyncio.to_thread(server.run)
            assert await repository.read_bytes("x") == b"1"
            # Behind a restart that nobody noticed.
            await asyncio.to_thread(server.halt)
            await asyncio.to_thread(server.run)
            await repository.write_bytes("y", b"2")
            assert (root / "y").read_bytes() == b"2"


async def test_names_that_are_not_utf_8_and_files_of_somebody_who_is_writing(
    uri: str, root: Path, options: Mapping[str, Any], tmp_path: Path
) -> None:
    strange = os.fsencode(root) + b"/\xff"
    Path(os.fsdecode(strange)).write_bytes(b"")
    (root / f".1{STAGED_SUFFIX}").write_bytes(b"half")
    (root / "x").write_bytes(b"1")
    async with ArtifactRepository(uri, storage_options=options) as repository:
        listed = [entry.path for entry in await repository.list_artifacts()]
        assert listed == ["x", "\udcff"]
        with pytest.raises(InvalidParameterError, match=r"no file name|UTF-8"):
            await repository.download_artifacts(None, tmp_path)
        await repository.delete_artifacts()
    assert not root.exists()


async def test_a_file_that_was_replaced(uri: str, root: Path, options: Mapping[str, Any]) -> None:
    (root / "x").write_bytes(b"first")
    async with ArtifactRepository(uri, storage_options=options) as repository:
        backend = repository._state()[0]
        before = await backend.info("x")
        for size, later in ((5, 5), (6, 0)):
            (root / "x").write_bytes(b"2" * size)
            os.utime(root / "x", ns=(0, (root / "x").stat().st_mtime_ns + later * 10**9))
            with pytest.raises(IntegrityError):
                async for _ in backend.read("x", 0, 3, before.etag):
                    pass


async def test_a_link_is_followed_by_reading_and_not_by_deleting(
    uri: str, root: Path, options: Mapping[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_bytes(b"1")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "nowhere").symlink_to(tmp_path / "missing")
    async with ArtifactRepository(uri, storage_options=options) as repository:
        assert [entry.path for entry in await repository.list_artifacts()] == ["link"]
        assert await repository.read_bytes("link/x") == b"1"
        await repository.delete_artifacts("link")
        assert not (root / "link").is_symlink()
        (root / "link").symlink_to(tmp_path / "outside")
        await repository.delete_artifacts()
    assert (tmp_path / "outside" / "x").exists()
