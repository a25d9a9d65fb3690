"""`asyncstore server`: the tracking server, with the options of `mlflow server`."""

from __future__ import annotations

import ipaddress
import shlex
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import click
from click.core import ParameterSource

from asyncstore import settings
from asyncstore.cli.common import traceback
from asyncstore.errors import InvalidParameterError, MissingDependencyError
from asyncstore.metadata import MetadataStore
from asyncstore.settings import Setting
from asyncstore.uris import redact

DEFAULT_HOST, DEFAULT_DATABASE = "127.0.0.1", "sqlite:///mlflow.db"
_OURS = {
    *("host", "port", "workers", "factory", "app", "app_dir", "reload", "fd", "uds", "http", "ws"),
    *("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "ssl_cert_reqs"),
    *("access_log", "interface", "lifespan"),
}


def _variable(setting: Setting[Any]) -> str:
    return f"Variable: {setting.name}."


@click.command()
@click.option(
    "--backend-store-uri",
    metavar="URI",
    help=f"The database. Default: {DEFAULT_DATABASE}. "
    + _variable(settings.MLFLOW_BACKEND_STORE_URI),
)
@click.option(
    "--registry-store-uri",
    metavar="URI",
    help="The database of the model registry. Default: the same. "
    + _variable(settings.MLFLOW_REGISTRY_STORE_URI),
)
@click.option(
    "--default-artifact-root",
    metavar="URI",
    help="Where new experiments keep their artifacts. Default: mlflow-artifacts:/, which is the "
    "server itself. " + _variable(settings.MLFLOW_DEFAULT_ARTIFACT_ROOT),
)
@click.option(
    "--serve-artifacts/--no-serve-artifacts",
    default=None,
    help="Whether artifacts go through the server. Default: yes. "
    + _variable(settings.MLFLOW_SERVE_ARTIFACTS),
)
@click.option(
    "--artifacts-only/--no-artifacts-only",
    default=None,
    help="Serve artifacts and nothing else. " + _variable(settings.MLFLOW_ARTIFACTS_ONLY),
)
@click.option(
    "--artifacts-destination",
    metavar="URI",
    help="Where artifacts are that go through the server. Default: ./mlartifacts. "
    + _variable(settings.MLFLOW_ARTIFACTS_DESTINATION),
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help=f"The address to listen at. Default: {DEFAULT_HOST}. " + _variable(settings.MLFLOW_HOST),
)
@click.option(
    "--port",
    "-p",
    type=click.IntRange(0, 65535),
    help="The port; 0 takes a free one. Default: 5000. " + _variable(settings.MLFLOW_PORT),
)
@click.option(
    "--workers",
    "-w",
    type=click.IntRange(min=1),
    help="Worker processes. Default: 1. " + _variable(settings.MLFLOW_WORKERS),
)
@click.option(
    "--static-prefix",
    metavar="PATH",
    help="What stands before every path, such as /mlflow. "
    + _variable(settings.MLFLOW_STATIC_PREFIX),
)
@click.option(
    "--allowed-hosts",
    metavar="HOST,HOST",
    help="Names by which the server answers. Default: loopback and private addresses. "
    + _variable(settings.MLFLOW_SERVER_ALLOWED_HOSTS),
)
@click.option(
    "--cors-allowed-origins",
    metavar="ORIGIN,ORIGIN",
    help="Origins of other pages that may use the server. "
    + _variable(settings.MLFLOW_SERVER_CORS_ALLOWED_ORIGINS),
)
@click.option(
    "--x-frame-options",
    type=click.Choice(["SAMEORIGIN", "DENY", "NONE"], case_sensitive=False),
    help="Whether other sites may show the server in a frame. Default: SAMEORIGIN. "
    + _variable(settings.MLFLOW_SERVER_X_FRAME_OPTIONS),
)
@click.option(
    "--disable-security-middleware",
    is_flag=True,
    help="Leave out the checks of hosts and origins. "
    + _variable(settings.MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE),
)
@click.option(
    "--auth-file",
    metavar="PATH",
    help="The users, as `asyncstore server-users` writes them. Default: everybody is let in. "
    + _variable(settings.ASYNCSTORE_SERVER_AUTH_FILE),
)
@click.option(
    "--allow-unauthenticated",
    is_flag=True,
    help="Let everybody in at an address that other machines can reach.",
)
@click.option("--ssl-certfile", metavar="PATH", help="Serve HTTPS with this certificate.")
@click.option("--ssl-keyfile", metavar="PATH", help="Its key, unless it is in the same file.")
@click.option(
    "--ssl-ca-certs",
    metavar="PATH",
    help="Let in only clients with a certificate of these authorities.",
)
@click.option(
    "--expose-prometheus",
    metavar="DIRECTORY",
    help="Serve /metrics; workers share their numbers in this directory, which is emptied. "
    + _variable(settings.MLFLOW_EXPOSE_PROMETHEUS),
)
@click.option(
    "--uvicorn-opts",
    metavar="TEXT",
    help="More options of uvicorn. " + _variable(settings.MLFLOW_UVICORN_OPTS),
)
@traceback
def server(
    host: str | None,
    port: int | None,
    workers: int | None,
    auth_file: str | None,
    allow_unauthenticated: bool,
    ssl_certfile: str | None,
    ssl_keyfile: str | None,
    ssl_ca_certs: str | None,
    expose_prometheus: str | None,
    uvicorn_opts: str | None,
    **options: Any,
) -> None:
    """Run the tracking server: MLflow's REST API over a database and a storage.

    It ends with Ctrl-C or SIGTERM, when the requests that are in flight have finished.
    """
    running = _running()
    host = host or settings.MLFLOW_HOST.get() or DEFAULT_HOST
    users = auth_file or settings.ASYNCSTORE_SERVER_AUTH_FILE.get()
    tls = {
        "ssl_certfile": _file("--ssl-certfile", ssl_certfile),
        "ssl_keyfile": _file("--ssl-keyfile", ssl_keyfile),
        "ssl_ca_certs": _file("--ssl-ca-certs", ssl_ca_certs),
    }
    if ssl_certfile is None and any(tls.values()):
        raise click.UsageError("--ssl-keyfile and --ssl-ca-certs need --ssl-certfile")
    _check_users(users)
    if not _is_loopback(host):
        _check_public(host, users, allow=allow_unauthenticated, encrypted=bool(ssl_certfile))
    further = _uvicorn_options(
        running.UVICORN, uvicorn_opts or settings.MLFLOW_UVICORN_OPTS.get() or ""
    )
    variables = _variables(options)
    if users:
        variables[settings.ASYNCSTORE_SERVER_AUTH_FILE.name] = str(Path(users).absolute())
    directory = expose_prometheus or settings.MLFLOW_EXPOSE_PROMETHEUS.get()
    if directory:
        variables |= _metrics_directory(Path(directory))
    settings.export(variables)
    # A worker that could not read them would be started again and again.
    import_module("asyncstore.server.middlewares").middlewares()
    anyio.run(_open_databases)
    # uvicorn sends itself the signal again when it has shut down; let the exit be an orderly one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    running.run(
        host,
        settings.MLFLOW_PORT.get() if port is None else port,
        workers or settings.MLFLOW_WORKERS.get(),
        **tls,
        **further,
    )


def _running() -> ModuleType:
    try:
        return import_module("asyncstore.server.running")
    except ImportError as error:
        raise MissingDependencyError(
            f"the server needs the library {error.name}; run: pip install 'asyncstore[server]'"
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name can lead anywhere.
        return False


def _check_public(host: str, users: str | None, *, allow: bool, encrypted: bool) -> None:
    if not users and not allow:
        raise click.UsageError(
            f"other machines can reach {host or 'every address'}, and nobody would have to say who "
            "they are. Make users (asyncstore server-users add NAME --auth-file PATH) and give "
            "--auth-file, or say --allow-unauthenticated"
        )
    if users and not encrypted:
        click.echo(
            "Warning: without --ssl-certfile, passwords and tokens cross the network in the open",
            err=True,
        )


def _check_users(path: str | None) -> None:
    from asyncstore.server.users import read_users

    if path and not read_users(Path(path)):
        raise InvalidParameterError(f"{path} has no users; `asyncstore server-users add` makes one")


def _file(option: str, path: str | None) -> str | None:
    if path is not None and not Path(path).is_file():
        raise click.UsageError(f"{option}: {path} is not a file")
    return path


def _uvicorn_options(command: click.Command, text: str) -> dict[str, Any]:
    context = command.make_context("uvicorn", [*shlex.split(text), "app"])
    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name != "app"
    }
    if taken := sorted(_OURS & set(given)):
        names = ", ".join("--" + name.replace("_", "-") for name in taken)
        raise click.UsageError(f"--uvicorn-opts: {names} cannot be set here")
    if "headers" in given:
        given["headers"] = [tuple(each.split(":", 1)) for each in given["headers"]]
    return given


def _variables(options: dict[str, Any]) -> dict[str, str]:
    """What the application reads in each worker, from options and MLflow's variables."""
    prefix = options["static_prefix"] or ""
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise click.UsageError("--static-prefix begins with a slash, and does not end in one")
    database = (
        options["backend_store_uri"] or settings.MLFLOW_BACKEND_STORE_URI.get() or DEFAULT_DATABASE
    )
    values: dict[Setting[Any], str | None] = {
        settings.MLFLOW_SERVER_FILE_STORE: database,
        settings.MLFLOW_SERVER_REGISTRY_STORE: options["registry_store_uri"]
        or settings.MLFLOW_REGISTRY_STORE_URI.get(),
        settings.MLFLOW_SERVER_ARTIFACT_ROOT: options["default_artifact_root"]
        or settings.MLFLOW_DEFAULT_ARTIFACT_ROOT.get(),
        settings.MLFLOW_SERVER_ARTIFACT_DESTINATION: options["artifacts_destination"]
        or settings.MLFLOW_ARTIFACTS_DESTINATION.get(),
        settings.MLFLOW_SERVER_SERVE_ARTIFACTS: _flag(
            options["serve_artifacts"], settings.MLFLOW_SERVE_ARTIFACTS
        ),
        settings.MLFLOW_SERVER_ARTIFACTS_ONLY: _flag(
            options["artifacts_only"], settings.MLFLOW_ARTIFACTS_ONLY
        ),
        settings.MLFLOW_STATIC_PREFIX: prefix,
        settings.MLFLOW_SERVER_ALLOWED_HOSTS: options["allowed_hosts"],
        settings.MLFLOW_SERVER_CORS_ALLOWED_ORIGINS: options["cors_allowed_origins"],
        settings.MLFLOW_SERVER_X_FRAME_OPTIONS: options["x_frame_options"],
        settings.MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE: "true"
        if options["disable_security_middleware"]
        else None,
    }
    return {setting.name: value for setting, value in values.items() if value}


def _flag(option: bool | None, setting: Setting[bool]) -> str:
    return str(setting.get() if option is None else option).lower()


def _metrics_directory(directory: Path) -> dict[str, str]:
    directory.mkdir(parents=True, exist_ok=True)
    # Numbers of workers that have ended long ago.
    for stale in directory.glob("*.db"):
        stale.unlink()
    shared = str(directory.absolute())
    return {
        settings.MLFLOW_EXPOSE_PROMETHEUS.name: shared,
        settings.PROMETHEUS_MULTIPROC_DIR.name: shared,
    }


async def _open_databases() -> None:
    """Make or check them once, rather than in each worker at the same time."""
    from asyncstore.server.state import ServerOptions

    options = ServerOptions.of()
    if options.artifacts_only:
        return
    for uri in dict.fromkeys((options.backend_store_uri, options.registry_store_uri)):
        async with await MetadataStore.open(uri, options.default_artifact_root):
            click.echo(f"Metadata in {redact(uri)}", err=True)
