# SPDX-License-Identifier: Apache-2.0
"""Access to Ceph: the part of librados and librbd that this library uses.

    with rbd.connected(access) as cluster, cluster.pool("vms") as pool:
        with pool.open("disk") as volume:
            volume.resize(GiB)

A connection lives as long as its block: the libraries have threads, which do
not survive a fork.  A connection takes 7 ms, so nested blocks in one thread
share one.  Every operation has a time limit: a cluster that does not answer
raises StorageUnreachable.  A write to a full pool fails at once, and volumes
can still be removed from it; by default Ceph would block the write until there
is space.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

from imagecache import exception
from imagecache.tools import ceph
from imagecache.tools.rbd_image import Volume

# The features of a base.  A disk gets the default features of the cluster.
_LAYERING, _EXCLUSIVE_LOCK, _OBJECT_MAP, _FAST_DIFF = 1, 4, 8, 16
_FEATURES = _LAYERING | _EXCLUSIVE_LOCK | _OBJECT_MAP | _FAST_DIFF


@dataclasses.dataclass(frozen=True)
class Access:
    """The address of a cluster, and the user."""

    conf: str = ""              # path of ceph.conf; "": Ceph's default
    user: str | None = None     # without "client."; None: admin
    connect_timeout: int = 5    # seconds
    timeout: int = 60           # seconds, of one operation

    def settings(self) -> dict[str, str]:
        return {"client_mount_timeout": str(self.connect_timeout),
                "rados_mon_op_timeout": str(self.timeout),
                "rados_osd_op_timeout": str(self.timeout)}


# The connections of this thread; none between two operations.
_held: contextvars.ContextVar[Mapping[tuple[int, Access], Cluster]] = \
    contextvars.ContextVar("held", default={})  # noqa: B039  (never changed)


@contextlib.contextmanager
def connected(access: Access) -> Iterator[Cluster]:
    """Yield a cluster, for as long as the block lasts.

    A block within another one, in the same thread, shares its connection.

    :raises StorageUnreachable: no monitor answers
    :raises StorageForbidden: the user is unknown, or its key is wrong
    :raises InvalidConfiguration: there is no ceph.conf
    """
    held = _held.get()
    mine = (os.getpid(), access)    # a forked child must not use it
    if mine in held:
        yield held[mine]
        return
    with separately_connected(access) as cluster:
        token = _held.set({**held, mine: cluster})
        try:
            yield cluster
        finally:
            _held.reset(token)


@contextlib.contextmanager
def separately_connected(access: Access) -> Iterator[Cluster]:
    """Yield a cluster by a connection that no other block shares.

    If Ceph fences this client off, other connections still work.  The errors
    are those of connected().
    """
    client = _client(access)
    try:
        # A new thread has new random numbers.  The thread of a forked process
        # has those of its siblings, and Ceph identifies a client by one.
        with ceph.translated("connecting", access.conf or "Ceph"), \
                futures.ThreadPoolExecutor(1) as thread:
            thread.submit(client.connect).result()
        yield Cluster(client)
    finally:
        client.shutdown()


def _client(access: Access) -> Any:
    rados, _ = ceph.bindings()
    try:
        with ceph.translated("reading", access.conf or "ceph.conf"):
            return rados.Rados(conffile=access.conf, rados_id=access.user,
                               conf=access.settings())
    except exception.StorageMissing as e:
        raise exception.InvalidConfiguration(
            option="[libvirt] images_rbd_ceph_conf", value=access.conf,
            reason="there is no such file, nor one at Ceph's default paths"
            if not access.conf else "there is no such file") from e


class Cluster:

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def fsid(self) -> str:
        with ceph.translated("asking", "Ceph"):
            return str(self._client.get_fsid())

    def monitors(self) -> list[tuple[str, str]]:
        """Return host and port of each monitor; IPv6 has brackets."""
        pairs = [monitor["addr"].rpartition("/")[0].rpartition(":")
                 for monitor in self._ask("mon dump")["mons"]]
        return [(host, port) for host, _, port in pairs]

    def space(self, pool: str) -> int | None:
        """Return the free bytes of a pool; None if they are not known."""
        try:
            found = self._ask("df", detail="detail")
        except exception.StorageForbidden:
            return None
        for each in found["pools"]:
            # Without a manager, all numbers are zero.
            if each["name"] == pool and found["stats"]["total_bytes"]:
                stats, quota = each["stats"], each["stats"].get("quota_bytes")
                left = quota - stats["stored"] if quota else None
                free = int(stats["max_avail"])
                return free if left is None else max(0, min(free, left))
        return None

    def clonable(self, pool: str, name: str, snapshot: str) -> int | None:
        """Return the bytes of a snapshot that can be cloned.

        :return: None if it is missing, cannot be read, or cannot be cloned
        """
        try:
            with self.pool(pool) as images, \
                    images.open(name, snapshot) as image:
                usable = image.is_protected(snapshot) or self._loosely()
                return image.size() if usable else None
        except (exception.StorageMissing, exception.StorageForbidden):
            return None

    def _loosely(self) -> bool:
        """Tell whether the cluster clones snapshots without protection."""
        wanted = self._client.conf_get("rbd_default_clone_format")
        if wanted != "auto":
            return bool(wanted == "2")
        least = self._ask("osd dump").get("require_min_compat_client", "")
        return bool(least >= "mimic")

    @contextlib.contextmanager
    def pool(self, name: str) -> Iterator[Pool]:
        """Yield a pool.

        :raises StorageMissing: there is none of that name
        """
        with ceph.translated("opening", name):
            context = self._client.open_ioctx(name)
        try:
            # A full pool raises an error; by default a write would block.
            context.set_osdmap_full_try()
            yield Pool(name, context)
        finally:
            context.close()

    def _ask(self, prefix: str, **words: str) -> Any:
        question = json.dumps(words | {"prefix": prefix, "format": "json"})
        with ceph.translated("asking", "Ceph"):
            code, answer, said = self._client.mon_command(question, b"")
        if code:
            raise ceph.failure(-code, said, f"asking for {prefix}", "Ceph")
        return json.loads(answer)


class Pool:

    def __init__(self, name: str, context: Any) -> None:
        self.name = name
        self._context = context
        _, self._rbd = ceph.bindings()

    def names(self) -> list[str]:
        with ceph.translated("listing", self.name):
            return sorted(self._rbd.RBD().list(self._context))

    def has(self, name: str) -> bool:
        try:
            with self.open(name, read_only=True):
                return True
        except exception.StorageMissing:
            return False

    def create(self, name: str, size: int) -> None:
        """Create a volume of zeros.

        :raises StorageExists: there is one of that name
        """
        with self._doing("creating", name):
            self._rbd.RBD().create(self._context, name, size,
                                   old_format=False, features=_FEATURES)

    @contextlib.contextmanager
    def open(self, name: str, snapshot: str | None = None, *,
             read_only: bool = False) -> Iterator[Volume]:
        """Yield a volume, or one of its snapshots.

        :param read_only: take no lock, and register no watcher
        :raises StorageMissing: there is none
        """
        read_only = read_only or snapshot is not None
        with self._doing("opening", name):
            image = self._rbd.Image(self._context, name, snapshot=snapshot,
                                    read_only=read_only)
        try:
            yield Volume(f"{self.name}/{name}", image)
        finally:
            with self._doing("closing", name):
                image.close()

    def clone(self, parent: Pool, name: str, snapshot: str,
              clone: str) -> None:
        """Create a volume as a clone of a snapshot.

        :raises StorageExists: there is a volume of that name
        :raises StorageFailed: the snapshot was removed, or is being removed
        """
        with self._doing("cloning", clone):
            self._rbd.RBD().clone(parent._context, name, snapshot,
                                  self._context, clone)

    def remove(self, name: str) -> None:
        """Remove a volume; do nothing if there is none.

        :raises StorageBusy: it has snapshots, or a client has it open
        """
        try:
            with self._doing("removing", name):
                self._rbd.RBD().remove(self._context, name)
        except exception.StorageMissing:
            # In a full pool from which no volume was removed before, Ceph 16
            # cannot create its trash.  It raises this error, and the volume
            # stays.
            if self.has(name):
                raise

    def set_metadata(self, key: str, value: str | None) -> None:
        """Store a value in the metadata of the pool; None removes it."""
        with contextlib.suppress(exception.StorageMissing, KeyError), \
                self._doing("writing metadata", key):
            if value is None:
                self._rbd.RBD().pool_metadata_remove(self._context, key)
            else:
                self._rbd.RBD().pool_metadata_set(self._context, key, value)

    def get_metadata(self, key: str) -> str | None:
        try:
            with self._doing("reading", key):
                return str(self._rbd.RBD().pool_metadata_get(
                    self._context, key))
        except (exception.StorageMissing, KeyError):
            return None

    def _doing(self, what: str, name: str
               ) -> contextlib.AbstractContextManager[None]:
        return ceph.translated(what, f"{self.name}/{name}")
