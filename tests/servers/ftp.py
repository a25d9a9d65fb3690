"""FTP servers: vsftpd, which does not know MLSD, and pyftpdlib, which does."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from tests.servers.base import HOST, Process, Server, free_port

_VSFTPD = "/usr/sbin/vsftpd"
_CONFIGURATION = """\
listen=YES
listen_address={host}
listen_port={port}
background=NO
anonymous_enable=NO
local_enable=YES
write_enable=YES
local_umask=022
chroot_local_user=YES
allow_writeable_chroot=YES
local_root={root}
seccomp_sandbox=NO
pam_service_name={pam}
utf8_filesystem=YES
secure_chroot_dir={empty}
xferlog_enable=NO
delay_failed_login=0
idle_session_timeout={idle}
max_per_ip={most}
"""
_TLS = """\
ssl_enable=YES
rsa_cert_file={certificate}
rsa_private_key_file={certificate}
force_local_logins_ssl=YES
force_local_data_ssl=YES
require_ssl_reuse=NO
ssl_ciphers=HIGH
"""
# Passive ports that nobody else takes, one block for each server of this process.
_PYFTPDLIB = """\
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer
port, root, user, password, certificate, idle, ports = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user(user, password, root, perm="elradfmwMT")
handler = FTPHandler
if certificate:
    handler = TLS_FTPHandler
    handler.certfile = certificate
    handler.tls_control_required = handler.tls_data_required = True
handler.authorizer = authorizer
handler.timeout = int(idle)
handler.auth_failed_timeout = 0.05
if ports:
    first, last = map(int, ports.split("-"))
    handler.passive_ports = range(first, last)
server = ThreadedFTPServer(("127.0.0.1", int(port)), handler)
server.max_cons_per_ip = 0
server.serve_forever()
"""


class FTPServer(Server):
    """What both share: `root` is what a client sees as `/`.

    Args:
        certificate: A PEM file with key and certificate: then TLS is asked of everybody.
        idle: Seconds after which an idle session ends.
    """

    def __init__(self, certificate: Path | None = None, idle: int = 300) -> None:
        super().__init__()
        self.user = "lab"
        self.password = secrets.token_urlsafe(12)
        self._certificate = certificate
        self._idle = idle

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def boot(self) -> None:
        self.port = free_port()
        self.root.mkdir()
        self.prepare()
        self.run()

    def prepare(self) -> None:
        """What is needed once."""

    def run(self) -> Process:
        """Start it, also after it was stopped, on the same port."""
        raise NotImplementedError

    def halt(self) -> None:
        """Stop it with all its sessions; `run` starts it again."""
        process = self.processes.pop()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.stop()
        for child in children:
            # vsftpd gives each session a process in a group of its own.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


class PyFtpd(FTPServer):
    """pyftpdlib, a thread for each session."""

    name: ClassVar[str] = "pyftpdlib"
    install_hint: ClassVar[str] = "pip install pyftpdlib"
    passive_ports = ""

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec("pyftpdlib") is not None

    def run(self) -> Process:
        process = self.spawn(
            [
                *(sys.executable, "-W", "ignore", "-c", _PYFTPDLIB, str(self.port)),
                *(str(self.root), self.user, self.password, str(self._certificate or "")),
                *(str(self._idle), self.passive_ports),
            ]
        )
        process.wait_for_port(self.port)
        return process


class Vsftpd(FTPServer):
    """vsftpd, with a system user for the time of the tests; root only.

    Args:
        most: Most connections of one client.
    """

    name: ClassVar[str] = "vsftpd"
    install_hint: ClassVar[str] = "apt-get install vsftpd, and run the tests as root"

    def __init__(self, certificate: Path | None = None, idle: int = 300, most: int = 0) -> None:
        super().__init__(certificate, idle)
        self.user = f"asyncstore{secrets.token_hex(4)}"
        self._pam = Path("/etc/pam.d") / self.user
        self._most = most

    @classmethod
    def available(cls) -> bool:
        return Path(_VSFTPD).exists() and os.geteuid() == 0

    def prepare(self) -> None:
        command = ["useradd", "-M", "-d", str(self.root), "-s", "/bin/sh", self.user]
        subprocess.run(command, check=True)
        line = f"{self.user}:{self.password}"
        subprocess.run(["chpasswd"], input=line, text=True, check=True)
        subprocess.run(["chown", self.user, str(self.root)], check=True)
        self._pam.write_text("auth required pam_unix.so nodelay\naccount required pam_permit.so\n")
        (self.directory / "empty").mkdir()
        text = _CONFIGURATION.format(
            host=HOST,
            port=self.port,
            root=self.root,
            pam=self._pam.name,
            empty=self.directory / "empty",
            idle=self._idle,
            most=self._most,
        )
        if self._certificate is not None:
            text += _TLS.format(certificate=self._certificate)
        (self.directory / "vsftpd.conf").write_text(text)

    def run(self) -> Process:
        process = self.spawn([_VSFTPD, str(self.directory / "vsftpd.conf")])
        process.wait_for_port(self.port)
        return process

    def stop(self) -> None:
        super().stop()
        if self._pam.exists():
            self._pam.unlink()
            subprocess.run(["userdel", self.user], check=False, capture_output=True)
