"""What a web server's page about a directory says is in it."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

__all__ = ["children"]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value.strip() for name, value in attributes if name == "href" and value]


def children(page: str, url: str) -> list[tuple[str, bool]]:
    """The direct children of a directory, by the links of its page. Takes its time.

    Only links below the directory on the same server count. One that leads elsewhere, has a query
    (a listing sorted in another way), or whose name decodes to something that is no file name, is
    none.

    Args:
        page: HTML.
        url: Where the page is from, with the slash at its end.

    Returns:
        Names, percent-decoded, and whether a slash behind it says that it is a directory.
    """
    links = _Links()
    links.feed(page)
    links.close()
    here = urlsplit(url)
    above = _segments(here.path) or []
    found: dict[str, bool] = {}
    for link in links.found:
        name = _child(link, url, (here.scheme, here.netloc), above[:-1])
        if name is not None:
            found[name[0]] = found.get(name[0], False) or name[1]
    return list(found.items())


def _child(
    link: str, url: str, server: tuple[str, str], above: list[str]
) -> tuple[str, bool] | None:
    try:
        target = urlsplit(urljoin(url, link))
    except ValueError:
        return None
    if (target.scheme, target.netloc) != server or target.query:
        return None
    segments = _segments(target.path)
    if segments is None or segments[: len(above)] != above:
        return None
    below = segments[len(above) :]
    if not below or below[0] in ("", ".", ".."):
        return None
    return below[0], len(below) > 1


def _segments(path: str) -> list[str] | None:
    """The path's names, each decoded for itself; None when one of them holds a slash or a NUL."""
    try:
        names = [unquote(name, errors="strict") for name in path.split("/")]
    except UnicodeDecodeError:
        return None
    return None if any("/" in name or "\0" in name for name in names) else names
