"""A throw-away Ceph cluster with its S3 gateway: a faithful S3 server, and a fast one."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING, ClassVar

from tests.servers.base import HOST, Process, ServerError, free_port
from tests.servers.s3 import S3Server

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# One disk, no replicas, and no log but errors: the smallest cluster that stores objects.
# cephx stays on, because radosgw 16 loops on EACCES without it. Deleted objects are freed at once.
_CONFIGURATION = """
[global]
fsid = {cluster}
mon_host = [v2:{host}:{mon_port},v1:{host}:{mon_port_v1}]
mon_initial_members = a
public_addr = {host}
cluster_addr = {host}
ms_bind_ipv4 = true
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {directory}/keyring
run_dir = {directory}
admin_socket =
pid_file =
log_file =
log_to_stderr = true
err_to_stderr = true
mon_cluster_log_file = /dev/null
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_max_pg_per_osd = 1000
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_crit = 1
mon_data_avail_warn = 2
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
debug_default = 0
[mon.a]
mon_data = {directory}/mon
[osd.0]
osd_data = {directory}/osd
osd_objectstore = memstore
memstore_device_bytes = 8589934592
[client.rgw.a]
rgw_data = {directory}/rgw
rgw_frontends = beast endpoint={host}:{port}
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_crypt_require_ssl = false
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 5
"""


class RadosGateway(S3Server):
    """Ceph radosgw over one monitor and one object store daemon, whose objects live in memory."""

    name: ClassVar[str] = "radosgw"
    install_hint: ClassVar[str] = (
        "apt-get install radosgw ceph-mon ceph-osd ceph-common (not available on macOS)"
    )

    @classmethod
    def available(cls) -> bool:
        return all(shutil.which(program, path=_PATH) for program in _PROGRAMS)

    def boot(self) -> None:
        self.port, mon_port, mon_port_v1 = free_port(), free_port(), free_port()
        cluster, disk = str(uuid.uuid4()), str(uuid.uuid4())
        for name in ("mon", "osd", "rgw"):
            (self.directory / name).mkdir()
        self._configuration.write_text(
            _CONFIGURATION.format(
                directory=self.directory,
                host=HOST,
                port=self.port,
                mon_port=mon_port,
                mon_port_v1=mon_port_v1,
                cluster=cluster,
            )
        )
        self._make_keyring()
        monmap = str(self.directory / "monmap")
        addresses = f"[v2:{HOST}:{mon_port},v1:{HOST}:{mon_port_v1}]"
        self._run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", addresses, monmap)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", self._keyring)
        self._spawn("ceph-mon", "-f", "-i", "a").wait_for_port(mon_port)
        self._run("ceph", "osd", "new", disk)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        disk_daemon = self._spawn("ceph-osd", "-f", "-i", "0")
        # radosgw would find out by itself, after waiting for five seconds.
        disk_daemon.wait_until(
            lambda: " 1 up" in self._run("ceph", "osd", "stat"), "waiting for ceph-osd"
        )
        self._spawn("radosgw", "-f", "-n", "client.rgw.a").wait_for_port(self.port)
        self._run(
            *("radosgw-admin", "-n", "client.rgw.a", "user", "create"),
            *("--uid=tester", "--display-name=tester"),
            *(f"--access-key={self.access_key}", f"--secret-key={self.secret_key}"),
        )

    @property
    def _configuration(self) -> Path:
        return self.directory / "ceph.conf"

    @property
    def _keyring(self) -> str:
        return str(self.directory / "keyring")

    def _make_keyring(self) -> None:
        """One keyring with every daemon's key, all of them allowed everything."""
        create = ["-C"]
        for daemon in ("mon.", "client.admin", "osd.0", "client.rgw.a"):
            rights = [word for kind in ("mon", "osd", "mgr") for word in ("--cap", kind, "allow *")]
            self._run("ceph-authtool", *create, self._keyring, "--gen-key", "-n", daemon, *rights)
            create = []

    def _run(self, *command: str) -> str:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            timeout=120,
            check=False,
        )
        if result.returncode != 0:
            raise ServerError(f"{' '.join(command)}: {result.stdout[-3000:]}")
        return result.stdout

    def _spawn(self, *command: str) -> Process:
        return self.spawn(command, env=self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": _PATH, "CEPH_CONF": str(self._configuration)}
