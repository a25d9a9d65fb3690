"""Fields of MLflow's JSON, which is that of its protobuf messages.

What is absent or null has a default, and a 64-bit integer may be a number or a text
(https://protobuf.dev/programming-guides/json). MLflow writes such integers as numbers, and the
names of fields as they are, not in camel case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from asyncstore.errors import InvalidParameterError

__all__ = [
    "choice",
    "duration_to_json",
    "flag",
    "integer",
    "is_too_deep",
    "list_of",
    "message",
    "messages",
    "number",
    "optional_duration",
    "optional_integer",
    "optional_text",
    "optional_timestamp",
    "tags_from_json",
    "tags_to_json",
    "text",
    "text_map",
    "timestamp_to_json",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
# Of google.protobuf.Duration.
_LONGEST_DURATION: Final = 315_576_000_000
_MOST_LEVELS: Final = 100


def _wrong(d: Mapping[str, Any], key: str, what: str) -> InvalidParameterError:
    return InvalidParameterError(f"{key!r} has to be {what}, and is {d[key]!r:.100}")


def optional_text(d: Mapping[str, Any], key: str) -> str | None:
    """A text; None when absent."""
    found = d.get(key)
    if found is not None and not isinstance(found, str):
        raise _wrong(d, key, "a text")
    return found


def text(d: Mapping[str, Any], key: str) -> str:
    """A text; empty when absent."""
    return optional_text(d, key) or ""


def optional_integer(d: Mapping[str, Any], key: str) -> int | None:
    """An integer; None when absent."""
    found = d.get(key)
    if found is None or type(found) is int:
        return found
    if isinstance(found, float) and found.is_integer():
        return int(found)
    try:
        if isinstance(found, str):
            return int(found)
    except ValueError:
        pass
    raise _wrong(d, key, "an integer")


def integer(d: Mapping[str, Any], key: str) -> int:
    """An integer; 0 when absent."""
    return optional_integer(d, key) or 0


def number(d: Mapping[str, Any], key: str) -> float:
    """A number, `"NaN"`, `"Infinity"` or `"-Infinity"`; 0 when absent."""
    found = d.get(key)
    if found is None:
        return 0.0
    try:
        if not isinstance(found, bool):
            return float(found)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _wrong(d, key, "a number")


def flag(d: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """A truth value; `default` when absent."""
    found = d.get(key)
    if found is None:
        return default
    if not isinstance(found, bool):
        raise _wrong(d, key, "true or false")
    return found


def choice(d: Mapping[str, Any], key: str, names: Mapping[str, int], default: str) -> str:
    """A name of an enumeration, which may be given by its number."""
    found = d.get(key)
    if found is None:
        return default
    if isinstance(found, str) and found in names:
        return found
    for name, value in names.items():
        if type(found) is int and found == value:
            return name
    raise _wrong(d, key, f"one of {', '.join(names)}")


def list_of(d: Mapping[str, Any], key: str) -> Sequence[Any]:
    """A list; empty when absent."""
    found = d.get(key)
    if found is None:
        return ()
    if not isinstance(found, list | tuple):
        raise _wrong(d, key, "a list")
    return found


def message(d: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; empty when absent."""
    found = d.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise _wrong(d, key, "an object")
    return found


def messages(d: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """A list of objects; empty when absent."""
    found = list_of(d, key)
    if not all(isinstance(item, Mapping) for item in found):
        raise _wrong(d, key, "a list of objects")
    return found


def text_map(d: Mapping[str, Any], key: str) -> dict[str, str]:
    """Texts by key; empty when absent."""
    found = dict(message(d, key))
    if not all(isinstance(value, str) for value in found.values()):
        raise _wrong(d, key, "an object of texts")
    return found


def is_too_deep(content: Any) -> bool:
    """Whether JSON has more levels than can be written and read again everywhere."""
    level = [content]
    for _ in range(_MOST_LEVELS):
        level = [
            below
            for each in level
            if isinstance(each, dict | list)
            for below in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def tags_to_json(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags or params as a list of `key` and `value`."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def tags_from_json(tags: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Tags or params from a list of `key` and `value`.

    Raises:
        InvalidParameterError: One of them is neither a text nor absent.
    """
    return {text(tag, "key"): text(tag, "value") for tag in tags}


def timestamp_to_json(ms: int) -> str:
    """Milliseconds since the epoch as `2025-04-15T08:49:18.699Z`.

    Raises:
        InvalidParameterError: Outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + ms * _MS
    except OverflowError as error:
        raise InvalidParameterError(f"{ms} ms is outside the years 1 to 9999") from error
    unit = "milliseconds" if ms % 1000 else "seconds"
    return f"{moment.replace(tzinfo=None).isoformat(timespec=unit)}Z"


def optional_timestamp(d: Mapping[str, Any], key: str) -> int | None:
    """Milliseconds since the epoch from `2025-04-15T08:49:18.699Z`; None when absent."""
    if d.get(key) is None:
        return None
    try:
        moment = datetime.fromisoformat(text(d, key))
        since = moment - _EPOCH
        # What an offset brings outside the years 1 to 9999 could not be written again.
        _ = _EPOCH + since
        return since // _MS
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(d, key, "a time such as 2025-04-15T08:49:18.699Z") from error


def duration_to_json(ms: int) -> str:
    """Milliseconds as `1.500s`."""
    seconds, rest = divmod(abs(ms), 1000)
    sign = "-" if ms < 0 else ""
    return f"{sign}{seconds}.{rest:03}s" if rest else f"{sign}{seconds}s"


def optional_duration(d: Mapping[str, Any], key: str) -> int | None:
    """Milliseconds from `1.5s`; None when absent."""
    if (found := optional_text(d, key)) is None:
        return None
    whole, _, fraction = found.removesuffix("s").lstrip("-").partition(".")
    digits = f"{whole}{fraction}"
    if not (found.endswith("s") and whole and digits.isascii() and digits.isdigit()):
        raise _wrong(d, key, "a duration such as 1.5s")
    if len(whole.lstrip("0")) > 12 or int(whole) > _LONGEST_DURATION:
        raise _wrong(d, key, f"at most {_LONGEST_DURATION:,} seconds")
    ms = int(whole) * 1000 + int(f"{fraction:0<3}"[:3])
    return -ms if found.startswith("-") else ms
