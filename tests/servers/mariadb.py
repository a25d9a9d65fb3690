"""A throw-away MariaDB server."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tests.servers.base import HOST, Process, Server, ServerError, accepts_connections, free_port

if TYPE_CHECKING:
    from pathlib import Path

_USER = "tester"
_PASSWORD = "open-sesame"
_MAX_CONNECTIONS = 200


@dataclass(frozen=True)
class ServerTls:
    """What a server needs to speak TLS; clients of it must show a certificate of the same CA.

    Args:
        ca: The authority's certificate, a PEM file, as are the others.
        certificate: The server's own.
        key: Its key.
    """

    ca: Path
    certificate: Path
    key: Path


class MariaDB(Server):
    """MariaDB with the settings it comes with; what commits is on the disk.

    Args:
        tls: Speak TLS, and let nobody in over TCP without a client certificate; None: no TLS.
    """

    name: ClassVar[str] = "mariadb"
    install_hint: ClassVar[str] = "apt-get install mariadb-server (macOS: brew install mariadb)"

    def __init__(self, tls: ServerTls | None = None) -> None:
        super().__init__()
        self.port = 0
        self._tls = tls
        self._databases = itertools.count(1)
        self._server: Process | None = None

    @classmethod
    def available(cls) -> bool:
        return all(map(_program, ("mariadbd", "mariadb-install-db", "mariadb")))

    def boot(self) -> None:
        self.port = free_port()
        data = self.directory / "data"
        data.mkdir(mode=0o700)
        user = _unprivileged_user()
        if user:
            shutil.chown(data, user, user)
        install = self.spawn(
            [
                _need("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
                *([f"--user={user}"] if user else []),
            ]
        )
        if install.wait() != 0:
            raise install.fail("mariadb-install-db failed")
        self.restart()
        demand = "REQUIRE X509" if self._tls else ""
        for place in (HOST, "localhost"):
            self.query(f"CREATE USER {_USER}@'{place}' IDENTIFIED BY '{_PASSWORD}' {demand}")
            self.query(f"GRANT ALL ON `test\\_%`.* TO {_USER}@'{place}'")

    @property
    def host(self) -> str:
        return f"{HOST}:{self.port}"

    def uri(self, database: str) -> str:
        return f"mysql://{_USER}:{_PASSWORD}@{self.host}/{database}"

    def create_database(self) -> str:
        """Create a database and return its URI, `mysql://user:password@127.0.0.1:port/name`."""
        database = f"test_{next(self._databases)}"
        # What MySQL 8 and Debian give by default, and MLflow 3.18 needs.
        self.query(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
        return self.uri(database)

    def drop_database(self, uri: str) -> None:
        """Drop the database of `create_database`'s URI."""
        self.disconnect_clients(uri)
        self.query(f"DROP DATABASE IF EXISTS {uri.rpartition('/')[2]}")

    def connection_count(self, database: str) -> int:
        """How many clients are connected to a database, given by its name or URI."""
        return len(self._clients(database))

    def disconnect_clients(self, database: str) -> None:
        """Terminate every connection to a database, as an administrator would."""
        for client in self._clients(database):
            # One that is gone by itself meanwhile is no error here.
            self._client(f"KILL CONNECTION {client}")

    def _clients(self, database: str) -> list[str]:
        name = database.rpartition("/")[2]
        return self.query(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
        ).split()

    def query(self, statement: str, database: str = "mysql") -> str:
        """Run one SQL statement as root and return its rows as text, fields divided by tabs."""
        result = self._client(statement, database)
        if result.returncode != 0:
            raise ServerError(f"mariadb: {statement}: {result.stderr}")
        return result.stdout.strip()

    def _client(self, statement: str, database: str = "mysql") -> subprocess.CompletedProcess[str]:
        arguments = ["--no-defaults", "--user=root", f"--socket={self._socket}", "-NB", "-e"]
        return subprocess.run(
            [_need("mariadb"), *arguments, statement, database],
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def _socket(self) -> Path:
        # In a directory of the server's user, and with a path as short as sockets want it.
        return self.directory / "data" / "s"

    def kill(self) -> None:
        """Take the server down as a crash would: clients are cut off, the next start recovers."""
        if self._server is not None:
            self._server.stop(signal.SIGKILL)
            self.processes.remove(self._server)
            self._server = None

    def restart(self) -> None:
        """Start on the same port with the same data; stop in an orderly way first if it runs."""
        if self._server is not None:
            self._server.stop(timeout=30)
            self.processes.remove(self._server)
        user = _unprivileged_user()
        self._server = self.spawn(
            [
                _need("mariadbd"),
                "--no-defaults",
                *([f"--user={user}"] if user else []),
                f"--datadir={self.directory / 'data'}",
                f"--socket={self._socket}",
                f"--pid-file={self.directory / 'data' / 'pid'}",
                f"--bind-address={HOST}",
                f"--port={self.port}",
                f"--max-connections={_MAX_CONNECTIONS}",
                *self._tls_arguments(),
            ]
        )
        self._server.wait_until(self._answers, "waiting for MariaDB")

    def _tls_arguments(self) -> list[str]:
        if self._tls is None:
            return []
        return [
            f"--ssl-ca={self._tls.ca}",
            f"--ssl-cert={self._tls.certificate}",
            f"--ssl-key={self._tls.key}",
        ]

    def stop(self) -> None:
        super().stop()
        self._server = None

    def _answers(self) -> bool:
        return accepts_connections(self.port) and self._client("SELECT 1").returncode == 0


def _unprivileged_user() -> str | None:
    # As root, the server wants to be told whom to become.
    return "mysql" if os.geteuid() == 0 else None


def _program(name: str) -> str | None:
    # Debian keeps servers where an ordinary user's PATH does not look.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which(name, path=path)


def _need(name: str) -> str:
    program = _program(name)
    if program is None:
        raise ServerError(f"MariaDB is not installed: {MariaDB.install_hint}")
    return program
