"""Where a run comes from, as tags: asyncstore's run context provider, for MLflow and for itself.

MLflow finds it by its entry point and calls `in_context` and `tags`; it needs no MLflow.
"""

from __future__ import annotations

import functools
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from asyncstore import settings, uris
from asyncstore.errors import InvalidParameterError

__all__ = ["RunContext"]

_logger = logging.getLogger(__name__)

#: Seconds that git has to say whether it ignores a directory.
GIT_WITHIN = 2.0
#: What the oldest MLflow takes as the value of a tag.
LONGEST = 5000

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_MOUNTED = re.compile(r" /etc/(?:hostname|hosts|resolv\.conf) ")
_OWN_MOUNT = re.compile(r"containers/([0-9a-f]{64})/")
_NAMESPACE = "var/run/secrets/kubernetes.io/serviceaccount/namespace"
# Words of a cgroup's path, the most telling first.
_RUNTIMES = {
    "crio": "cri-o",
    "libpod": "podman",
    "containerd": "containerd",
    "docker": "docker",
    "kubepods": "kubernetes",
}
_VARIABLES = {
    "asyncstore.slurm.": {
        "job_id": settings.SLURM_JOB_ID,
        "array_job_id": settings.SLURM_ARRAY_JOB_ID,
        "array_task_id": settings.SLURM_ARRAY_TASK_ID,
        "node_list": settings.SLURM_JOB_NODELIST,
    },
    "asyncstore.ray.": {"job_id": settings.RAY_JOB_ID, "address": settings.RAY_ADDRESS},
    "asyncstore.dask.": {
        "scheduler_address": settings.DASK_SCHEDULER_ADDRESS,
        "worker_name": settings.DASK_WORKER_NAME,
    },
}


class RunContext:
    """Tags that say which code made a run, and where it ran; each only where it is known.

    | Tag | Meaning |
    |---|---|
    | `mlflow.source.git.commit` | Commit of the repository that the main script is in. |
    | `mlflow.source.git.branch` | Its branch; not with a detached HEAD. |
    | `mlflow.source.git.repoURL` | Its first remote, without credentials. |
    | `asyncstore.host.name` | Host name. |
    | `asyncstore.container.runtime` | docker, containerd, cri-o, podman or kubernetes. |
    | `asyncstore.container.id` | The container, 64 hexadecimal digits. |
    | `asyncstore.slurm.job_id` | Job of SLURM; with `node_list`, `array_job_id`, `array_task_id`. |
    | `asyncstore.kubernetes.pod` | Pod; with `namespace` and `node`. |
    | `asyncstore.ray.job_id` | Job of Ray; with `address`. |
    | `asyncstore.dask.scheduler_address` | Scheduler of Dask; with `worker_name`. |

    Git's tags are MLflow's, found by MLflow's rules (the directory of the main script, nothing when
    git ignores it), but without GitPython and also where git is not installed. They are those of
    when they were first asked for, since that is the code that runs. ASYNCSTORE_RUN_CONTEXT=false
    switches everything off.

    Args:
        root: Where the system's files are looked for; None for `/`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = Path("/") if root is None else root

    def in_context(self) -> bool:
        """Whether there is anything to say: unless it is switched off, there is."""
        try:
            return settings.ASYNCSTORE_RUN_CONTEXT.get()
        except InvalidParameterError as error:
            _logger.warning("%s", error)
            return True

    def tags(self) -> dict[str, str]:
        """The tags. Blocks for a millisecond, the first time for git's answer (2 s at most).

        Returns:
            Values by name. What cannot be found out is left out; nothing is raised.
        """
        found: dict[str, str] = {}
        for kind in (_git, _host, self._container, self._kubernetes, _variables):
            try:
                found.update(kind())
            except (OSError, ValueError) as error:
                _logger.debug("the run's context is not complete: %s", error)
        return {key: value[:LONGEST] for key, value in found.items() if value}

    def _container(self) -> dict[str, str]:
        cgroup = _read(self._root / "proc/self/cgroup")
        # With a cgroup namespace (cgroup v2) the path says nothing; the files that the runtime
        # mounts still do.
        mounts = "".join(
            line
            for line in _read(self._root / "proc/self/mountinfo").splitlines(keepends=True)
            if _MOUNTED.search(line)
        )
        text = cgroup + mounts
        runtime = ""
        # Without an identity it is the service of the runtime itself.
        if _CONTAINER_ID.search(text):
            runtime = next((name for word, name in _RUNTIMES.items() if word in text), "")
        if (self._root / "run/.containerenv").exists():
            runtime = "podman"
        elif not runtime and (self._root / ".dockerenv").exists():
            runtime = "docker"
        if not runtime:
            return {}
        # Containers can be nested. In a mount it is the container's own only in such a path.
        known = _CONTAINER_ID.findall(cgroup) or _OWN_MOUNT.findall(mounts)
        return {
            "asyncstore.container.runtime": runtime,
            "asyncstore.container.id": known[-1] if known else "",
        }

    def _kubernetes(self) -> dict[str, str]:
        namespace = _read(self._root / _NAMESPACE).strip()
        if not namespace and settings.KUBERNETES_SERVICE_HOST.get() is None:
            return {}
        return {
            "asyncstore.kubernetes.pod": settings.POD_NAME.get() or "",
            "asyncstore.kubernetes.namespace": settings.POD_NAMESPACE.get() or namespace,
            "asyncstore.kubernetes.node": settings.NODE_NAME.get() or "",
        }


def _host() -> dict[str, str]:
    return {"asyncstore.host.name": socket.gethostname()}


def _variables() -> dict[str, str]:
    return {
        prefix + name: uris.redact(setting.get() or "")
        for prefix, named in _VARIABLES.items()
        for name, setting in named.items()
    }


def _git() -> dict[str, str]:
    script = Path(sys.argv[0]).absolute() if sys.argv and sys.argv[0] else None
    if script is None or not script.exists():
        return {}
    return _git_tags(script.parent if script.is_file() else script)


@functools.lru_cache(maxsize=16)
def _git_tags(directory: Path) -> dict[str, str]:
    found = next(
        ((parent / ".git") for parent in _upward(directory) if (parent / ".git").exists()), None
    )
    if found is None:
        return {}
    private = found
    if found.is_file():
        # A linked worktree or a submodule: git's documents on the repository layout.
        private = found.parent / _read(found).removeprefix("gitdir:").strip()
    shared = private / (_read(private / "commondir").strip() or ".")
    reference = _read(private / "HEAD").strip().partition("ref: ")[2]
    commit = _resolve(reference, private, shared) if reference else _read(private / "HEAD").strip()
    if not _COMMIT.fullmatch(commit) or _ignored(directory):
        return {}
    branch = reference.removeprefix("refs/heads/")
    return {
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": branch,
        "mlflow.source.git.repoURL": _without_credentials(_first_remote(shared)),
    }


def _upward(directory: Path) -> Iterator[Path]:
    yield directory
    yield from directory.parents


def _resolve(reference: str, private: Path, shared: Path) -> str:
    for directory in (private, shared):
        if text := _read(directory / reference).strip():
            return text
    for line in _read(shared / "packed-refs").splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return ""


def _ignored(directory: Path) -> bool:
    """Whether git ignores a directory, such as an environment inside a repository."""
    try:
        done = subprocess.run(
            ["git", "check-ignore", "--quiet", "."],  # noqa: S607  the person's own git
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=GIT_WITHIN,
        )
    except (OSError, subprocess.SubprocessError):
        # Without git, what its files say is all that is known.
        return False
    # 1 says that it is not; what else there is, such as another owner, is git's refusal.
    return done.returncode != 1


def _first_remote(shared: Path) -> str:
    section = ""
    for line in _read(shared / "config").splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text
        elif section.startswith('[remote "') and (url := re.fullmatch(r"url\s*=\s*(.+)", text)):
            return url[1].strip('"')
    return ""


def _without_credentials(url: str) -> str:
    parsed = urlsplit(url)
    if parsed.scheme and "@" in parsed.netloc:
        url = parsed._replace(netloc=parsed.netloc.rpartition("@")[2]).geturl()
    return uris.redact(url)


def _read(path: Path) -> str:
    """What a small file says; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
