"""Headers of requests to a tracking server: asyncstore's provider, for MLflow and for itself.

MLflow finds it by its entry point and calls `in_context` and `request_headers`; it needs no MLflow.
"""

from __future__ import annotations

import asyncstore
from asyncstore import settings

__all__ = ["RequestHeaders"]


class RequestHeaders:
    """The version of asyncstore, and the headers of ASYNCSTORE_REQUEST_HEADERS.

    MLflow puts the values of a header that several providers have behind each other, which makes
    `mlflow-python-client/3.17.2 asyncstore/0.1.0` of the User-Agent. Where something on the way
    replaces that header, X-Asyncstore-Version still says it.
    """

    def in_context(self) -> bool:
        """Whether there are headers: always."""
        return True

    def request_headers(self) -> dict[str, str]:
        """The headers; those of the variable go before asyncstore's own.

        Raises:
            InvalidParameterError: The variable is no JSON object of texts that headers can hold.
        """
        own = {
            "User-Agent": f"asyncstore/{asyncstore.__version__}",
            "X-Asyncstore-Version": asyncstore.__version__,
        }
        given = settings.ASYNCSTORE_REQUEST_HEADERS.get()
        names = {name.lower() for name in given}
        return {name: own[name] for name in own if name.lower() not in names} | given
