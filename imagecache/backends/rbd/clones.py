# SPDX-License-Identifier: Apache-2.0
"""Clones that are disks, and what is left of those that were not finished.

librbd makes a clone in several steps: a volume without a parent, which reads
as zeros; its parent; an entry among the parent's children, without which the
parent could be removed.  Whoever dies in between leaves what must not be
taken for a disk.  What anybody has ever written to is one, whoever made it.
"""

from __future__ import annotations

import contextlib
import time

from imagecache import exception
from imagecache.tools import rbd

_MADE = "imagecache.made"


def is_whole(cluster: rbd.Cluster, pool: rbd.Pool, name: str) -> bool:
    """Say whether there is a disk, and not only a part of a clone."""
    try:
        with pool.open(name, read_only=True) as volume:
            if volume.noted(_MADE) or not volume.is_blank():
                return True
            parent = volume.parent()
    except exception.StorageMissing:
        return False
    return parent is not None and _lists(
        cluster, *parent, f"{pool.name}/{name}")


def _lists(cluster: rbd.Cluster, pool: str, name: str, snapshot: str,
           clone: str) -> bool:
    # A parent that went into Ceph's trash, or may not be asked, is not known
    # to be without this child.
    with contextlib.suppress(exception.StorageMissing,
                             exception.StorageForbidden), \
            cluster.pool(pool) as parents, \
            parents.open(name, read_only=True) as parent:
        return clone in parent.children(snapshot)
    return True


def make(cluster: rbd.Cluster, parent: tuple[str, str, str],
         pool: rbd.Pool, name: str, retries: int, interval: float) -> None:
    """Clone a snapshot, also where somebody died while he did so.

    Whoever did keeps it in use until Ceph notices; so this tries again.

    :param parent: pool, volume and snapshot
    :raises StorageExists: there is a disk of that name
    :raises StorageBusy: there is a part of one, and somebody is at it
    """
    parents, volume, snapshot = parent
    for left in reversed(range(retries + 2)):
        try:
            with cluster.pool(parents) as images:
                pool.clone(images, volume, snapshot, name)
            return
        except exception.StorageExists:
            if not left or is_whole(cluster, pool, name):
                raise
        try:
            pool.remove(name)
        except exception.StorageBusy:
            if left == 1:
                raise
            time.sleep(interval)


def finish(pool: rbd.Pool, name: str, size: int | None,
           flatten: bool) -> None:
    """Make a disk of a new clone, or take it away again.

    :param size: bytes that it must have
    """
    try:
        with pool.open(name) as volume:
            if size and size > volume.size():
                volume.resize(size)
            if flatten:
                volume.flatten()
            volume.note(_MADE, "1")
    except BaseException:
        with contextlib.suppress(exception.HostError):
            pool.remove(name)
        raise
