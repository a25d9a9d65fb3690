"""The beginning of what went into a trace and came out, for lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["preview"]

MAX_LENGTH = 1000


def preview(value: Any, role: str) -> str | None:
    """A text of at most 1,000 characters, as MLflow makes it.

    Args:
        value: Inputs or outputs; of a chat, the last message of `role` is taken.
        role: `user` or `assistant`.

    Returns:
        The text; None when there is no value.
    """
    if value is None:
        return None
    text = _message(value, role) or (value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def _message(value: Any, role: str) -> str | None:
    if not isinstance(value, Mapping):
        return None
    messages = value.get("messages")
    if not isinstance(messages, list):
        choices = value.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        messages = [first.get("message")] if isinstance(first, Mapping) else []
    of_role = [
        message for message in messages if isinstance(message, Mapping) and "content" in message
    ]
    chosen = [message for message in of_role if message.get("role") == role] or of_role
    if not chosen:
        return None
    content = chosen[-1]["content"]
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = next((text for text in texts if isinstance(text, str)), None)
    return content if isinstance(content, str) else None
