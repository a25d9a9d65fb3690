"""The OpenAPI document of the table of routes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

import asyncstore
from asyncstore.server.routing import AnyRoute, AsgiRoute

__all__ = ["document"]

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_ERROR = {
    "description": "It failed.",
    "content": {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}},
}


class Error(msgspec.Struct):
    """What went wrong: MLflow's name for the kind of trouble, and a message."""

    error_code: str
    message: str


def document(routes: Iterable[AnyRoute]) -> dict[str, Any]:
    """Describe routes.

    Args:
        routes: The table. What is served under `/ajax-api` too is described once.
    """
    known = tuple(routes)
    kinds = {route.request for route in known}
    _, schemas = msgspec.json.schema_components(
        [Error, *sorted(kinds, key=lambda kind: kind.__name__)], ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in known:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asyncstore",
            "summary": "MLflow's REST API",
            "version": asyncstore.__version__,
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(route: AnyRoute, schemas: dict[str, Any]) -> dict[str, Any]:
    said = route.summary or (inspect.getdoc(route.handler) or "").partition("\n")[0]
    in_path = _PARAMETER.findall(route.path)
    queried = isinstance(route, AsgiRoute) or route.method == "GET"
    schema = schemas[route.request.__name__]
    properties = {name: each for name, each in schema["properties"].items() if name not in in_path}
    required = [name for name in schema.get("required", ()) if name in properties]
    operation: dict[str, Any] = {
        "summary": said,
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower())}",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in in_path
        ],
        "responses": {"200": {"description": "It is done."}, "default": _ERROR},
    }
    if queried:
        operation["parameters"] += [
            {"name": name, "in": "query", "required": name in required, "schema": each}
            for name, each in properties.items()
        ]
    elif properties:
        body = {"type": "object", "properties": properties, "required": required}
        reference = {"$ref": _REF.format(name=route.request.__name__)}
        operation["requestBody"] = {
            "required": bool(required),
            "content": {"application/json": {"schema": body if in_path else reference}},
        }
    answer = operation["responses"]["200"]
    if isinstance(route, AsgiRoute):
        operation["parameters"] += [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in route.headers
        ]
        if route.takes:
            content: dict[str, Any] = {kind: {} for kind in route.takes}
            operation["requestBody"] = {"required": True, "content": content}
        if route.method != "HEAD":
            answer["content"] = {route.gives: {}}
    else:
        answer["content"] = {"application/json": {"schema": {"type": "object"}}}
    return operation
