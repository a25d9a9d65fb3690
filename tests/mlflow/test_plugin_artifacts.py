"""asyncstore as MLflow's artifact repository, beside MLflow's own on the same storages."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

import asyncstore
from asyncstore import settings, uris
from asyncstore.errors import InvalidParameterError
from asyncstore.mlflow_plugin import artifact_policy, portal
from asyncstore.mlflow_plugin.portal import get_portal
from tests.servers.base import HOST
from tests.servers.running import running
from tests.servers.sshd import SSHD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def sshd() -> Iterator[SSHD]:
    yield from running(SSHD())


def sftp_root(sshd: SSHD, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory of the server, whose key and user the files in the home directory know."""
    (home / ".ssh").mkdir(parents=True)
    shutil.copy(sshd.known_hosts, home / ".ssh/known_hosts")
    shutil.copy(sshd.key, home / ".ssh/id_ed25519")
    monkeypatch.setenv("HOME", str(home))
    root = sshd.directory / f"root-{os.urandom(6).hex()}"
    root.mkdir()
    return f"sftp://{sshd.user}@{HOST}:{sshd.port}{root}/run"


@pytest.fixture(params=["file", "s3", "sftp", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty root, without the prefix."""
    if request.param == "file":
        return (tmp_path / "root dir").as_uri()
    if request.param == "memory":
        return f"memory://{tmp_path.name}/{os.urandom(6).hex()}"
    if request.param == "sftp":
        pytest.importorskip("asyncssh")
        monkeypatch = request.getfixturevalue("monkeypatch")
        return sftp_root(request.getfixturevalue("sshd"), tmp_path / "home", monkeypatch)
    pytest.importorskip("s3fs")
    request.getfixturevalue("s3_env")
    return f"s3://{request.getfixturevalue('s3_bucket')}/a/root"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "top.txt").write_text("top")
    (source / "deep" / "a b.json").write_text("{}")
    (source / "deep" / "er" / "data.bin").write_bytes(os.urandom(70_000))
    return source


def contents(directory: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


def listed(repository: Any, path: str | None = None) -> list[tuple[str, bool, int | None]]:
    return [(each.path, each.is_dir, each.file_size) for each in repository.list_artifacts(path)]


def test_all_that_callers_use(root: str, tree: Path, tmp_path: Path) -> None:
    repository = get_artifact_repository("asyncstore+" + root)
    assert repository.artifact_uri == "asyncstore+" + root
    assert listed(repository) == []
    repository.log_artifacts(str(tree))
    repository.log_artifact(tree / "top.txt", "other/place")
    assert listed(repository) == [
        ("deep", True, None),
        ("other", True, None),
        ("top.txt", False, 3),
    ]
    assert listed(repository, "deep") == [
        ("deep/a b.json", False, 2),
        ("deep/er", True, None),
    ]
    assert listed(repository, "top.txt") == listed(repository, "nothing") == []
    assert (repository._is_directory("deep"), repository._is_directory("top.txt")) == (True, False)
    made = repository.download_artifacts("deep/er/data.bin")
    assert Path(made).read_bytes() == (tree / "deep/er/data.bin").read_bytes()
    destination = tmp_path / "destination"
    destination.mkdir()
    assert repository.download_artifacts("", destination) == str(destination)
    assert contents(str(destination)) == {**contents(str(tree)), "other/place/top.txt": b"top"}
    repository._download_file("top.txt", str(tmp_path / "renamed"))
    assert (tmp_path / "renamed").read_text() == "top"
    repository.delete_artifacts("deep")
    repository.delete_artifacts("nothing")
    assert [path for path, *_ in listed(repository)] == ["other", "top.txt"]
    repository.upload_trace_data('{"spans": []}')
    assert repository.download_trace_data() == {"spans": []}
    repository.flush_async_logging()
    repository.delete_artifacts()
    assert listed(repository) == []


def test_destinations_of_downloads(root: str, tree: Path, tmp_path: Path) -> None:
    repository = get_artifact_repository("asyncstore+" + root)
    assert repository.download_artifacts("", str(tmp_path)) == str(tmp_path)
    repository.log_artifacts(tree)
    for bad, code in ((tmp_path / "none", "RESOURCE_DOES_NOT_EXIST"), (tree / "top.txt", None)):
        with pytest.raises(MlflowException) as raised:
            repository.download_artifacts("top.txt", str(bad))
        assert raised.value.error_code == (code or "INVALID_PARAMETER_VALUE")
    for path, code in (
        ("nothing", "RESOURCE_DOES_NOT_EXIST"),
        ("../out", "INVALID_PARAMETER_VALUE"),
    ):
        with pytest.raises(MlflowException) as raised:
            repository.download_artifacts(path, str(tmp_path))
        assert raised.value.error_code == code
    with pytest.raises(MlflowException) as raised:
        repository.log_artifact(tree / "no such file")
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_beside_mlflows_own(kind: str, request: pytest.FixtureRequest, tree: Path) -> None:
    """Each reads what the other wrote, with the same results."""
    tmp_path: Path = request.getfixturevalue("tmp_path")
    if kind == "s3":
        pytest.importorskip("s3fs")
        pytest.importorskip("boto3")
        request.getfixturevalue("s3_env")
        root = f"s3://{request.getfixturevalue('s3_bucket')}/shared"
    else:
        root = (tmp_path / "shared").as_uri()
    theirs = get_artifact_repository(root)
    ours = get_artifact_repository("asyncstore+" + root)
    assert type(theirs).__module__.startswith("mlflow.")
    theirs.log_artifacts(str(tree), "theirs")
    ours.log_artifacts(str(tree), "ours")
    for path in (None, "", "ours", "theirs", "theirs/deep", "ours/deep/er", "ours/top.txt", "none"):
        assert listed(ours, path) == listed(theirs, path), path
        assert ours._is_directory(path) == theirs._is_directory(path), path
    for path in ("", "ours", "theirs/deep/", "theirs/deep/a b.json"):
        results = []
        for repository in (ours, theirs):
            destination = tmp_path / f"of-{type(repository).__name__}-{path.count('/')}-{len(path)}"
            destination.mkdir()
            result = repository.download_artifacts(path, str(destination))
            results.append((os.path.relpath(result, destination), contents(str(destination))))
        assert results[0] == results[1], path
    if kind == "file":
        assert ours.download_artifacts("ours") == theirs.download_artifacts("ours")
    ours.delete_artifacts("theirs")
    theirs.delete_artifacts("ours")
    assert listed(ours) == listed(theirs) == []


@pytest.mark.skipif(
    not hasattr(mlflow.store.artifact.artifact_repo, "StreamUploadMixin"), reason="an older MLflow"
)
def test_streams(root: str) -> None:
    from mlflow.store.artifact.artifact_repo import StreamUploadMixin

    repository = get_artifact_repository("asyncstore+" + root)
    assert isinstance(repository, StreamUploadMixin)
    data = os.urandom(20 * MIB)
    repository.log_artifact_from_stream(io.BytesIO(data), "x/sync.bin", "streams")
    repository.log_artifact_from_stream(io.BytesIO(b""), "empty")

    async def pieces(fail: bool = False) -> AsyncIterator[bytes]:
        for first in range(0, len(data), 300_000):
            if fail and first > 12 * MIB:
                raise ConnectionError("the client went away")
            yield data[first : first + 300_000]

    asyncio.run(repository.log_artifact_from_async_stream(pieces(), "async.bin", "streams"))
    assert listed(repository) == [("empty", False, 0), ("streams", True, None)]
    for name in ("sync.bin", "async.bin"):
        assert Path(repository.download_artifacts(f"streams/{name}")).read_bytes() == data
    with pytest.raises(ConnectionError):
        asyncio.run(
            repository.log_artifact_from_async_stream(pieces(fail=True), "broken.bin", "broken")
        )
    with pytest.raises(MlflowException) as raised:
        asyncio.run(repository.log_artifact_from_async_stream(pieces(), "x", "../out"))
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert listed(repository, "broken") == []
    if root.startswith("s3:"):
        unreachable = get_artifact_repository("asyncstore+s3://no-such-bucket/x")
        with pytest.raises(MlflowException) as raised:
            asyncio.run(unreachable.log_artifact_from_async_stream(pieces(), "x"))
        assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[str]:
    uri = f"sqlite:///{tmp_path}/tracking.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


def test_the_fluent_interface(root: str, tracking: str, tree: Path, tmp_path: Path) -> None:
    """And asyncstore's client reads the run."""
    pytest.importorskip("numpy")
    experiment = mlflow.create_experiment("e", artifact_location="asyncstore+" + root)
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_artifact(str(tree / "top.txt"), "files")
        mlflow.log_artifacts(str(tree), "tree")
        mlflow.log_text("text", "notes/text.txt")
        mlflow.log_dict({"a": [1, 2]}, "dict.json")
        import numpy

        mlflow.log_image(numpy.zeros((4, 4, 3), dtype=numpy.uint8), "image.png")
    uri = run.info.artifact_uri
    assert uri.startswith("asyncstore+" + root.split(":")[0])
    loaded = mlflow.artifacts.load_dict(f"{uri}/dict.json")
    assert loaded == {"a": [1, 2]}
    path = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="tree", dst_path=str(tmp_path)
    )
    assert contents(path) == contents(str(tree))
    assert mlflow.artifacts.load_image(f"{uri}/image.png").size == (4, 4)

    async def read() -> tuple[list[str], bytes]:
        async with asyncstore.Client(tracking) as client:
            names = [each.path for each in await client.list_artifacts(run.info.run_id)]
            local = await client.download_artifacts(run.info.run_id, "notes/text.txt")
            return names, Path(local).read_bytes()

    if root.startswith("memory:"):
        return
    names, text = asyncio.run(read())
    assert names == ["dict.json", "files", "image.png", "notes", "tree"]
    assert text == b"text"


def run_python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


WHO = """
    import json, warnings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from mlflow.store.artifact import artifact_repository_registry as registry
    found = registry.get_registered_artifact_repositories()
    print(json.dumps({
        "ours": [name for name, each in found.items() if each.__module__.startswith("asyncstore.")],
        "warnings": [str(each.message) for each in caught if "ASYNCSTORE" in str(each.message)],
    }))
"""


def test_installing_changes_nothing() -> None:
    found = json.loads(run_python(WHO).stdout)
    assert {"asyncstore+s3", "asyncstore+file", "asyncstore+github"} <= set(found["ours"])
    drivers = ("postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc", "sqlite+pysqlite")
    assert {f"asyncstore+{driver}" for driver in drivers} <= set(found["ours"])
    assert all(name.startswith("asyncstore+") for name in found["ours"])
    assert found["warnings"] == []


def test_schemes_by_variable() -> None:
    wanted = " s3, GS,file,nonsense"
    found = json.loads(run_python(WHO, ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES=wanted).stdout)
    plain = [name for name in found["ours"] if not name.startswith("asyncstore+")]
    assert sorted(plain) == ["", "file", "gs", "s3"]
    assert len(found["warnings"]) == 1
    assert "'nonsense'" in found["warnings"][0]
    found = json.loads(run_python(WHO, ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES="s3:// oh").stdout)
    assert all(name.startswith("asyncstore+") for name in found["ours"])
    assert len(found["warnings"]) == 1


def test_the_module_may_be_imported_first() -> None:
    first = "import asyncstore.mlflow_plugin.artifacts\n"
    code = first + textwrap.dedent(WHO)
    found = json.loads(run_python(code, ASYNCSTORE_MLFLOW_ARTIFACT_SCHEMES="s3").stdout)
    assert "s3" in found["ours"]


def test_at_exit(tmp_path: Path) -> None:
    """What functions of `atexit` log arrives, though the portal has ended."""
    code = f"""
        import atexit
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        repository = get_artifact_repository("asyncstore+file://{tmp_path}/root")
        open("{tmp_path}/x.txt", "w").write("x")
        repository.log_artifact("{tmp_path}/x.txt", "before")
        atexit.register(repository.log_artifact, "{tmp_path}/x.txt", "at exit")
    """
    run_python(code)
    assert (tmp_path / "root/before/x.txt").exists()
    if sys.version_info < (3, 12):
        assert (tmp_path / "root/at exit/x.txt").exists()


PICTURES = """
    import sys, threading, time
    import mlflow, numpy
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    mlflow.set_tracking_uri(sys.argv[1])
    experiment = mlflow.create_experiment("e", sys.argv[2])
    picture = numpy.zeros((40, 40, 3), dtype=numpy.uint8)
    with mlflow.start_run(experiment_id=experiment) as run:
    {work}
    print(run.info.run_id)
"""
MANY = """
    for step in range(60):
        mlflow.log_image(picture, key="k", step=step, synchronous=False)
"""


@pytest.mark.parametrize("root", ["file", "s3"], indirect=True)
class TestAsynchronousArtifacts:
    """MLflow's `log_image(key=..., synchronous=False)`."""

    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Where a store without a root makes its own.
        monkeypatch.chdir(tmp_path)

    def run(self, work: str, root: str, folder: Path) -> subprocess.CompletedProcess[str]:
        code = textwrap.dedent(PICTURES).format(work=textwrap.indent(textwrap.dedent(work), "    "))
        uri = f"asyncstore+sqlite:///{folder}/m.db"
        return run_python(code, uri, f"asyncstore+{root}")

    def pictures(self, root: str, run_id: str) -> list[str]:
        repository = get_artifact_repository(f"asyncstore+{root}/{run_id}/artifacts")
        return [path for path, *_ in listed(repository, "images")]

    def test_the_exit_sends_all_that_waits(self, root: str, tmp_path: Path) -> None:
        begun = time.monotonic()
        done = self.run(MANY, root, tmp_path)
        assert time.monotonic() - begun < 60
        assert "Error" not in done.stderr
        found = self.pictures(root, done.stdout.strip())
        assert len([path for path in found if path.endswith(".png")]) == 60
        assert len([path for path in found if path.endswith("+compressed.webp")]) == 60

    def test_a_flush_waits(self, root: str, tmp_path: Path) -> None:
        work = """
            mlflow.flush_artifact_async_logging()
            repository = get_artifact_repository(run.info.artifact_uri)
            assert len(repository.list_artifacts("images")) == 120
        """
        work = textwrap.dedent(MANY) + textwrap.dedent(work)
        assert self.run(work, root, tmp_path).stdout

    def test_a_handle_has_its_error_and_the_others_arrive(self, root: str) -> None:
        image = pytest.importorskip("PIL.Image").new("RGB", (4, 4))
        repository = get_artifact_repository("asyncstore+" + root)
        names = ["a/one.png", "nonsense", "../out.png", "a/two.png", "three.png"]
        handles = [repository._log_artifact_async(name, "d", image) for name in names]
        repository.flush_async_logging()
        failed = []
        for name, handle in zip(names, handles, strict=True):
            try:
                handle.wait()
            except MlflowException:
                failed.append(name)
        assert failed == ["nonsense"]
        # A name is no path, as with streams.
        assert [path for path, *_ in listed(repository, "d")] == [
            *("d/one.png", "d/out.png", "d/three.png", "d/two.png")
        ]
        local = repository.download_artifacts("d/one.png")
        assert Path(local).read_bytes().startswith(b"\x89PNG")

    def test_each_side_of_a_fork_sends_its_own(self, root: str, tmp_path: Path) -> None:
        work = """
            import multiprocessing
            def log(key):
                for step in range(10):
                    client.log_image(
                        run.info.run_id, picture, key=key, step=step, synchronous=False
                    )
            client = mlflow.MlflowClient()
            # A storage's library is imported once, with locks that a fork would keep locked.
            log("first")
            mlflow.flush_artifact_async_logging()
            log("before")
            child = multiprocessing.get_context("fork").Process(target=log, args=["child"])
            child.start()
            log("after")
            child.join()
            assert child.exitcode == 0
        """
        found = self.pictures(root, self.run(work, root, tmp_path).stdout.strip())
        keys = Counter(path.partition("/")[2].partition("+")[0] for path in found)
        assert keys == {"first": 20, "before": 20, "child": 20, "after": 20}


def test_variables_that_change_take_effect(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    environment = request.getfixturevalue("s3_env")
    bucket = request.getfixturevalue("s3_bucket")
    repository = get_artifact_repository(f"asyncstore+s3://{bucket}/p")
    assert listed(repository) == []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(MlflowException) as raised:
        repository.list_artifacts()
    assert raised.value.error_code == "UNAUTHENTICATED"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", environment["AWS_SECRET_ACCESS_KEY"])
    assert listed(repository) == []


def test_clients_of_earlier_variables_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = get_artifact_repository(f"asyncstore+file://{tmp_path}")
    kept = get_portal()._artifact_clients
    clients = []
    for number in range(portal.ARTIFACT_CLIENTS + 3):
        monkeypatch.setenv("AWS_PROFILE", str(number))
        assert listed(repository) == []
        clients.append(list(kept.values())[-1].client)
    closed = [client._closed for client in clients]
    assert closed == [True] * 3 + [False] * portal.ARTIFACT_CLIENTS
    assert len(kept) == portal.ARTIFACT_CLIENTS


def test_digests_tell_environments_apart() -> None:
    digest = settings.storage_environment({"AWS_PROFILE": "a"})
    assert digest != settings.storage_environment({"AWS_PROFILE": "b"})
    assert digest == settings.storage_environment({"AWS_PROFILE": "a", "MLFLOW_RUN_ID": "1"})


def test_the_prefix() -> None:
    assert uris.without_prefix("asyncstore+s3://b/p") == "s3://b/p"
    assert uris.without_prefix("AsyncStore+file:///d") == "file:///d"
    assert uris.without_prefix("/asyncstore+s3:/d") == "/asyncstore+s3:/d"
    with pytest.raises(InvalidParameterError):
        uris.without_prefix("asyncstore+asyncstore+s3://b")


def test_passwords_are_not_shown() -> None:
    repository = get_artifact_repository("asyncstore+sftp://user:secret@host/path")
    assert "secret" not in repr(repository)
    assert "host/path" in repr(repository)


@pytest.mark.parametrize(
    ("uri", "accepted"),
    [
        ("asyncstore+file:///srv/root/1/artifacts", True),
        ("asyncstore+file:///srv/root", True),
        ("asyncstore+file:///etc", False),
        ("asyncstore+file:///srv/root/../../etc", False),
        ("asyncstore+file:///srv/root%2F..%2F..%2Fetc", False),
        ("asyncstore+file:///srv/root-other", False),
        ("asyncstore+local:///etc", False),
        ("asyncstore+simplecache::file:///etc", False),
        ("asyncstore+sqlite:////etc/x.db", False),
        ("asyncstore+sftp://host/data/1", True),
        ("asyncstore+sftp://host/data/../other", False),
        ("asyncstore+sftp://host/data/%252e%252e/other", False),
        ("asyncstore+sftp://host/data-other", False),
        ("asyncstore+sftp://other/data/1", False),
        ("asyncstore+sftp://host@other/data/1", False),
        ("asyncstore+http://169.254.169.254/latest", False),
        ("asyncstore+smb://other/share", False),
        ("asyncstore+r2://b@other.example/x", False),
        ("asyncstore+wasbs://c@account.blob.core.windows.net/x", True),
        ("asyncstore+wasbs://c@account.blob.example.org/x", False),
        ("asyncstore+az://c@account.blob.example.org/x", False),
        ("asyncstore+s3://bucket/x", True),
        ("asyncstore+gs://bucket/x", True),
        ("asyncstore+ftp://anywhere/x", True),
        ("file:///etc", True),
    ],
)
def test_what_a_server_opens(uri: str, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says where must not get at the server's files or have it connect anywhere."""
    artifact_policy.check(uri)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "asyncstore+file:///srv/root")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", "asyncstore+sftp://host/data")
    monkeypatch.setenv("MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES", "ftp")
    if accepted:
        artifact_policy.check(uri)
        return
    with pytest.raises(InvalidParameterError):
        artifact_policy.check(uri)
    if uri.startswith("asyncstore+file:"):
        with pytest.raises(MlflowException) as raised:
            get_artifact_repository(uri)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
