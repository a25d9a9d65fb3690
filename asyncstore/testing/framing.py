"""Where the messages of an HTTP/1.1 connection begin and end (RFC 9112, sections 2 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What common servers allow; a client that sends more is broken.
_MAX_HEAD = 256 * 1024


class FramingError(ValueError):
    """The bytes are not HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    """The start line and the header fields of a message.

    Attributes:
        raw: The bytes as they came, with the empty line that ends them.
        start: The three words of the start line.
        headers: The fields, names in lower case; repeated ones are joined by ", ".
    """

    raw: bytes
    start: tuple[str, str, str]
    headers: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Read a head.

        Raises:
            FramingError: a line is malformed.
        """
        lines = raw.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2:
            raise FramingError(f"not a start line: {lines[0]!r}")
        headers: dict[str, str] = {}
        for line in lines[1:-2]:
            name, colon, value = line.partition(":")
            if not colon:
                raise FramingError(f"not a header field: {line!r}")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return cls(raw, (words[0], words[1], words[2] if len(words) == 3 else ""), headers)


class _Expect(Enum):
    HEAD = auto()
    LENGTH = auto()
    CLOSE = auto()
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    TRAILER = auto()


class Framer:
    """Cuts one direction of a connection into messages; bodies pass through uncopied and unread."""

    def __init__(
        self,
        *,
        has_body: Callable[[Head], bool] = lambda _: True,
        until_close: bool = False,
    ) -> None:
        """Start before the first message.

        Args:
            has_body: Whether a body can follow a head; answers to HEAD have none, whatever it says.
            until_close: Whether a body of unstated length lasts until the connection closes, as
                that of an answer does; that of a request is empty.
        """
        self._has_body = has_body
        self._until_close = until_close
        self._expect = _Expect.HEAD
        self._line = bytearray()
        self._remaining = 0

    def feed(self, data: bytes) -> Iterator[Head | bytes | None]:
        """Yield what `data` holds: a `Head`, pieces of its body, None where the message ends.

        Pieces of a chunked body keep the chunk sizes: joined, they are what came over the wire.

        Raises:
            FramingError: this is not HTTP/1.1.
        """
        while data:
            if self._expect is _Expect.HEAD:
                self._line += data
                end = self._line.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._line) > _MAX_HEAD:
                        raise FramingError("the head of a message does not end")
                    return
                head = Head.parse(bytes(self._line[: end + 4]))
                data = bytes(self._line[end + 4 :])
                self._line.clear()
                self._begin_body(head)
                yield head
                if self._expect is _Expect.HEAD:
                    yield None
            elif self._expect is _Expect.CLOSE:
                yield data
                return
            elif self._expect in (_Expect.LENGTH, _Expect.CHUNK_DATA):
                piece, data = self._take(data)
                yield piece
                if self._expect is _Expect.LENGTH and not self._remaining:
                    self._expect = _Expect.HEAD
                    yield None
                elif not self._remaining:
                    self._expect = _Expect.CHUNK_SIZE
            else:
                piece, data, ended = self._take_line(data)
                yield piece
                if ended:
                    yield None

    def _begin_body(self, head: Head) -> None:
        self._expect = _Expect.HEAD
        if not self._has_body(head):
            return
        if head.headers.get("transfer-encoding", "").lower().endswith("chunked"):
            self._expect = _Expect.CHUNK_SIZE
        elif (length := head.headers.get("content-length")) is not None:
            if not length.isdecimal():
                raise FramingError(f"not a content length: {length!r}")
            self._remaining = int(length)
            if self._remaining:
                self._expect = _Expect.LENGTH
        elif self._until_close:
            self._expect = _Expect.CLOSE

    def _take(self, data: bytes) -> tuple[bytes, bytes]:
        if len(data) <= self._remaining:
            self._remaining -= len(data)
            return data, b""
        piece, rest = data[: self._remaining], data[self._remaining :]
        self._remaining = 0
        return piece, rest

    def _take_line(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Take a chunk size or a trailer, as far as it is there; True when the message ended."""
        end = data.find(b"\n") + 1
        piece, rest = (data[:end], data[end:]) if end else (data, b"")
        self._line += piece
        if not end:
            return piece, rest, False
        line = bytes(self._line).strip()
        self._line.clear()
        if self._expect is _Expect.TRAILER:
            if not line:
                self._expect = _Expect.HEAD
            return piece, rest, not line
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise FramingError(f"not a chunk size: {line!r}") from None
        # The data of a chunk ends with CRLF; the last chunk has none.
        self._remaining = size + 2
        self._expect = _Expect.CHUNK_DATA if size else _Expect.TRAILER
        return piece, rest, False
