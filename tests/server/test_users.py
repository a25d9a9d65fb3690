from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncstore.errors import (
    AlreadyExistsError,
    InvalidParameterError,
    InvalidStateError,
    NotFoundError,
)
from asyncstore.server.users import (
    UserEntry,
    edit_users,
    format_users,
    hash_password,
    hash_token,
    new_token,
    parse_users,
    password_matches,
    read_users,
)
from tests.command_line import Cli

CHEAP = 2
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,20}", fullmatch=True)
TOKENS = st.builds(
    lambda name, role, token: UserEntry("token", name, role, hash_token(token)),
    NAMES,
    st.sampled_from(["read", "write"]),
    st.binary(min_size=1),
)
USERS = st.builds(
    lambda name, role, password: UserEntry("user", name, role, hash_password(password, n=CHEAP)),
    NAMES,
    st.sampled_from(["read", "write"]),
    st.binary(max_size=20),
)


@given(
    st.lists(TOKENS | USERS, max_size=6, unique_by=(lambda each: each.name, lambda each: each.hash))
)
def test_what_is_written_is_read(entries: list[UserEntry]) -> None:
    assert parse_users(format_users(entries), "here") == entries


@given(st.text())
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        entries = parse_users(text, "here")
    except InvalidParameterError as error:
        refusal = str(error)
    else:
        assert parse_users(format_users(entries), "here") == entries
        return
    assert refusal.startswith("here, line ")


@given(TOKENS, st.text(min_size=1, max_size=5), st.integers(0, 3))
def test_a_line_with_something_else_in_it_is_not_taken_for_another(
    entry: UserEntry, extra: str, at: int
) -> None:
    fields = [entry.kind, entry.name, entry.role, entry.hash]
    fields[at] += extra
    try:
        (found,) = parse_users(" ".join(fields), "here")
    except (InvalidParameterError, ValueError):
        return
    # Blanks at the end of a field, or a longer name.
    assert (found.kind, found.role, found.hash) == (entry.kind, entry.role, entry.hash)
    assert found.name.startswith(entry.name)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_a_password_matches_itself_only(one: bytes, other: bytes) -> None:
    hashed = hash_password(one, n=CHEAP)
    assert password_matches(one, hashed)
    assert password_matches(other, hashed) == (one == other)
    assert hash_password(one, n=CHEAP) != hashed


def test_a_password_is_hashed_at_the_cost_that_owasp_names() -> None:
    hashed = hash_password(b"open-sesame")
    assert hashed.startswith("scrypt:16384:8:5:")
    assert "open" not in hashed
    assert password_matches(b"open-sesame", hashed)


def test_a_token_is_256_random_bits() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {len("asyncstore_") + 43}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("user alice write", "a line is"),
        ("user alice write sha256:00 more", "a line is"),
        ("robot alice write sha256:" + "0" * 64, "no kind"),
        ("token alice admin sha256:" + "0" * 64, "no role"),
        ("token a:b read sha256:" + "0" * 64, "cannot be the name"),
        ("token alice read sha256:" + "0" * 63, "not one of a token"),
        ("user alice read sha256:" + "0" * 64, "not one of a user"),
        (f"user alice read scrypt:3:8:1:{'0' * 32}:{'0' * 64}", "beyond"),
        (f"user alice read scrypt:1:8:1:{'0' * 32}:{'0' * 64}", "beyond"),
        (f"user alice read scrypt:67108864:8:1:{'0' * 32}:{'0' * 64}", "beyond"),
    ],
)
def test_what_is_no_user_is_refused_without_its_hash(line: str, reason: str) -> None:
    with pytest.raises(InvalidParameterError, match=reason) as refusal:
        parse_users(f"# comment\n\n{line}\n", "users")
    assert str(refusal.value).startswith("users, line 3: ")
    assert "000" not in str(refusal.value)


def test_a_name_and_a_token_stand_there_once() -> None:
    one = UserEntry("token", "one", "read", hash_token(b"x"))
    same_name = UserEntry("token", "one", "write", hash_token(b"y"))
    same_token = UserEntry("token", "two", "write", hash_token(b"x"))
    for other in (same_name, same_token):
        with pytest.raises(InvalidParameterError, match="twice"):
            parse_users(format_users([one, other]), "users")


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users"
    edit_users(path, lambda entries: entries)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_users(path) == []
    path.chmod(0o640)
    with pytest.raises(InvalidParameterError, match="chmod 600"):
        read_users(path)


def test_a_failed_edit_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "users"
    edit_users(path, lambda _: [UserEntry("token", "one", "read", hash_token(b"x"))])
    before = path.read_bytes()

    def fail(_: list[UserEntry]) -> list[UserEntry]:
        raise AlreadyExistsError("no")

    with pytest.raises(AlreadyExistsError):
        edit_users(path, fail)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_two_edits_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "users"

    def edit_meanwhile(entries: list[UserEntry]) -> list[UserEntry]:
        with pytest.raises(InvalidStateError, match="being edited"):
            edit_users(path, lambda _: [])
        return entries

    edit_users(path, edit_meanwhile)
    assert path.exists()


def test_users_are_added_listed_and_removed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users"
    monkeypatch.setenv("ASYNCSTORE_SERVER_AUTH_FILE", str(path))
    status, out, err = cli("server-users", "add", "nightly", "--role", "read", "--token")
    assert (status, err) == (0, "nightly may read\n")
    token = out.strip()
    (entry,) = read_users(path)
    assert entry == UserEntry("token", "nightly", "read", hash_token(token.encode()))
    assert token not in path.read_text()

    again = cli("server-users", "add", "nightly", "--role", "write", "--token")
    assert again[0] == 1
    assert "--replace" in again[2]
    status, out, _ = cli(
        "server-users", "add", "nightly", "--role", "write", "--token", "--replace"
    )
    assert (status, read_users(path)[0].role) == (0, "write")
    assert out.strip() != token

    assert cli("server-users", "list")[1] == "token\tnightly\twrite\n"
    assert "sha256" not in cli("server-users", "list", "--json")[1]
    assert cli("server-users", "remove", "nightly")[0] == 0
    assert read_users(path) == []
    assert cli("server-users", "remove", "nightly")[:2] == (1, "")


def test_a_password_comes_from_standard_input(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users"
    read, write = os.pipe()
    os.write(write, b"open sesame\nnot this\n")
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        status, out, _ = cli("server-users", "add", "a", "--role", "read", "--auth-file", path)
    assert (status, out) == (0, "")
    assert password_matches(b"open sesame", read_users(path)[0].hash)


def test_a_file_is_named(cli: Cli) -> None:
    status, _, err = cli("server-users", "list")
    assert status == 2
    assert "ASYNCSTORE_SERVER_AUTH_FILE" in err
    with pytest.raises(NotFoundError, match="server-users add"):
        read_users(Path("no-such-file"))
