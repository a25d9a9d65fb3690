"""What every test server shares: a directory, free ports, processes that end with the tests."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HOST = "127.0.0.1"
# Below the range from which the kernel draws ports of outgoing connections: none takes ours.
_PORTS = range(20_000, 32_000)
# Test sessions that run at the same time start at different places, this far apart.
_port_numbers = itertools.count(os.getpid() * 40)
_START_ATTEMPTS = 3


class ServerError(RuntimeError):
    """A server did not start, or stopped by itself; the message ends with its log."""


class Server(ABC):
    """A real server: `start()` it, use it, `stop()` it; or use it in a `with` block.

    Subclasses say how to install the software, whether it is there, and how to boot it.
    """

    name: ClassVar[str]
    install_hint: ClassVar[str]

    def __init__(self) -> None:
        self._directory: Path | None = None
        self.processes: list[Process] = []

    @classmethod
    @abstractmethod
    def available(cls) -> bool:
        """Whether the software is installed."""

    @abstractmethod
    def boot(self) -> None:
        """Start the server in `directory` and return when it answers.

        Raises:
            ServerError: it did not come up; `start` tries again with a new directory and new ports.
        """

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise ServerError(f"{self.name} is not running")
        return self._directory

    def start(self) -> None:
        """Boot in a new directory; again with other ports when another process took one first."""
        for attempt in range(_START_ATTEMPTS):
            self._directory = Path(tempfile.mkdtemp(prefix=f"asyncstore-{self.name}-"))
            _reaper.watch_directory(self._directory)
            # Servers that drop root's rights need to pass through.
            self._directory.chmod(0o711)
            try:
                self.boot()
            except BaseException as error:
                self.stop()
                if not isinstance(error, ServerError) or attempt == _START_ATTEMPTS - 1:
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop every process, last started first, and remove the directory; idempotent."""
        while self.processes:
            self.processes.pop().stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def spawn(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Process:
        """Start a process of this server, its output in a log file in `directory`.

        Args:
            arguments: The program and its arguments.
            user: The user to run as; None means ours.
            env: The whole environment; None means ours.
            stop_signal: What asks it to stop.
        """
        log = self.directory / f"{Path(arguments[0]).name}-{len(self.processes)}.log"
        process = Process(arguments, log, user=user, env=env, stop_signal=stop_signal)
        self.processes.append(process)
        return process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Process:
    """A child and its group, killed by `stop()` or when this interpreter ends."""

    def __init__(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        log: Path,
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                env=env,
                # The directory of the tests may be closed to `user`.
                cwd=log.parent,
                start_new_session=True,
            )
        _reaper.watch_process(self._popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the process to end by itself; returns its exit status."""
        return self._popen.wait(timeout)

    def stop(self, stop_signal: signal.Signals | None = None, timeout: float = 10.0) -> None:
        """Ask the process to end, kill its whole group after `timeout` seconds, and wait for it."""
        if self._popen.poll() is None:
            self._popen.send_signal(stop_signal or self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout)
        kill_group(self._popen.pid)
        self._popen.wait()
        _reaper.forget_process(self._popen.pid)

    def fail(self, message: str) -> ServerError:
        """An error with `message` and the end of the log."""
        tail = self.log.read_text(errors="replace")[-3000:]
        return ServerError(f"{message}\n{tail}")

    def wait_until(self, ready: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        """Poll `ready` until it holds.

        Raises:
            ServerError: the process ended, or `timeout` seconds passed, first.
        """
        deadline = time.monotonic() + timeout
        while not ready() or not self.running:
            if not self.running:
                raise self.fail(f"{what}: the process ended with status {self._popen.returncode}")
            if time.monotonic() > deadline:
                raise self.fail(f"{what}: not after {timeout:g} s")
            time.sleep(0.02)

    def wait_for_port(self, port: int, timeout: float = 60.0) -> None:
        """Wait until something accepts connections on `port` of loopback."""
        self.wait_until(lambda: accepts_connections(port), f"waiting for port {port}", timeout)


def free_port() -> int:
    """A loopback port on which nobody listens at this moment."""
    for number in itertools.islice(_port_numbers, 200):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as probe:
            # As servers do: a port whose old connections are still winding down is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerError("no free port found")


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that `pid` leads."""
    # macOS answers EPERM for a group of zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class _Reaper:
    """Ends servers and removes their directories when this interpreter dies, by whatever signal.

    A small child process reads what to clean from a pipe; the pipe ends when we do.
    """

    def __init__(self) -> None:
        self._pipe: IO[bytes] | None = None

    def watch_process(self, pid: int) -> None:
        self._tell(f"+ {pid}")

    def forget_process(self, pid: int) -> None:
        self._tell(f"- {pid}")

    def watch_directory(self, directory: Path) -> None:
        self._tell(f"d {directory}")

    def _tell(self, line: str) -> None:
        if self._pipe is None:
            reaper = subprocess.Popen(
                [sys.executable, "-S", Path(__file__).with_name("reaper.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # Ctrl-C goes to the terminal's whole group; this one has to survive it.
                start_new_session=True,
            )
            # Dropping the Popen object would warn that the child still runs, which is its purpose.
            reaper.returncode = 0
            self._pipe = reaper.stdin
            assert self._pipe is not None
            atexit.register(self._pipe.close)
        self._pipe.write(f"{line}\n".encode())
        self._pipe.flush()


_reaper = _Reaper()
