from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from asyncstore import uris
from asyncstore.errors import InvalidParameterError

# What any layer below may read as a way out of the root.
ESCAPES = (
    "..",
    "../x",
    "x/../../y",
    "/etc/passwd",
    "//host/x",
    "C:/x",
    "c:x",
    "a\\b",
    "\\",
    "a\0b",
)
HONEST = st.text(
    st.one_of(
        st.sampled_from(" %+#?&=@!$;,'\"*[]{}()~-_."),
        st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=30,
)


def encoded(text: str, times: int) -> str:
    """Every character percent-encoded, several times over."""
    for _ in range(times):
        text = "".join(f"%{byte:02x}" for byte in text.encode())
    return text


def leaves_the_root(path: str) -> bool:
    """What the rule says, spelled another way than the code does."""
    forms = {path}
    while (more := {unquote(form) for form in forms} - forms) != set():
        forms |= more
    for form in forms:
        if "\\" in form or "\0" in form:
            return True
        for mark in "?#":
            form = form.replace(mark, "\n?")
        for piece in (form.replace("\n?", "?"), *form.split("\n?")):
            drive = len(piece) > 1 and piece[1] == ":" and piece[0].isascii() and piece[0].isalpha()
            if piece[:1] == "/" or drive or ".." in piece.split("/"):
                return True
    return False


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("times", range(4))
def test_escapes_are_refused_in_any_encoding(escape: str, times: int) -> None:
    for form in (encoded(escape, times), encoded(escape, times).upper()):
        for path in (form, f"x#{form}", f"x?{form}", f"x?a=b#{form}"):
            with pytest.raises(InvalidParameterError) as refusal:
                uris.artifact_path(path)
            assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "path", ["%2e./x", ".%2E/x", "a/%2e%2E", "a%2f..%2fb", "a%2F%2e.", "%252e."]
)
def test_half_encoded_escapes_are_refused(path: str) -> None:
    with pytest.raises(InvalidParameterError, match="not inside"):
        uris.artifact_path(path)


@given(st.text(st.sampled_from("ab./\\%25efcC:#?\0é "), max_size=16))
@example("x%2523/../y")
@example("a%3F..")
def test_what_passes_stays_below_any_root(path: str) -> None:
    if leaves_the_root(path):
        with pytest.raises(InvalidParameterError):
            uris.artifact_path(path)
        return
    safe = uris.artifact_path(path)
    root = Path("/some/root")
    decoded = safe
    for _ in range(20):
        for form in (decoded, decoded.partition("?")[0], decoded.partition("#")[0]):
            joined = Path(f"{root}/{form}").resolve()
            assert joined == root or joined.is_relative_to(root)
        decoded = unquote(decoded)


@given(st.lists(HONEST, min_size=1, max_size=4))
def test_honest_names_pass_as_they_are(names: list[str]) -> None:
    path = "/".join(names)
    assume(not leaves_the_root(path))
    assume(not {".", ".."} & set(names))
    assert uris.artifact_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["two words", "50%", "100%25", "a+b", "#1", "a?b=c#d", "..x", "x..", "...", "é🎉"],
)
def test_honest_names_pass(path: str) -> None:
    assert uris.artifact_path(path) == path
    assert uris.artifact_path(f"dir/{path}/x") == f"dir/{path}/x"


@pytest.mark.parametrize("mark", ["#", "?"])
def test_a_directory_may_not_end_in_a_mark_that_cuts_urls(mark: str) -> None:
    """`what?/x` is `what` with the absolute path `/x` behind it to whoever reads it as a URL."""
    assert uris.artifact_path(f"what{mark}") == f"what{mark}"
    with pytest.raises(InvalidParameterError, match="not inside"):
        uris.artifact_path(f"what{mark}/x")


@given(st.text(st.sampled_from("ab./ %"), max_size=12))
def test_normal_form_is_stable(path: str) -> None:
    assume(not leaves_the_root(path))
    once = uris.artifact_path(path)
    assert uris.artifact_path(once) == once
    assert "//" not in once
    assert not once.startswith("/")
    assert "." not in once.split("/")


@pytest.mark.parametrize(
    ("path", "expected"),
    [(None, ""), ("", ""), (".", ""), ("./", ""), ("a/./b", "a/b"), ("a//b/", "a/b"), ("./a", "a")],
)
def test_the_root_and_normal_form(path: str | None, expected: str) -> None:
    assert uris.artifact_path(path) == expected


def test_a_name_that_is_not_utf8_is_refused_in_words_that_can_be_printed() -> None:
    with pytest.raises(InvalidParameterError, match="not UTF-8") as refusal:
        uris.artifact_path("caf\udce9")
    str(refusal.value).encode()


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("s3://b/p", "a/b", "s3://b/p/a/b"),
        ("s3://b/p/", "a", "s3://b/p/a"),
        ("s3://b", "", "s3://b"),
        ("/a/b#c", "d", "/a/b#c/d"),
        ("rel", "d?e", "rel/d?e"),
        ("http://h/p?q=1#f", "a", "http://h/p/a?q=1#f"),
    ],
)
def test_join(root: str, path: str, expected: str) -> None:
    assert uris.join(root, path) == expected


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://b", "s3"),
        ("S3://b", "s3"),
        ("/a:b", ""),
        ("C:/x", ""),
        ("c:\\x", ""),
        ("a/b:c", ""),
        ("file:x", "file"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2"),
        ("", ""),
    ],
)
def test_scheme_of(uri: str, scheme: str) -> None:
    assert uris.scheme_of(uri) == scheme


def test_local_path() -> None:
    assert uris.local_path("/a/b%20c#d") == Path("/a/b%20c#d")
    assert uris.local_path("x") == Path.cwd() / "x"
    assert uris.local_path("file:///a/b%20c") == Path("/a/b c")
    assert uris.local_path("file://localhost/a") == uris.local_path("file:/a") == Path("/a")
    assert uris.local_path("file:x") == Path.cwd() / "x"
    with pytest.raises(InvalidParameterError, match="host"):
        uris.local_path("file://server/a")
    with pytest.raises(InvalidParameterError, match="not a local path"):
        uris.local_path("s3://b")


@given(HONEST)
def test_local_path_of_what_pathlib_calls_a_uri(name: str) -> None:
    path = Path("/root", name)
    assert uris.local_path(path.as_uri()) == path


def test_parent() -> None:
    assert uris.parent("a/b/c") == "a/b"
    assert uris.parent("a") == uris.parent("") == ""


@given(
    st.text(st.sampled_from("abé@/:?#%&= "), min_size=1, max_size=20),
    st.text(st.sampled_from("xyz.-"), max_size=8),
)
def test_redact_hides_passwords(password: str, user: str) -> None:
    secret = f"S3CR3T{password}S3CR3T"
    shown = uris.redact(f"postgresql://{user}:{secret}@host/db")
    assert shown == f"postgresql://{user}:***@host/db"


@pytest.mark.parametrize(
    "name", ["password", "sslpassword", "X-Amz-Signature", "sig", "token", "AccountKey", "PWD"]
)
def test_redact_hides_secret_query_values(name: str) -> None:
    shown = uris.redact(f"https://h/p?a=b&{name}={quote('S3CR3T/+=')}&c=d#f")
    assert shown == f"https://h/p?a=b&{name}=***&c=d#f"


@pytest.mark.parametrize("uri", ["s3://b/p@q", "sqlite:////x/y.db", "/plain/path", "s3://key@b/p"])
def test_redact_keeps_what_is_no_secret(uri: str) -> None:
    assert uris.redact(uri) == uri
