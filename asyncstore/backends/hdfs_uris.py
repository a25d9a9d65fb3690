"""Which file system of Hadoop a URI names, and with which configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

from asyncstore import settings, uris
from asyncstore.errors import InvalidParameterError

__all__ = ["Cluster", "check_name", "parse", "read_configuration"]

FORM = "hdfs://host:port/path, or hdfs:///path for the default NameNode"
NAMENODE_PORT = 8020
_PROPERTY = re.compile(
    r"<property>.*?<name>\s*(.*?)\s*</name>.*?<value>\s*(.*?)\s*</value>", re.DOTALL
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Cluster:
    """A file system of Hadoop, and who asks.

    Args:
        scheme: `hdfs` or `viewfs`.
        host: A NameNode, a name service, or a mount table.
        port: None for a name service and a mount table.
        user: Kerberos principal; None takes the library's own.
        ticket_cache: Path of a Kerberos ticket cache; None takes the library's own.
        properties: What goes above the configuration files.
        retries: How many other NameNodes the library may ask before it would have to wait.
    """

    scheme: str
    host: str
    port: int | None
    user: str | None = None
    ticket_cache: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0

    @property
    def url(self) -> str:
        """As the libraries take it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


def parse(
    uri: str, storage_options: Mapping[str, Any], configuration: Mapping[str, str]
) -> tuple[Cluster, str]:
    """Take a URI apart.

    Args:
        uri: `hdfs://host:port/path`, `hdfs://service/path`, `hdfs:/path`, `hdfs:///path` or
            `viewfs://table/path`. Paths are taken as they stand: Hadoop decodes no escapes.
        storage_options: Hadoop's properties, and `user` and `kerb_ticket` as pyarrow names them.
        configuration: What `read_configuration` returned.

    Returns:
        The file system, and the absolute path in it.

    Raises:
        InvalidParameterError: The URI, an option or a variable is not acceptable, or there is no
            default NameNode.
    """
    location, root = _location(uri)
    options = dict(storage_options)
    user = options.pop("user", None) or settings.MLFLOW_KERBEROS_USER.get()
    ticket_cache = options.pop("kerb_ticket", None) or settings.MLFLOW_KERBEROS_TICKET_CACHE.get()
    properties = settings.MLFLOW_PYARROW_EXTRA_CONF.get() | {
        name: _text(name, value) for name, value in options.items()
    }
    known = {**configuration, **properties}
    if not location.host:
        location = _default(uri, known)
    host, port = location.host, location.port
    services = {
        name.removeprefix("dfs.ha.namenodes."): len(value.split(","))
        for name, value in known.items()
        if name.startswith("dfs.ha.namenodes.")
    }
    if location.scheme == "hdfs" and port is None and host not in services:
        port = NAMENODE_PORT
    asked = max(services.values(), default=1) if location.scheme == "viewfs" else services.get(host)
    retries = 0 if port else (asked or 1) - 1
    cluster = Cluster(location.scheme, host, port, user, ticket_cache, properties, retries)
    return cluster, root


def _location(uri: str) -> tuple[uris.Location, str]:
    shown = uris.redact(uri)
    scheme = uris.scheme_of(uri)
    rest = uri[len(scheme) + 1 :]
    if not rest.startswith("/") or rest == "//":
        raise InvalidParameterError(f"{shown}: write {FORM}")
    if not rest.startswith("//"):
        rest = f"//{rest}"
    location = uris.parse_location(f"{scheme}:{rest}", FORM, decode_path=False)
    if location.user is not None:
        raise InvalidParameterError(
            f"{shown}: HDFS takes no user from a URI; set MLFLOW_KERBEROS_USER, or "
            "HADOOP_USER_NAME where there is no Kerberos"
        )
    if scheme == "viewfs" and (not location.host or location.port):
        raise InvalidParameterError(f"{shown}: write viewfs://mount-table/path")
    names = [name for name in location.path.split("/") if name not in ("", ".")]
    for name in names:
        check_name(name, shown)
    return location, "/" + "/".join(names)


def check_name(name: str, shown: str) -> None:
    """Refuse a name that HDFS cannot have.

    Args:
        name: A file or directory, or a whole path.
        shown: What to call it in the error.

    Raises:
        InvalidParameterError: It has a colon.
    """
    if ":" in name:
        raise InvalidParameterError(f"{shown}: HDFS has no names with a colon")


def _default(uri: str, known: Mapping[str, str]) -> uris.Location:
    shown = uris.redact(uri)
    default = known.get("fs.defaultFS") or known.get("fs.default.name")
    if default is None:
        raise InvalidParameterError(
            f"{shown} names no NameNode and there is no default one: write hdfs://host:port/path, "
            "or let HADOOP_CONF_DIR name a directory whose core-site.xml has fs.defaultFS"
        )
    if uris.scheme_of(default) not in ("hdfs", "viewfs") or not default.partition("://")[2]:
        raise InvalidParameterError(
            f"{shown} names no NameNode, and fs.defaultFS, {uris.redact(default)}, is none"
        )
    return _location(default)[0]


def _text(name: str, value: object) -> str:
    if "." not in name:
        raise InvalidParameterError(
            f"storage_options: {name!r} is none; they are user, kerb_ticket and Hadoop's "
            "properties, such as dfs.replication"
        )
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int)):
        raise InvalidParameterError(f"storage_options: {name} takes text, not {value!r}")
    return str(value)


def read_configuration() -> dict[str, str]:
    """What Hadoop's configuration files say, to find the way; the libraries read them themselves.

    Blocks.

    Raises:
        InvalidParameterError: A file cannot be read.
    """
    directory = settings.HADOOP_CONF_DIR.get()
    if directory is None and (home := settings.HADOOP_HOME.get()):
        directory = f"{home}/etc/hadoop"
    properties: dict[str, str] = {}
    if directory is None:
        return properties
    for name in ("core-site.xml", "hdfs-site.xml"):
        try:
            text = Path(directory, name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameterError(f"HADOOP_CONF_DIR: {name}: {error}") from error
        for key, value in _PROPERTY.findall(_COMMENT.sub("", text)):
            properties[unescape(key)] = unescape(value)
    return properties
