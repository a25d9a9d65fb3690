"""From the body or the query of a request to the struct that its handler takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from asyncstore.errors import InvalidParameterError
from asyncstore.rest.json_fields import is_too_deep

__all__ = ["Clauses", "Decoding", "Int64", "Request", "RequiredText", "Timestamp"]

T = TypeVar("T", bound="Request")
T_co = TypeVar("T_co")

RequiredText = Annotated[str, msgspec.Meta(min_length=1)]
# What MLflow's protocol and every database can hold.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Milliseconds of the years 1 to 9999, which can be written as a date too.
Timestamp = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
# Of an order_by. Each may be a join, of which SQLite has 64, and takes long over many.
Clauses = Annotated[list[T_co], msgspec.Meta(max_length=50)]

_MISSING_FIELD = re.compile(r"Object missing required field `([^`]*)`")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`")
_DOCS = " See the API docs for more information about request parameters."
_MOST_FIELDS = 10_000


class Request(msgspec.Struct, kw_only=True):
    """What a handler takes. Unknown fields are ignored, numbers may be texts, null is absent."""


class Decoding(Generic[T]):
    """Makes one kind of struct from what clients send.

    Args:
        kind: The struct.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind, strict=False)
        self._lists = frozenset(
            name for name, hint in get_type_hints(kind).items() if _is_list(hint)
        )
        self._free = _is_free(kind)

    def from_body(self, body: bytes, path_params: Mapping[str, str]) -> T:
        """The struct of a JSON body; an empty one is an empty object.

        Args:
            body: What was sent.
            path_params: What stood in the path, which is above the body.

        Raises:
            InvalidParameterError: It is not JSON, or not what the struct takes.
        """
        try:
            if path_params or self._free:
                content = msgspec.json.decode(body or b"{}", type=dict[str, Any])
                if self._free and is_too_deep(content):
                    raise InvalidParameterError("the request's body is nested too deeply")
                return msgspec.convert({**content, **path_params}, self._kind, strict=False)
            return self._decoder.decode(body or b"{}")
        except msgspec.ValidationError as error:
            if body.lstrip()[:1] == b'"':
                return self._from_unusual(body, path_params)
            raise _refusal(str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._from_unusual(body, path_params)
        except RecursionError as error:
            raise InvalidParameterError("the request's body is nested too deeply") from error

    def from_query(self, query: bytes, path_params: Mapping[str, str]) -> T:
        """The struct of a query string.

        Args:
            query: What stood behind the question mark.
            path_params: What stood in the path, which is above the query.

        Raises:
            InvalidParameterError: It is not what the struct takes.
        """
        content: dict[str, Any] = {}
        try:
            pairs = parse_qsl(
                query.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
            for name, value in pairs:
                if name in self._lists:
                    content.setdefault(name, []).append(value)
                else:
                    content.setdefault(name, value)
            return msgspec.convert({**content, **path_params}, self._kind, strict=False)
        except msgspec.ValidationError as error:
            raise _refusal(str(error)) from error
        except ValueError as error:
            raise InvalidParameterError(
                f"the query of the request is malformed: {error}"
            ) from error

    def _from_unusual(self, body: bytes, path_params: Mapping[str, str]) -> T:
        # Python's own clients write NaN as such, and old ones of MLflow a text that holds JSON.
        try:
            # JSON between programs is UTF-8 (RFC 8259, section 8.1); Python would guess.
            content = json.loads(body.decode("utf-8-sig"), parse_constant=str)
            if isinstance(content, str):
                content = json.loads(content, parse_constant=str)
            again = msgspec.json.encode(content)
        except (ValueError, RecursionError) as error:
            raise InvalidParameterError(f"the request's body is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InvalidParameterError("the request's body is not a JSON object")
        return self.from_body(again, path_params)


def _is_list(hint: Any) -> bool:
    return any(get_origin(each) is list for each in (hint, *getattr(hint, "__args__", ())))


def _is_free(hint: Any) -> bool:
    """Whether a kind of JSON holds some of any kind."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return any(map(_is_free, get_type_hints(hint).values()))
    return hint is Any or any(map(_is_free, get_args(hint)))


def _refusal(message: str) -> InvalidParameterError:
    found = _PLACE.search(message)
    place = found.group(1) if found else ""
    missing = _MISSING_FIELD.match(message)
    if missing:
        name = f"{place}.{missing.group(1)}" if place else missing.group(1)
    elif "of length >= 1" in message or "got `null`" in message:
        name = place
    else:
        what = message[: found.start()] if found else message
        where = f" for parameter '{place}'" if place else ""
        return InvalidParameterError(f"Invalid value{where}: {what[:1].lower()}{what[1:]}.{_DOCS}")
    return InvalidParameterError(f"Missing value for required parameter '{name}'.{_DOCS}")
