"""A throw-away PostgreSQL cluster."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from tests.servers.base import HOST, Process, Server, ServerError, free_port

_USER = "tester"
_PASSWORD = "open-sesame"
# A bigger number than any test suite needs at once; PostgreSQL's own default is 100.
_MAX_CONNECTIONS = 200


class PostgreSQL(Server):
    """PostgreSQL with fsync on, as it is in production: what commits costs what it costs there."""

    name: ClassVar[str] = "postgresql"
    install_hint: ClassVar[str] = "apt-get install postgresql (macOS: brew install postgresql)"

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._databases = itertools.count(1)
        self._postmaster: Process | None = None

    @classmethod
    def available(cls) -> bool:
        return _bin_directory() is not None

    def boot(self) -> None:
        self.port = free_port()
        data, password = self.directory / "data", self.directory / "password"
        data.mkdir(mode=0o700)
        password.write_text(_PASSWORD)
        if user := _unprivileged_user():
            shutil.chown(data, user, user)
            shutil.chown(password, user, user)
        initdb = self.spawn(
            [
                _program("initdb"),
                "--no-sync",
                f"--pgdata={data}",
                f"--username={_USER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                f"--locale={'en_US.UTF-8' if sys.platform == 'darwin' else 'C.UTF-8'}",
            ],
            user=user,
        )
        if initdb.wait() != 0:
            raise initdb.fail("initdb failed")
        self.restart()

    @property
    def host(self) -> str:
        return f"{HOST}:{self.port}"

    def uri(self, database: str) -> str:
        return f"postgresql://{_USER}:{_PASSWORD}@{self.host}/{database}"

    def create_database(self, template: str | None = None) -> str:
        """Create a database and return its URI, `postgresql://user:password@127.0.0.1:port/name`.

        Args:
            template: The URI of a database to copy, to which nobody is connected; None: empty.
        """
        database = f"test_{next(self._databases)}"
        source = template.rpartition("/")[2] if template else "template1"
        self.query(f"CREATE DATABASE {database} TEMPLATE {source}")
        return self.uri(database)

    def drop_database(self, uri: str) -> None:
        """Drop the database of `create_database`'s URI, also while clients are connected to it."""
        self.query(f"DROP DATABASE IF EXISTS {uri.rpartition('/')[2]} WITH (FORCE)")

    def connection_count(self, database: str) -> int:
        """How many clients are connected to a database, given by its name or URI."""
        name = database.rpartition("/")[2]
        return int(self.query(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"))

    def disconnect_clients(self, database: str) -> None:
        """Terminate every connection to a database, as an administrator would."""
        name = database.rpartition("/")[2]
        self.query(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )

    def query(self, statement: str, database: str = "postgres") -> str:
        """Run one SQL statement with psql and return its rows as text, fields divided by `|`."""
        result = subprocess.run(
            [
                _program("psql"),
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
                self.uri(database),
            ],
            capture_output=True,
            text=True,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            check=False,
        )
        if result.returncode != 0:
            raise ServerError(f"psql: {statement}: {result.stderr}")
        return result.stdout.strip()

    def kill(self) -> None:
        """Take the server down as a crash would: clients are cut off, the next start recovers."""
        if self._postmaster is not None:
            self._postmaster.stop(signal.SIGQUIT)
            self.processes.remove(self._postmaster)
            self._postmaster = None

    def restart(self) -> None:
        """Start on the same port with the same data; stop in an orderly way first if it runs."""
        if self._postmaster is not None:
            self._postmaster.stop()
            self.processes.remove(self._postmaster)
        self._postmaster = self.spawn(
            [
                _program("postgres"),
                "-D",
                self.directory / "data",
                "-p",
                str(self.port),
                "-c",
                f"listen_addresses={HOST}",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=on",
                "-c",
                f"max_connections={_MAX_CONNECTIONS}",
            ],
            user=_unprivileged_user(),
            # "Fast": open transactions are rolled back, clients are told.
            stop_signal=signal.SIGINT,
        )
        self._postmaster.wait_until(self._answers, "waiting for PostgreSQL")

    def stop(self) -> None:
        super().stop()
        self._postmaster = None

    def _answers(self) -> bool:
        probe = [str(_program("pg_isready")), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(probe, check=False).returncode == 0


def _unprivileged_user() -> str | None:
    # PostgreSQL refuses to run as root.
    return "postgres" if os.geteuid() == 0 else None


def _program(name: str) -> Path:
    directory = _bin_directory()
    if directory is None:
        raise ServerError(f"PostgreSQL is not installed: {PostgreSQL.install_hint}")
    return directory / name


def _bin_directory() -> Path | None:
    """The newest PostgreSQL: Debian's and Homebrew's places first, then PATH."""
    candidates = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *Path("/opt/homebrew/opt").glob("postgresql*/bin"),
        *Path("/usr/local/opt").glob("postgresql*/bin"),
    ]
    installed = [
        path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()
    ]
    if installed:
        return max(installed, key=_version)
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _version(bin_directory: Path) -> int:
    digits = re.findall(r"\d+", bin_directory.parent.name)
    return int(digits[-1]) if digits else 0
