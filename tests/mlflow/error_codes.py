"""Calls that fail, with MLflow and with asyncstore: the codes of their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from asyncstore.errors import AsyncStoreError

__all__ = ["different_codes"]


async def different_codes(calls: Sequence[tuple[Any, Any]]) -> list[tuple[int, str, str]]:
    """Of pairs of calls, ours and theirs, those that do not end alike, with both codes."""
    different = []
    for number, (ours, theirs) in enumerate(calls):
        our_code = their_code = "fine"
        try:
            await ours()
        except AsyncStoreError as error:
            our_code = error.error_code
        try:
            theirs()
        except MlflowException as error:
            their_code = error.error_code
        if our_code != their_code:
            different.append((number, our_code, their_code))
    return different
