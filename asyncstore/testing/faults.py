"""What can go wrong with a request on its way through the fault proxy."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
)


@dataclass(slots=True)
class Request:
    """A request as the proxy saw it, without its body.

    Attributes:
        method: In upper case; empty on a connection that is not read as HTTP.
        path: As sent, percent-encoded, without the query.
        query: As sent, without the question mark.
        headers: Names in lower case.
        status: The status that the client got; None while there is none, or none was sent.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None


@dataclass(kw_only=True)
class Fault:
    """Which requests a fault meets. On connections that are not HTTP, a connection is one request.

    Attributes:
        matches: Which requests count for `every` and `first`; the default is all.
        every: Every n-th of them: 1 is each, 2 the second, the fourth, ...
        first: Only among the first n of them; None means for ever.
        count: How many requests it has met.
    """

    matches: Callable[[Request], bool] = lambda _: True
    every: int = 1
    first: int | None = None
    count: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False, repr=False)

    def meets(self, request: Request) -> bool:
        """Whether this request gets the fault; asked once for each."""
        if not self.matches(request):
            return False
        self._seen += 1
        if self.first is not None and self._seen > self.first:
            return False
        if self._seen % self.every:
            return False
        self.count += 1
        return True


@dataclass(kw_only=True)
class Answer(Fault):
    """The proxy answers instead of the server. The default is what S3 says when it is overloaded.

    A status of 200 with an error in the body (`INTERNAL_ERROR`) is what S3 may answer to
    CompleteMultipartUpload and CopyObject.

    Attributes:
        status: The HTTP status.
        headers: Fields to add, `Retry-After` for instance.
        body: The body.
        forward: Whether the server gets the request all the same, and only its answer is replaced.
    """

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = SLOW_DOWN
    forward: bool = False

    def encode(self, request: Request) -> bytes:
        """The bytes of the answer to `request`."""
        phrase = HTTPStatus(self.status).phrase
        fields = {
            "Content-Type": "application/xml",
            "Content-Length": str(len(self.body)),
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{k}: {v}" for k, v in fields.items())]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head if request.method == "HEAD" else head + self.body


@dataclass(kw_only=True)
class Reset(Fault):
    """The connection is reset (TCP RST) in the middle of a message.

    Attributes:
        after: How many bytes of the body pass first; 0 means that nothing does, not even the head.
        of: Which message breaks off. When it is the request, the server loses its connection too.
    """

    after: int = 0
    of: Literal["request", "response"] = "response"


@dataclass(kw_only=True)
class Truncate(Fault):
    """The connection is closed in good order (TCP FIN) in the middle of the answer.

    Attributes:
        after: How many bytes of the body pass first; 0 means that nothing does, not even the head.
    """

    after: int = 0


@dataclass(kw_only=True)
class Hang(Fault):
    """The request is swallowed and never answered."""
