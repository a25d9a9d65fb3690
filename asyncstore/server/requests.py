"""What the requests of several entities share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import anyio.to_thread

from asyncstore.entities import PagedList, ViewType
from asyncstore.errors import InvalidParameterError
from asyncstore.server.decoding import Request, RequiredText

__all__ = ["Tag", "list_in_tag", "listed", "page", "tags_of", "view_type_of"]

T = TypeVar("T")

# Runs of which JSON is made without a pause take the event loop about 10 ms.
AT_ONCE = 200

# Enumerations of MLflow's protocol come by name or by number.
_VIEW_TYPES: dict[str, ViewType] = {
    "ACTIVE_ONLY": "ACTIVE_ONLY",
    "DELETED_ONLY": "DELETED_ONLY",
    "ALL": "ALL",
    "1": "ACTIVE_ONLY",
    "2": "DELETED_ONLY",
    "3": "ALL",
}


class Tag(Request):
    """A tag or a parameter."""

    key: RequiredText
    value: str | None = None


def tags_of(tags: Iterable[Tag] | None) -> dict[str, str]:
    """Tags or parameters by key; the last one counts."""
    return {tag.key: tag.value or "" for tag in tags or ()}


def list_in_tag(text: str | None) -> list[Any]:
    """The list that a tag holds as JSON; an empty one when it holds something else."""
    try:
        found = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def view_type_of(given: str | int | None) -> ViewType:
    """The view type of a request; active ones without any.

    Raises:
        InvalidParameterError: There is no such view type.
    """
    if given is None:
        return "ACTIVE_ONLY"
    try:
        return _VIEW_TYPES[str(given)]
    except KeyError:
        raise InvalidParameterError(
            f"{given!r:.100} is no view type; there are ACTIVE_ONLY, DELETED_ONLY and ALL"
        ) from None


async def page(
    name: str, found: PagedList[T], to_json: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """A page of results, with the token of the next one; what is empty is left out.

    Args:
        name: Of the list.
        found: The page.
        to_json: Makes JSON of a result.
    """
    answer: dict[str, Any] = {}
    if found:
        answer[name] = await listed(found, to_json)
    if found.token:
        answer["next_page_token"] = found.token
    return answer


async def listed(found: Sequence[T], to_json: Callable[[T], dict[str, Any]]) -> list[Any]:
    """The JSON of each result; that of many is made in a thread, beside other requests."""
    if len(found) <= AT_ONCE:
        return [to_json(each) for each in found]
    return await anyio.to_thread.run_sync(lambda: [to_json(each) for each in found])
