"""FTP and FTPS, on vsftpd and pyftpdlib."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import pytest

from asyncstore.artifacts import ArtifactRepository, TransferOptions
from asyncstore.backends import ftp, ftp_client, open_backend
from asyncstore.errors import (
    AsyncStoreError,
    InvalidParameterError,
    UnauthenticatedError,
    UnavailableError,
)
from asyncstore.files.reading import ContentType, OpenFile
from asyncstore.multipart import Part
from asyncstore.retry import RetryPolicy
from asyncstore.testing.conformance import ArtifactRepositoryTests, Place, RawStorage
from asyncstore.testing.fault_proxy import FaultProxy
from tests.artifacts.conftest import QUICK
from tests.artifacts.raw import RawDirectory
from tests.servers.ftp import DelayedFtp, FTPServer, PyFtpd, Vsftpd
from tests.servers.running import require, running

if TYPE_CHECKING:
    from tests.servers.tls import PrivateAuthority

pytestmark = pytest.mark.anyio
SECRET = "S3CR3T p@ss/w%rd"
QUOTED = "S3CR3T%20p%40ss%2Fw%25rd"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def vsftpd() -> Iterator[Vsftpd]:
    yield from running(Vsftpd())


@pytest.fixture(scope="module")
def pyftpd() -> Iterator[PyFtpd]:
    yield from running(PyFtpd())


def new_root(server: FTPServer) -> Path:
    root = server.root / f"root {next(_numbers)}"
    root.mkdir()
    root.chmod(0o777)
    return root


def uri_of(server: FTPServer, root: Path, address: str | None = None, scheme: str = "ftp") -> str:
    path = root.name.replace(" ", "%20")
    return f"{scheme}://{server.user}:{server.password}@{address or server.address}/{path}"


class _FTP(ArtifactRepositoryTests):
    storage: ClassVar[str] = "FTP, FTPS"
    directories = True
    __test__ = False

    @pytest.fixture
    def ftpd(self) -> FTPServer:
        raise NotImplementedError

    @pytest.fixture
    def root(self, ftpd: FTPServer) -> Path:
        return new_root(ftpd)

    @pytest.fixture
    def artifact_uri(self, ftpd: FTPServer, root: Path) -> str:
        return uri_of(ftpd, root)

    @pytest.fixture
    def raw(self, ftpd: FTPServer, root: Path) -> RawStorage:
        return RawOpenDirectory(root)

    @pytest.fixture
    def proxy(self, ftpd: FTPServer) -> Iterator[FaultProxy]:
        """Of the control connection; the server names the ports of the others itself."""
        with FaultProxy(ftpd.address, http=False) as proxy:
            yield proxy

    @pytest.fixture
    def proxied(self, ftpd: FTPServer, root: Path, proxy: FaultProxy) -> Place:
        return Place(uri_of(ftpd, root, proxy.address))

    @pytest.fixture
    def wrong_credentials(self, artifact_uri: str) -> Place:
        return Place(artifact_uri, {"password": "wrong"})

    def reset(self, proxy: FaultProxy) -> Any:
        fault = super().reset(proxy)
        # Commands are short.
        fault.after = 400
        return fault


class RawOpenDirectory(RawDirectory):
    """A directory in which another user writes too."""

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data)
        for directory in (self._root / path).relative_to(self._root).parents:
            (self._root / directory).chmod(0o777)


class TestVsftpd(_FTP):
    server: ClassVar[str] = "vsftpd"
    __test__ = True

    @pytest.fixture
    def ftpd(self, vsftpd: Vsftpd) -> FTPServer:
        return vsftpd


class TestPyftpdlib(_FTP):
    server: ClassVar[str] = "pyftpdlib"
    __test__ = True

    @pytest.fixture
    def ftpd(self, pyftpd: PyFtpd) -> FTPServer:
        return pyftpd


@pytest.fixture(scope="module")
def vsftpd_tls(
    private_authority: PrivateAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vsftpd]:
    certificate = private_authority.certificate_file(tmp_path_factory.mktemp("ftps") / "server.pem")
    yield from running(Vsftpd(certificate))


class TestVsftpdTLS(_FTP):
    server: ClassVar[str] = "vsftpd, TLS"
    __test__ = True

    @pytest.fixture
    def ftpd(self, vsftpd_tls: Vsftpd) -> FTPServer:
        return vsftpd_tls

    @pytest.fixture(autouse=True)
    def trusted(self, private_authority: PrivateAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(private_authority.bundle))

    @pytest.fixture
    def artifact_uri(self, ftpd: FTPServer, root: Path) -> str:
        return uri_of(ftpd, root, scheme="ftps")

    @pytest.fixture
    def proxied(self, ftpd: FTPServer, root: Path, proxy: FaultProxy) -> Place:
        return Place(uri_of(ftpd, root, proxy.address, scheme="ftps"))


async def works(uri: str, **options: Any) -> None:
    async with ArtifactRepository(uri, transfer=QUICK, **options) as repository:
        await repository.write_bytes("d/x", b"content")
        assert await repository.read_bytes("d/x") == b"content"
        assert [entry.path for entry in await repository.list_artifacts("d")] == ["d/x"]


# URIs


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("ftp:///path", "names no host"),
        ("ftp:host/path", "write ftp://"),
        ("ftp://user@/path", "a user and no host"),
        ("ftp://@host/path", "no user before it"),
        (f"ftp://u:{QUOTED}@h:22x/p", "not a number"),
        ("ftp://host:99999/path", "not a number"),
        ("ftp://host/a/../b", "'..'"),
        ("ftp://host/a%2Fb", "decodes to a slash"),
        ("ftps://host/%2e%2e", "'..'"),
        ("ftp://host/a%0d%0aDELE%20x", "line break"),
        ("ftp://host%0d%0aDELE/a", "cannot|not|names|reach|line break"),
        ("ftp://u%0d%0aDELE:p@host/a", "line break"),
    ],
)
async def test_uris_that_are_no_root(uri: str, reason: str) -> None:
    with pytest.raises(AsyncStoreError, match=reason) as refusal:
        async with ArtifactRepository(uri, transfer=QUICK) as repository:
            await repository.exists("x")
    assert "S3CR3T" not in str(refusal.value)


async def test_a_line_break_in_a_name_is_no_command(pyftpd: PyFtpd) -> None:
    async with ArtifactRepository(uri_of(pyftpd, new_root(pyftpd))) as repository:
        await repository.write_bytes("kept", b"")
        for name in ("x\r\nDELE kept", "x\ny"):
            with pytest.raises(InvalidParameterError, match="line break"):
                await repository.write_bytes(name, b"")
        assert await repository.exists("kept")


async def test_an_option_that_nobody_has(pyftpd: PyFtpd) -> None:
    with pytest.raises(InvalidParameterError, match="no_such_option"):
        await works(uri_of(pyftpd, new_root(pyftpd)), storage_options={"no_such_option": 1})


async def test_a_user_whose_parts_are_escaped() -> None:
    server = PyFtpd()
    server.user, server.password = "ada@lab", SECRET
    require(server)
    with server:
        root = new_root(server)
        address = f"{server.address}/{root.name.replace(' ', '%20')}"
        await works(f"ftp://ada%40lab:{QUOTED}@{address}")
        assert (root / "d" / "x").exists()


# Secrets


async def test_no_secret_in_any_word(pyftpd: PyFtpd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    uri = f"ftp://nobody:{QUOTED}@{pyftpd.address}/x"
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        backend = repository._state()[0]
        words = [repr(repository), repr(backend), repr(backend._server)]  # type: ignore[attr-defined]
        with pytest.raises(UnauthenticatedError) as refusal:
            await repository.read_bytes("x")
        words += [str(refusal.value), repr(refusal.value), str(refusal.value.__cause__)]
    text = "\n".join(words) + caplog.text
    assert SECRET not in text
    assert QUOTED not in text
    warnings = [r for r in caplog.records if r.name == ftp_client.LOGGER.name]
    assert [r.levelno for r in warnings] == [logging.WARNING]
    await ArtifactRepository(uri).open()
    assert len([r for r in caplog.records if r.name == ftp_client.LOGGER.name]) == 1


# TLS


@pytest.fixture
def certificate(private_authority: PrivateAuthority, tmp_path: Path) -> Path:
    return private_authority.certificate_file(tmp_path / "server.pem")


@pytest.mark.parametrize("kind", [Vsftpd, PyFtpd])
async def test_tls(
    kind: type[FTPServer],
    certificate: Path,
    private_authority: PrivateAuthority,
    tmp_path: Path,
    large: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificate.chmod(0o644)
    server = kind(certificate)
    require(server)
    with server:
        root = new_root(server)
        uri = uri_of(server, root, scheme="ftps")
        context = ssl.create_default_context(cafile=str(private_authority.bundle))
        async with ArtifactRepository(
            uri, storage_options={"ssl_context": context}, transfer=QUICK
        ) as repository:
            await repository.log_artifact(large)
            local = await repository.download_artifacts(large.name, tmp_path / "down")
            assert (
                Path(local).read_bytes() == large.read_bytes() == (root / large.name).read_bytes()
            )
            await repository.delete_artifacts()
            assert await repository.list_artifacts() == []
        with pytest.raises(AsyncStoreError, match="SSL_CERT_FILE"):
            await works(uri)
        with pytest.raises(AsyncStoreError):
            await works(uri.replace("ftps:", "ftp:"))
    assert server.password not in caplog.text


# Connections


def _sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


async def test_a_bounded_pool_serves_many_files_and_closing_leaves_nothing(
    vsftpd: Vsftpd, tmp_path: Path
) -> None:
    for number in range(1000):
        (tmp_path / "up" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "up" / str(number)).write_bytes(b"%d" % number)
    root = new_root(vsftpd)
    before = _sockets(), len(asyncio.all_tasks())
    with FaultProxy(vsftpd.address, http=False) as proxy:
        async with ArtifactRepository(uri_of(vsftpd, root, proxy.address)) as repository:
            await repository.log_artifacts(tmp_path / "up")
            await repository.download_artifacts(None, tmp_path / "down")
            assert 1 < proxy.connections_opened <= ftp.CONNECTIONS
        with anyio.fail_after(10):
            while proxy.connections:
                await anyio.sleep(0.01)
    assert len(asyncio.all_tasks()) == before[1]
    with anyio.fail_after(10):
        while _sockets() > before[0]:
            await anyio.sleep(0.01)
    assert len(list((tmp_path / "down").iterdir())) == 1000


@pytest.mark.parametrize("kind", [Vsftpd, PyFtpd])
async def test_a_server_that_takes_few_connections(kind: type[FTPServer], tmp_path: Path) -> None:
    server = kind(most=3)
    require(server)
    for number in range(60):
        (tmp_path / "up" / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / "up" / str(number)).write_bytes(b"%d" % number)
    with server:
        root = new_root(server)
        async with ArtifactRepository(uri_of(server, root)) as repository:
            await repository.log_artifacts(tmp_path / "up")
        assert len(list(root.iterdir())) == 60


@pytest.mark.parametrize("kind", [Vsftpd, PyFtpd])
async def test_it_comes_back_with_the_server(kind: type[FTPServer]) -> None:
    server = kind()
    require(server)
    with server:
        root = new_root(server)
        retry = RetryPolicy(attempts=3, backoff=0.01)
        async with ArtifactRepository(
            uri_of(server, root), transfer=TransferOptions(retry=retry)
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


@pytest.mark.parametrize("kind", [Vsftpd, PyFtpd])
async def test_a_session_that_has_expired(kind: type[FTPServer]) -> None:
    server = kind(idle=1)
    require(server)
    with server:
        async with ArtifactRepository(
            uri_of(server, new_root(server)), transfer=QUICK
        ) as repository:
            await repository.write_bytes("x", b"1")
            pool = repository._state()[0]._pool  # type: ignore[attr-defined]  # FTP's own
            (connection,) = [member.connection for member in pool._members]
            with anyio.fail_after(20):
                # The server says that it ends the session.
                await asyncio.to_thread(connection._ftp.sock.recv, 100)
                await asyncio.to_thread(connection._ftp.sock.recv, 100)
            assert await repository.read_bytes("x") == b"1"
            assert connection not in [member.connection for member in pool._members]


@pytest.mark.parametrize("kind", [Vsftpd, PyFtpd])
async def test_a_server_far_away(kind: type[FTPServer], large: Path, tmp_path: Path) -> None:
    server = kind(passive=DelayedFtp.passive_block())
    require(server)
    with server:
        far = DelayedFtp(server, latency=0.005)
        require(far)
        with far:
            root = new_root(server)
            uri = uri_of(server, root, far.address)
            await works(uri)
            async with ArtifactRepository(uri, transfer=QUICK) as repository:
                await repository.log_artifact(large)
                local = await repository.download_artifacts(large.name, tmp_path / "down")
            assert Path(local).read_bytes() == large.read_bytes()


async def test_a_cancellation_ends_the_thread_at_once(pyftpd: PyFtpd, large: Path) -> None:
    root = new_root(pyftpd)
    with FaultProxy(pyftpd.address, http=False) as proxy:
        async with ArtifactRepository(
            uri_of(pyftpd, root, proxy.address), transfer=QUICK
        ) as repository:
            await repository.write_bytes("x", b"1")
            # Nothing comes any more: whoever waits would wait a minute.
            proxy.bytes_per_second = 1
            task = asyncio.ensure_future(repository.read_bytes("x"))
            await asyncio.sleep(0.2)
            before = threading.active_count()
            task.cancel()
            with anyio.fail_after(20), pytest.raises(asyncio.CancelledError):
                await task
            assert threading.active_count() <= before
            proxy.bytes_per_second = None
            assert await repository.read_bytes("x") == b"1"


async def test_a_large_file_goes_on_where_it_broke_off(
    pyftpd: PyFtpd, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_root(pyftpd)
    begin, send = ftp_client.Connection.begin_store, ftp_client.Connection.send
    offsets: list[int] = []

    def counting(connection: ftp_client.Connection, path: str, *, resume: bool) -> int:
        offsets.append(begin(connection, path, resume=resume))
        return offsets[-1]

    def breaking(
        connection: ftp_client.Connection, source: OpenFile, offset: int, size: int
    ) -> None:
        if offset and len(offsets) < 3:
            connection.hang_up()
        send(connection, source, offset, size)

    monkeypatch.setattr(ftp_client.Connection, "begin_store", counting)
    monkeypatch.setattr(ftp_client.Connection, "send", breaking)
    async with ArtifactRepository(uri_of(pyftpd, root), transfer=QUICK) as repository:
        await repository.log_artifact(large)
    assert len(offsets) == 3
    assert offsets[0] == 0
    assert min(offsets[1:]) > 0
    assert (root / large.name).read_bytes() == large.read_bytes()
    assert [entry.name for entry in root.iterdir()] == [large.name]


async def test_parts_are_written_in_order_and_may_be_repeated(pyftpd: PyFtpd) -> None:
    root = new_root(pyftpd)
    backend = await open_backend(uri_of(pyftpd, root))
    upload = await backend.start_upload("d/x", ContentType(None, None))
    for part, data in ((Part(1, 0, 3), b"abc"), (Part(2, 3, 2), b"--"), (Part(2, 3, 2), b"de")):
        await upload.upload_part(part, data)
    await upload.complete()
    assert (root / "d" / "x").read_bytes() == b"abcde"
    left = await backend.start_upload("d/y", ContentType(None, None))
    await left.upload_part(Part(1, 0, 3), b"abc")
    await left.abort()
    assert [entry.name for entry in (root / "d").iterdir()] == ["x"]
    await backend.aclose()


async def test_a_large_file_comes_by_ranges_where_a_variable_says_so(
    vsftpd: Vsftpd, large: Path, tmp_path: Path
) -> None:
    root = new_root(vsftpd)
    (root / "x").write_bytes(large.read_bytes())
    for options, most in ((QUICK, 7), (TransferOptions(), 1)):
        with FaultProxy(vsftpd.address, http=False) as proxy:
            async with ArtifactRepository(
                uri_of(vsftpd, root, proxy.address), transfer=options
            ) as repository:
                local = await repository.download_artifacts("x", tmp_path / str(most))
            assert (proxy.connections_opened > 1) == (most > 1)
            assert proxy.connections_opened <= most
        assert Path(local).read_bytes() == large.read_bytes()
