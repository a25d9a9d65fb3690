"""Local files and directories that cannot be sent as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asyncstore
from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import (
    AsyncStoreError,
    IntegrityError,
    InvalidParameterError,
    NotFoundError,
)
from asyncstore.files import reading
from asyncstore.testing.fault_proxy import Answer, FaultProxy
from tests.artifacts.conftest import LARGE, QUICK
from tests.artifacts.test_s3_wire import operation

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway

pytestmark = pytest.mark.anyio


def missing(path: Path) -> None:
    pass


def directory(path: Path) -> None:
    path.mkdir()


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def two_links_in_a_circle(path: Path) -> None:
    path.symlink_to("other")
    (path.parent / "other").symlink_to(path.name)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def file(path: Path) -> None:
    path.write_bytes(b"x")


def link_to_a_directory_above(path: Path) -> None:
    path.symlink_to("..")


def link_to_its_own_directory(path: Path) -> None:
    path.symlink_to(".")


Make = Callable[[Path], None]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (missing, NotFoundError, "does not exist"),
        (directory, InvalidParameterError, "is a directory; use log_artifacts"),
        (below_a_file, InvalidParameterError, "a part of it is not a directory"),
        (dangling_link, NotFoundError, "does not exist"),
        (link_to_itself, InvalidParameterError, "links form a loop"),
        (two_links_in_a_circle, InvalidParameterError, "links form a loop"),
        (pipe, InvalidParameterError, "neither a file nor a directory"),
        (link_to_a_device, InvalidParameterError, "neither a file nor a directory"),
    ],
)
async def test_no_file_to_send(
    make: Make, error: type[AsyncStoreError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "in" / "x"
    path.parent.mkdir()
    make(path)
    async with ArtifactRepository(tmp_path / "store") as repository:
        with pytest.raises(error, match=message) as raised:
            await repository.log_artifact(path)
        assert str(path) in str(raised.value)
        assert isinstance(raised.value.__cause__, OSError) or message.startswith(("is", "neither"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (missing, NotFoundError, "does not exist"),
        (file, InvalidParameterError, "is not a directory; use log_artifact"),
        (pipe, InvalidParameterError, "is not a directory; use log_artifact"),
        (below_a_file, InvalidParameterError, "a part of it is not a directory"),
        (dangling_link, NotFoundError, "does not exist"),
        (link_to_itself, InvalidParameterError, "links form a loop"),
    ],
)
async def test_no_directory_to_send(
    make: Make, error: type[AsyncStoreError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "in" / "x"
    path.parent.mkdir()
    make(path)
    async with ArtifactRepository(tmp_path / "store") as repository:
        with pytest.raises(error, match=message):
            await repository.log_artifacts(path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (dangling_link, NotFoundError, "does not exist"),
        (link_to_itself, InvalidParameterError, "links form a loop"),
        (link_to_a_directory_above, InvalidParameterError, "a loop"),
        (link_to_its_own_directory, InvalidParameterError, "a loop"),
        (pipe, InvalidParameterError, "neither a file nor a directory"),
    ],
)
async def test_nothing_is_sent_when_something_in_a_directory_cannot_be(
    make: Make, error: type[AsyncStoreError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "in" / "sub" / "x"
    path.parent.mkdir(parents=True)
    (tmp_path / "in" / "a").write_bytes(b"good")
    make(path)
    async with ArtifactRepository(tmp_path / "store") as repository:
        with pytest.raises(error, match=message) as raised:
            await repository.log_artifacts(tmp_path / "in")
        assert "sub/x" in str(raised.value)
    assert not (tmp_path / "store").exists()


async def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "x").write_bytes(b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one").symlink_to("../real")
    (tmp_path / "in" / "two").symlink_to("../real/deep")
    (tmp_path / "in" / "file").symlink_to("../real/deep/x")
    async with ArtifactRepository(tmp_path / "store") as repository:
        await repository.log_artifacts(tmp_path / "in")
        found = sorted([entry.path async for entry in repository.walk()])
    assert found == ["file", "one/deep/x", "two/x"]
    assert not any(path.is_symlink() for path in (tmp_path / "store").rglob("*"))


async def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "in") + b"/caf\xe9.txt"
    (tmp_path / "in").mkdir()
    try:
        Path(os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    async with ArtifactRepository(tmp_path / "store") as repository:
        for call in (
            repository.log_artifact(os.fsdecode(name)),
            repository.log_artifacts(tmp_path / "in"),
        ):
            with pytest.raises(InvalidParameterError, match="not UTF-8") as raised:
                await call
            str(raised.value).encode()
        with pytest.raises(NotFoundError) as lost:
            await repository.log_artifact(os.fsdecode(name + b".gone"))
        str(lost.value).encode()
    assert not (tmp_path / "store").exists()


async def test_a_directory_that_is_not_utf8_is_no_trouble_above_the_files(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    (place / "x").write_bytes(b"x")
    async with ArtifactRepository(tmp_path / "store") as repository:
        await repository.log_artifacts(place)
        assert await repository.read_bytes("x") == b"x"
        with pytest.raises(InvalidParameterError) as raised:
            await repository.log_artifact(place)
        str(raised.value).encode()


# Permissions need a user that is not root.


def as_nobody(tmp_path: Path, code: str) -> dict[str, str]:
    """Run code as an ordinary user; what it printed."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become an ordinary user")
    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    program = f"""
import asyncio, json, os
from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import AsyncStoreError
async def import_all():
    # What is imported when first used may lie where an ordinary user may not look.
    async with ArtifactRepository({str(tmp_path / "warm")!r}) as local:
        await local.write_bytes("x", b"")
        await local.download_artifacts("x", {str(tmp_path / "warm")!r})
        await local.log_artifacts({str(tmp_path / "warm")!r}, "again")
asyncio.run(import_all())
os.setegid(65534); os.seteuid(65534)
async def attempt(call):
    try:
        await call
    except AsyncStoreError as error:
        return {{"error": type(error).__name__, "code": error.error_code, "message": str(error)}}
    return {{"error": ""}}
async def main():
    async with ArtifactRepository({str(tmp_path / "store")!r}) as repository:
{textwrap.indent(textwrap.dedent(code), "        ")}
asyncio.run(main())
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(asyncstore.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown: dict[str, str] = json.loads(done.stdout)
    return shown


@pytest.mark.parametrize("whole_directory", [True, False])
def test_a_file_that_may_not_be_read(whole_directory: bool, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)
    (tmp_path / "in" / "x").write_bytes(b"x")
    (tmp_path / "in" / "x").chmod(0)
    call = (
        f"log_artifacts({str(tmp_path / 'in')!r})"
        if whole_directory
        else f"log_artifact({str(tmp_path / 'in' / 'x')!r})"
    )
    shown = as_nobody(tmp_path, f"print(json.dumps(await attempt(repository.{call})))")
    assert shown["error"] == "PermissionDeniedError"
    assert shown["code"] == "PERMISSION_DENIED"
    assert str(tmp_path / "in" / "x") in shown["message"]
    assert list((tmp_path / "store").iterdir()) == []


def test_a_directory_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "closed" / "x").touch()
    (tmp_path / "in" / "closed").chmod(0)
    call = f"log_artifacts({str(tmp_path / 'in')!r})"
    shown = as_nobody(tmp_path, f"print(json.dumps(await attempt(repository.{call})))")
    assert shown["error"] == "PermissionDeniedError"
    assert str(tmp_path / "in" / "closed") in shown["message"]


def test_a_store_that_may_not_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(b"x")
    (tmp_path / "store" / "closed").mkdir(parents=True)
    (tmp_path / "store" / "closed" / "x").write_bytes(b"x")
    (tmp_path / "store" / "closed").chmod(0)
    (tmp_path / "down").mkdir()
    (tmp_path / "down").chmod(0o755)
    shown = as_nobody(
        tmp_path,
        f"""
        calls = [
            repository.log_artifact({str(tmp_path / "in" / "x")!r}),
            repository.write_bytes("new", b""),
            repository.list_artifacts("closed"),
            repository.read_bytes("closed/x"),
            repository.delete_artifacts("closed"),
            repository.download_artifacts(None, {str(tmp_path / "down")!r}),
        ]
        found = [await attempt(call) for call in calls]
        print(json.dumps({{"errors": [one["error"] for one in found]}}))
        """,
    )
    assert shown["errors"] == ["PermissionDeniedError"] * 6  # type: ignore[comparison-overlap]  # JSON


# A file that changes while it is sent


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def rewrite(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(b"y" * size)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"z" * path.stat().st_size)
    other.replace(path)


@pytest.mark.parametrize("change", [grow, shrink, empty, rewrite])
@pytest.mark.parametrize("how", ["parts", "one request"])
async def test_a_file_that_changes_while_it_is_sent(
    how: str,
    change: Make,
    proxy: FaultProxy,
    s3_bucket: str,
    radosgw: RadosGateway,
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error, and no object: neither torn nor whole."""
    radosgw.client.put_object(Bucket=s3_bucket, Key="large.bin", Body=b"the old one")
    changed = False

    def first(request: object) -> bool:
        nonlocal changed
        if not changed:
            changed = True
            change(large)
        return False

    if how == "parts":
        proxy.faults.append(
            Answer(matches=lambda r: operation(r) == "CreateMultipartUpload" and first(r))
        )
    else:
        # The MD5 has been taken by then, the body not been read.
        monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "1000000000")
        proxy.faults.append(Answer(matches=first))
    async with ArtifactRepository(f"s3://{s3_bucket}", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError, match=r"large\.bin") as raised:
            await repository.log_artifact(large)
        assert raised.value.error_code == "DATA_LOSS"
    assert changed
    assert radosgw.open_multipart_uploads(s3_bucket) == []
    stored = radosgw.client.get_object(Bucket=s3_bucket, Key="large.bin")["Body"].read()
    assert stored == b"the old one"


@pytest.mark.parametrize("change", [grow, shrink, empty, rewrite, replace])
@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_file_that_changes_between_the_look_and_the_read(
    size: int, change: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(os.urandom(size) if size > 100 else b"0" * size)
    if change in (shrink, empty) and size == 10:
        change = empty
    look = reading.find

    def look_and_change(*args: Path | str) -> object:
        found = look(*args)  # type: ignore[arg-type]  # passed on as they came
        change(path)
        return found

    monkeypatch.setattr("asyncstore.artifacts.repository.find", look_and_change)
    async with ArtifactRepository(tmp_path / "store", transfer=QUICK) as repository:
        with pytest.raises(IntegrityError, match="while it was being sent"):
            await repository.log_artifact(path)
    stored = [found for found in (tmp_path / "store").rglob("*") if found.is_file()]
    assert stored == []


async def test_a_file_that_is_deleted_between_the_look_and_the_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    look = reading.find

    def look_and_delete(*args: Path | str) -> object:
        found = look(*args)  # type: ignore[arg-type]  # passed on as they came
        path.unlink()
        return found

    monkeypatch.setattr("asyncstore.artifacts.repository.find", look_and_delete)
    async with ArtifactRepository(tmp_path / "store") as repository:
        with pytest.raises(NotFoundError):
            await repository.log_artifact(path)
