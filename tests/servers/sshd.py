"""OpenSSH's server, SFTP only."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from tests.servers.base import HOST, Process, Server, free_port

_PROGRAM = "/usr/sbin/sshd"
_CONFIGURATION = """\
ListenAddress {host}:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
Subsystem sftp internal-sftp {sftp_options}
"""


class SSHD(Server):
    """sshd for the user who runs the tests; `key` logs in, and `known_hosts` knows it.

    `password_user` adds a system user with a password, which only root can.

    Args:
        sftp_options: Of its SFTP part, such as `-P posix-rename` to be without a request.
    """

    name: ClassVar[str] = "sshd"
    install_hint: ClassVar[str] = "apt-get install openssh-server"

    def __init__(self, sftp_options: str = "") -> None:
        super().__init__()
        self._sftp_options = sftp_options
        self.user = getpass.getuser()
        self._password_user: tuple[str, str] | None = None

    @classmethod
    def available(cls) -> bool:
        return Path(_PROGRAM).exists() and shutil.which("ssh-keygen") is not None

    def boot(self) -> None:
        if os.geteuid() == 0:
            # Where it drops its rights to; distributions make it when the service starts.
            Path("/run/sshd").mkdir(exist_ok=True)
        self.port = free_port()
        self.key = self.new_key("key")
        self.new_key("host_key")
        self.authorize(self.key)
        self.known_hosts = self.directory / "known_hosts"
        public = (self.directory / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {public}")
        (self.directory / "sshd_config").write_text(
            _CONFIGURATION.format(
                host=HOST,
                port=self.port,
                directory=self.directory,
                sftp_options=self._sftp_options,
            )
        )
        self.run()

    def run(self) -> Process:
        """Start it, also after it was stopped, on the same port."""
        process = self.spawn([_PROGRAM, "-D", "-e", "-f", str(self.directory / "sshd_config")])
        process.wait_for_port(self.port)
        return process

    def halt(self) -> None:
        """Stop it with all its sessions; `run` starts it again."""
        _, *sessions = self._pids()
        self.processes.pop().stop()
        for pid in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def open_files(self, below: Path) -> int:
        """How many files below a directory the sessions of its clients have open."""
        count = 0
        for pid in self._pids():
            with suppress(OSError):
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        count += descriptor.readlink().is_relative_to(below)
        return count

    def _pids(self) -> list[int]:
        """The server and its sessions, each of them several processes in groups of their own."""
        pids = [self.processes[-1].pid]
        for pid in pids:
            with suppress(OSError):
                pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return pids

    def new_key(self, name: str, passphrase: str = "", kind: str = "ed25519") -> Path:
        """A key in the server's directory, and its public part beside it."""
        path = self.directory / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path

    def authorize(self, key: Path) -> None:
        """Let a key log in."""
        with (self.directory / "authorized_keys").open("a") as file:
            file.write(key.with_name(f"{key.name}.pub").read_text())

    def password_user(self) -> tuple[str, str]:
        """A system user and its password, made when first asked for; root only."""
        if self._password_user is None:
            name, password = f"asyncstore{secrets.token_hex(4)}", secrets.token_urlsafe(16)
            home = self.directory / name
            subprocess.run(["useradd", "-m", "-d", str(home), "-s", "/bin/sh", name], check=True)
            self._password_user = name, password
            subprocess.run(["chpasswd"], input=f"{name}:{password}", text=True, check=True)
        return self._password_user

    def stop(self) -> None:
        super().stop()
        if self._password_user is not None:
            subprocess.run(["userdel", self._password_user[0]], check=True)
            self._password_user = None
