"""The URI of a database as an artifact root: where the database ends and the path begins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from asyncstore import uris
from asyncstore.errors import InvalidParameterError

__all__ = ["SqlRoot", "parse_root"]

FORMS = {
    "sqlite": "sqlite:////directory/file.db/path, where the file ends in .db, .sqlite or .sqlite3",
    "postgresql": "postgresql://user:password@host:port/database/path",
    "mysql": "mysql://user:password@host:port/database/path",
    "mssql": "mssql+pyodbc://user:password@host:port/database/path"
    "?driver=ODBC+Driver+18+for+SQL+Server",
}
_DIALECTS = {"postgres": "postgresql", "mariadb": "mysql"}
_SQLITE_FILE = re.compile(r".+\.(?:db|sqlite|sqlite3)", re.IGNORECASE)


@dataclass(frozen=True)
class SqlRoot:
    """A directory in a database.

    Args:
        database: The URI of the database, for its driver.
        shown: The same for messages, without a password and without what is behind `?`.
        path: The directory; an empty string for the whole database.
    """

    database: str = field(repr=False)
    shown: str
    path: str


def parse_root(uri: str) -> SqlRoot:
    """Take the URI of an artifact root in a database apart. No I/O.

    The database is the first segment of the path, the root is what follows. Of a SQLite URI, the
    file is all up to the first segment that ends in `.db`, `.sqlite` or `.sqlite3`. The root is
    percent-decoded; a query belongs to the database.

    Args:
        uri: As in `FORMS`.

    Raises:
        InvalidParameterError: It names no database, or is not clear; says how to write it.
    """
    dialect = uris.scheme_of(uri).partition("+")[0]
    dialect = _DIALECTS.get(dialect, dialect)
    scheme, separator, rest = uri.partition("://")
    rest, mark, query = rest.partition("?")
    shown = uris.redact(f"{scheme}://{rest}")
    form = FORMS[dialect]
    if not separator:
        raise InvalidParameterError(f"{uris.redact(uri)}: write {form}")
    if "#" in rest or "#" in query:
        raise InvalidParameterError(f"{shown}: the URI of a database has no '#'; write {form}")
    split = _split_sqlite if dialect == "sqlite" else _split_server
    database, path = split(f"{scheme}://{rest}", query, shown, form)
    uris.root_path(shown, f"/{path}")
    path = uris.artifact_path(unquote(path).strip("/"))
    database_shown = shown if not path else uris.redact(database)
    return SqlRoot(f"{dialect}{database[len(scheme) :]}{mark}{query}", database_shown, path)


def _split_sqlite(uri: str, query: str, shown: str, form: str) -> tuple[str, str]:
    location = uri.partition("://")[2]
    if location and not location.startswith("/"):
        raise InvalidParameterError(f"{shown} names a host; write {form}")
    segments = location[1:].split("/")
    if location[1:] in ("", ":memory:") or "mode=memory" in query:
        raise InvalidParameterError(
            f"{shown} is a database in memory, which nobody could read the artifacts from later; "
            f"write {form}"
        )
    for count, segment in enumerate(segments, 1):
        if _SQLITE_FILE.fullmatch(segment):
            file, path = "/".join(segments[:count]), "/".join(segments[count:])
            return f"{uri.partition(':')[0]}:///{file}", path
    raise InvalidParameterError(
        f"{shown} does not say which part of it is the database file; write {form}"
    )


def _split_server(uri: str, query: str, shown: str, form: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    authority, _, location = rest.partition("/")
    name, _, path = location.partition("/")
    if "odbc_connect=" in query:
        raise InvalidParameterError(
            f"{shown}: with odbc_connect nobody can tell the database from a path in it; "
            f"write {form}"
        )
    # libpq takes several hosts, and a host or a socket behind the question mark.
    elsewhere = re.search(r"(?:^|&)(?:host|hostaddr|service|unix_socket)=", query)
    if "," not in authority and not elsewhere and not uris.parse_location(uri, form).host:
        raise InvalidParameterError(f"{shown} names no host; write {form}")
    if not name:
        raise InvalidParameterError(f"{shown} names no database; write {form}")
    return f"{scheme}://{authority}/{name}", path
