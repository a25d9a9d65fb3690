"""What the cases share: servers that start when first asked for, files, and databases to copy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from benchmarks import metadata
from tests.servers.asyncstore_server import AsyncstoreServer
from tests.servers.base import Server, free_port
from tests.servers.mariadb import MariaDB
from tests.servers.mlflow_server import MlflowServer
from tests.servers.postgresql import PostgreSQL
from tests.servers.radosgw import RadosGateway

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

ServerT = TypeVar("ServerT", bound=Server)
TrackingServer = AsyncstoreServer | MlflowServer
ROOT = Path(__file__).parents[1]
ONE_WAY_MS = 10.0
MLFLOW_POOL = {
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "40",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "40",
}
SMALL_SIZE = 10 * 1024


class DelayProxy(Server):
    """The fault proxy in a process of its own, with latency and nothing else."""

    name: ClassVar[str] = "delay-proxy"
    install_hint: ClassVar[str] = "pip install asyncstore"

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target
        self.url = ""

    @classmethod
    def available(cls) -> bool:
        return True

    def boot(self) -> None:
        port = free_port()
        self.spawn(
            [
                *(sys.executable, "-m", "asyncstore.testing.fault_proxy", self._target),
                *("--port", str(port), "--latency-ms", str(ONE_WAY_MS), "--raw"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).wait_for_port(port)
        self.url = f"http://127.0.0.1:{port}"


class Lab:
    """Everything of one run of the benchmarks, in a directory that it removes."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.small_count = 100 if quick else 1000
        self.large_size = 2**26 if quick else 2**30
        self.artifact_size = 2**25 if quick else 2**29
        self.metric_count = 100 if quick else 1000
        self.run_count = 10_000 if quick else 100_000
        self.point_count = 10_000 if quick else 100_000
        self.long_count = 100_000 if quick else 1_000_000
        self.trace_count = 2_000 if quick else 20_000
        self.places: dict[str, Any] = {}
        self._templates: dict[str, str] = {}
        self._servers: dict[str, TrackingServer] = {}
        self._stack = contextlib.ExitStack()
        self._numbers = iter(range(10**9))

    def __enter__(self) -> Self:
        self.directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="asyncstore-bench-"))
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def new_name(self) -> str:
        return f"measurement-{next(self._numbers)}"

    def environment(self, variables: dict[str, str]) -> dict[str, str]:
        """That of a measured process: ours without any key or setting, and `variables`."""
        personal = ("AWS_", "AZURE_", "GOOGLE_", "HADOOP_", "MLFLOW_", "SSH_", "STORAGE_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(personal)}
        return {**kept, "AWS_EC2_METADATA_DISABLED": "true", **variables}

    @contextlib.contextmanager
    def acting_as(self, variables: Mapping[str, str]) -> Iterator[None]:
        """For what this process does with a storage itself: its environment, and these."""
        before = dict(os.environ)
        os.environ.update(variables)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    # Servers

    @cached_property
    def radosgw(self) -> RadosGateway:
        return self.start(RadosGateway())

    @cached_property
    def delayed(self) -> DelayProxy:
        return self.start(DelayProxy(self.radosgw.address))

    @cached_property
    def postgresql(self) -> PostgreSQL:
        return self.start(PostgreSQL())

    @cached_property
    def mariadb(self) -> MariaDB:
        return self.start(MariaDB())

    def start(self, server: ServerT) -> ServerT:
        """Run a server until the end of the benchmarks."""
        if not server.available():
            raise SystemExit(f"{server.name} is not installed: {server.install_hint}")
        self._stack.enter_context(server)
        return server

    def tracking_server(self, kind: str, database: str) -> tuple[str, list[int]]:
        """A tracking server on a filled database, which all kinds share.

        Args:
            kind: `asyncstore` and `mlflow_1` have one worker, `mlflow` its default ones;
                `asyncstore-s3` keeps artifacts in S3 that is 20 ms away.
            database: Such as `sqlite`.

        Returns:
            Its URL, and the ids of its processes.
        """
        key = f"{kind} on {database}"
        if key not in self._servers:
            store = self.filled_database(database)
            root = self.directory / "proxied"
            options = ["--backend-store-uri", store, "--artifacts-destination", str(root)]
            if kind == "asyncstore-s3":
                variables = self.radosgw.environment | {"MLFLOW_S3_ENDPOINT_URL": self.delayed.url}
                variables["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] = "true"
                options[-1] = f"s3://{self.bucket}/proxied"
                server: TrackingServer = AsyncstoreServer(*options, environment=variables)
            elif kind == "asyncstore":
                server = AsyncstoreServer(*options, environment={})
            else:
                options[1] = store.replace("postgresql:", "postgresql+psycopg2:")
                workers = () if kind == "mlflow_1" else ("--workers", "4")
                # With its own pool of 15, MLflow's threads wait for each other's connections.
                server = MlflowServer(*options, *workers, environment=MLFLOW_POOL)
            self._servers[key] = self.start(server)
        server = self._servers[key]
        return server.url, _family(server.processes[0].pid)

    # Files

    @cached_property
    def small_files(self) -> Path:
        """A directory of 10 directories of random files of 10 KiB."""
        root = self.directory / "small"
        for number in range(self.small_count):
            file = root / f"part-{number % 10}" / f"file-{number:04}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(SMALL_SIZE))
        return root

    @cached_property
    def large_file(self) -> Path:
        """One file of random bytes."""
        return self._random_file("large", self.large_size)

    @cached_property
    def artifact_file(self) -> Path:
        """One file of random bytes, for every storage."""
        return self._random_file("artifact", self.artifact_size)

    def _random_file(self, name: str, size: int) -> Path:
        path = self.directory / name / f"{name}.bin"
        path.parent.mkdir()
        with path.open("wb") as file:
            for _ in range(size // 2**20):
                file.write(os.urandom(2**20))
        return path

    @cached_property
    def warm_file(self) -> Path:
        path = self.directory / "warm" / "warm.bin"
        path.parent.mkdir()
        path.write_bytes(b"warm")
        return path

    # Buckets

    @cached_property
    def bucket(self) -> str:
        """Holds what is downloaded (`small`, `large`, `warm`), and the uploads."""
        return self.radosgw.create_bucket()

    @cached_property
    def uploaded(self) -> set[str]:
        """Which of the directories above are in the bucket."""
        return set()

    def upload(self, root: Path) -> str:
        """Put a directory into the bucket once; returns its prefix."""
        if root.name not in self.uploaded:
            for file in sorted(root.rglob("*")):
                if file.is_file():
                    key = f"{root.name}/{file.relative_to(root).as_posix()}"
                    # One at a time and in one piece, as no peer does it.
                    with file.open("rb") as body:
                        self.radosgw.client.put_object(Bucket=self.bucket, Key=key, Body=body)
            self.uploaded.add(root.name)
        return root.name

    # Databases

    def mlflow_database(self, kind: str) -> str:
        """A database of a kind, such as `sqlite`, that MLflow made and nobody has used."""
        if kind not in self._templates:
            if kind == "sqlite":
                uri = f"sqlite:///{self.directory / 'template.db'}"
            else:
                server = self.mariadb if kind == "mariadb" else self.postgresql
                uri = server.create_database()
            task = {"uri": uri, "artifacts": str(self.directory / "artifacts")}
            peer = "benchmarks.metric_peers:make_database"
            subprocess.run(
                [sys.executable, "-m", "benchmarks.child", peer, json.dumps(task)],
                check=True,
                capture_output=True,
                cwd=ROOT,
                env=self.environment({}),
            )
            self._templates[kind] = uri
        return self._templates[kind]

    def filled_database(self, kind: str) -> str:
        """A database that `metadata.fill` filled, for all measurements to share."""
        name = f"{kind}-filled"
        if name not in self._templates:
            template = self.mlflow_database(kind)
            uri = template if kind == "mariadb" else self.copy_of(template)
            metadata.fill(self, kind, uri)
            self._templates[name] = uri
        return self._templates[name]

    def copy_of(self, template: str) -> str:
        """A new database, SQLite or PostgreSQL, with what is in `template`."""
        if template.startswith("sqlite"):
            path = self.directory / f"{self.new_name()}.db"
            shutil.copyfile(template.removeprefix("sqlite:///"), path)
            return f"sqlite:///{path}"
        return self.postgresql.create_database(template)

    def drop(self, uri: str) -> None:
        """Drop what `copy_of` returned; the files of SQLite go with the directory."""
        if not uri.startswith("sqlite"):
            self.postgresql.drop_database(uri)


def _family(process: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in _family(int(child)))]
