"""The storages: a server, how to reach it, and with what else a person would."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncstore import ArtifactRepository
from benchmarks.lab import ONE_WAY_MS, DelayProxy
from tests.servers.azurite import Azurite
from tests.servers.base import HOST
from tests.servers.ftp import DelayedFtp, PyFtpd
from tests.servers.gcs import GcsEmulator
from tests.servers.hdfs import HDFS
from tests.servers.http import WebServer
from tests.servers.sshd import SSHD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.lab import Lab

ONE_WAY = ONE_WAY_MS / 1000


@dataclass(frozen=True)
class Place:
    """A root on a running server.

    Attributes:
        uri: The root.
        variables: Of the environment of who is measured.
        options: `storage_options` of asyncstore.
        mlflow: Module and class of MLflow's repository for it; None where it has none.
        remote: The same root in rclone's words; None where it cannot.
        directory: Where the files are, for a storage that is read only.
    """

    uri: str
    variables: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] | None = None
    mlflow: str | None = None
    remote: str | None = None
    directory: Path | None = None

    async def put(self, source: Path, prefix: str) -> None:
        """Store a directory, to be downloaded."""
        if self.directory is not None:
            await asyncio.to_thread(shutil.copytree, source, self.directory / prefix)
            return
        async with ArtifactRepository(self.uri, storage_options=self.options) as repository:
            await repository.log_artifacts(source, prefix)

    async def found(self, prefix: str) -> dict[str, int]:
        """Names and sizes of what is there."""
        async with ArtifactRepository(self.uri, storage_options=self.options) as repository:
            return {
                entry.path.removeprefix(f"{prefix}/"): entry.file_size or 0
                async for entry in repository.walk(prefix)
            }

    async def discard(self, prefix: str) -> None:
        """Delete what is there."""
        if self.directory is not None:
            await asyncio.to_thread(shutil.rmtree, self.directory / prefix)
            return
        async with ArtifactRepository(self.uri, storage_options=self.options) as repository:
            await repository.delete_artifacts(prefix)


def _local(lab: Lab) -> Place:
    root = lab.directory / "local"
    root.mkdir()
    return Place(str(root), mlflow="local_artifact_repo:LocalArtifactRepository")


def _s3(lab: Lab) -> Place:
    return Place(
        f"s3://{lab.bucket}/artifacts",
        lab.radosgw.environment,
        mlflow="s3_artifact_repo:S3ArtifactRepository",
    )


def _azure(lab: Lab) -> Place:
    server = lab.start(Azurite())
    container = server.create_container()
    endpoint = f"http://{server.address}/{server.account}"
    return Place(
        f"wasbs://{container}@{server.account}.blob.core.windows.net/artifacts",
        {"AZURE_STORAGE_CONNECTION_STRING": server.connection_string()},
        mlflow="azure_blob_artifact_repo:AzureBlobArtifactRepository",
        remote=(
            f":azureblob,account={server.account},key='{server.key}',endpoint='{endpoint}':"
            f"{container}/artifacts"
        ),
    )


def _gcs(lab: Lab) -> Place:
    server = lab.start(GcsEmulator())
    return Place(
        f"gs://{server.create_bucket()}/artifacts",
        server.environment,
        mlflow="gcs_artifact_repo:GCSArtifactRepository",
    )


def _sftp(*, delayed: bool) -> Callable[[Lab], Place]:
    def place(lab: Lab) -> Place:
        server = lab.start(SSHD())
        root = server.directory / "artifacts"
        root.mkdir()
        home = server.directory / "home"
        (home / ".ssh").mkdir(parents=True)
        port = server.port
        if delayed:
            port = int(lab.start(DelayProxy(f"{HOST}:{port}")).url.rpartition(":")[2])
        own = server.directory / "rsa_key"
        # The only kind of key that pysftp reads.
        command = ["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", str(own)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        server.authorize(own)
        key = (server.directory / "host_key.pub").read_text()
        (home / ".ssh" / "known_hosts").write_text(
            # pysftp looks for the host without its port.
            f"[{HOST}]:{port} {key}{HOST} {key}"
        )
        (home / ".ssh" / "config").write_text(f"Host {HOST}\n  IdentityFile {own}\n")
        return Place(
            f"sftp://{server.user}@{HOST}:{port}{root}",
            {"HOME": str(home)},
            {
                "client_keys": [str(server.key)],
                "known_hosts": str(home / ".ssh" / "known_hosts"),
            },
            "sftp_artifact_repo:SFTPArtifactRepository",
            f":sftp,host={HOST},port={port},user={server.user},key_file={own},disable_hashcheck=true:{root}",
        )

    return place


def _ftp(*, delayed: bool) -> Callable[[Lab], Place]:
    def place(lab: Lab) -> Place:
        server = lab.start(PyFtpd(passive=DelayedFtp.passive_block()))
        address = lab.start(DelayedFtp(server, ONE_WAY)).address if delayed else server.address
        (server.root / "artifacts").mkdir()
        return Place(
            f"ftp://{server.user}:{server.password}@{address}/artifacts",
            mlflow="ftp_artifact_repo:FTPArtifactRepository",
        )

    return place


def _hdfs(lab: Lab) -> Place:
    server = lab.start(HDFS())
    return Place(
        f"{server.uri}/artifacts",
        server.arrow_environment,
        mlflow="hdfs_artifact_repo:HdfsArtifactRepository",
    )


def _http(lab: Lab) -> Place:
    server = lab.start(WebServer())
    return Place(server.url, remote=f":http,url='{server.url}':", directory=server.files)


def _sqlite(lab: Lab) -> Place:
    return Place(f"sqlite:///{lab.directory / 'artifacts.db'}/artifacts")


def _postgresql(lab: Lab) -> Place:
    return Place(f"{lab.postgresql.create_database()}/artifacts")


@dataclass(frozen=True)
class Storage:
    """A row of the table.

    Attributes:
        place: Starts its server.
        peers: Who else moves the files.
        directions: Up and down, or one of them.
        sizes: Small files, a large one, or both.
    """

    place: Callable[[Lab], Place]
    peers: tuple[str, ...] = ("mlflow",)
    directions: tuple[str, ...] = ("up", "down")
    sizes: tuple[str, ...] = ("small", "large")


STORAGES: dict[str, Storage] = {
    "local": Storage(_local, ("mlflow", "cp")),
    "s3": Storage(_s3),
    "azure": Storage(_azure, ("mlflow", "rclone")),
    "gcs": Storage(_gcs),
    "sftp": Storage(_sftp(delayed=False), ("mlflow", "rclone")),
    "sftp-20ms": Storage(_sftp(delayed=True), sizes=("small",)),
    "ftp": Storage(_ftp(delayed=False)),
    "ftp-20ms": Storage(_ftp(delayed=True), sizes=("small",)),
    "hdfs": Storage(_hdfs),
    "sqlite": Storage(_sqlite, ()),
    "postgresql": Storage(_postgresql, ()),
    "http": Storage(_http, ("rclone",), directions=("down",)),
}


def place_of(lab: Lab, name: str) -> Place:
    """The place of a storage, started when first asked for."""
    if name not in lab.places:
        lab.places[name] = STORAGES[name].place(lab)
    place: Place = lab.places[name]
    return place
