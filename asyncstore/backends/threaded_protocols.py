"""What asyncstore knows of the protocols of fsspec that it drives in threads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from asyncstore import settings, uris
from asyncstore.errors import InvalidParameterError

__all__ = ["KNOWN", "Known"]


class Known(NamedTuple):
    """What asyncstore knows of a protocol. The extra has the protocol's name.

    Args:
        form: How its URIs are written.
        location: What stands behind `://`.
        variables: Arguments of the filesystem, and where they come from.
    """

    form: str
    location: re.Pattern[str]
    variables: Mapping[str, settings.Setting[str | None]]

    def check(self, uri: str) -> None:
        """Refuse a URI that is not in the protocol's form.

        Raises:
            InvalidParameterError: It is not, or its path is not acceptable.
        """
        location = uri.partition("://")[2]
        uris.root_path(uri, location)
        if not self.location.fullmatch(location):
            raise InvalidParameterError(f"{uris.redact(uri)}: write {self.form}")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the filesystem whose variables are set."""
        values = {name: variable.get() for name, variable in self.variables.items()}
        return {name: value for name, value in values.items() if value is not None}


#: Object stores: a file appears at once when it has been sent.
KNOWN = {
    "oss": Known(
        "oss://bucket/path",
        re.compile(r"[^/@:]+(?:/.*)?"),
        {
            "endpoint": settings.MLFLOW_OSS_ENDPOINT_URL,
            "key": settings.MLFLOW_OSS_KEY_ID,
            "secret": settings.MLFLOW_OSS_KEY_SECRET,
        },
    ),
    # ocifs and huggingface_hub read their own variables.
    "oci": Known("oci://bucket@namespace/path", re.compile(r"[^/@:]+@[^/@:]+(?:/.*)?"), {}),
    "hf": Known("hf://owner/repository/path", re.compile(r"[^/@:]+/[^/]+(?:/.*)?"), {}),
}
