# SPDX-License-Identifier: Apache-2.0
"""Remove logical volumes: wiped first, and never visible half wiped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from imagecache import exception
from imagecache.backends.lvm.volumes import attempt_at, attempted, leftover_of
from imagecache.policy import LvmPolicy
from imagecache.tools import blockdev
from imagecache.tools.lvm import Volume, VolumeGroup

# Seconds for udev to look at a volume and to close it.
_PATIENCE = 5


def discard(group: VolumeGroup, volume: Volume, policy: LvmPolicy) -> None:
    """Remove a disk.

    Rename before wiping, so that a crash or an error leaves a stale attempt
    and not a disk that is wiped in part.

    :raises StorageBusy: a process has it open; nothing has changed
    :raises CommandFailed: the disk does not exist any more; to remove it
        again removes what is left of it
    """
    require_closed(group, volume, "removing a disk")
    if volume.pool:
        _destroy(group, volume, policy)
        return
    gone = attempt_at(volume.name)
    group.rename(volume.name, gone)
    try:
        _destroy(group, dataclasses.replace(volume, name=gone), policy)
    except BaseException:
        group.rename(gone, leftover_of(volume.name))
        raise


def sweep(group: VolumeGroup, attempts: Iterable[Volume],
          policy: LvmPolicy) -> None:
    """Remove attempts, and the pools that belong to them alone.

    A pool that holds a volume belongs to a disk, or is removed with its
    attempt.
    """
    for left in attempts:
        if left.volumes is None:
            _destroy(group, left, policy)
        elif left.volumes == 0:
            group.remove(left.name)


def _destroy(group: VolumeGroup, volume: Volume, policy: LvmPolicy) -> None:
    name = attempted(volume.name) or volume.name
    if volume.pool is None:
        _wipe(group, volume, policy)
    elif attempted(volume.pool) == name:
        group.remove(volume.pool)    # it has no other volume
        return
    group.remove(volume.name)


def _wipe(group: VolumeGroup, volume: Volume, policy: LvmPolicy) -> None:
    if policy.clear == "none":
        return
    if not volume.active:
        group.activate(volume.name)
    size = min(policy.clear_size or volume.size, volume.size)
    wipe = blockdev.shred if policy.clear == "shred" else blockdev.zero
    with group.chowned(volume.name) as path:
        wipe(path, size)


def require_closed(group: VolumeGroup, volume: Volume, what: str) -> None:
    """Wait a little for udev; then refuse a volume that is open.

    :param what: what is not done, for the message
    :raises StorageBusy: a process has it open
    """
    give_up = time.monotonic() + _PATIENCE
    now: Volume | None = volume
    while now and now.open:
        if time.monotonic() > give_up:
            raise exception.StorageBusy(
                what=what, path=group.device(volume.name),
                reason="a process has it open; stop its guest first")
        time.sleep(0.2)
        now = group.volume(volume.name)
