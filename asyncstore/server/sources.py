"""Where clients may say that artifacts are: experiments' locations, and versions' sources.

A server opens what it was told, with its own credentials and in its own network, and other clients
follow what it tells them. So a location is below the server's roots, and a source within the
artifacts of the run or the logged model that it comes from.
"""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import unquote, urlsplit

import anyio.to_thread

from asyncstore import settings
from asyncstore.artifacts.policy import ArtifactPolicy
from asyncstore.errors import InvalidParameterError, NotFoundError
from asyncstore.metadata.model_uris import is_model_uri, parse_model_uri
from asyncstore.server.state import Server
from asyncstore.uris import redact, scheme_of

__all__ = ["check_artifact_location", "check_prompt_source", "checked_source"]

PROXIED = "mlflow-artifacts"
# What MLflow's clients write as the source of a prompt, which has no artifacts.
PROMPT_SOURCES = ("dummy-source", "prompt-template")


async def check_artifact_location(server: Server, location: str) -> None:
    """Refuse the artifact location of an experiment that is outside the server's roots.

    Args:
        server: The server.
        location: As a client sent it.

    Raises:
        InvalidParameterError: It is.
    """
    _check_form(location, "artifact_location")
    await anyio.to_thread.run_sync(server.artifact_policy.check, location)


def check_prompt_source(source: str) -> None:
    """Refuse the source of a prompt's version that could be one of artifacts.

    Raises:
        InvalidParameterError: It could.
    """
    if source not in PROMPT_SOURCES:
        raise InvalidParameterError(
            f"the source of a prompt's version must be one of {', '.join(PROMPT_SOURCES)}"
        )


async def checked_source(
    server: Server, source: str, run_id: str | None, model_id: str | None
) -> tuple[str, str | None]:
    """The source of a model version, when it may be one.

    Args:
        server: The server.
        source: As a client sent it.
        run_id: The run that the version is said to come from; None for none.
        model_id: The logged model that it is said to come from; None for none.

    Returns:
        The source, in which an alias or a stage has become a version; and the run.

    Raises:
        InvalidParameterError: It is neither within the artifacts of that run or model, nor below
            the server's roots.
        NotFoundError: It names a registered model or version that does not exist.
    """
    pattern = settings.MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX.get()
    if pattern and not re.search(pattern, source):
        raise InvalidParameterError(f"the server does not take {redact(source)} as a source")
    _check_form(source, "source")
    if is_model_uri(source):
        return await _checked_model_uri(server, source, run_id, model_id)
    if scheme_of(source) == "runs":
        if not run_id or model_id or _run_of(source) != run_id:
            raise _elsewhere(source, "model_id" if model_id else "run_id")
        return source, run_id
    root = await _root(server, source, run_id, model_id)
    if root is not None:
        inside = partial(ArtifactPolicy((root,)).check, source)
        try:
            await anyio.to_thread.run_sync(inside)
        except InvalidParameterError:
            pass
        else:
            return source, run_id
    if scheme_of(source) in ("", "file", PROXIED):
        raise _elsewhere(source, "model_id" if model_id else "run_id")
    await anyio.to_thread.run_sync(server.artifact_policy.check, source)
    return source, run_id


async def _checked_model_uri(
    server: Server, source: str, run_id: str | None, model_id: str | None
) -> tuple[str, str | None]:
    uri = parse_model_uri(source)
    if uri.model_id is not None:
        if uri.model_id != model_id:
            raise _elsewhere(source, "model_id")
        return source, run_id
    name, registry = uri.name or "", server.registry
    if uri.version is not None:
        version = await registry.get_model_version(name, uri.version)
    elif uri.alias is not None:
        version = await registry.get_model_version_by_alias(name, uri.alias)
    else:
        latest = await registry.get_latest_versions(name, [uri.stage or ""])
        if not latest:
            raise NotFoundError(f"{source}: no version of {name!r} is at this stage")
        version = latest[0]
    if run_id and run_id != (version.run_id or ""):
        raise InvalidParameterError(f"{source} comes from another run than {run_id!r:.100}")
    return f"models:/{name}/{version.version}", run_id or version.run_id


async def _root(
    server: Server, source: str, run_id: str | None, model_id: str | None
) -> str | None:
    try:
        if model_id:
            return (await server.store.get_logged_model(model_id)).artifact_location
        if run_id:
            return (await server.store.get_run(run_id)).info.artifact_uri
    except NotFoundError as error:
        raise _elsewhere(source, "model_id" if model_id else "run_id") from error
    return None


def _run_of(runs_uri: str) -> str:
    return runs_uri.partition(":")[2].lstrip("/").partition("/")[0]


def _check_form(uri: str, name: str) -> None:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidParameterError(f"{name} is not a URI: {error}") from error
    decoded = uri
    while (further := unquote(decoded)) != decoded:
        decoded = further
    if parts.fragment or ";" in parts.path or "\0" in decoded:
        raise InvalidParameterError(f"{name} must have no fragment, parameters or NUL")
    if ".." in re.split(r"[/\\?&=]", decoded):
        raise InvalidParameterError(f"{name} must be absolute, without '..'")
    # Clients would follow it to another server, with their credentials.
    if parts.scheme in (PROXIED, "runs", "models") and parts.netloc:
        raise InvalidParameterError(f"{name} must be on this server: {parts.scheme}:/..., no host")


def _elsewhere(source: str, name: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"Invalid model version source: '{redact(source)}'. The {name} request parameter must "
        "identify the resource that contains the source."
    )
