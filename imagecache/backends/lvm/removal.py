# SPDX-License-Identifier: Apache-2.0
"""How logical volumes go: wiped first, and never seen half wiped."""

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

    What is wiped has the name of an attempt by then, so what a killed process
    leaves is cleared away like one, and so is what could not be wiped: it
    may be wiped in part.

    :raises StorageFailed: somebody has it open; nothing has changed
    :raises CommandFailed: there is no such disk any more; to remove it again
        goes on with what is left of it
    """
    _require_closed(group, volume)
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
    """Remove attempts, and the pools they have to themselves.

    A pool with a volume in it is that of a disk, or goes with its attempt.
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


def _require_closed(group: VolumeGroup, volume: Volume) -> None:
    give_up = time.monotonic() + _PATIENCE
    now: Volume | None = volume
    while now and now.open:
        if time.monotonic() > give_up:
            raise exception.StorageFailed(
                what="removing a disk", path=group.device(volume.name),
                reason="somebody has it open; is its guest running?")
        time.sleep(0.2)
        now = group.volume(volume.name)
