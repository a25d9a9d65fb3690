"""Providers that need nothing but their own methods."""

from __future__ import annotations

import threading
from typing import Any

#: Threads that asked for tags.
asked: list[int] = []


class RunContext:
    def in_context(self) -> bool:
        return True

    def tags(self) -> dict[str, Any]:
        asked.append(threading.get_ident())
        return {"porch.seats": 4, "mlflow.source.name": "the porch", "note": "the porch's"}


class Elsewhere:
    def in_context(self) -> bool:
        return False

    def tags(self) -> dict[str, str]:
        return {"porch.seats": "none"}


class RequestAuth:
    def get_name(self) -> str:
        return "porch-key"

    def get_auth(self) -> Any:
        def put_on(request: Any) -> Any:
            request.headers["Authorization"] = "Bearer of-the-porch"
            return request

        return put_on


class RequestHeaders:
    def in_context(self) -> bool:
        return True

    def request_headers(self) -> dict[str, str]:
        return {"User-Agent": "porch/2.5", "X-Seats": "4"}
