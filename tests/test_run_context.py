"""Where a run comes from: git, host, container, scheduler."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncstore import run_context
from asyncstore.run_context import RunContext

GIT = "mlflow.source.git."
CONTAINER = "asyncstore.container."
KUBERNETES = "asyncstore.kubernetes."
FIRST, SECOND = "1" * 64, "2" * 64


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No repository, scheduler or setting of the person who runs the tests."""
    for name in ("POD_NAME", "POD_NAMESPACE", "NODE_NAME", *_git_variables()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(sys, "argv", [""])
    run_context._git_tags.cache_clear()
    yield
    run_context._git_tags.cache_clear()


def _git_variables() -> list[str]:
    return [name for name in os.environ if name.startswith("GIT_")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty system."""
    path = tmp_path / "system"
    path.mkdir()
    return path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", *words],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch", "team/main")
    put(path / "src" / "train.py", "")
    put(path / ".gitignore", "env/\n")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "first")
    return path


def tags_of(script: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(sys, "argv", [str(script)])
    run_context._git_tags.cache_clear()
    found = RunContext(root).tags()
    return {key.removeprefix(GIT): found[key] for key in found if key.startswith(GIT)}


class TestGit:
    def test_the_repository_of_the_script(
        self, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        git(repository, "remote", "add", "origin", "https://me:S3CR3T@example.com/team/it.git")
        git(repository, "remote", "add", "another", "https://example.com/other.git")
        # Not where the process is.
        monkeypatch.chdir(root)
        found = tags_of(repository / "src" / "train.py", root, monkeypatch)
        assert found == {
            "commit": git(repository, "rev-parse", "HEAD"),
            "branch": "team/main",
            "repoURL": "https://example.com/team/it.git",
        }

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("git@example.com:team/it.git", "git@example.com:team/it.git"),
            ("ssh://git@example.com:22/it.git", "ssh://example.com:22/it.git"),
            ("https://S3CR3T@example.com/it.git", "https://example.com/it.git"),
            ("https://me:S3CR@3T@example.com/it.git", "https://example.com/it.git"),
            (
                "https://example.com/it.git?private_token=S3CR3T",
                "https://example.com/it.git?private_token=***",
            ),
            ("/srv/it.git", "/srv/it.git"),
        ],
    )
    def test_no_credentials_of_a_remote(
        self, url: str, shown: str, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        git(repository, "remote", "add", "origin", url)
        found = tags_of(repository / "src" / "train.py", root, monkeypatch)
        assert found["repoURL"] == shown

    def test_packed_references_and_a_detached_head(
        self, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = repository / "src" / "train.py"
        commit = git(repository, "rev-parse", "HEAD")
        git(repository, "pack-refs", "--all")
        assert tags_of(script, root, monkeypatch) == {"commit": commit, "branch": "team/main"}
        git(repository, "checkout", "--quiet", "--detach")
        assert tags_of(script, root, monkeypatch) == {"commit": commit}

    def test_a_linked_worktree(
        self, repository: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        git(repository, "remote", "add", "origin", "https://example.com/it.git")
        linked = tmp_path / "linked"
        git(repository, "worktree", "add", "--quiet", "-b", "side", str(linked))
        git(linked, "commit", "--quiet", "--allow-empty", "-m", "second")
        assert tags_of(linked / "src" / "train.py", root, monkeypatch) == {
            "commit": git(linked, "rev-parse", "HEAD"),
            "branch": "side",
            "repoURL": "https://example.com/it.git",
        }

    def test_nothing_of_what_git_ignores(
        self, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(repository / "env" / "bin" / "tool", "")
        assert tags_of(repository / "env" / "bin" / "tool", root, monkeypatch) == {}

    def test_without_git_its_files_say_it(
        self, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = git(repository, "rev-parse", "HEAD")
        monkeypatch.setenv("PATH", str(root))
        found = tags_of(repository / "src" / "train.py", root, monkeypatch)
        assert found == {"commit": commit, "branch": "team/main"}

    def test_git_that_does_not_answer(
        self, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(root / "git", "#!/bin/sh\nexec sleep 600\n")
        (root / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{root}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(run_context, "GIT_WITHIN", 0.05)
        assert tags_of(repository / "src" / "train.py", root, monkeypatch)["branch"] == "team/main"

    def test_a_commit_that_came_later_is_not_the_code_that_runs(
        self, repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = tags_of(repository / "src" / "train.py", root, monkeypatch)["commit"]
        git(repository, "commit", "--quiet", "--allow-empty", "-m", "second")
        assert RunContext(root).tags()[GIT + "commit"] == first

    @pytest.mark.parametrize("script", ["", "-c", "no/such/file.py"])
    def test_no_script(self, script: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", [script])
        assert not [key for key in RunContext(root).tags() if key.startswith(GIT)]
        monkeypatch.setattr(sys, "argv", [])
        assert not [key for key in RunContext(root).tags() if key.startswith(GIT)]

    @pytest.mark.parametrize("head", ["", "ref: refs/heads/none\n", "garbage", "ref: \x00\n"])
    def test_a_repository_that_is_broken_or_new(
        self, head: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path / "p" / ".git" / "HEAD", head)
        put(tmp_path / "p" / "train.py", "")
        assert tags_of(tmp_path / "p" / "train.py", root, monkeypatch) == {}


class TestContainer:
    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({}, {}),
            ({"proc/self/cgroup": "0::/user.slice/session-1.scope\n"}, {}),
            # The service itself is no container.
            ({"proc/self/cgroup": "0::/system.slice/docker.service\n"}, {}),
            ({".dockerenv": ""}, {"runtime": "docker"}),
            ({"run/.containerenv": ""}, {"runtime": "podman"}),
            (
                {"proc/self/cgroup": f"4:memory:/docker/{FIRST}\n0::/\n"},
                {"runtime": "docker", "id": FIRST},
            ),
            (
                {
                    "proc/self/cgroup": "0::/kubepods.slice/kubepods-burstable.slice/"
                    f"kubepods-burstable-pod1.slice/cri-containerd-{FIRST}.scope\n"
                },
                {"runtime": "containerd", "id": FIRST},
            ),
            (
                {"proc/self/cgroup": f"0::/kubepods/besteffort/pod1/{FIRST}\n"},
                {"runtime": "kubernetes", "id": FIRST},
            ),
            (
                {"proc/self/cgroup": f"0::/docker/{FIRST}/kubelet/kubepods/pod1/crio-{SECOND}\n"},
                {"runtime": "cri-o", "id": SECOND},
            ),
            # With a cgroup namespace.
            (
                {
                    "proc/self/cgroup": "0::/\n",
                    "proc/self/mountinfo": "1 2 8:1 / /data rw - ext4 x rw\n"
                    f"3 2 8:1 /var/lib/docker/containers/{FIRST}/hostname /etc/hostname rw - e x\n",
                },
                {"runtime": "docker", "id": FIRST},
            ),
            # That is the identity of the pod's sandbox.
            (
                {
                    "proc/self/mountinfo": f"3 2 8:1 /containerd/sandboxes/{FIRST}/hostname "
                    "/etc/hostname rw - e x\n"
                },
                {"runtime": "containerd"},
            ),
        ],
    )
    def test_it(self, files: dict[str, str], expected: dict[str, str], root: Path) -> None:
        for name, text in files.items():
            put(root / name, text)
        found = RunContext(root).tags()
        assert found == {
            "asyncstore.host.name": socket.gethostname(),
            **{CONTAINER + key: value for key, value in expected.items()},
        }


class TestScheduler:
    def test_slurm(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Of no job.
        monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
        assert set(RunContext(root).tags()) == {"asyncstore.host.name"}
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-3]")
        found = RunContext(root).tags()
        assert found["asyncstore.slurm.job_id"] == "17"
        assert found["asyncstore.slurm.node_list"] == "node[1-3]"
        assert "asyncstore.slurm.array_task_id" not in found
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
        found = RunContext(root).tags()
        assert found["asyncstore.slurm.array_job_id"] == "16"
        assert found["asyncstore.slurm.array_task_id"] == "0"

    def test_kubernetes(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Of something else.
        monkeypatch.setenv("POD_NAME", "train-0")
        monkeypatch.setenv("NODE_NAME", "n1")
        assert set(RunContext(root).tags()) == {"asyncstore.host.name"}
        put(root / "var/run/secrets/kubernetes.io/serviceaccount/namespace", "vision\n")
        found = RunContext(root).tags()
        assert found[KUBERNETES + "pod"] == "train-0"
        assert found[KUBERNETES + "namespace"] == "vision"
        assert found[KUBERNETES + "node"] == "n1"
        monkeypatch.setenv("POD_NAMESPACE", "speech")
        assert RunContext(root).tags()[KUBERNETES + "namespace"] == "speech"

    def test_kubernetes_without_a_service_account(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv("POD_NAME", "train-0")
        found = RunContext(root).tags()
        assert found[KUBERNETES + "pod"] == "train-0"
        assert KUBERNETES + "namespace" not in found

    def test_ray_and_dask(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_JOB_ID", "02000000")
        monkeypatch.setenv("RAY_ADDRESS", "ray://me:S3CR3T@head:10001")
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://scheduler:8786")
        monkeypatch.setenv("DASK_WORKER_NAME", "w1")
        found = RunContext(root).tags()
        del found["asyncstore.host.name"]
        assert found == {
            "asyncstore.ray.job_id": "02000000",
            "asyncstore.ray.address": "ray://me:***@head:10001",
            "asyncstore.dask.scheduler_address": "tcp://scheduler:8786",
            "asyncstore.dask.worker_name": "w1",
        }


def test_a_setting_switches_it_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert RunContext().in_context()
    monkeypatch.setenv("ASYNCSTORE_RUN_CONTEXT", "false")
    assert not RunContext().in_context()
    monkeypatch.setenv("ASYNCSTORE_RUN_CONTEXT", "perhaps")
    with caplog.at_level(logging.WARNING):
        assert RunContext().in_context()
    assert "ASYNCSTORE_RUN_CONTEXT: 'perhaps' is not acceptable" in caplog.text


def test_what_fails_leaves_the_rest(
    root: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise OSError("no name")

    monkeypatch.setattr(socket, "gethostname", fail)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(sys, "argv", [str(repository / "src" / "train.py")])
    found = RunContext(root).tags()
    assert {GIT + "commit", GIT + "branch", "asyncstore.slurm.job_id"} == set(found)


def test_a_value_fits_a_tag(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n" * 10_000)
    assert len(RunContext(root).tags()["asyncstore.slurm.node_list"]) == run_context.LONGEST
