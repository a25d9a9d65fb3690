"""The table of routes, and how the route of a request is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from asyncstore.server.decoding import Request
from asyncstore.server.state import Server

__all__ = ["AsgiRoute", "Lookup", "Route", "Routes", "readable", "route_of"]

Handler = Callable[[Server, Any], Awaitable[Any]]
AsgiHandler = Callable[[Server, Scope, Receive, Send], Awaitable[None]]

SAFE_METHODS = ("GET", "HEAD")
_ROUTE = "asyncstore.route"
_NO_PARAMS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Route:
    """A request that is answered with JSON.

    Args:
        method: Of HTTP.
        path: `/api/2.0/...` is served as `/ajax-api/2.0/...` too. `{name}` is one part of the
            path, and `{name:path}` all the rest; a field of the request struct has that name.
        handler: Takes the server and the request, and returns what the answer's JSON holds.
        request: The struct of the query or the body.
        reads: Whether it changes nothing; None for what the method says.
        searches: Whether it may take long, and is cancelled when its client goes away.
        summary: What it does, for the OpenAPI document; empty for the handler's docstring.
    """

    method: str
    path: str
    handler: Handler
    request: type[Request] = Request
    reads: bool | None = None
    searches: bool = False
    summary: str = ""


@dataclass(frozen=True)
class AsgiRoute:
    """A request whose handler speaks ASGI: streams, and what is no JSON.

    Args:
        method: Of HTTP.
        path: As of a `Route`; its parts are in `scope["path_params"]`.
        handler: Takes the server, and what ASGI hands on. It answers; an error of asyncstore that
            it raises before it began to becomes the answer.
        request: The struct of the query.
        reads: As of a `Route`.
        summary: As of a `Route`.
        headers: Names of headers that it needs.
        takes: Types of the body, of which it takes each; empty for no body.
        gives: The type of the answer; `*/*` for one that depends on what is asked for.
    """

    method: str
    path: str
    handler: AsgiHandler
    request: type[Request] = Request
    reads: bool | None = None
    summary: str = ""
    headers: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    gives: str = "*/*"


AnyRoute = Route | AsgiRoute


def readable(
    path: str, handler: AsgiHandler, request: type[Request] = Request
) -> tuple[AsgiRoute, AsgiRoute]:
    """The two routes of what is streamed out: GET, and HEAD, which gets its headers."""
    return AsgiRoute("GET", path, handler, request), AsgiRoute("HEAD", path, handler, request)


@dataclass
class _Node:
    """A part of the paths that have parameters."""

    parts: dict[str, _Node] = field(default_factory=dict)
    any_part: _Node | None = None
    rest: dict[str, tuple[AnyRoute, tuple[str, ...]]] = field(default_factory=dict)
    here: dict[str, tuple[AnyRoute, tuple[str, ...]]] = field(default_factory=dict)


class Routes:
    """The table. A path without parameters is found in a dictionary, the others part by part.

    Args:
        routes: What is served.
    """

    def __init__(self, routes: Iterable[AnyRoute]) -> None:
        self._fixed: dict[str, dict[str, AnyRoute]] = {}
        self._root = _Node()
        self._routes = tuple(routes)
        for route in self._routes:
            self._add(route.path, route)
            if route.path.startswith("/api/"):
                self._add("/ajax-api/" + route.path.removeprefix("/api/"), route)

    def __iter__(self) -> Iterator[AnyRoute]:
        return iter(self._routes)

    def _add(self, path: str, route: AnyRoute) -> None:
        if "{" not in path:
            methods = self._fixed.setdefault(path, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {path}")
            methods[route.method] = route
            return
        node, names = self._root, list[str]()
        for part in path.split("/"):
            if not part.startswith("{"):
                node = node.parts.setdefault(part, _Node())
                continue
            name, _, kind = part.strip("{}").partition(":")
            names.append(name)
            if kind == "path":
                node.rest[route.method] = (route, tuple(names))
                return
            if node.any_part is None:
                node.any_part = _Node()
            node = node.any_part
        node.here[route.method] = (route, tuple(names))

    def find(
        self, method: str, path: str
    ) -> tuple[AnyRoute | None, Mapping[str, str], Iterable[str]]:
        """The route of a request.

        Args:
            method: Of HTTP.
            path: Decoded, without the query.

        Returns:
            The route, or None; the parts of the path that have a name; and the methods that the
            path has.
        """
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed.get(method), _NO_PARAMS, fixed
        parts = path.split("/")
        methods: set[str] = set()
        for found, values in _matches(self._root, parts, 0, ()):
            if method in found:
                route, names = found[method]
                return route, dict(zip(names, values, strict=True)), found
            methods.update(found)
        return None, _NO_PARAMS, methods


def _matches(
    node: _Node, parts: list[str], at: int, values: tuple[str, ...]
) -> Iterator[tuple[dict[str, tuple[AnyRoute, tuple[str, ...]]], tuple[str, ...]]]:
    """What a path may mean, what names more parts of it first."""
    if at == len(parts):
        if node.here:
            yield node.here, values
        return
    if (below := node.parts.get(parts[at])) is not None:
        yield from _matches(below, parts, at + 1, values)
    if node.any_part is not None and parts[at]:
        yield from _matches(node.any_part, parts, at + 1, (*values, parts[at]))
    if node.rest and any(parts[at:]):
        yield node.rest, (*values, "/".join(parts[at:]))


class Lookup:
    """Finds the route of each request, so that middlewares know it: `route_of` tells them.

    Args:
        app: What it stands before.
        routes: The table.
        static_prefix: What stands before every path.
    """

    def __init__(self, app: ASGIApp, routes: Routes, static_prefix: str) -> None:
        self._app = app
        self._routes = routes
        self._static_prefix = static_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "http":
            path: str = scope["path"]
            for prefix in (scope.get("root_path", ""), self._static_prefix):
                if prefix and path.startswith(prefix + "/"):
                    path = path[len(prefix) :]
            route, params, methods = self._routes.find(scope["method"], path)
            scope[_ROUTE] = Found(route, methods)
            scope["path_params"] = params
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Found:
    """What the table has for a request.

    Args:
        route: The route; None when there is none.
        methods: The methods that there are for the path; none for a path that is not there.
    """

    route: AnyRoute | None
    methods: Iterable[str] = ()

    @property
    def reads(self) -> bool:
        """Whether the request changes nothing, as far as the table knows."""
        return self.route is not None and reads(self.route)


def reads(route: AnyRoute) -> bool:
    """Whether a route changes nothing."""
    return route.method in SAFE_METHODS if route.reads is None else route.reads


def route_of(scope: Scope) -> Found:
    """What `Lookup` found for a request."""
    found: Found | None = scope.get(_ROUTE)
    return Found(None) if found is None else found
