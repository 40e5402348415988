# SPDX-License-Identifier: Apache-2.0
"""A real Ceph on 127.0.0.1 that starts in a second: mon, mgr and one OSD.

Its daemons are ordinary processes on files below one temporary directory.
tools/test installs them, and links the bindings (see tools/machine.sh).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import fixtures

from imagecache.model import GiB
from imagecache.tools import ceph

_PATIENCE = 120   # seconds until it must have started, or shown statistics

# What makes it quick: no waiting for company in Paxos and in asynchronous
# I/O, no check of what was just formatted.
_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{port}/0]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
keyring = {root}/keyring
run_dir = {root}/run
admin_socket =
log_file = {root}/log/$name.log
mon_cluster_log_file = {root}/log/cluster.log
crash_dir = {root}/crash
debug_rocksdb = 0/0
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
[client]
log_file =
[mon]
mon_data = {root}/mon
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_osd_min_down_reporters = 1
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
mon_memory_target = 268435456
rocksdb_cache_size = 67108864
[mgr]
mgr_data = {root}/mgr
mgr_initial_modules =
mgr_disabled_modules = {unneeded}
mgr_stats_period = 1
mon_mgr_beacon_grace = 120
[osd]
osd_data = {root}/osd
admin_socket = {root}/run/osd.asok
osd_objectstore = bluestore
bluestore_block_size = {size}
bluestore_block_create = true
osd_memory_target = 939524096
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_delete_sleep = 0
osd_snap_trim_sleep = 0
osd_max_object_name_len = 256
osd_max_object_namespace_len = 64
bdev_enable_discard = false
bdev_aio_poll_ms = 10
bluestore_fsck_on_mkfs = false
"""

_UNNEEDED = ("alerts,diskprediction_local,influx,insights,iostat,localpool,"
             "mirroring,nfs,osd_perf_query,osd_support,prometheus,restful,"
             "selftest,snap_schedule,stats,telegraf,test_orchestrator,zabbix")

POOLS = ("vms", "images", "bases")

# What each user may do in which pool; "reader" and "blind" are imagecache
# where Glance's pool is read-only, and where it is out of reach.
_USERS = {
    "imagecache": dict.fromkeys(POOLS, "rbd"),
    "nova": {"vms": "rbd", "images": "rbd"},
    "glance": {"images": "rbd"},
    "reader": {"vms": "rbd", "bases": "rbd", "images": "rbd-read-only"},
    "blind": {"vms": "rbd", "bases": "rbd"},
}


class CephCluster(fixtures.Fixture):
    """Ceph while the fixture is in use, for one test or for a whole class.

    :ivar conf: its ceph.conf, which names the keyring with every user's key.
    :ivar pids: those of "mon", "mgr" and "osd", to send signals to.
    """

    def __init__(self, size: int = 20 * GiB) -> None:
        super().__init__()
        self._size = size
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def _setUp(self) -> None:
        for name in ("CEPH_CONF", "CEPH_ARGS", "CEPH_KEYRING"):
            self.useFixture(fixtures.EnvironmentVariable(name))
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.conf = self.root / "ceph.conf"
        self.fsid = str(uuid.uuid4())
        self.addCleanup(self._stop)
        try:
            self._configure()
            self._start()
        except Exception as error:
            # The logs of a fixture that fails are removed with it.
            raise RuntimeError(f"Ceph did not start: {error}\n"
                               + self._last_words()) from error

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid
                for name, process in self._processes.items()}

    def conf_with(self, **options: object) -> pathlib.Path:
        """A ceph.conf for a client that has other options.

        ``rbd_default_clone_format=2`` makes clones that need no protection,
        ``mon_host="[v2:127.0.0.1:1/0]"`` leads to no cluster at all.
        """
        path = self.root / f"{uuid.uuid4().hex}.conf"
        path.write_text(self.conf.read_text() + "[client]\n" + "".join(
            f"{name} = {value}\n" for name, value in options.items()))
        return path

    def conf_with_wrong_key(self, user: str = "imagecache") -> pathlib.Path:
        """A ceph.conf with a key that is not the user's."""
        keyring = self.root / "wrong-keyring"
        keyring.write_text(_entry(f"client.{user}", {}))
        return self.conf_with(keyring=keyring)

    @contextlib.contextmanager
    def connect(self, user: str = "admin") -> Iterator[Any]:
        """Yield a rados.Rados."""
        rados, _ = ceph.bindings()
        with rados.Rados(conffile=str(self.conf), rados_id=user,
                         conf={"rados_osd_op_timeout": str(_PATIENCE),
                               "rados_mon_op_timeout": str(_PATIENCE)},
                         ) as connection:
            yield connection

    def command(self, prefix: str, **arguments: Any) -> Any:
        """Send the monitor a command, as ``ceph`` does; return its answer."""
        with self.connect() as connection:
            return _command(connection, prefix, **arguments)

    def set_quota(self, pool: str, size: int) -> None:
        """Limit a pool to about ``size`` bytes; 0 removes the limit.

        The OSD reports every few seconds, so a limit takes effect late.  The
        removal of a limit has taken effect when this returns.
        """
        self.command("osd pool set-quota", pool=pool, field="max_bytes",
                     val=str(size))
        if not size:
            self.await_full(pool, False)

    def await_full(self, pool: str, full: bool = True) -> None:
        """Wait until a pool is full, or until it is not."""
        deadline = time.monotonic() + _PATIENCE
        while self._is_full(pool) is not full:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pool} did not change")
            time.sleep(0.1)

    def _is_full(self, pool: str) -> bool:
        return any("full" in entry["flags_names"].split(",")
                   for entry in self.command("osd dump")["pools"]
                   if entry["pool_name"] == pool)

    def used(self, pool: str) -> int:
        """Return the bytes in a pool, as of about a second ago."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for entry in self.command("df")["pools"]:
                if entry["name"] == pool:
                    return int(entry["stats"]["stored"])
            time.sleep(0.05)    # the mgr has not reported yet
        raise TimeoutError(f"No statistics of {pool}\n{self._last_words()}")

    def operations(self) -> int:
        """Return how many operations of clients the OSD has carried out."""
        answer = subprocess.run(
            ["ceph", "--admin-daemon", self.root / "run/osd.asok", "perf",
             "dump"], stdout=subprocess.PIPE, check=True,
            env=os.environ | {"CEPH_CONF": str(self.conf)}).stdout
        return int(json.loads(answer)["osd"]["op"])

    def pause(self, *names: str) -> None:
        """Stop daemons, all of them by default; they answer nothing."""
        self._signal(signal.SIGSTOP, names)

    def resume(self, *names: str) -> None:
        self._signal(signal.SIGCONT, names)

    def _signal(self, number: signal.Signals, names: tuple[str, ...]) -> None:
        for name in names or self._processes:
            self._processes[name].send_signal(number)

    def _configure(self) -> None:
        for name in ("mon", "osd", "mgr", "run", "log", "crash"):
            (self.root / name).mkdir()
        self._port = _free_port()
        self.conf.write_text(_CONF.format(
            root=self.root, fsid=self.fsid, port=self._port, size=self._size,
            unneeded=_UNNEEDED))
        (self.root / "keyring").touch(0o600)
        (self.root / "keyring").write_text("".join(
            _entry(name, caps) for name, caps in _all_caps().items()))

    def _start(self) -> None:
        osd_uuid = str(uuid.uuid4())
        formatting = self._popen(
            "osd-mkfs", "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid",
            osd_uuid, "--no-mon-config")
        monmap = self.root / "monmap"
        self._finish(self._popen(
            "monmap", "monmaptool", "--create", "--fsid", self.fsid, "--addv",
            "a", f"[v2:127.0.0.1:{self._port}/0]", monmap))
        self._finish(self._popen(
            "mon-mkfs", "ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap,
            "--keyring", self.root / "keyring"))
        self._popen("mon", "ceph-mon", "-i", "a", "-f")
        with self.connect() as connection:
            _command(connection, "osd new", uuid=osd_uuid)
            for pool in POOLS:
                _command(connection, "osd pool create", pool=pool, pg_num=8,
                         pgp_num=8, size=1)
                _command(connection, "osd pool application enable", pool=pool,
                         app="rbd")
            self._finish(formatting)
            self._popen("mgr", "ceph-mgr", "-i", "x", "-f")
            self._popen("osd", "ceph-osd", "-i", "0", "-f")
            self._wait(connection)

    def _wait(self, connection: Any) -> None:
        """Wait until every pool accepts a write.

        An operation sent before the OSD is up would be tried again after 5 s.
        """
        deadline = time.monotonic() + _PATIENCE
        while _command(connection, "osd stat")["num_up_osds"] < 1:
            if time.monotonic() > deadline:
                raise TimeoutError("the OSD is not up")
            time.sleep(0.02)
        connection.wait_for_latest_osdmap()
        for pool in POOLS:
            with connection.open_ioctx(pool) as context:
                context.write_full("ready", b"?")
                context.remove_object("ready")

    def _popen(self, name: str, program: str, *arguments: object,
               ) -> subprocess.Popen[bytes]:
        with (self.root / "log" / f"{name}.out").open("ab") as output:
            process = self._processes[name] = subprocess.Popen(
                # It must not outlive tests that are killed.
                ["setpriv", "--pdeathsig", "KILL", program,
                 *(["-c", str(self.conf)] if program != "monmaptool" else []),
                 *map(str, arguments)],
                # Debian 13's looks for its plugins under a relative path.
                cwd="/usr",
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True)
        return process

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        if process.wait(_PATIENCE):
            raise RuntimeError(f"{process.args!r} exited with "
                               f"{process.returncode}")
        self._processes = {name: other for name, other
                           in self._processes.items() if other is not process}

    def _last_words(self) -> str:
        return "\n".join(
            f"--- {path.name}\n" + "".join(
                path.read_text(errors="replace").splitlines(True)[-15:])
            for path in sorted((self.root / "log").glob("*")))

    def _stop(self) -> None:
        for process in self._processes.values():
            process.kill()    # there is nothing to save
        for process in self._processes.values():
            process.wait(_PATIENCE)


def _command(connection: Any, prefix: str, **arguments: Any) -> Any:
    code, answer, words = connection.mon_command(json.dumps(
        arguments | {"prefix": prefix, "format": "json"}), b"")
    if code:
        raise OSError(-code, f"{prefix} {arguments}: {words}")
    return json.loads(answer) if answer.strip() else None


def _free_port() -> int:
    """Return a port that the kernel gives to no outgoing connection."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError):
            with socket.create_server(("127.0.0.1", port)):
                return port


def _all_caps() -> dict[str, dict[str, str]]:
    own = {"mon": "allow *"}
    everything = dict.fromkeys(("mon", "osd", "mgr", "mds"), "allow *")
    daemons = {
        "mon.": own, "client.admin": everything,
        "osd.0": {"mon": "allow profile osd", "osd": "allow *",
                  "mgr": "allow profile osd"},
        "mgr.x": {"mon": "allow profile mgr", "osd": "allow *",
                  "mds": "allow *"}}
    return daemons | {
        f"client.{user}": {
            "mon": "profile rbd",
            "osd": ", ".join(f"profile {profile} pool={pool}"
                             for pool, profile in pools.items())}
        for user, pools in _USERS.items()}


def _entry(name: str, caps: dict[str, str]) -> str:
    """One entry of a keyring, with a new key."""
    key = base64.b64encode(struct.pack("<hiih", 1, int(time.time()), 0, 16)
                           + os.urandom(16)).decode()
    return f"[{name}]\n\tkey = {key}\n" + "".join(
        f'\tcaps {daemon} = "{cap}"\n' for daemon, cap in caps.items())
