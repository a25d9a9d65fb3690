"""The users of a tracking server: a small file with a line for each, and no secret in it.

A line is a kind, a name, a role and a hash:

    user alice write scrypt:16384:8:5:<salt>:<hash>
    token nightly read sha256:<hash>

A password is chosen by a person and hashed with scrypt and a salt of its own. A token is 256 random
bits, which nobody can guess, so that SHA-256 is enough for it.

Everything here blocks: call it in a worker thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from asyncstore.errors import InvalidParameterError, InvalidStateError, NotFoundError

__all__ = [
    "Kind",
    "Role",
    "UserEntry",
    "edit_users",
    "format_users",
    "hash_password",
    "hash_token",
    "new_token",
    "parse_users",
    "password_matches",
    "read_users",
]

Kind = Literal["user", "token"]
Role = Literal["read", "write"]
HEAD = "# Users of an asyncstore server; `asyncstore server-users` writes this file.\n"
TOKEN_PREFIX = "asyncstore_"  # noqa: S105  what scanners for leaked secrets can look for
# OWASP's password storage cheat sheet: as strong as its others, with the least memory.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5
_MAX_MEMORY = 256 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_PASSWORD_HASH = re.compile(
    r"scrypt:([1-9][0-9]{0,7}):([1-9][0-9]?):([1-9][0-9]?):([0-9a-f]{32}):([0-9a-f]{64})"
)


@dataclass(frozen=True)
class UserEntry:
    """One line of the file.

    Args:
        kind: `user`, who has a password, or `token`.
        name: Who it is, in the access log too; unique in the file.
        role: `read` may do what only reads, `write` everything.
        hash: Of the password or the token.

    Raises:
        InvalidParameterError: One of them is not acceptable.
    """

    kind: Kind
    name: str
    role: Role
    hash: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidParameterError(f"{self.kind!r} is no kind of user; there are user, token")
        if not _NAME.fullmatch(self.name):
            raise InvalidParameterError(
                f"{self.name!r} cannot be the name of a user: up to 128 letters, digits and ._@+-, "
                "of which the first is a letter or a digit"
            )
        if self.role not in get_args(Role):
            raise InvalidParameterError(f"{self.role!r} is no role; there are read and write")
        known = _TOKEN_HASH if self.kind == "token" else _PASSWORD_HASH
        found = known.fullmatch(self.hash)
        if found is None:
            raise InvalidParameterError(f"the hash of {self.name} is not one of a {self.kind}")
        if self.kind == "user" and not _affordable(*map(int, found.group(1, 2, 3))):
            raise InvalidParameterError(f"the hash of {self.name} has parameters beyond scrypt's")


def _affordable(n: int, r: int, p: int) -> bool:
    # RFC 7914, section 6: a power of two above 1; and no more memory than a server can spare.
    return n > 1 and n & (n - 1) == 0 and 128 * r * (n + p) <= _MAX_MEMORY // 2


def hash_password(password: bytes, *, n: int = SCRYPT_N) -> str:
    """Hash a password with a new salt.

    Args:
        password: In UTF-8.
        n: Cost, a power of two.

    Returns:
        The fourth field of a line.
    """
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, n, SCRYPT_R, SCRYPT_P)
    return f"scrypt:{n}:{SCRYPT_R}:{SCRYPT_P}:{salt.hex()}:{digest.hex()}"


def password_matches(password: bytes, hashed: str) -> bool:
    """Compare a password with what `hash_password` made; the time does not tell how much fits."""
    _, n, r, p, salt, digest = hashed.split(":")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(digest))


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)


def new_token() -> str:
    """A token: 256 random bits in letters, digits, - and _."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_token(token: bytes) -> str:
    """The fourth field of a line."""
    return f"sha256:{hashlib.sha256(token).hexdigest()}"


def parse_users(text: str, where: str) -> list[UserEntry]:
    """Read the text of a users file; empty lines and those that begin with # do not count.

    Args:
        text: The lines.
        where: The file's name, for errors.

    Returns:
        Users in the order of the file.

    Raises:
        InvalidParameterError: A line is not one, or a name or token is there twice; hashes are not
            shown.
    """
    entries: list[UserEntry] = []
    seen: set[str] = set()
    # Not splitlines, which knows ends of lines that an editor does not show.
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            entry = _entry(fields)
        except InvalidParameterError as error:
            raise InvalidParameterError(f"{where}, line {number}: {error}") from None
        if not seen.isdisjoint((entry.name, entry.hash)):
            raise InvalidParameterError(f"{where}, line {number}: {entry.name} is there twice")
        seen.update((entry.name, entry.hash))
        entries.append(entry)
    return entries


def _entry(fields: list[str]) -> UserEntry:
    if len(fields) != 4:
        raise InvalidParameterError("a line is a kind, a name, a role and a hash")
    kind, name, role, hashed = fields
    return UserEntry(cast("Kind", kind), name, cast("Role", role), hashed)


def format_users(entries: Iterable[UserEntry]) -> str:
    """The text of a users file."""
    return HEAD + "".join(f"{e.kind} {e.name} {e.role} {e.hash}\n" for e in entries)


def read_users(path: Path) -> list[UserEntry]:
    """Read a users file.

    Args:
        path: The file, which nobody but its owner may read or write.

    Returns:
        Users in the order of the file.

    Raises:
        NotFoundError: There is no such file.
        InvalidParameterError: It is not a users file, or others may read or write it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} does not exist; `asyncstore server-users add` makes it"
        ) from error
    except OSError as error:
        raise InvalidParameterError(f"{path} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidParameterError(
            f"{path} is open to others than its owner; run: chmod 600 {path}"
        )
    try:
        return parse_users(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise InvalidParameterError(f"{path} is not a users file: it is not text") from error


def edit_users(path: Path, change: Callable[[list[UserEntry]], list[UserEntry]]) -> None:
    """Replace a users file: a reader sees the old one or the new one, and two edits never mix.

    Args:
        path: The file; it is made, with mode 0600, where it does not exist.
        change: Takes the users and returns what they are to be.

    Raises:
        InvalidStateError: Another edit is going on, or was killed and left `<path>.new`.
        InvalidParameterError: As `read_users`, or the directory cannot be written.
        Exception: What `change` raises; the file stays as it was.
    """
    staged = path.with_name(path.name + ".new")
    try:
        # As git's index.lock: whoever makes the file may write.
        fd = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError as error:
        raise InvalidStateError(
            f"{path} is being edited, or an edit was killed; then remove {staged}"
        ) from error
    except OSError as error:
        raise InvalidParameterError(f"{staged} cannot be written: {error.strerror}") from error
    try:
        with open(fd, "wb") as file:  # noqa: PTH123  a descriptor has no path
            try:
                entries = read_users(path)
            except NotFoundError:
                entries = []
            else:
                if os.geteuid() == 0:
                    # The server's own user has to read what root edits.
                    status = path.stat()
                    os.fchown(fd, status.st_uid, status.st_gid)
            file.write(format_users(change(entries)).encode())
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
