"""Hadoop's NameNode and DataNode."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from xml.sax.saxutils import escape

from tests.servers.base import HOST, Process, Server, ServerError, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
INSTALLED = _CACHE / "asyncstore-servers" / "hadoop-2.7.3"
# Hadoop 2.7 is from the time of Java 8; it looks into classes that newer ones keep closed.
_OPENED = ("lang", "lang.reflect", "util", "net", "nio")
_OPTIONS = [
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED),
    *(
        f"--add-opens=java.base/{name}=ALL-UNNAMED"
        for name in ("sun.nio.ch", "jdk.internal.ref", "jdk.internal.misc")
    ),
    # Two small machines for a short time: start fast, take little.
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData"),
    "-Djava.net.preferIPv4Stack=true",
]
_LOG = """\
log4j.rootLogger=INFO,A
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.target=System.err
log4j.appender.A.layout=org.apache.log4j.PatternLayout
log4j.appender.A.layout.ConversionPattern=%d %p %c: %m%n
"""
_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


class HDFS(Server):
    """A NameNode at `port` and one DataNode; nobody's rights are checked.

    `configuration` is a directory as HADOOP_CONF_DIR names it.
    """

    name: ClassVar[str] = "hdfs"
    install_hint: ClassVar[str] = (
        "apt-get install openjdk-17-jdk-headless; scripts/install_hadoop.sh"
    )

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        """Prepare a server.

        Args:
            properties: More of hdfs-site.xml.
        """
        super().__init__()
        self._properties = dict(properties or {})
        self._namenode: Process | None = None
        self._datanode: Process | None = None
        self._roots = itertools.count()

    @classmethod
    def available(cls) -> bool:
        return (INSTALLED / "ready").exists() and shutil.which("java") is not None

    def boot(self) -> None:
        self.port = free_port()
        self.configuration = self.directory / "conf"
        for name in ("hdfs", "datanode"):
            # The web pages of both, without which they do not start.
            web = self.directory / "web" / "webapps" / name / "WEB-INF"
            web.mkdir(parents=True)
            (web / "web.xml").write_text("<web-app></web-app>")
        (self.directory / "web" / "webapps" / "static").mkdir()
        write_site(self.configuration / "core-site.xml", {"fs.defaultFS": self.uri})
        write_site(self.configuration / "hdfs-site.xml", self._hdfs_site())
        (self.configuration / "log4j.properties").write_text(_LOG)
        formatting = subprocess.run(
            [*self._java, _NAMENODE, "-format", "-nonInteractive"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if formatting.returncode:
            raise ServerError(f"format: {formatting.stderr.decode(errors='replace')[-3000:]}")
        self.run()

    def _hdfs_site(self) -> dict[str, str]:
        ports = {
            "dfs.namenode.http-address": free_port(),
            "dfs.datanode.address": free_port(),
            "dfs.datanode.http.address": free_port(),
            "dfs.datanode.ipc.address": free_port(),
        }
        return {
            "hadoop.tmp.dir": f"{self.directory}/tmp",
            "dfs.namenode.name.dir": f"{self.directory}/namenode",
            "dfs.datanode.data.dir": f"{self.directory}/datanode",
            "dfs.replication": "1",
            "dfs.permissions.enabled": "false",
            "dfs.webhdfs.enabled": "false",
            "dfs.datanode.hostname": HOST,
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.safemode.extension": "0",
            # A DataNode that lost its NameNode asks again after this many seconds.
            "dfs.heartbeat.interval": "1",
            "dfs.datanode.du.reserved": "0",
            **{name: f"{HOST}:{port}" for name, port in ports.items()},
            **self._properties,
        }

    @property
    def _java(self) -> list[str]:
        path = f"{self.configuration}:{self.directory}/web:{INSTALLED}/jars/*"
        home = f"-Dhadoop.home.dir={self.directory}"
        return ["java", *_OPTIONS, "-Xmx256m", home, "-cp", path]

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HADOOP_HOME": str(self.directory), "HADOOP_USER_NAME": "hdfs"}

    def run(self) -> None:
        """Start both, and return when the NameNode lets files be written."""
        self.run_namenode()
        self._datanode = self.spawn([*self._java, _DATANODE], env=self._environment)
        self._datanode.wait_until(self._takes_files, "waiting for the DataNode")

    def run_namenode(self) -> None:
        """Start the NameNode, also after `halt_namenode`, on the same port."""
        self._namenode = self.spawn([*self._java, _NAMENODE], env=self._environment)
        self._namenode.wait_for_port(self.port)

    def halt_namenode(self) -> None:
        """Stop the NameNode; the DataNode goes on looking for it."""
        assert self._namenode is not None
        self.processes.remove(self._namenode)
        self._namenode.stop()

    def _takes_files(self) -> bool:
        from hdfs_native import Client, WriteOptions

        try:
            with Client(self.uri).create("/ready", WriteOptions(overwrite=True)) as file:
                file.write(b"x")
        except (OSError, RuntimeError):
            return False
        return True

    @property
    def uri(self) -> str:
        return f"hdfs://{HOST}:{self.port}"

    @property
    def arrow_environment(self) -> dict[str, str]:
        """What pyarrow's HadoopFileSystem and its JVM read from the environment."""
        java = shutil.which("java")
        assert java is not None
        jars = sorted((INSTALLED / "jars").glob("*.jar"))
        return {
            "JAVA_HOME": str(Path(java).resolve().parent.parent),
            "ARROW_LIBHDFS_DIR": str(INSTALLED),
            "CLASSPATH": ":".join(map(str, [self.configuration, *jars])),
            "HADOOP_CONF_DIR": str(self.configuration),
            "LIBHDFS_OPTS": " ".join([*_OPTIONS, "-Xmx256m"]),
        }


def write_site(file: Path, properties: Mapping[str, Any]) -> None:
    """Write a configuration file as Hadoop reads it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        f"<property><name>{escape(name)}</name><value>{escape(str(value))}</value></property>"
        for name, value in properties.items()
    )
    file.write_text("\n".join(["<configuration>", *lines, "</configuration>"]))
