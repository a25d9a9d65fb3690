"""HDFS by pyarrow: Hadoop's own client in a JVM of this process, for where hdfs-native is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow.fs
from fsspec.implementations.arrow import ArrowFSWrapper

from asyncstore.backends.hdfs_protocol import PIECE, Status
from asyncstore.backends.hdfs_uris import Cluster
from asyncstore.errors import MissingDependencyError

__all__ = ["ArrowClient", "ArrowReader", "ArrowWriter", "connect"]

# The scheduler alone repeats; and what is cached would be closed for others in this process.
PROPERTIES = {
    "ipc.client.connect.max.retries": "0",
    "ipc.client.connect.max.retries.on.timeouts": "0",
    "dfs.client.failover.max.attempts": "{retries}",
    "fs.hdfs.impl.disable.cache": "true",
    "fs.viewfs.impl.disable.cache": "true",
}


def connect(cluster: Cluster) -> ArrowClient:
    """Start a JVM where there is none yet, and make a client in it.

    Args:
        cluster: Where to, and as whom.

    Raises:
        MissingDependencyError: There is no libhdfs, or no Java.
    """
    properties = {
        name: value.format(retries=cluster.retries) for name, value in PROPERTIES.items()
    } | dict(cluster.properties)
    try:
        fs = pyarrow.fs.HadoopFileSystem(
            host=f"{cluster.scheme}://{cluster.host}",
            port=cluster.port or 0,
            user=cluster.user,
            kerb_ticket=cluster.ticket_cache,
            extra_conf=properties,
        )
    except OSError as error:
        if "load lib" not in str(error):
            raise
        raise MissingDependencyError(
            "hdfs: pyarrow finds no libhdfs or no Java; install hdfs-native instead (pip install "
            "'asyncstore[hdfs]'), or set JAVA_HOME, ARROW_LIBHDFS_DIR and CLASSPATH as pyarrow's "
            "document on HDFS says"
        ) from error
    return ArrowClient(fs)


class ArrowClient:
    """pyarrow's filesystem. The JVM stays as long as the process.

    Args:
        fs: A `HadoopFileSystem`.
    """

    def __init__(self, fs: Any) -> None:
        self.fs = ArrowFSWrapper(fs, skip_instance_cache=True)
        self._hadoop = fs

    def status(self, path: str) -> Status:
        """One call."""
        found = self._hadoop.get_file_info(path)
        if found.type == pyarrow.fs.FileType.NotFound:
            raise FileNotFoundError(path)
        return _status(found)

    def list(self, path: str) -> Iterator[Status]:
        """One call, whatever the number of names."""
        if self.status(path).is_dir:
            yield from map(_status, self._hadoop.get_file_info(pyarrow.fs.FileSelector(path)))

    def open(self, path: str) -> ArrowReader:
        """One call."""
        return ArrowReader(self._hadoop.open_input_file(path))

    def create(self, path: str) -> ArrowWriter:
        """One call."""
        return ArrowWriter(self._hadoop.open_output_stream(path, buffer_size=0))

    def make_directory(self, path: str) -> None:
        """One call."""
        self._hadoop.create_dir(path, recursive=True)

    def rename(self, path: str, to: str) -> None:
        """libhdfs cannot replace: where there is a file, for a moment there is none."""
        source, destination = (found.type for found in self._hadoop.get_file_info([path, to]))
        if source == pyarrow.fs.FileType.NotFound:
            raise FileNotFoundError(path)
        if destination == pyarrow.fs.FileType.Directory:
            raise IsADirectoryError(to)
        if destination == pyarrow.fs.FileType.File:
            self._hadoop.delete_file(to)
        self._hadoop.move(path, to)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """One call."""
        delete = self._hadoop.delete_dir if recursive else self._hadoop.delete_file
        with contextlib.suppress(FileNotFoundError):
            delete(path)


class ArrowReader:
    """An open file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    @property
    def size(self) -> int:
        """Bytes."""
        size: int = self._file.size()
        return size

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """One call for each."""
        for offset in range(start, end, PIECE):
            piece: bytes = self._file.read_at(min(PIECE, end - offset), offset)
            if not piece:
                return
            yield piece

    def close(self) -> None:
        """Close it."""
        self._file.close()


class ArrowWriter:
    """A file that is being written."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes | memoryview) -> None:
        """One call."""
        self._file.write(data)

    def close(self) -> None:
        """One call."""
        self._file.close()

    def abandon(self) -> None:
        """Close it, so that its lease and its thread in the JVM end."""
        with contextlib.suppress(OSError):
            self._file.close()


def _status(found: Any) -> Status:
    is_dir = found.type == pyarrow.fs.FileType.Directory
    return Status(found.path, is_dir, found.size or 0, (found.mtime_ns or 0) // 1_000_000)
