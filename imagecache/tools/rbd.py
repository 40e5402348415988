# SPDX-License-Identifier: Apache-2.0
"""The one door to Ceph: librados and librbd, as little of them as is used.

    with rbd.connected(access) as cluster, cluster.pool("vms") as pool:
        with pool.open("disk") as volume:
            volume.resize(GiB)

A connection lives as long as its block: the libraries have threads of their
own, which a fork would lose.  It takes 7 ms to make, so a block within that
of another, in one thread, shares the other's.  Nothing waits for ever: a
cluster that stops answering ends in StorageUnreachable.  A full pool fails a
write at once, and can still be removed from; by default Ceph would hold the
write, and whoever made it, until there is space.
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

# What a base has; a disk gets the features that the cluster's users want.
_LAYERING, _EXCLUSIVE_LOCK, _OBJECT_MAP, _FAST_DIFF = 1, 4, 8, 16
_FEATURES = _LAYERING | _EXCLUSIVE_LOCK | _OBJECT_MAP | _FAST_DIFF


@dataclasses.dataclass(frozen=True)
class Access:
    """How to reach a cluster, and as whom."""

    conf: str = ""              # its ceph.conf; "": where Ceph looks for it
    user: str | None = None     # without "client."; None: admin
    connect_timeout: int = 5    # seconds
    timeout: int = 60           # seconds, of one operation

    def settings(self) -> dict[str, str]:
        return {"client_mount_timeout": str(self.connect_timeout),
                "rados_mon_op_timeout": str(self.timeout),
                "rados_osd_op_timeout": str(self.timeout)}


# What this thread is connected to: nothing, between two operations.
_held: contextvars.ContextVar[Mapping[tuple[int, Access], Cluster]] = \
    contextvars.ContextVar("held", default={})  # noqa: B039  (never changed)


@contextlib.contextmanager
def connected(access: Access) -> Iterator[Cluster]:
    """Yield a cluster, for as long as the block lasts.

    :raises StorageUnreachable: no monitor answers
    :raises StorageForbidden: there is no such user, or its key is another
    :raises InvalidConfiguration: there is no ceph.conf
    """
    held = _held.get()
    mine = (os.getpid(), access)    # a child of ours must not touch it
    if mine in held:
        yield held[mine]
        return
    client = _client(access)
    try:
        # A new thread draws new random numbers.  In that of a fork they would
        # be those of its siblings, and a client is known by one of them.
        with ceph.translated("connecting", access.conf or "Ceph"), \
                futures.ThreadPoolExecutor(1) as thread:
            thread.submit(client.connect).result()
        cluster = Cluster(client)
        token = _held.set({**held, mine: cluster})
        try:
            yield cluster
        finally:
            _held.reset(token)
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
            reason="there is no such file, nor one where Ceph looks for it"
            if not access.conf else "there is no such file") from e


class Cluster:

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def fsid(self) -> str:
        with ceph.translated("asking", "Ceph"):
            return str(self._client.get_fsid())

    def monitors(self) -> list[tuple[str, str]]:
        """Return host and port of each; an IPv6 address has brackets."""
        pairs = [monitor["addr"].rpartition("/")[0].rpartition(":")
                 for monitor in self._ask("mon dump")["mons"]]
        return [(host, port) for host, _, port in pairs]

    def space(self, pool: str) -> int | None:
        """Return the bytes that a pool can still take; None: not known."""
        try:
            found = self._ask("df", detail="detail")
        except exception.StorageForbidden:
            return None
        for each in found["pools"]:
            # Without a manager, all of it is zero.
            if each["name"] == pool and found["stats"]["total_bytes"]:
                stats, quota = each["stats"], each["stats"].get("quota_bytes")
                left = quota - stats["stored"] if quota else None
                free = int(stats["max_avail"])
                return free if left is None else max(0, min(free, left))
        return None

    def clonable(self, pool: str, name: str, snapshot: str) -> int | None:
        """Return how many bytes a clone of a snapshot would have.

        None: it is not there, cannot be read, or cannot be cloned.
        """
        try:
            with self.pool(pool) as images, \
                    images.open(name, snapshot) as image:
                usable = image.is_protected(snapshot) or self._loosely()
                return image.size() if usable else None
        except (exception.StorageMissing, exception.StorageForbidden):
            return None

    def _loosely(self) -> bool:
        """Whether clones are made that need no protected snapshot."""
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
            # A full pool is an error, not a reason to wait for ever.
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
        """Make a volume of zeros.

        :raises StorageExists: there is one of that name
        """
        with self._doing("creating", name):
            self._rbd.RBD().create(self._context, name, size,
                                   old_format=False, features=_FEATURES)

    @contextlib.contextmanager
    def open(self, name: str, snapshot: str | None = None, *,
             read_only: bool = False) -> Iterator[Volume]:
        """Yield a volume, or what it was at a snapshot.

        :param read_only: others need not know that it is open
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
        """Make a volume that reads as a snapshot of another until written.

        :raises StorageExists: there is one of that name
        :raises StorageFailed: the snapshot is gone, or going
        """
        with self._doing("cloning", clone):
            self._rbd.RBD().clone(parent._context, name, snapshot,
                                  self._context, clone)

    def remove(self, name: str) -> None:
        """Remove a volume; do nothing if there is none.

        :raises StorageBusy: it has snapshots, or somebody has it open
        """
        try:
            with self._doing("removing", name):
                self._rbd.RBD().remove(self._context, name)
        except exception.StorageMissing:
            # In a full pool that nothing was ever removed from, Ceph 16 has
            # no room for its trash, says this, and leaves it there.
            if self.has(name):
                raise

    def set_metadata(self, key: str, value: str | None) -> None:
        """Remember something beside the volumes; None: forget it."""
        with contextlib.suppress(exception.StorageMissing, KeyError), \
                self._doing("noting", key):
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
