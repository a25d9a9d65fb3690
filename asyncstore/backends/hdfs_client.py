"""HDFS by hdfs-native: Hadoop's protocols in Rust, without a JVM.

Its synchronous face, in worker threads. The asyncio face of 0.14 is not used: dropping a client
there waits for the library's threads with the interpreter's lock held, which one of them may be
waiting for (the process hangs), and it panics where it has to wait between two attempts.
"""

from __future__ import annotations

from collections.abc import Iterator

import hdfs_native
import hdfs_native.fsspec

from asyncstore.backends.hdfs_protocol import PIECE, Status
from asyncstore.backends.hdfs_uris import Cluster
from asyncstore.errors import InvalidParameterError

__all__ = ["NativeClient", "NativeReader", "NativeWriter", "connect"]

PERMISSION = 0o755
OPTIONS = hdfs_native.WriteOptions(overwrite=False, create_parent=True)


def connect(cluster: Cluster) -> NativeClient:
    """Make the library's client; it connects when something is asked for.

    Args:
        cluster: Where to, and as whom.

    Raises:
        InvalidParameterError: There is a ticket cache, and nobody whose tickets they are.
    """
    if cluster.ticket_cache and not cluster.user:
        raise InvalidParameterError(
            "MLFLOW_KERBEROS_TICKET_CACHE needs MLFLOW_KERBEROS_USER: hdfs-native takes a ticket "
            "cache only together with the principal"
        )
    # The scheduler alone repeats: the library would wait between attempts, for minutes. It asks the
    # other NameNodes of a name service without waiting.
    properties = {"dfs.client.failover.max.attempts": str(cluster.retries), **cluster.properties}
    kinds = {
        "hdfs": hdfs_native.fsspec.HdfsFileSystem,
        "viewfs": hdfs_native.fsspec.ViewfsFileSystem,
    }
    fs = kinds[cluster.scheme](cluster.host, cluster.port, skip_instance_cache=True, **properties)
    # Its constructor has no place for Kerberos.
    fs.client = hdfs_native.Client(
        cluster.url,
        properties,
        kerberos_principal=cluster.user,
        kerberos_cache=cluster.ticket_cache,
    )
    return NativeClient(fs)


class NativeClient:
    """hdfs-native's client.

    Args:
        fs: The library's fsspec filesystem, which has it.
    """

    def __init__(self, fs: hdfs_native.fsspec.BaseFileSystem) -> None:
        self.fs = fs
        self._client = fs.client

    def status(self, path: str) -> Status:
        """One request."""
        return _status(self._client.get_file_info(path))

    def list(self, path: str) -> Iterator[Status]:
        """As many requests as the NameNode makes of it."""
        return map(_status, self._client.list_status(path))

    def open(self, path: str) -> NativeReader:
        """Where the blocks are, in one request."""
        return NativeReader(self._client.read(path))

    def create(self, path: str) -> NativeWriter:
        """One request."""
        return NativeWriter(self._client.create(path, OPTIONS))

    def make_directory(self, path: str) -> None:
        """One request."""
        self._client.mkdirs(path, PERMISSION, create_parent=True)

    def rename(self, path: str, to: str) -> None:
        """One request, and no moment without a file."""
        self._client.rename(path, to, overwrite=True)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """One request."""
        self._client.delete(path, recursive)


class NativeReader:
    """A file's blocks."""

    def __init__(self, reader: hdfs_native.FileReader) -> None:
        self._reader = reader

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._reader)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Several packets of the DataNode each, as one request for all asks for."""
        held: list[bytes] = []
        size = 0
        for packet in self._reader.read_range_stream(start, end - start):
            if held and size + len(packet) > PIECE:
                yield b"".join(held)
                held, size = [], 0
            held.append(packet)
            size += len(packet)
        if held:
            yield b"".join(held)

    def close(self) -> None:
        """Connections to DataNodes go with the objects."""


class NativeWriter:
    """A file that is being written."""

    def __init__(self, writer: hdfs_native.FileWriter) -> None:
        self._writer = writer

    def write(self, data: bytes | memoryview) -> None:
        """As `bytes`: the library takes any other buffer byte by byte."""
        self._writer.write(bytes(data))

    def close(self) -> None:
        """Where the NameNode has not heard of the last block yet, the library waits for 0.5 s."""
        self._writer.close()

    def abandon(self) -> None:
        """It goes with the object."""


def _status(found: hdfs_native.FileStatus) -> Status:
    return Status(found.path, found.isdir, found.length, found.modification_time)
