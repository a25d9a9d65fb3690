"""What the parts of the store over HTTP share."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from typing_extensions import override

from asyncstore.errors import NotFoundError, UnsupportedError
from asyncstore.metadata.store import MetadataStore
from asyncstore.rest.connection import Connection
from asyncstore.rest.errors import ENDPOINT_NOT_FOUND
from asyncstore.rest.json_fields import optional_text
from asyncstore.uris import redact

__all__ = ["API", "API_3", "UI_API", "RestBase", "chunks", "now_ms", "piece", "token_of"]

API: Final = "/api/2.0/mlflow"
API_3: Final = "/api/3.0/mlflow"
#: What only MLflow's UI asks for by itself.
UI_API: Final = "/ajax-api/2.0/mlflow"

T = TypeVar("T")


class RestBase(MetadataStore, ABC):
    """A store over a connection; each entity's methods are in a file of its own.

    Args:
        connection: The connection to a tracking server, which the store closes.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @override
    async def aclose(self) -> None:
        await self._connection.aclose()

    async def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return await self._ask("GET", path, params=params)

    async def _post(
        self, path: str, content: Mapping[str, Any], *, repeatable: bool = False
    ) -> dict[str, Any]:
        """Send something; `repeatable` says that sending it twice does no more than once."""
        return await self._ask("POST", path, content, repeatable=repeatable)

    async def _ask(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        repeatable: bool | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        if content is not None:
            more["json"] = {key: value for key, value in content.items() if value is not None}
        try:
            return await self._connection.call(
                method, path, params=params, idempotent=repeatable, **more
            )
        except NotFoundError as error:
            if error.error_code != ENDPOINT_NOT_FOUND:
                raise
            raise UnsupportedError(
                f"the server at {redact(self._connection.uri)} has no {method} {path}: its MLflow "
                "is too old for this, or it is no tracking server",
                error_code=ENDPOINT_NOT_FOUND,
            ) from error


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def piece(name: object) -> str:
    """A name as a piece of a path."""
    return quote(str(name), safe="")


def token_of(answer: Mapping[str, Any]) -> str | None:
    """The token of the next page; None on the last one."""
    return optional_text(answer, "next_page_token") or None


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in pieces of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]
