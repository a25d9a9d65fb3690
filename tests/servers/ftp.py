"""FTP servers: vsftpd, which does not know MLSD, and pyftpdlib, which does."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import secrets
import signal
import socket
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
_PASSIVE = """\
pasv_min_port={first}
pasv_max_port={last}
"""
_TLS = """\
ssl_enable=YES
rsa_cert_file={certificate}
rsa_private_key_file={certificate}
force_local_logins_ssl=YES
force_local_data_ssl=YES
require_ssl_reuse=YES
ssl_ciphers=HIGH
"""
_PYFTPDLIB = """\
import itertools, sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer
port, root, user, password, certificate, idle, most, first, last = sys.argv[1:]
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
class InTurn(list):
    # Two threads that draw the same port at once would both bind it, and one fails to listen.
    turn = itertools.count()
    def __iter__(self):
        first = next(self.turn) * 4 % len(self)
        return iter(self[first : first + 4])
if int(last):
    handler.passive_ports = InTurn(range(int(first), int(last) + 1))
server = ThreadedFTPServer(("127.0.0.1", int(port)), handler)
server.max_cons_per_ip = int(most)
server.serve_forever()
"""
# Clients ignore the address that the answer to PASV names, and connect to that of the control
# connection: so the relays have the server's ports, on another address.
_DELAYED = """\
import asyncio, sys
from asyncstore.testing.fault_proxy import FaultProxy
from asyncstore.testing.relay import Relay
async def main(latency, source, target, ports):
    loop = asyncio.get_running_loop()
    for port in map(int, ports):
        proxy = FaultProxy(f"{target}:{port}", latency=float(latency), http=False, record=False)
        await loop.create_server(lambda proxy=proxy: Relay(proxy).client, source, port)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:4], sys.argv[4:]))
"""
# Neither those of other servers nor those of outgoing connections.
_PASSIVE_PORTS = range(61_000, 65_500)
_PASSIVE_COUNT = 100
_passive_numbers = itertools.count(os.getpid())


class FTPServer(Server):
    """What both share: `root` is what a client sees as `/`.

    Args:
        certificate: A PEM file with key and certificate: then TLS is asked of everybody.
        idle: Seconds after which an idle session ends.
        most: Most connections of one client; 0 for no limit.
        passive: Ports of data connections; None for any.
    """

    def __init__(
        self,
        certificate: Path | None = None,
        idle: int = 300,
        most: int = 0,
        passive: range | None = None,
    ) -> None:
        super().__init__()
        self.passive = passive
        self._most = most
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

    @classmethod
    def available(cls) -> bool:
        return importlib.util.find_spec("pyftpdlib") is not None

    def run(self) -> Process:
        first, last = (self.passive[0], self.passive[-1]) if self.passive else (0, 0)
        process = self.spawn(
            [
                *(sys.executable, "-W", "ignore", "-c", _PYFTPDLIB, str(self.port)),
                *(str(self.root), self.user, self.password, str(self._certificate or "")),
                *map(str, (self._idle, self._most, first, last)),
            ]
        )
        process.wait_for_port(self.port)
        return process


class Vsftpd(FTPServer):
    """vsftpd, with a system user for the time of the tests; root only."""

    name: ClassVar[str] = "vsftpd"
    install_hint: ClassVar[str] = "apt-get install vsftpd, and run the tests as root"

    def __init__(
        self,
        certificate: Path | None = None,
        idle: int = 300,
        most: int = 0,
        passive: range | None = None,
    ) -> None:
        super().__init__(certificate, idle, most, passive)
        self.user = f"asyncstore{secrets.token_hex(4)}"
        self._pam = Path("/etc/pam.d") / self.user

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
        if self.passive:
            text += _PASSIVE.format(first=self.passive[0], last=self.passive[-1])
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


class DelayedFtp(Server):
    """Relays in front of an FTP server, to which bytes take their time, on data connections too.

    Args:
        server: Running, with the ports of `passive_block`.
        latency: Seconds each way.
    """

    name: ClassVar[str] = "delayed-ftp"
    install_hint: ClassVar[str] = "needs the loopback address 127.0.0.2, as Linux has it"
    host: ClassVar[str] = "127.0.0.2"

    def __init__(self, server: FTPServer, latency: float = 0.010) -> None:
        super().__init__()
        self._server = server
        self._latency = latency

    @classmethod
    def available(cls) -> bool:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((cls.host, 0))
            return True
        return False

    @staticmethod
    def passive_block() -> range:
        """Ports for the data connections of one server."""
        blocks = len(_PASSIVE_PORTS) // _PASSIVE_COUNT
        first = _PASSIVE_PORTS[next(_passive_numbers) % blocks * _PASSIVE_COUNT]
        return range(first, first + _PASSIVE_COUNT)

    @property
    def address(self) -> str:
        return f"{self.host}:{self._server.port}"

    def boot(self) -> None:
        if self._server.passive is None:
            raise ValueError("the server takes any port for its data connections")
        # The control connection's last: when it accepts, all do.
        ports = [*self._server.passive, self._server.port]
        process = self.spawn(
            [
                *(sys.executable, "-c", _DELAYED, str(self._latency), self.host, HOST),
                *map(str, ports),
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

        def ready() -> bool:
            try:
                socket.create_connection((self.host, self._server.port), timeout=1).close()
            except OSError:
                return False
            return True

        process.wait_until(ready, f"waiting for {self.address}")
