"""Every environment variable that asyncstore knows, and the only place that reads them.

Names and meanings are MLflow's (its documents on artifact stores, backend stores and plugins, and
`mlflow.environment_variables` of MLflow 3.17) or the storage's own. `docs/settings.md` is generated
from `SETTINGS`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from asyncstore.errors import InvalidParameterError

__all__ = ["SETTINGS", "Setting", "export", "storage_environment"]

T = TypeVar("T")
MIB = 1024 * 1024
# What storages and their libraries read, beside the rest of MLflow's and asyncstore's variables.
_STORAGE_PREFIXES = (
    *("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCSFS_", "STORAGE_EMULATOR_", "SSH_", "SSL_"),
    *("HADOOP_", "KRB5", "OSS_", "OCI_", "HF_", "FSSPEC_", "ARTIFACTORY_", "MLFLOW_S3_"),
    *("MLFLOW_BOTO_", "MLFLOW_GCS_", "MLFLOW_MULTIPART_", "MLFLOW_ARTIFACT_", "MLFLOW_KERBEROS_"),
    *("MLFLOW_PYARROW_", "MLFLOW_OSS_", "MLFLOW_MYSQL_", "MLFLOW_SQLALCHEMYSTORE_"),
)
# RFC 9110, sections 5.1 and 5.5.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SCHEME_NAME = re.compile(r"[a-z][a-z0-9+.-]*")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True)
class Setting(Generic[T]):
    """One environment variable.

    Args:
        name: The variable.
        parse: Text to value; raises ValueError when the text is not acceptable.
        accepts: What `parse` accepts, in words, for the error and the documentation.
        default: The value when the variable is not set.
        unit: Unit of the value, or an empty string.
        meaning: What it does.
        applies_to: The storages or databases concerned.
        mlflow: What differs from MLflow's document or default, or an empty string.
        honoured: Whether this version acts on it; False says that its storage comes later.
        secret: Whether the value must never be shown.
    """

    name: str
    parse: Callable[[str], T]
    accepts: str
    default: T
    unit: str
    meaning: str
    applies_to: str
    mlflow: str = ""
    honoured: bool = True
    secret: bool = False

    def get(self, environ: Mapping[str, str] | None = None) -> T:
        """Read the variable.

        Args:
            environ: Where to look; None is the process environment.

        Returns:
            The parsed value, or `default` when the variable is unset or empty.

        Raises:
            InvalidParameterError: The text is not what the variable accepts.
        """
        text = (os.environ if environ is None else environ).get(self.name, "").strip()
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            shown = "its value" if self.secret else repr(text)
            raise InvalidParameterError(
                f"{self.name}: {shown} is not acceptable; it takes {self.accepts}"
            ) from (None if self.secret else error)


SETTINGS: dict[str, Setting[Any]] = {}


def _setting(
    name: str,
    kind: tuple[Callable[[str], T], str],
    default: T,
    meaning: str,
    *,
    applies_to: str,
    unit: str = "",
    mlflow: str = "",
    honoured: bool = True,
    secret: bool = False,
) -> Setting[T]:
    parse, accepts = kind
    setting = Setting(
        name, parse, accepts, default, unit, meaning, applies_to, mlflow, honoured, secret
    )
    SETTINGS[name] = setting
    return setting


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1"):
        return True
    if lowered in ("false", "0"):
        return False
    raise ValueError(text)


def _at_least(minimum: int) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        value = int(text)
        if value < minimum:
            raise ValueError(text)
        return value

    return parse


def _between(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise ValueError(text)
        return value

    return parse


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def _multiple_of_256_kib(text: str) -> int | None:
    value = int(text)
    if value <= 0 or value % (256 * 1024):
        raise ValueError(text)
    return value


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)  # noqa: TRY004  the text is at fault, as with every parser here
    return value


def _headers(text: str) -> dict[str, str]:
    headers = _json_object(text)
    for name, value in headers.items():
        # What ends a header, or is no text in one, would be another header or a broken request.
        if not _HEADER_NAME.fullmatch(name) or not isinstance(value, str):
            raise ValueError(text)
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(text)
    return headers


def _hadoop_properties(text: str) -> dict[str, str]:
    properties: dict[str, str] = {}
    for pair in text.split(","):
        name, separator, value = pair.partition("=")
        if not name.strip() or not separator:
            raise ValueError(text)
        properties[name.strip()] = value.strip()
    return properties


def _schemes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if not all(_SCHEME_NAME.fullmatch(name) for name in names):
        raise ValueError(text)
    return names


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise ValueError(text)
    return words


def _timeout(text: str) -> int | None:
    value = int(text)
    if value < 1 and value != -1:
        raise ValueError(text)
    return None if value == -1 else value


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return parse


def _optional_text(text: str) -> str | None:
    return text


TEXT = (_optional_text, "text")
BOOLEAN = (_boolean, "true, false, 1 or 0")
SIZE = (_at_least(1), "a whole number of bytes above 0")
COUNT = (_at_least(0), "a whole number, 0 or more")
SECONDS = (_at_least(-1), "a whole number of seconds; -1 means no limit")
NUMBER = (_at_least(1), "a whole number above 0")
TIMEOUT = (_timeout, "a whole number of seconds above 0; -1 means no limit")
WORDS = (_words, "texts with commas between them")
SCHEMES = (_schemes, "schemes with commas between them, such as s3,gs")
GCS_CHUNK = (_multiple_of_256_kib, "a number of bytes that is a multiple of 262144 (256 KiB)")

ANY_STORAGE = "every artifact storage"
S3 = "s3"
SQL = "every SQL database"
REQUEST_AUTH = "asyncstore's request auth provider"
RUN_CONTEXT = "tags of runs"
TRACKING_SERVER = "http"
DATABRICKS = "databricks"
SERVER = "the tracking server"
# SQLAlchemy's, by the names that MLflow takes.
POOL_CLASSES = (
    "QueuePool",
    "AsyncAdaptedQueuePool",
    "FallbackAsyncAdaptedQueuePool",
    "NullPool",
    "SingletonThreadPool",
    "StaticPool",
    "AssertionPool",
)

# Transfers

MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE = _setting(
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE",
    SIZE,
    None,
    "Files of at least this size are uploaded in parts. Unset: files larger than one part.",
    applies_to="storages with multipart upload",
    unit="bytes",
    mlflow="MLflow: 524288000, for proxied and Databricks uploads only.",
)
MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE = _setting(
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE",
    SIZE,
    None,
    "Size of an upload part. Unset: 8 MiB. Grows by itself where the file would exceed "
    "the storage's part count, and is never below the storage's smallest part (S3: 5 MiB).",
    applies_to="storages with multipart upload",
    unit="bytes",
    mlflow="MLflow 3.17: 10485760; its document says 100 MB.",
)
MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE = _setting(
    "MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE",
    SIZE,
    None,
    "Files of at least this size are downloaded by parallel ranges. Unset: files larger than "
    "one chunk.",
    applies_to="storages with ranged reads",
    unit="bytes",
    mlflow="MLflow: 524288000.",
)
MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE = _setting(
    "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE",
    SIZE,
    None,
    "Size of a range. Unset: 8 MiB.",
    applies_to="storages with ranged reads",
    unit="bytes",
    mlflow="MLflow: 104857600.",
)
MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT = _setting(
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT",
    SECONDS,
    None,
    "Deadline of one whole upload or download. Unset: no deadline of the whole; each request "
    "still has the storage library's own.",
    applies_to=ANY_STORAGE,
    unit="seconds",
    mlflow="MLflow does not apply it to S3; 600 for Azure and 60 for GCS when unset.",
)
MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR = _setting(
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
    BOOLEAN,
    True,
    "Whether the command line shows a progress bar on transfers.",
    applies_to="the command line",
)
MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD = _setting(
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD",
    BOOLEAN,
    None,
    "Multipart upload through presigned parts for artifacts that go through a tracking server; "
    "false on the server refuses it. Unset: where the server says that its storage can.",
    applies_to="mlflow-artifacts",
    mlflow="MLflow's server does not read it.",
)

MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD = _setting(
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD",
    BOOLEAN,
    None,
    "Download of ranges from the storage itself, by presigned URLs, for artifacts that go through "
    "a tracking server. Unset: where the server says that its storage can.",
    applies_to="mlflow-artifacts",
    mlflow="MLflow takes such URLs for small files too.",
)

# Amazon S3 and compatible

MLFLOW_S3_ENDPOINT_URL = _setting(
    "MLFLOW_S3_ENDPOINT_URL",
    TEXT,
    None,
    "Endpoint of an S3-compatible server. Unset: Amazon's own.",
    applies_to=S3,
)
MLFLOW_S3_IGNORE_TLS = _setting(
    "MLFLOW_S3_IGNORE_TLS",
    BOOLEAN,
    False,
    "Skip the verification of the server's certificate.",
    applies_to=S3,
)
MLFLOW_S3_UPLOAD_EXTRA_ARGS = _setting(
    "MLFLOW_S3_UPLOAD_EXTRA_ARGS",
    (_json_object, 'a JSON object, such as {"ServerSideEncryption": "aws:kms"}'),
    cast("dict[str, Any]", {}),
    "Extra arguments of every upload, named as boto3 names them.",
    applies_to=S3,
)
MLFLOW_S3_EXPECTED_BUCKET_OWNER = _setting(
    "MLFLOW_S3_EXPECTED_BUCKET_OWNER",
    TEXT,
    None,
    "Account id that must own the bucket; sent with every request.",
    applies_to=S3,
)
MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE = _setting(
    "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE",
    (_one_of("auto", "path", "virtual"), "auto, path or virtual"),
    "auto",
    "Whether the bucket is in the path or in the host name of a request.",
    applies_to=S3,
)
AWS_ACCESS_KEY_ID = _setting(
    "AWS_ACCESS_KEY_ID",
    TEXT,
    None,
    "Access key. Read by botocore, with the rest of its chain: profile, role, instance.",
    applies_to=S3,
)
AWS_SECRET_ACCESS_KEY = _setting(
    "AWS_SECRET_ACCESS_KEY",
    TEXT,
    None,
    "Secret key. Read by botocore.",
    applies_to=S3,
    secret=True,
)
AWS_SESSION_TOKEN = _setting(
    "AWS_SESSION_TOKEN",
    TEXT,
    None,
    "Token of temporary credentials. Read by botocore.",
    applies_to=S3,
    secret=True,
)
AWS_PROFILE = _setting(
    "AWS_PROFILE",
    TEXT,
    None,
    "Profile of the shared configuration files. Read by botocore.",
    applies_to=S3,
)
AWS_DEFAULT_REGION = _setting(
    "AWS_DEFAULT_REGION", TEXT, None, "Region. Read by botocore.", applies_to=S3
)
AWS_CA_BUNDLE = _setting(
    "AWS_CA_BUNDLE",
    TEXT,
    None,
    "Path of a file with the certificates to trust. Read by botocore.",
    applies_to=S3,
)

# Azure, Google Cloud Storage, HDFS, Aliyun OSS, JFrog Artifactory

AZURE_STORAGE_CONNECTION_STRING = _setting(
    "AZURE_STORAGE_CONNECTION_STRING",
    TEXT,
    None,
    "Connection string; goes before the access key.",
    applies_to="azure",
    secret=True,
)
AZURE_STORAGE_ACCESS_KEY = _setting(
    "AZURE_STORAGE_ACCESS_KEY",
    TEXT,
    None,
    "Access key; goes before DefaultAzureCredential.",
    applies_to="azure",
    secret=True,
)
MLFLOW_GCS_UPLOAD_CHUNK_SIZE = _setting(
    "MLFLOW_GCS_UPLOAD_CHUNK_SIZE",
    GCS_CHUNK,
    None,
    "Size of an upload part, above MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE, and of the chunks of a "
    "resumable upload. Unset: that variable, and 100 MiB.",
    applies_to="gcs",
    unit="bytes",
    mlflow="MLflow 3.17: unset lets Google's library choose; its document says 104857600.",
)
MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE = _setting(
    "MLFLOW_GCS_DOWNLOAD_CHUNK_SIZE",
    GCS_CHUNK,
    None,
    "Size of a range, above MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE. Unset: that variable.",
    applies_to="gcs",
    unit="bytes",
    mlflow="MLflow 3.17: unset lets Google's library choose; its document says 104857600.",
)
STORAGE_EMULATOR_HOST = _setting(
    "STORAGE_EMULATOR_HOST",
    TEXT,
    None,
    "An emulator to use instead of Google's server, http://host:port, without credentials.",
    applies_to="gcs",
)
GOOGLE_APPLICATION_CREDENTIALS = _setting(
    "GOOGLE_APPLICATION_CREDENTIALS",
    TEXT,
    None,
    "Path of a file with credentials. Read by google-auth, with the rest of its chain: gcloud's "
    "file, the metadata server.",
    applies_to="gcs",
)
MLFLOW_KERBEROS_TICKET_CACHE = _setting(
    "MLFLOW_KERBEROS_TICKET_CACHE",
    TEXT,
    None,
    "Path of the Kerberos ticket cache; needs MLFLOW_KERBEROS_USER. Unset: Kerberos's own, which "
    "KRB5CCNAME names.",
    applies_to="hdfs",
)
MLFLOW_KERBEROS_USER = _setting(
    "MLFLOW_KERBEROS_USER",
    TEXT,
    None,
    "Kerberos principal to be. Unset: the one of the ticket cache.",
    applies_to="hdfs",
)
MLFLOW_PYARROW_EXTRA_CONF = _setting(
    "MLFLOW_PYARROW_EXTRA_CONF",
    (_hadoop_properties, "Hadoop properties, name=value,name=value"),
    cast("dict[str, str]", {}),
    "Properties that go above Hadoop's configuration files.",
    applies_to="hdfs",
)
HADOOP_CONF_DIR = _setting(
    "HADOOP_CONF_DIR",
    TEXT,
    None,
    "Directory with core-site.xml and hdfs-site.xml. Unset: etc/hadoop in HADOOP_HOME.",
    applies_to="hdfs",
)
HADOOP_HOME = _setting(
    "HADOOP_HOME",
    TEXT,
    None,
    "Where Hadoop is installed.",
    applies_to="hdfs",
)
HADOOP_USER_NAME = _setting(
    "HADOOP_USER_NAME",
    TEXT,
    None,
    "User on a cluster without Kerberos. Read by hdfs-native and by Hadoop. Unset: the one who "
    "runs the process.",
    applies_to="hdfs",
)
SSH_AUTH_SOCK = _setting(
    "SSH_AUTH_SOCK",
    TEXT,
    None,
    "Socket of the SSH agent. Read by asyncssh; IdentityAgent of ssh_config goes before it.",
    applies_to="sftp",
)
MLFLOW_OSS_ENDPOINT_URL = _setting(
    "MLFLOW_OSS_ENDPOINT_URL", TEXT, None, "Endpoint.", applies_to="oss"
)
MLFLOW_OSS_KEY_ID = _setting(
    "MLFLOW_OSS_KEY_ID", TEXT, None, "Access key. Unset: anonymous.", applies_to="oss"
)
MLFLOW_OSS_KEY_SECRET = _setting(
    "MLFLOW_OSS_KEY_SECRET",
    TEXT,
    None,
    "Secret key.",
    applies_to="oss",
    secret=True,
)
ARTIFACTORY_AUTH_TOKEN = _setting(
    "ARTIFACTORY_AUTH_TOKEN",
    TEXT,
    None,
    "Token of the JFrog plugin.",
    applies_to="artifactory",
    honoured=False,
    secret=True,
)
ARTIFACTORY_NO_SSL = _setting(
    "ARTIFACTORY_NO_SSL",
    BOOLEAN,
    False,
    "Plain HTTP in the JFrog plugin.",
    applies_to="artifactory",
    honoured=False,
)
ARTIFACTORY_DEBUG = _setting(
    "ARTIFACTORY_DEBUG",
    BOOLEAN,
    False,
    "Debug log of the JFrog plugin.",
    applies_to="artifactory",
    honoured=False,
)
ARTIFACTORY_ARTIFACTS_DELETE_SKIP = _setting(
    "ARTIFACTORY_ARTIFACTS_DELETE_SKIP",
    BOOLEAN,
    False,
    "Garbage collection leaves artifacts in place.",
    applies_to="artifactory",
    honoured=False,
)

# Metadata

MLFLOW_TRACKING_URI = _setting(
    "MLFLOW_TRACKING_URI",
    TEXT,
    None,
    "Where metadata is stored. Unset: sqlite:///mlflow.db in the current directory.",
    applies_to="the metadata store",
)
MLFLOW_EXPERIMENT_ID = _setting(
    "MLFLOW_EXPERIMENT_ID",
    TEXT,
    None,
    "Experiment of a run that names none. With MLFLOW_EXPERIMENT_NAME set too, both must agree.",
    applies_to="Client.start_run",
)
MLFLOW_EXPERIMENT_NAME = _setting(
    "MLFLOW_EXPERIMENT_NAME",
    TEXT,
    None,
    "Experiment of a run that names none, made if it does not exist.",
    applies_to="Client.start_run",
)
MLFLOW_TRUNCATE_LONG_VALUES = _setting(
    "MLFLOW_TRUNCATE_LONG_VALUES",
    BOOLEAN,
    True,
    "Whether a param or tag value above its limit is cut; otherwise it is an error.",
    applies_to="the metadata store",
)
MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH = _setting(
    "MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH",
    (lambda text: int(text), "a whole number"),
    2048,
    "Longest artifact location of an experiment.",
    applies_to="the metadata store",
    unit="characters",
)
MLFLOW_SQLALCHEMYSTORE_POOL_SIZE = _setting(
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE",
    COUNT,
    None,
    "SQLAlchemy's pool_size. Unset: SQLAlchemy's default, and for SQLite 3 with no overflow.",
    applies_to=SQL,
    unit="connections",
)
MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE = _setting(
    "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE",
    SECONDS,
    None,
    "SQLAlchemy's pool_recycle. Unset: SQLAlchemy's default.",
    applies_to=SQL,
    unit="seconds",
)
MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW = _setting(
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW",
    (_at_least(-1), "a whole number; -1 means no limit"),
    None,
    "SQLAlchemy's max_overflow. Unset: SQLAlchemy's default, as for pool_size.",
    applies_to=SQL,
    unit="connections",
)
MLFLOW_SQLALCHEMYSTORE_POOLCLASS = _setting(
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS",
    (_one_of(*POOL_CLASSES), f"one of {', '.join(POOL_CLASSES)}"),
    None,
    "NullPool connects for each transaction; SingletonThreadPool, StaticPool and AssertionPool "
    "keep one connection, which calls wait for; the queue pools are the default.",
    applies_to=SQL,
    mlflow="AssertionPool raises there when a second connection is asked for",
)
MLFLOW_SQLALCHEMYSTORE_ECHO = _setting(
    "MLFLOW_SQLALCHEMYSTORE_ECHO",
    BOOLEAN,
    False,
    "Whether SQLAlchemy logs every statement.",
    applies_to=SQL,
)
MLFLOW_MYSQL_SSL_CA = _setting(
    "MLFLOW_MYSQL_SSL_CA",
    TEXT,
    None,
    "Path of the CA certificate; goes before `ssl_ca` of the URI, as the others before theirs.",
    applies_to="mysql",
)
MLFLOW_MYSQL_SSL_CERT = _setting(
    "MLFLOW_MYSQL_SSL_CERT",
    TEXT,
    None,
    "Path of the client certificate.",
    applies_to="mysql",
)
MLFLOW_MYSQL_SSL_KEY = _setting(
    "MLFLOW_MYSQL_SSL_KEY",
    TEXT,
    None,
    "Path of the client key.",
    applies_to="mysql",
)

# A tracking server, seen from its client

MLFLOW_HTTP_REQUEST_MAX_RETRIES = _setting(
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    (_between(0, 10), "a whole number from 0 to 10"),
    7,
    "How often a request is repeated when the server cannot be reached or answers 408, 429, 500, "
    "502, 503 or 504.",
    applies_to=TRACKING_SERVER,
    mlflow="MLflow repeats also what makes something new and may have been done; asyncstore only "
    "when the server was not reached or answers 429 or 503.",
)
MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR = _setting(
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR",
    (_between(0, 120), "a whole number from 0 to 120"),
    2,
    "The wait before the first repetition; it doubles with each, up to 120 s.",
    applies_to=TRACKING_SERVER,
    unit="seconds",
    mlflow="MLflow's first repetition follows at once, the second after twice the factor.",
)
MLFLOW_HTTP_REQUEST_BACKOFF_JITTER = _setting(
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER",
    (_not_negative, "a number, 0 or more"),
    1.0,
    "A random time up to this is added to each wait.",
    applies_to=TRACKING_SERVER,
    unit="seconds",
)
MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER = _setting(
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER",
    BOOLEAN,
    True,
    "Whether a wait is at least as long as the server's Retry-After asks, up to 120 s.",
    applies_to=TRACKING_SERVER,
)
MLFLOW_HTTP_REQUEST_TIMEOUT = _setting(
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
    (_between(1, 24 * 60 * 60), "a whole number of seconds above 0"),
    120,
    "How long connecting may take, and how long the server may send nothing.",
    applies_to=TRACKING_SERVER,
    unit="seconds",
)
MLFLOW_ALLOW_HTTP_REDIRECTS = _setting(
    "MLFLOW_ALLOW_HTTP_REDIRECTS",
    BOOLEAN,
    True,
    "Whether a redirect is followed; never to another host.",
    applies_to=TRACKING_SERVER,
    mlflow="MLflow follows to other hosts too, without the Authorization header.",
)
MLFLOW_TRACKING_INSECURE_TLS = _setting(
    "MLFLOW_TRACKING_INSECURE_TLS",
    BOOLEAN,
    False,
    "Skip the verification of the server's certificate.",
    applies_to=TRACKING_SERVER,
)
MLFLOW_TRACKING_SERVER_CERT_PATH = _setting(
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    TEXT,
    None,
    "Path of a file or directory with the certificates to trust. Unset: the system's.",
    applies_to=TRACKING_SERVER,
    mlflow="MLflow, unset: those of the package certifi.",
)
MLFLOW_TRACKING_CLIENT_CERT_PATH = _setting(
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    TEXT,
    None,
    "Path of a PEM file with the client's certificate and key.",
    applies_to=TRACKING_SERVER,
)
DATABRICKS_HOST = _setting(
    "DATABRICKS_HOST",
    TEXT,
    None,
    "Workspace of the tracking URI `databricks`; goes before the profile.",
    applies_to=DATABRICKS,
)
DATABRICKS_TOKEN = _setting(
    "DATABRICKS_TOKEN",
    TEXT,
    None,
    "Token of that workspace.",
    applies_to=DATABRICKS,
    secret=True,
)
DATABRICKS_CONFIG_FILE = _setting(
    "DATABRICKS_CONFIG_FILE",
    TEXT,
    None,
    "Path of the file with profiles. Unset: ~/.databrickscfg.",
    applies_to=DATABRICKS,
)
DATABRICKS_CONFIG_PROFILE = _setting(
    "DATABRICKS_CONFIG_PROFILE",
    TEXT,
    None,
    "Profile of the tracking URI `databricks`. Unset: DEFAULT.",
    applies_to=DATABRICKS,
)

# Plugins

MLFLOW_ENABLE_WORKSPACES = _setting(
    "MLFLOW_ENABLE_WORKSPACES",
    BOOLEAN,
    False,
    "Workspaces of MLflow; asyncstore knows only the one that every database has, and its stores "
    "inside MLflow refuse to open when this is on.",
    applies_to="asyncstore inside MLflow",
)
MLFLOW_SERVER_ARTIFACT_ROOT = _setting(
    "_MLFLOW_SERVER_ARTIFACT_ROOT",
    TEXT,
    None,
    "Artifact root of the `mlflow server` that the process is; set by that command.",
    applies_to="asyncstore inside MLflow",
)
MLFLOW_SERVER_ARTIFACT_DESTINATION = _setting(
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
    TEXT,
    None,
    "Artifacts destination of the `mlflow server` that the process is; set by that command.",
    applies_to="asyncstore inside MLflow",
)
MLFLOW_SERVER_FILE_STORE = _setting(
    "_MLFLOW_SERVER_FILE_STORE",
    TEXT,
    None,
    "Database of the server that the process is; set by the command that starts it.",
    applies_to=SERVER,
)
MLFLOW_SERVER_REGISTRY_STORE = _setting(
    "_MLFLOW_SERVER_REGISTRY_STORE",
    TEXT,
    None,
    "Database of its model registry; unset for the same.",
    applies_to=SERVER,
)
MLFLOW_SERVER_SERVE_ARTIFACTS = _setting(
    "_MLFLOW_SERVER_SERVE_ARTIFACTS",
    BOOLEAN,
    True,
    "Whether artifacts go through the server.",
    applies_to=SERVER,
)
MLFLOW_SERVER_ARTIFACTS_ONLY = _setting(
    "_MLFLOW_SERVER_ARTIFACTS_ONLY",
    BOOLEAN,
    False,
    "Whether it serves nothing but artifacts.",
    applies_to=SERVER,
)
MLFLOW_STATIC_PREFIX = _setting(
    "MLFLOW_STATIC_PREFIX",
    TEXT,
    None,
    "What stands before every path of the server, such as /mlflow.",
    applies_to=SERVER,
)
MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX = _setting(
    "MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX",
    TEXT,
    None,
    "Regular expression that the source of a new model version has to match somewhere.",
    applies_to="the server",
)
MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES = _setting(
    "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES",
    SCHEMES,
    cast("tuple[str, ...]", ()),
    "Schemes that an `mlflow server` opens wherever a client says; others but s3, gs and wasbs "
    "only below its own artifact root and destination.",
    applies_to="asyncstore inside MLflow",
    mlflow="For `asyncstore+` URIs also local paths, databases and what else MLflow has not; in "
    "every version of MLflow. asyncstore's own server needs it for s3, gs and wasbs too.",
)
ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES = _setting(
    "ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES",
    SCHEMES,
    cast("tuple[str, ...]", ()),
    "Schemes of artifact URIs that asyncstore serves inside MLflow as if `asyncstore+` stood "
    "before them; `file` includes plain paths. Read when MLflow is imported.",
    applies_to="asyncstore inside MLflow",
)
MLFLOW_TRACKING_AUTH = _setting(
    "MLFLOW_TRACKING_AUTH",
    TEXT,
    None,
    "Name of the request auth provider: asyncstore's, or a plugin's. What it puts on a request "
    "goes before all other credentials.",
    applies_to=TRACKING_SERVER,
)
MLFLOW_TRACKING_USERNAME = _setting(
    "MLFLOW_TRACKING_USERNAME",
    TEXT,
    None,
    "User of a tracking server; counts with MLFLOW_TRACKING_PASSWORD. Unset: the one in "
    "~/.mlflow/credentials, which asyncstore's request auth provider does not read.",
    applies_to=TRACKING_SERVER,
)
MLFLOW_TRACKING_PASSWORD = _setting(
    "MLFLOW_TRACKING_PASSWORD",
    TEXT,
    None,
    "Password of that user; both go before MLFLOW_TRACKING_TOKEN.",
    applies_to=TRACKING_SERVER,
    secret=True,
)
MLFLOW_TRACKING_TOKEN = _setting(
    "MLFLOW_TRACKING_TOKEN",
    TEXT,
    None,
    "Token of a tracking server.",
    applies_to=TRACKING_SERVER,
    secret=True,
)
ASYNCSTORE_AUTH_FILE = _setting(
    "ASYNCSTORE_AUTH_FILE",
    TEXT,
    None,
    "Path of a file with a token, or with user:password, read for each request; goes before the "
    "command and the other variables.",
    applies_to=REQUEST_AUTH,
)
ASYNCSTORE_AUTH_COMMAND = _setting(
    "ASYNCSTORE_AUTH_COMMAND",
    TEXT,
    None,
    "A command, run without a shell, that prints a token, or user:password; goes before the "
    "variables of MLflow.",
    applies_to=REQUEST_AUTH,
    # People write passwords into commands.
    secret=True,
)
ASYNCSTORE_AUTH_COMMAND_LIFETIME = _setting(
    "ASYNCSTORE_AUTH_COMMAND_LIFETIME",
    SECONDS,
    cast("int | None", 300),
    "How long what the command printed counts, unless the server refuses it before.",
    applies_to=REQUEST_AUTH,
    unit="seconds",
)
ASYNCSTORE_REQUEST_HEADERS = _setting(
    "ASYNCSTORE_REQUEST_HEADERS",
    (_headers, 'a JSON object of texts, such as {"X-Team": "vision"}'),
    cast("dict[str, str]", {}),
    "Headers of every request to a tracking server.",
    applies_to="asyncstore's request header provider",
    secret=True,
)

# What a run is tagged with

ASYNCSTORE_RUN_CONTEXT = _setting(
    "ASYNCSTORE_RUN_CONTEXT",
    BOOLEAN,
    True,
    "Whether a run is tagged with its git commit, host, container and scheduler.",
    applies_to=RUN_CONTEXT,
)
SLURM_JOB_ID = _setting(
    "SLURM_JOB_ID",
    TEXT,
    None,
    "Job of SLURM.",
    applies_to=RUN_CONTEXT,
)
SLURM_ARRAY_JOB_ID = _setting(
    "SLURM_ARRAY_JOB_ID",
    TEXT,
    None,
    "Job array of SLURM that the job is part of.",
    applies_to=RUN_CONTEXT,
)
SLURM_ARRAY_TASK_ID = _setting(
    "SLURM_ARRAY_TASK_ID",
    TEXT,
    None,
    "Number of the job in its array.",
    applies_to=RUN_CONTEXT,
)
SLURM_JOB_NODELIST = _setting(
    "SLURM_JOB_NODELIST",
    TEXT,
    None,
    "Nodes of the job.",
    applies_to=RUN_CONTEXT,
)
KUBERNETES_SERVICE_HOST = _setting(
    "KUBERNETES_SERVICE_HOST",
    TEXT,
    None,
    "Set by Kubernetes in every container.",
    applies_to=RUN_CONTEXT,
)
POD_NAME = _setting(
    "POD_NAME",
    TEXT,
    None,
    "Pod of Kubernetes, set through the downward API.",
    applies_to=RUN_CONTEXT,
)
POD_NAMESPACE = _setting(
    "POD_NAMESPACE",
    TEXT,
    None,
    "Namespace of the pod, set through the downward API. "
    "Unset: the one that the pod's service account names.",
    applies_to=RUN_CONTEXT,
)
NODE_NAME = _setting(
    "NODE_NAME",
    TEXT,
    None,
    "Node of the pod, set through the downward API.",
    applies_to=RUN_CONTEXT,
)
RAY_JOB_ID = _setting(
    "RAY_JOB_ID",
    TEXT,
    None,
    "Job of Ray, set by Ray in its workers.",
    applies_to=RUN_CONTEXT,
)
RAY_ADDRESS = _setting(
    "RAY_ADDRESS",
    TEXT,
    None,
    "Cluster of Ray.",
    applies_to=RUN_CONTEXT,
)
DASK_SCHEDULER_ADDRESS = _setting(
    "DASK_SCHEDULER_ADDRESS",
    TEXT,
    None,
    "Scheduler of Dask.",
    applies_to=RUN_CONTEXT,
)
DASK_WORKER_NAME = _setting(
    "DASK_WORKER_NAME",
    TEXT,
    None,
    "Worker of Dask, set by its operator of Kubernetes.",
    applies_to=RUN_CONTEXT,
)


# Safety and operation of the tracking server

MLFLOW_SERVER_ALLOWED_HOSTS = _setting(
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    WORDS,
    None,
    "Host headers that the server answers to, `*` standing for anything in them. Unset: loopback "
    "and private addresses.",
    applies_to=SERVER,
    mlflow="A name without a port allows every port; 10.* allows addresses only.",
)
MLFLOW_SERVER_CORS_ALLOWED_ORIGINS = _setting(
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    WORDS,
    cast("tuple[str, ...]", ()),
    "Origins whose pages may use the server from a browser, beside those of the same machine and "
    "of the server itself; `*` alone allows every page, without credentials.",
    applies_to=SERVER,
    mlflow="MLflow refuses pages of the server itself unless they are listed.",
)
MLFLOW_SERVER_X_FRAME_OPTIONS = _setting(
    "MLFLOW_SERVER_X_FRAME_OPTIONS",
    (lambda text: _one_of("SAMEORIGIN", "DENY", "NONE")(text.upper()), "SAMEORIGIN, DENY or NONE"),
    "SAMEORIGIN",
    "Whether other sites may show the server in a frame; NONE lets all of them.",
    applies_to=SERVER,
)
MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE = _setting(
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
    BOOLEAN,
    False,
    "Leaves out the checks of hosts and origins, and the security headers.",
    applies_to=SERVER,
)
MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS = _setting(
    "MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS",
    (_between(1, 604_800), "a whole number of seconds from 1 to 604800 (7 days)"),
    300,
    "How long a URL may be used with which clients read an artifact from the storage itself.",
    applies_to=SERVER,
    unit="seconds",
)
MLFLOW_SERVER_GRAPHQL_MAX_ROOT_FIELDS = _setting(
    "MLFLOW_SERVER_GRAPHQL_MAX_ROOT_FIELDS",
    (_between(1, 1000), "a whole number from 1 to 1000"),
    10,
    "Most fields at the top of a GraphQL query.",
    applies_to=SERVER,
)
MLFLOW_SERVER_GRAPHQL_MAX_ALIASES = _setting(
    "MLFLOW_SERVER_GRAPHQL_MAX_ALIASES",
    (_between(1, 1000), "a whole number from 1 to 1000"),
    10,
    "Most aliases of a GraphQL query.",
    applies_to=SERVER,
    mlflow="MLflow counts them a level, asyncstore those of the whole query.",
)
ASYNCSTORE_SERVER_AUTH_FILE = _setting(
    "ASYNCSTORE_SERVER_AUTH_FILE",
    TEXT,
    None,
    "Path of the file with the users of the server. Unset: everybody may do everything.",
    applies_to=SERVER,
)
ASYNCSTORE_SERVER_MAX_BODY_SIZE = _setting(
    "ASYNCSTORE_SERVER_MAX_BODY_SIZE",
    SIZE,
    cast("int | None", 64 * MIB),
    "Longest body of a request, unless it is an artifact.",
    applies_to=SERVER,
    unit="bytes",
)
ASYNCSTORE_SERVER_MAX_UPLOAD_SIZE = _setting(
    "ASYNCSTORE_SERVER_MAX_UPLOAD_SIZE",
    SIZE,
    None,
    "Longest artifact that is sent through the server. Unset: no limit.",
    applies_to=SERVER,
    unit="bytes",
)
ASYNCSTORE_SERVER_CLIENT_TIMEOUT = _setting(
    "ASYNCSTORE_SERVER_CLIENT_TIMEOUT",
    TIMEOUT,
    cast("int | None", 60),
    "How long a client may take for the headers of a request, for its body, for the next piece of "
    "an artifact, and to take in what it was sent.",
    applies_to=SERVER,
    unit="seconds",
)
ASYNCSTORE_SERVER_RATE_LIMIT = _setting(
    "ASYNCSTORE_SERVER_RATE_LIMIT",
    NUMBER,
    None,
    "Requests a second that one address may send to each worker. Unset: no limit.",
    applies_to=SERVER,
)
ASYNCSTORE_SERVER_SHUTDOWN_TIMEOUT = _setting(
    "ASYNCSTORE_SERVER_SHUTDOWN_TIMEOUT",
    COUNT,
    cast("int | None", 30),
    "How long a server that is told to stop lets requests finish before it cancels them.",
    applies_to=SERVER,
    unit="seconds",
)
ASYNCSTORE_SERVER_ACCESS_LOG = _setting(
    "ASYNCSTORE_SERVER_ACCESS_LOG",
    BOOLEAN,
    True,
    "Whether each request is a line of JSON on standard output.",
    applies_to=SERVER,
)
ASYNCSTORE_SERVER_TELEMETRY = _setting(
    "ASYNCSTORE_SERVER_TELEMETRY",
    BOOLEAN,
    False,
    "Whether each request is a span of OpenTelemetry.",
    applies_to=SERVER,
)
MLFLOW_EXPOSE_PROMETHEUS = _setting(
    "MLFLOW_EXPOSE_PROMETHEUS",
    TEXT,
    None,
    "Directory in which workers keep their numbers for /metrics. Unset: no metrics.",
    applies_to=SERVER,
)
PROMETHEUS_MULTIPROC_DIR = _setting(
    "PROMETHEUS_MULTIPROC_DIR",
    TEXT,
    None,
    "The same directory, for prometheus_client; `asyncstore server` sets it.",
    applies_to=SERVER,
)
MLFLOW_BACKEND_STORE_URI = _setting(
    "MLFLOW_BACKEND_STORE_URI",
    TEXT,
    None,
    "Database of `asyncstore server`. Unset: sqlite:///mlflow.db in the current directory.",
    applies_to=SERVER,
)
MLFLOW_REGISTRY_STORE_URI = _setting(
    "MLFLOW_REGISTRY_STORE_URI",
    TEXT,
    None,
    "Database of its model registry. Unset: the same.",
    applies_to=SERVER,
)
MLFLOW_DEFAULT_ARTIFACT_ROOT = _setting(
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    TEXT,
    None,
    "Where new experiments of `asyncstore server` keep their artifacts. Unset: mlflow-artifacts:/, "
    "which is the server itself, or ./mlartifacts where it serves none.",
    applies_to=SERVER,
)
MLFLOW_ARTIFACTS_DESTINATION = _setting(
    "MLFLOW_ARTIFACTS_DESTINATION",
    TEXT,
    None,
    "Where artifacts are that go through `asyncstore server`. Unset: ./mlartifacts.",
    applies_to=SERVER,
)
MLFLOW_SERVE_ARTIFACTS = _setting(
    "MLFLOW_SERVE_ARTIFACTS",
    BOOLEAN,
    True,
    "Whether artifacts go through `asyncstore server`.",
    applies_to=SERVER,
)
MLFLOW_ARTIFACTS_ONLY = _setting(
    "MLFLOW_ARTIFACTS_ONLY",
    BOOLEAN,
    False,
    "Whether `asyncstore server` serves nothing but artifacts.",
    applies_to=SERVER,
)
MLFLOW_HOST = _setting(
    "MLFLOW_HOST",
    TEXT,
    None,
    "Address that `asyncstore server` listens at. Unset: 127.0.0.1.",
    applies_to=SERVER,
)
MLFLOW_PORT = _setting(
    "MLFLOW_PORT",
    COUNT,
    cast("int | None", 5000),
    "Port that `asyncstore server` listens at; 0 takes a free one.",
    applies_to=SERVER,
)
MLFLOW_WORKERS = _setting(
    "MLFLOW_WORKERS",
    NUMBER,
    cast("int | None", 1),
    "Worker processes of `asyncstore server`.",
    applies_to=SERVER,
    mlflow="MLflow: 4.",
)
MLFLOW_UVICORN_OPTS = _setting(
    "MLFLOW_UVICORN_OPTS",
    TEXT,
    None,
    "More options of uvicorn, as on its command line.",
    applies_to=SERVER,
)


def export(variables: Mapping[str, str]) -> None:
    """Set variables, for the processes that this one starts and the libraries that it loads.

    Args:
        variables: Names and values.
    """
    os.environ.update(variables)


def storage_environment(environ: Mapping[str, str] | None = None) -> str:
    """Tells environments apart in which storages are reached in another way or as somebody else.

    Args:
        environ: Where to look; None is the process environment.

    Returns:
        A digest, from which no value can be read.
    """
    variables = os.environ if environ is None else environ
    relevant = sorted(
        (name, value)
        for name, value in variables.items()
        if name.startswith(_STORAGE_PREFIXES) or name == "HOME" or name.lower().endswith("_proxy")
    )
    return hashlib.sha256(repr(relevant).encode(errors="surrogateescape")).hexdigest()
