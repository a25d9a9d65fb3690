"""Page tokens: opaque to the caller, JSON in base64 underneath."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from asyncstore.errors import InvalidParameterError

__all__ = ["read_metric", "read_offset", "write_metric", "write_offset"]

MetricPosition = tuple[int, int, float, bool]


def write_offset(offset: int) -> str:
    """The token of the page that begins behind `offset` results."""
    return _write({"offset": offset})


def read_offset(token: str | None) -> int:
    """What `write_offset` wrote; 0 for no token.

    Raises:
        InvalidParameterError: It did not write this.
    """
    if not token:
        return 0
    offset = _read(token).get("offset")
    if type(offset) is not int or not 0 < offset < 2**63:
        raise _invalid(token)
    return offset


def write_metric(position: MetricPosition | None) -> str:
    """The token of the page of a metric's history that begins behind a row."""
    return _write({"after": position})


def read_metric(token: str) -> MetricPosition:
    """What `write_metric` wrote.

    Raises:
        InvalidParameterError: It did not write this.
    """
    match _read(token).get("after"):
        case [int(timestamp), int(step), float(value), bool(is_nan)] if (
            -(2**63) <= timestamp < 2**63 and -(2**63) <= step < 2**63 and math.isfinite(value)
        ):
            return timestamp, step, value, is_nan
    raise _invalid(token)


def _write(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _read(token: str) -> dict[str, Any]:
    try:
        content = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, TypeError, ValueError, RecursionError) as error:
        raise _invalid(token) from error
    if not isinstance(content, dict):
        raise _invalid(token)
    return content


def _invalid(token: object) -> InvalidParameterError:
    return InvalidParameterError(
        f"page_token {str(token)[:50]!r} is not a token of this search; pass on the `token` of the "
        "page before"
    )
