# SPDX-License-Identifier: Apache-2.0
"""The volume of a base in Ceph, while it is made and while it is removed.

The caller of empty() and uncommit() has the volume's exclusive lock, or knows
that no other host uses the volume.
"""

from __future__ import annotations

import contextlib

from imagecache import exception
from imagecache.backends.rbd.cluster import BASE_SNAPSHOT
from imagecache.tools import rbd
from imagecache.tools.rbd_image import Volume


def create(pool: rbd.Pool, name: str) -> bool:
    """Create an empty volume; return False if there is one of that name."""
    try:
        pool.create(name, 0)
    except exception.StorageExists:
        return False
    return True


def empty(volume: Volume) -> None:
    """Remove what an unfinished attempt or an interrupted remove() left.

    If its snapshot turns out to have clones, it is a base again.
    """
    for snapshot in volume.snapshots():
        try:
            volume.unprotect(snapshot)
        except exception.StorageBusy:
            return
        except exception.StorageFailed:
            pass      # it was not protected
        volume.remove_snapshot(snapshot)
    volume.resize(0)


def remove_rest(pool: rbd.Pool, name: str) -> None:
    """Remove the remains of a volume, unless another host uses it again.

    A volume consists of several objects.  A process that dies while it makes
    or removes one leaves some of them, and no volume of that name can be made
    until they are gone.
    """
    with contextlib.suppress(exception.StorageBusy,
                             exception.StorageMissing):
        pool.remove(name)


def uncommit(key: str, volume: Volume) -> None:
    """Make a base invisible.

    A clone of the older kind needs the protection, which stays as long as
    there is a clone.  If a clone of the newer kind is made at this very
    moment, Ceph keeps the snapshot for it, hidden.

    :raises BaseInUse: it has clones, and nothing has changed
    """
    users = volume.children(BASE_SNAPSHOT)
    if not users:
        try:
            volume.unprotect(BASE_SNAPSHOT)
            volume.remove_snapshot(BASE_SNAPSHOT)
        except exception.StorageBusy:
            users = volume.children(BASE_SNAPSHOT) or ["a clone"]
    if users:
        raise exception.BaseInUse(key=key, users=", ".join(users))
