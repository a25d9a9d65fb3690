"""Plugins of other packages, found by their entry points: MLflow's kinds and asyncstore's own.

Nothing is imported before it is needed. A plugin that cannot be loaded, or fails when it is called,
is named in a warning, and the others go on.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from asyncstore.errors import InvalidParameterError

__all__ = [
    "GROUPS",
    "InstalledPlugin",
    "described",
    "entries",
    "installed",
    "request_auth",
    "request_headers",
    "run_context_tags",
]

RUN_CONTEXT = "mlflow.run_context_provider"
REQUEST_AUTH = "mlflow.request_auth_provider"
REQUEST_HEADERS = "mlflow.request_header_provider"

#: Groups of entry points, and what one serves by the name of the entry point.
GROUPS: Mapping[str, str] = {
    "asyncstore.backends": "artifact URIs {name}:",
    "mlflow.artifact_repository": "artifact URIs {name}:",
    "mlflow.tracking_store": "tracking URIs {name}:",
    "mlflow.model_registry_store": "registry URIs {name}:",
    RUN_CONTEXT: "tags of runs",
    REQUEST_AUTH: "credentials of requests",
    REQUEST_HEADERS: "headers of requests",
    "mlflow.app": "mlflow server --app-name {name}",
    "mlflow.project_backend": "mlflow run --backend {name}",
    "mlflow.model_evaluator": "mlflow.evaluate(evaluators={name!r})",
    "mlflow.deployments": "mlflow.deployments.get_deploy_client({name!r})",
}


@dataclass(frozen=True)
class InstalledPlugin:
    """An entry point of a package.

    Args:
        group: The group.
        name: The entry point.
        value: The object it names, `module:attribute`.
        package: The package that it comes with; empty where that is not known.
        version: The package's version.
        serves: What for.
        error: Why it cannot be loaded; an empty string where it can, None where nobody tried.
    """

    group: str
    name: str
    value: str
    package: str
    version: str
    serves: str
    error: str | None = None


def entries(group: str) -> list[EntryPoint]:
    """The entry points of a group, in the order of packages and names. Blocks."""

    # Not in the order of directories on the disk.
    def order(entry: EntryPoint) -> tuple[str, str, str]:
        return entry.dist.name if entry.dist else "", entry.name, entry.value

    return sorted(entry_points(group=group), key=order)


def described(entry: EntryPoint) -> str:
    """An entry point and its package, for messages."""
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"the plugin {entry.name} = {entry.value}{package}"


def installed(*, check: bool = False) -> list[InstalledPlugin]:
    """Every plugin of the kinds in `GROUPS`. Blocks.

    Args:
        check: Whether to load each of them, which runs their code.

    Returns:
        The plugins, by group.
    """
    return [
        InstalledPlugin(
            group=group,
            name=entry.name,
            value=entry.value,
            package=entry.dist.name if entry.dist else "",
            version=entry.dist.version if entry.dist else "",
            serves=serves.format(name=entry.name),
            error=_trouble(group, entry) if check else None,
        )
        for group, serves in GROUPS.items()
        for entry in entries(group)
    ]


def run_context_tags() -> dict[str, str]:
    """The tags of all run context providers that are in context. Blocks; from any thread.

    Returns:
        Values by name, as text. Where two providers have the same tag, the later one counts, in the
        order of their packages.
    """
    found: dict[str, str] = {}
    for provider in _providers(RUN_CONTEXT):
        with provider.guarded("gives no tags"):
            if provider.value.in_context():
                tags = provider.value.tags()
                found.update({str(key): str(value) for key, value in tags.items()})
    return found


def request_headers() -> dict[str, str]:
    """The headers of all request header providers that are in context. Blocks; from any thread.

    Returns:
        Values by name. Where several have the same header, their values stand behind each other
        with a space between them, as MLflow has it.
    """
    found: dict[str, str] = {}
    for provider in _providers(REQUEST_HEADERS):
        with provider.guarded("gives no headers"):
            if provider.value.in_context():
                headers = {str(k): str(v) for k, v in provider.value.request_headers().items()}
                found.update(
                    {k: f"{found[k]} {v}" if k in found else v for k, v in headers.items()}
                )
    return found


def request_auth(name: str) -> Any:
    """What the request auth provider of a name returns. Blocks; from any thread.

    Args:
        name: What MLFLOW_TRACKING_AUTH says.

    Returns:
        What requests takes as `auth=`: an object that is called with a prepared request, or a pair
        of user and password.

    Raises:
        InvalidParameterError: No provider has that name. MLflow goes on without credentials.

    What the provider itself raises comes out: a request without the credentials that were asked for
    would be another request.
    """
    known: list[str] = []
    for provider in _providers(REQUEST_AUTH):
        with provider.guarded("has no name"):
            known.append(provider.value.get_name())
            if known[-1] == name:
                break
    else:
        raise InvalidParameterError(
            f"no request auth provider is named {name!r}; there are: {', '.join(known) or 'none'}"
        )
    return provider.value.get_auth()


class _Provider(NamedTuple):
    """An instance of what an entry point names."""

    entry: EntryPoint
    value: Any

    @contextlib.contextmanager
    def guarded(self, trouble: str) -> Iterator[None]:
        """Turn what the block raises into a warning that names the plugin."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever a stranger's code does
            _warn(f"{described(self.entry)} {trouble}", error)


@functools.cache
def _providers(group: str) -> tuple[_Provider, ...]:
    """Instances of all classes in a group, made once for the process."""
    found = []
    for entry in entries(group):
        try:
            found.append(_Provider(entry, _load(group, entry)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  modules also end with sys.exit()
            _warn(f"{described(entry)} cannot be loaded", error)
    return tuple(found)


def _load(group: str, entry: EntryPoint) -> Any:
    value = entry.load()
    return value() if group in (RUN_CONTEXT, REQUEST_AUTH, REQUEST_HEADERS) else value


def _trouble(group: str, entry: EntryPoint) -> str:
    try:
        # What it prints is not what the caller prints.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _load(group, entry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  modules also end with sys.exit()
        return f"{type(error).__name__}: {error}"
    return ""


def _warn(what: str, error: BaseException) -> None:
    warnings.warn(f"{what}: {type(error).__name__}: {error}", stacklevel=3)
