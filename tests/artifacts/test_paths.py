"""Nothing is ever written outside a destination, whatever a storage says its files are called."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from asyncstore.artifacts import ArtifactRepository
from asyncstore.errors import InvalidParameterError
from tests.artifacts.conftest import QUICK

if TYPE_CHECKING:
    from tests.servers.radosgw import RadosGateway
    from tests.servers.rclone import Rclone

pytestmark = pytest.mark.anyio
_numbers = itertools.count()

HOSTILE = [
    "../x",
    "a/../../x",
    "a/../x",
    "..",
    "/etc/x",
    "//x",
    "a//b",
    "./x",
    "a/./b",
    "%2e%2e/x",
    "%252e%252e/x",
    "a%2f..%2f..%2fx",
    "%2Fetc%2Fx",
    "..\\x",
    "C:\\x",
    "C:/x",
    "x#/etc/x",
    "x?../y",
    "nul\x00byte",
]


def everything(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


async def refused(uri: str, place: Path) -> None:
    """A download of the whole is refused, and writes nothing outside `place / "in/here"`."""
    place.mkdir()
    (place / "in").mkdir()
    async with ArtifactRepository(uri, transfer=QUICK) as repository:
        with pytest.raises(InvalidParameterError) as refusal:
            await repository.download_artifacts(None, place / "in" / "here")
        assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
        assert everything(place) <= {"in", "in/here", "in/here/honest"}


@pytest.mark.parametrize("key", [key for key in HOSTILE if "\0" not in key])
async def test_names_that_radosgw_lists(
    key: str,
    s3_bucket: str,
    s3_env: dict[str, str],
    radosgw: RadosGateway,
    tmp_path: Path,
) -> None:
    prefix = "p/deep/"
    # botocore would tidy the path of such a key before it is signed.
    for name in (key, "honest"):
        radosgw.client.put_object(Bucket=s3_bucket, Key=prefix + name, Body=b"x")
    assert prefix + key in radosgw.keys(s3_bucket)
    await refused(f"s3://{s3_bucket}/{prefix}", tmp_path / "place")
    async with ArtifactRepository(f"s3://{s3_bucket}/{prefix}") as repository:
        await repository.delete_artifacts()
    assert radosgw.keys(s3_bucket) == []


@pytest.mark.parametrize("key", ["%2e%2e/x", "%252e%252e/x", "x#/etc/x", "C:/x", "..\\x"])
async def test_names_that_rclone_lists(
    key: str, rclone: Rclone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in rclone.environment.items():
        monkeypatch.setenv(name, value)
    bucket = rclone.create_bucket()
    for name in (f"p/{key}", "p/honest"):
        rclone.client.put_object(Bucket=bucket, Key=name, Body=b"x")
    await refused(f"s3://{bucket}/p", tmp_path / "place")


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_that_memory_lists(name: str, tmp_path: Path) -> None:
    root = f"/hostile-{next(_numbers)}"
    fs = MemoryFileSystem()
    for path in (f"{root}/{name}", f"{root}/honest"):
        fs.store[path] = MemoryFile(fs, path, b"x")
    try:
        place = tmp_path / "place"
        place.mkdir()
        async with ArtifactRepository(f"memory:/{root}") as repository:
            # fsspec tidies some of them itself; then there is nothing to refuse.
            with contextlib.suppress(InvalidParameterError):
                await repository.download_artifacts(None, place / "in" / "here")
        assert {path.split("/")[0] for path in everything(place)} <= {"in"}
        assert {path.split("/")[1] for path in everything(place) if "/" in path} <= {"here"}
        assert not (tmp_path / "x").exists()
    finally:
        for path in [path for path in fs.store if path.startswith(root)]:
            del fs.store[path]


@given(st.text(st.sampled_from("ab./\\%25eCc:#?\0"), min_size=1, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_name_in_memory_stays_inside(tmp_path: Path, name: str) -> None:
    number = next(_numbers)
    root, place = f"/any-{number}", tmp_path / str(number)
    fs = MemoryFileSystem()
    path = f"{root}/{name}"
    fs.store[path] = MemoryFile(fs, path, b"x")
    (place / "in").mkdir(parents=True)
    before = {*everything(tmp_path), f"{number}/in/here"}
    try:
        async with ArtifactRepository(f"memory:/{root}") as repository:
            with contextlib.suppress(InvalidParameterError):
                await repository.download_artifacts(None, place / "in" / "here")
        made = everything(tmp_path) - before
        assert all(path.startswith(f"{number}/in/here/") for path in made)
    finally:
        del fs.store[path]


@given(
    st.lists(
        st.text(
            st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]),
            min_size=1,
            max_size=40,
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_honest_name_comes_back(tmp_path: Path, names: list[str]) -> None:
    """From a directory, through memory, to another directory."""
    from asyncstore import uris

    path = "/".join(names)
    assume(all(len(name.encode()) < 200 and name not in (".", "..") for name in names))
    try:
        assume(uris.artifact_path(path) == path)
    except InvalidParameterError:
        assume(False)
    number = next(_numbers)
    up, down = tmp_path / f"up{number}", tmp_path / f"down{number}"
    (up / path).parent.mkdir(parents=True)
    (up / path).write_bytes(path.encode())
    async with ArtifactRepository(f"memory://round-trip/{number}") as repository:
        await repository.log_artifacts(up)
        assert [entry.path async for entry in repository.walk()] == [path]
        await repository.download_artifacts(None, down)
        await repository.delete_artifacts()
    assert (down / path).read_bytes() == path.encode()
    assert len([entry for entry in down.rglob("*") if entry.is_file()]) == 1


# Links at the destination and in the repository


@pytest.mark.parametrize("link", ["a", "a/b", "a/b/c"])
async def test_a_link_in_the_destination_that_leads_out(link: str, tmp_path: Path) -> None:
    store, place, outside = tmp_path / "store", tmp_path / "place", tmp_path / "outside"
    (store / "a" / "b" / "c").mkdir(parents=True)
    (store / "a" / "b" / "c" / "file").write_bytes(b"x")
    (place / link).parent.mkdir(parents=True)
    outside.mkdir()
    (place / link).symlink_to(outside)
    async with ArtifactRepository(store) as repository:
        for path in ("a", "a/b", "a/b/c", "a/b/c/file", ""):
            with pytest.raises(InvalidParameterError, match="leads out of the destination"):
                await repository.download_artifacts(path, place)
    assert everything(outside) == set()


async def test_a_link_in_the_destination_that_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "store" / "a" / "file").write_bytes(b"x")
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "a").symlink_to("a")
    async with ArtifactRepository(tmp_path / "store") as repository:
        with pytest.raises(InvalidParameterError):
            await repository.download_artifacts("a", tmp_path / "place")


async def test_links_inside_the_destination_are_followed(tmp_path: Path) -> None:
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "store" / "a" / "file").write_bytes(b"x")
    (tmp_path / "real" / "here").mkdir(parents=True)
    (tmp_path / "place").symlink_to("real")
    (tmp_path / "real" / "a").symlink_to("here")
    async with ArtifactRepository(tmp_path / "store") as repository:
        await repository.download_artifacts("a", tmp_path / "place")
    assert (tmp_path / "real" / "here" / "file").read_bytes() == b"x"


async def test_a_link_at_the_file_itself_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").write_bytes(b"new")
    (tmp_path / "store" / "large").write_bytes(bytes(2_000_000))
    (tmp_path / "outside").write_bytes(b"kept")
    (tmp_path / "place").mkdir()
    for name in ("file", "large"):
        (tmp_path / "place" / name).symlink_to(tmp_path / "outside")
    async with ArtifactRepository(tmp_path / "store") as repository:
        await repository.download_artifacts(None, tmp_path / "place")
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert not (tmp_path / "place" / "file").is_symlink()


async def test_deleting_never_follows_a_link(tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    (store / "a").mkdir(parents=True)
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "precious").write_bytes(b"kept")
    (store / "a" / "link").symlink_to(outside)
    (store / "b").symlink_to(outside)
    (store / "c").symlink_to(outside / "deep" / "precious")
    (store / "d").symlink_to("nowhere")
    async with ArtifactRepository(store) as repository:
        for path in ("a", "b", "c", "d"):
            await repository.delete_artifacts(path)
        assert list(store.iterdir()) == []
        (store / "link").symlink_to(outside)
        await repository.delete_artifacts()
    assert (outside / "deep" / "precious").read_bytes() == b"kept"


async def test_a_root_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"x")
    (tmp_path / "root").symlink_to("real")
    async with ArtifactRepository(tmp_path / "root") as repository:
        await repository.delete_artifacts()
        assert list((tmp_path / "real").iterdir()) == []
        await repository.write_bytes("y", b"y")
    assert (tmp_path / "root").is_symlink()
    assert (tmp_path / "real" / "y").read_bytes() == b"y"


async def test_a_delete_takes_no_name_for_a_pattern(tmp_path: Path) -> None:
    fs = MemoryFileSystem()
    for uri in (f"local://{tmp_path}", str(tmp_path), "memory://patterns"):
        async with ArtifactRepository(uri) as repository:
            for path in ("a*/x", "ab/x", "[ab]/x", "a/x"):
                await repository.write_bytes(path, b"x")
            for path in ("a*", "[ab]"):
                await repository.delete_artifacts(path)
            assert [entry.path async for entry in repository.walk("ab")] == ["ab/x"]
            assert [entry.path async for entry in repository.walk("a")] == ["a/x"]
            await repository.delete_artifacts()
    assert not [path for path in fs.store if path.startswith("/patterns")]


async def test_a_name_that_is_file_and_directory_on_s3(
    s3_bucket: str, s3_env: dict[str, str], radosgw: RadosGateway, tmp_path: Path
) -> None:
    """No directory of this machine can hold both: an error, and no torn file."""
    for key in ("p/a", "p/a/b"):
        radosgw.client.put_object(Bucket=s3_bucket, Key=key, Body=b"x")
    async with ArtifactRepository(f"s3://{s3_bucket}/p", transfer=QUICK) as repository:
        with pytest.raises(InvalidParameterError):
            await repository.download_artifacts(None, tmp_path / "down")
        assert await repository.read_bytes("a") == await repository.read_bytes("a/b") == b"x"
    assert len(everything(tmp_path / "down")) <= 2


async def test_the_working_directory_may_change_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    async with ArtifactRepository("store") as repository:
        os.chdir(tmp_path / "two")
        await repository.write_bytes("x", b"x")
    assert everything(tmp_path) == {"one", "two", "one/store", "one/store/x"}
