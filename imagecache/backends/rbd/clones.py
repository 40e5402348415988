# SPDX-License-Identifier: Apache-2.0
"""Clones that are disks, and the remains of clones that were not finished.

librbd makes a clone in several steps: a volume without a parent, which reads
as zeros; its parent; an entry among the parent's children, without which the
parent could be removed.  A process that dies in between leaves a volume that
must not be taken for a disk.  A volume that holds data counts as a disk,
whichever program created it.
"""

from __future__ import annotations

import contextlib
import time

from imagecache import exception
from imagecache.backends.rbd.cluster import RbdName
from imagecache.policy import RbdPolicy
from imagecache.tools import rbd
from imagecache.tools.rbd_image import Volume

# Metadata of a volume: it is a disk, and complete.
_MADE = "imagecache.made"


def is_whole(cluster: rbd.Cluster, pool: rbd.Pool, image: str) -> bool:
    """Return whether there is a disk, and not only a part of a clone."""
    try:
        with pool.open(image, read_only=True) as volume:
            if volume.get_metadata(_MADE) or not volume.is_blank():
                return True
            parent = volume.parent()
    except exception.StorageMissing:
        return False
    return parent is not None and _lists(
        cluster, *parent, str(RbdName(pool.name, image)))


def _lists(cluster: rbd.Cluster, pool: str, image: str, snapshot: str,
           clone: str) -> bool:
    # A parent in Ceph's trash, or one that this user may not read, may have
    # this child.
    with contextlib.suppress(exception.StorageMissing,
                             exception.StorageForbidden), \
            cluster.pool(pool) as parents, \
            parents.open(image, read_only=True) as parent:
        return clone in parent.children(snapshot)
    return True


def make(cluster: rbd.Cluster, parent: RbdName, snapshot: str,
         pool: rbd.Pool, image: str, policy: RbdPolicy) -> None:
    """Clone a snapshot; replace the remains of an unfinished clone.

    A process that died keeps its clone in use until Ceph notices, so this
    tries again as often as the policy says.

    :param pool: of the clone
    :raises StorageExists: there is a disk of that name
    :raises StorageBusy: there is a part of one, and a process uses it
    """
    for left in reversed(range(policy.retries + 2)):
        try:
            with cluster.pool(parent.pool) as parents:
                pool.clone(parents, parent.image, snapshot, image)
            return
        except exception.StorageExists:
            if not left or is_whole(cluster, pool, image):
                raise
        try:
            pool.remove(image)
        except exception.StorageBusy:
            if left == 1:
                raise
            time.sleep(policy.retry_interval)


def flatten_volume(volume: Volume) -> None:
    """Copy in what a volume reads from its parent; do nothing without one."""
    try:
        if volume.parent():
            volume.flatten()
    except exception.StorageFailed:
        if volume.parent():    # else another host has just flattened it
            raise


def flatten_unfinished(volume: Volume) -> None:
    """Flatten a clone that finish() was to flatten, and was killed before.

    A clone that another program made counts as one.
    """
    if volume.parent() and not volume.get_metadata(_MADE):
        flatten_volume(volume)
        volume.set_metadata(_MADE, "1")


def finish(pool: rbd.Pool, image: str, size: int | None,
           flatten: bool) -> None:
    """Make a disk of a new clone, or remove it if that fails.

    :param size: bytes that the disk must have at least; None: any
    """
    try:
        with pool.open(image) as volume:
            if size and size > volume.size():
                volume.resize(size)
            if flatten:
                flatten_volume(volume)
            volume.set_metadata(_MADE, "1")
    except BaseException:
        with contextlib.suppress(exception.HostError):
            pool.remove(image)
        raise


def remove_snapshots(pool: rbd.Pool, name: str) -> None:
    """Remove the snapshots of a disk.

    :raises StorageBusy: with ``clones``, if one of them has any
    """
    try:
        with pool.open(name) as volume:
            for snapshot in volume.snapshots():
                if clones := volume.children(snapshot):
                    raise exception.StorageBusy(
                        what="removing", path=volume.path, clones=clones,
                        reason=f"{', '.join(clones)} depend on it; flatten or"
                        " remove them first")
                if volume.is_protected(snapshot):
                    volume.unprotect(snapshot)
                volume.remove_snapshot(snapshot)
    except exception.StorageMissing:
        return
