"""Artifacts that go through the server: listed, streamed in and out, and deleted.

What clients know as `mlflow-artifacts:` is below the server's own destination. The other routes
start from a run, a model version, a logged model or a trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from asyncstore.entities import FileInfo
from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_spans import span_to_json
from asyncstore.rest.json_tracking import file_info_to_json
from asyncstore.server.artifact_locations import ArtifactLocation, destination, location_of
from asyncstore.server.artifact_response import artifact_response, content_disposition
from asyncstore.server.decoding import Decoding, Request, RequiredText
from asyncstore.server.routing import AnyRoute, AsgiRoute, Route, readable
from asyncstore.server.state import Server

__all__ = ["ROUTES"]

MAX_UPLOAD = 10 * 1024 * 1024
TRACE_DATA = "traces.json"
SPANS_LOCATION_TAG = "mlflow.trace.spansLocation"
ARTIFACT_LOCATION_TAG = "mlflow.artifactLocation"
IN_DATABASE = "TRACKING_STORE"
BYTES = "application/octet-stream"


class ListProxied(Request):
    """Which directory below the destination."""

    path: str | None = None


class ProxiedArtifact(Request):
    """Which file or directory below the destination."""

    artifact_path: RequiredText


class ListArtifacts(Request):
    """Which directory of which run."""

    run_id: str | None = None
    run_uuid: str | None = None
    path: str | None = None


class ListLoggedModelArtifacts(Request):
    """Which directory of which logged model."""

    model_id: RequiredText
    artifact_directory_path: str | None = None


class RunArtifact(Request):
    """Which file of which run."""

    path: RequiredText
    run_id: str | None = None
    run_uuid: str | None = None


class ModelVersionArtifact(Request):
    """Which file of which model version."""

    name: RequiredText
    version: RequiredText
    path: RequiredText


class LoggedModelArtifact(Request):
    """Which file of which logged model."""

    model_id: RequiredText
    artifact_file_path: RequiredText


class TraceArtifact(Request):
    """Which attachment of which trace; without a path its spans."""

    request_id: RequiredText
    path: str | None = None


_RUN_ARTIFACT = Decoding(RunArtifact)
_MODEL_VERSION_ARTIFACT = Decoding(ModelVersionArtifact)
_LOGGED_MODEL_ARTIFACT = Decoding(LoggedModelArtifact)
_TRACE_ARTIFACT = Decoding(TraceArtifact)


async def list_proxied(server: Server, request: ListProxied) -> dict[str, Any]:
    """List a directory below the server's destination; entries have their own name as path."""
    found = await (await destination(server)).list_artifacts(request.path)
    return _files(
        [FileInfo(each.path.rpartition("/")[2], each.is_dir, each.file_size) for each in found]
    )


async def delete_proxied(server: Server, request: ProxiedArtifact) -> dict[str, Any]:
    """Delete a file or a directory below the server's destination."""
    await (await destination(server)).delete_artifacts(request.artifact_path)
    return {}


async def download_proxied(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Stream a file from below the server's destination, or a range of it."""
    location = ArtifactLocation(await destination(server))
    await _send(location, scope["path_params"]["artifact_path"], scope, receive, send)


async def upload_proxied(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Store the body as a file below the server's destination.

    A body that breaks off leaves nothing.
    """
    path: str = scope["path_params"]["artifact_path"]
    if path.endswith("/"):
        raise InvalidParameterError(f"artifact path {path!r} is a directory; name a file")
    repository = await destination(server)
    try:
        await repository.write_stream(path, HttpRequest(scope, receive).stream())
    except ClientDisconnect:
        return
    await Response()(scope, receive, send)


async def list_artifacts(server: Server, request: ListArtifacts) -> dict[str, Any]:
    """List a directory of a run's artifacts."""
    uri = await _run_uri(server, request.run_id or request.run_uuid)
    return await _listed(server, uri, request.path)


async def list_logged_model_artifacts(
    server: Server, request: ListLoggedModelArtifacts
) -> dict[str, Any]:
    """List a directory of a logged model's artifacts."""
    model = await server.store.get_logged_model(request.model_id)
    return await _listed(server, model.artifact_location, request.artifact_directory_path)


async def get_run_artifact(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Stream a file of a run."""
    request = _RUN_ARTIFACT.from_query(scope["query_string"], {})
    uri = await _run_uri(server, request.run_id or request.run_uuid)
    await _send(await location_of(server, uri), request.path, scope, receive, send)


async def get_model_version_artifact(
    server: Server, scope: Scope, receive: Receive, send: Send
) -> None:
    """Stream a file of a model version."""
    request = _MODEL_VERSION_ARTIFACT.from_query(scope["query_string"], {})
    uri = await server.registry.get_model_version_download_uri(request.name, request.version)
    await _send(await location_of(server, uri), request.path, scope, receive, send)


async def get_logged_model_artifact(
    server: Server, scope: Scope, receive: Receive, send: Send
) -> None:
    """Stream a file of a logged model."""
    request = _LOGGED_MODEL_ARTIFACT.from_query(scope["query_string"], scope["path_params"])
    model = await server.store.get_logged_model(request.model_id)
    location = await location_of(server, model.artifact_location)
    await _send(location, request.artifact_file_path, scope, receive, send)


async def get_trace_artifact(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Stream an attachment of a trace; without a path, its spans as JSON."""
    request = _TRACE_ARTIFACT.from_query(scope["query_string"], {})
    info = await server.store.get_trace_info(request.request_id)
    if request.path is None and info.tags.get(SPANS_LOCATION_TAG) == IN_DATABASE:
        # The UI shows traces that are not whole yet.
        trace = await server.store.get_trace(request.request_id, allow_partial=True)
        content = json.dumps({"spans": [span_to_json(span) for span in trace.data.spans]})
        headers = {
            "Content-Disposition": content_disposition(TRACE_DATA),
            "X-Content-Type-Options": "nosniff",
        }
        await Response(content, headers=headers, media_type="text/plain")(scope, receive, send)
        return
    if ARTIFACT_LOCATION_TAG not in info.tags:
        raise InvalidParameterError(f"trace {request.request_id} has no artifacts")
    location = await location_of(server, info.tags[ARTIFACT_LOCATION_TAG])
    path = TRACE_DATA if request.path is None else f"attachments/{request.path}"
    await _send(location, path, scope, receive, send)


async def upload_run_artifact(server: Server, scope: Scope, receive: Receive, send: Send) -> None:
    """Store a small body as a file of a run."""
    request = _RUN_ARTIFACT.from_query(scope["query_string"], {})
    uri = await _run_uri(server, request.run_uuid or request.run_id)
    location = await location_of(server, uri)
    path = location.path(request.path)
    content = bytearray()
    try:
        async for piece in HttpRequest(scope, receive).stream():
            content += piece
            if len(content) > MAX_UPLOAD:
                raise InvalidParameterError(
                    f"{request.path!r} has more than {MAX_UPLOAD:,} bytes; upload it as an artifact"
                    " of mlflow-artifacts:"
                )
    except ClientDisconnect:
        return
    if not content:
        raise InvalidParameterError(f"the request has no content for {request.path!r}")
    await location.repository.write_bytes(path, bytes(content))
    await Response(media_type="application/json")(scope, receive, send)


async def _run_uri(server: Server, run_id: str | None) -> str:
    if not run_id:
        raise InvalidParameterError("Missing value for required parameter 'run_id'.")
    return (await server.store.get_run(run_id)).info.artifact_uri


async def _listed(server: Server, artifact_uri: str, path: str | None) -> dict[str, Any]:
    location = await location_of(server, artifact_uri)
    return {"root_uri": artifact_uri, **_files(await location.list_artifacts(path))}


def _files(found: Sequence[FileInfo]) -> dict[str, Any]:
    # As MLflow's protocol has it, a list that is empty is not there.
    return {"files": [file_info_to_json(each) for each in found]} if found else {}


async def _send(
    location: ArtifactLocation, path: str, scope: Scope, receive: Receive, send: Send
) -> None:
    request = HttpRequest(scope, receive)
    response = await artifact_response(request, location.repository, location.path(path))
    await response(scope, receive, send)


PROXIED_PATH = "/api/2.0/mlflow-artifacts/artifacts/{artifact_path:path}"
# Of the UI alone.
AJAX = "/ajax-api/2.0/mlflow"

ROUTES: tuple[AnyRoute, ...] = (
    Route("GET", "/api/2.0/mlflow-artifacts/artifacts", list_proxied, ListProxied, searches=True),
    Route("DELETE", PROXIED_PATH, delete_proxied, ProxiedArtifact),
    AsgiRoute("PUT", PROXIED_PATH, upload_proxied, takes=(BYTES,)),
    *readable(PROXIED_PATH, download_proxied),
    Route("GET", "/api/2.0/mlflow/artifacts/list", list_artifacts, ListArtifacts, searches=True),
    Route(
        "GET",
        "/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories",
        list_logged_model_artifacts,
        ListLoggedModelArtifacts,
        searches=True,
    ),
    *readable("/get-artifact", get_run_artifact, RunArtifact),
    *readable("/model-versions/get-artifact", get_model_version_artifact, ModelVersionArtifact),
    *readable(
        f"{AJAX}/logged-models/{{model_id}}/artifacts/files",
        get_logged_model_artifact,
        LoggedModelArtifact,
    ),
    *readable(f"{AJAX}/get-trace-artifact", get_trace_artifact, TraceArtifact),
    *readable("/ajax-api/3.0/mlflow/get-trace-artifact", get_trace_artifact, TraceArtifact),
    AsgiRoute("POST", f"{AJAX}/upload-artifact", upload_run_artifact, RunArtifact, takes=(BYTES,)),
)
